//! PostgreSQL fails as a whole: it is stopped, crashed, frozen or out of connections. Every request
//! gets a 503 in the promised time, and succeeds soon after PostgreSQL recovers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{Executor, PgConnection};
use todo_tests::{Client, Server, at_once};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    DETECTED_WITHIN, Deployment, FAIL_FAST, MAX_WAIT, POOL, RECOVERED_WITHIN, admin, every_route,
};

/// Measurement delay of a client that shares two cores with the servers.
const SLACK: Duration = Duration::from_millis(250);
const ATTEMPTS: u32 = 3;

/// A database fault to inject and to recover from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A fast shutdown: connections are closed, new ones are refused.
    ShutDown,
    /// A crash, with recovery at the next start.
    Killed,
    /// SIGSTOP: connections stay open, but the server does not respond.
    Frozen,
    /// The same, while every connection of the pool is running a statement.
    FrozenWithPoolInUse,
    /// Connections are closed, and the server rejects new ones (53300).
    NoConnections,
}

const FAULTS: [Fault; 5] = [
    Fault::ShutDown,
    Fault::Killed,
    Fault::Frozen,
    Fault::FrozenWithPoolInUse,
    Fault::NoConnections,
];

impl Deployment {
    /// Runs one outage and its recovery. Panics on a wrong response; a late one is an error.
    async fn attempt(&mut self, fault: Fault) -> Result<(), String> {
        self.assert_recovered(Instant::now()).await?;
        let held = match fault {
            Fault::FrozenWithPoolInUse => Some(self.occupy_pool().await?),
            _ => None,
        };
        let mut load = BackgroundLoad::start(self);
        self.inject(fault).await;
        let away = self.assert_unavailable().await;
        // Recovery is timed from the end of the restart.
        let back_since = self.recover(fault).await;
        drop(held);
        let back = self.assert_recovered(back_since).await;
        let slowest = load.stop().await;
        self.assert_no_leaked_connections().await;
        away.and(back)?;
        // A request that arrives before the fault may still queue for a connection.
        let bound = DETECTED_WITHIN + SLACK;
        (slowest <= bound).then_some(()).ok_or_else(|| format!("a response took {slowest:?}"))
    }

    async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::ShutDown => self.cluster.shut_down().await.expect("a shutdown"),
            Fault::Killed => {
                self.cluster.signal_all("KILL").expect("SIGKILL");
                self.cluster.wait_for_exit().await.expect("an exit");
            }
            Fault::Frozen | Fault::FrozenWithPoolInUse => {
                self.cluster.signal_all("STOP").expect("SIGSTOP");
            }
            Fault::NoConnections => {
                let mut admin = admin(&self.cluster).await;
                admin
                    .execute("ALTER ROLE app CONNECTION LIMIT 0")
                    .await
                    .expect("a connection limit");
                // A connection may have been opened before the limit applied.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE usename = 'app'";
                while admin.execute(end).await.expect("closed connections").rows_affected() > 0 {}
            }
        }
    }

    async fn recover(&mut self, fault: Fault) -> Instant {
        match fault {
            Fault::ShutDown | Fault::Killed => {
                self.cluster.start_again().await.expect("a restart");
            }
            Fault::Frozen | Fault::FrozenWithPoolInUse => {
                self.cluster.signal_all("CONT").expect("SIGCONT");
            }
            Fault::NoConnections => {
                let any = "ALTER ROLE app CONNECTION LIMIT -1";
                admin(&self.cluster).await.execute(any).await.expect("a lifted limit");
            }
        }
        Instant::now()
    }

    /// Blocks a statement of the application on each connection of its pool, on rows locked by the
    /// returned connection. Each statement is another user's, because a user's share of the pool is
    /// limited.
    async fn occupy_pool(&self) -> Result<PgConnection, String> {
        let mut users = Vec::new();
        for _ in 0..POOL {
            let user = self.app.signed_up().await;
            let todo = user.todo("held").await;
            let todo = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
            users.push((user, todo));
        }
        let mut lock = admin(&self.cluster).await;
        lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("a lock");
        for (user, todo) in users {
            tokio::spawn(async move { user.patch(&todo, json!({"title": "late"})).await });
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE usename = 'app' AND wait_event_type = 'Lock'";
        let mut watch = admin(&self.cluster).await;
        // The server's lock timeout fires before the caller's deadline.
        let deadline = Instant::now() + Duration::from_millis(1200);
        loop {
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut watch).await.expect("n");
            if waiting == i64::try_from(POOL).expect("a few") {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(format!("{waiting} connections wait, not {POOL}"));
            }
        }
    }

    /// Checks the responses during the outage, from the first request on.
    async fn assert_unavailable(&self) -> Result<(), String> {
        let first = time_unavailable(&self.user).await;
        let known = async {
            while !self.metrics().await.contains("database_breaker_open 1") {
                time_unavailable(&self.user).await;
            }
        };
        timeout(MAX_WAIT, known).await.expect("a detected outage");

        let mut known: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            known.push(time_unavailable(&self.user).await);
        }
        known.sort();
        for answer in every_route(&self.user, &self.todo, "GET").await {
            assert!(answer.header("retry-after").is_some(), "{answer}");
            answer.problem(503, "unavailable");
        }
        let anonymous = self.app.anonymous();
        anonymous.get("/health").await.expect(200);
        let health = anonymous.get("/health/db").await.expect(503);
        assert_eq!(health["status"], "unhealthy");
        if first > DETECTED_WITHIN + SLACK {
            return Err(format!("the first 503 took {first:?}"));
        }
        let median = known[known.len() / 2];
        (median <= FAIL_FAST)
            .then_some(())
            .ok_or_else(|| format!("a 503 after detection took {median:?}"))
    }

    /// Waits for recovery; checks that the whole pool works and the session is still valid.
    async fn assert_recovered(&self, since: Instant) -> Result<(), String> {
        loop {
            let answer = self.user.get("/api/auth/me").await;
            match answer.status {
                200 => break,
                503 => assert!(since.elapsed() < MAX_WAIT, "not recovered: {answer}"),
                _ => panic!("{answer}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        let took = since.elapsed();
        let all = at_once(POOL * 4, |_| {
            let user = self.user.clone();
            async move { user.get("/api/auth/me").await.status }
        });
        assert_eq!(all.await, [200; POOL * 4]);
        let metrics = self.metrics().await;
        assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
        let bound = RECOVERED_WITHIN + SLACK;
        (took <= bound).then_some(()).ok_or_else(|| format!("recovery took {took:?}"))
    }

    /// Checks that no connection beyond the pool's size stays open; a probe may still be closing.
    async fn assert_no_leaked_connections(&self) {
        let mut admin = admin(&self.cluster).await;
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let open: i64 = sqlx::query_scalar(open).fetch_one(&mut admin).await.expect("a count");
            if open <= i64::try_from(POOL).expect("a few") {
                return;
            }
            assert!(Instant::now() < deadline, "{open} connections for a pool of {POOL}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Users that keep sending requests during the outage; each response is a success or a 503.
struct BackgroundLoad {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Duration>,
}

impl BackgroundLoad {
    fn start(site: &Deployment) -> BackgroundLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..3 {
            let (user, todo, stop) = (site.user.clone(), site.todo.clone(), stop.clone());
            workers.spawn(async move {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    for round in 0..4 {
                        let began = Instant::now();
                        let answer = match round {
                            0 => user.get("/api/auth/me").await,
                            1 => user.post(&user.todos(), json!({"title": "more"})).await,
                            2 => user.patch(&todo, json!({"title": "changed"})).await,
                            _ => user.get(&todo).await,
                        };
                        slowest = slowest.max(began.elapsed());
                        assert!([200, 201, 503].contains(&answer.status), "{answer}");
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                slowest
            });
        }
        BackgroundLoad { stop, workers }
    }

    /// Stops the load and returns the slowest response time.
    async fn stop(&mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        while let Some(worked) = self.workers.join_next().await {
            slowest = slowest.max(worked.expect("only expected responses"));
        }
        slowest
    }
}

async fn time_unavailable(client: &Client) -> Duration {
    let began = Instant::now();
    let answer = client.get("/api/auth/me").await;
    let took = began.elapsed();
    assert!(answer.header("retry-after").is_some(), "{answer}");
    answer.problem(503, "unavailable");
    took
}

async fn outage_scenarios(server: Server, faults: &[Fault]) {
    let mut site = Deployment::start(server).await;
    for &fault in faults {
        let mut late = Vec::new();
        while let Err(reason) = site.attempt(fault).await {
            late.push(reason);
            assert!(late.len() < ATTEMPTS as usize, "{server:?}, {fault:?}: {late:?}");
        }
        println!("{server:?}, {fault:?}: late attempts: {late:?}");
    }
    site.app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_a_503_until_it_resumes() {
    outage_scenarios(Server::Salvo, &[Fault::Frozen]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_a_503_until_it_restarts() {
    outage_scenarios(Server::Hyper, &[Fault::ShutDown]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn every_outage_is_a_503_and_recovers_salvo() {
    outage_scenarios(Server::Salvo, &FAULTS).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn every_outage_is_a_503_and_recovers_hyper() {
    outage_scenarios(Server::Hyper, &FAULTS).await;
}
