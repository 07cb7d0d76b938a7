//! PostgreSQL outages: stopped, crashed, frozen, out of connections, read-only. Every request that
//! needs the database gets a 503 in time, at once after the outage is detected, and succeeds soon
//! after the database recovers.
//!
//! A wrong response fails the test at once. Response times also depend on the machine's load, so
//! each scenario has three attempts to meet the promised times.

use std::{
    io::Write,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use todo_core::http::{Access, Endpoint};
use todo_tests::{
    Actor, App, Client, Database, PROGRAMS, Process, SECRET_SETTING, STARTING, Server, Target,
    TestResponse, at_once, command, endpoint, postgres::Cluster, startup_error, uncovered,
    unique_email,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Promised times: for a request before the outage is detected, after detection, and for recovery.
const DETECTED_WITHIN: Duration = Duration::from_secs(2);
const FAIL_FAST: Duration = Duration::from_millis(50);
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);
/// Measurement delay of a client that shares two cores with the servers.
const SLACK: Duration = Duration::from_millis(250);
/// A wait longer than this is a failure even on a slow machine.
const MAX_WAIT: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;
const POOL: usize = 4;

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

/// A server on its own PostgreSQL cluster, and a user with a todo.
struct Deployment {
    cluster: Cluster,
    app: App,
    user: Actor,
    todo: String,
}

impl Deployment {
    async fn start(server: Server) -> Deployment {
        let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
        let role = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app";
        admin(&cluster).await.execute(role).await.expect("a role");
        let app = app(server, &cluster).await;
        let user = app.signed_up().await;
        let todo = user.todo("kept").await;
        let todo = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
        Deployment { cluster, app, user, todo }
    }

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
        for answer in every_route(&self.user, &self.todo).await {
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

    async fn metrics(&self) -> String {
        self.app.anonymous().get("/metrics").await.text()
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

async fn admin(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url()).await.expect("a connection")
}

async fn app(server: Server, cluster: &Cluster) -> App {
    // The settings below override the database that the harness creates for the target.
    let target = Target { server, database: Database::Sqlite };
    let url = cluster.url().replace("postgres@", "app@");
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_POOL_MAX", "4"),
        ("DATABASE_TIMEOUT_MS", "1800"),
        // Rate limits are stored in the database, so each login starts with a query.
        ("RATE_LIMIT_PER_MINUTE", "10000"),
    ];
    App::start_with(target, &settings).await
}

async fn time_unavailable(client: &Client) -> Duration {
    let began = Instant::now();
    let answer = client.get("/api/auth/me").await;
    let took = began.elapsed();
    assert!(answer.header("retry-after").is_some(), "{answer}");
    answer.problem(503, "unavailable");
    took
}

/// Sends one request to each route that needs the database.
async fn every_route(user: &Actor, todo: &str) -> Vec<TestResponse> {
    let anonymous = Client::of(user.client.addr());
    let todos = user.todos();
    let form = json!({"email": unique_email(), "password": "Correct1horse", "name": "Ada"});
    let login = json!({"email": user.email(), "password": user.password()});
    let filtered = format!("{todos}?status=pending&sort_by=title&limit=5");
    let complete = format!("{todo}/complete");
    let requests = [
        ("POST", "/api/auth/signup", form),
        ("POST", "/api/auth/login", login),
        ("GET", "/api/auth/me", json!(null)),
        ("PATCH", "/api/auth/me", json!({"name": "Ada King"})),
        ("GET", &todos, json!(null)),
        ("GET", &filtered, json!(null)),
        ("POST", &todos, json!({"title": "new"})),
        ("GET", todo, json!(null)),
        ("PUT", todo, json!({"title": "other", "priority": "low"})),
        ("PATCH", todo, json!({"title": "other"})),
        ("PATCH", &complete, json!({"completed": true})),
        ("DELETE", todo, json!(null)),
        ("POST", "/api/auth/logout", json!(null)),
    ];
    let mut covered = Vec::new();
    let mut answers = Vec::new();
    for (method, path, body) in requests {
        let endpoint = endpoint(method, path);
        covered.push(endpoint);
        let sender = if endpoint.access() == Access::Public { &anonymous } else { &**user };
        let headers = [("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        answers.push(sender.send(method, path, &headers, body).await);
    }
    let needs_database =
        |endpoint: &Endpoint| endpoint.statements().success > 0 && !endpoint.is_probe();
    assert_eq!(uncovered(covered, needs_database), [""; 0]);
    answers
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

/// A read-only database: reads are served, writes are a 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_still_serves_reads() {
    let site = Deployment::start(Server::Hyper).await;
    let (user, todo) = (&site.user, &site.todo);
    let mut admin = admin(&site.cluster).await;
    let set = async |admin: &mut PgConnection, to: &'static str| {
        admin.execute(to).await.expect("a changed setting");
        admin.execute("SELECT pg_reload_conf()").await.expect("a reload");
    };
    set(&mut admin, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    let patch = async || user.patch(todo, json!({"title": "changed"})).await;
    let deadline = Instant::now() + MAX_WAIT;
    while patch().await.status == 200 {
        assert!(Instant::now() < deadline, "never became read-only");
    }
    for _ in 0..20 {
        let began = Instant::now();
        patch().await.problem(503, "unavailable");
        assert!(began.elapsed() < DETECTED_WITHIN, "{:?}", began.elapsed());
        user.get(todo).await.expect(200);
        user.get(&user.todos()).await.expect(200);
        user.get("/api/auth/me").await.expect(200);
    }
    for answer in every_route(user, todo).await {
        assert!([200, 503].contains(&answer.status), "{answer}");
    }
    user.get("/api/auth/me").await.expect(200);
    site.app.anonymous().get("/health/db").await.expect(200);
    let metrics = site.metrics().await;
    assert!(metrics.contains("database_breaker_open 0"), "{metrics}");

    // Without this, `set` itself would fail as a write.
    set(&mut admin, "SET default_transaction_read_only = off").await;
    set(&mut admin, "ALTER SYSTEM RESET default_transaction_read_only").await;
    let deadline = Instant::now() + MAX_WAIT;
    while patch().await.status != 200 {
        assert!(Instant::now() < deadline, "still read-only");
    }
    site.app.stop().await.expect("a clean stop");
}

/// A small file system; unmounted on drop, after the values declared later.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Disk, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs"]).arg(dir.path());
        let output = mount.output().map_err(|e| e.to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(Disk(dir)) } else { Err(stderr) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// On a full disk, writes without space are a 503 and reads succeed. At the end every acknowledged
/// write is stored and no refused one.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_serves_reads_and_refuses_writes() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            // Not `eprintln!`: the test runner hides the output of a passing test.
            let line = format!("NOT RUN: PostgreSQL on a full disk: no tmpfs: {why}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
    };
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    std::fs::create_dir(disk.path("small")).expect("a directory");
    let given = Command::new("chown")
        .arg(format!("--reference={}", cluster.data().display()))
        .arg(disk.path("small"))
        .status();
    assert!(given.expect("chown runs").success());
    let location = disk.path("small").display().to_string();
    let mut admin = admin(&cluster).await;
    admin.execute("CREATE ROLE app LOGIN").await.expect("a role");
    for statement in [
        format!("CREATE TABLESPACE small LOCATION '{location}'"),
        "CREATE DATABASE todo OWNER app TABLESPACE small".to_owned(),
    ] {
        admin.execute(sqlx::AssertSqlSafe(statement)).await.expect("a small database");
    }
    let url = cluster.url().replace("postgres@", "app@").replace("/postgres", "/todo");
    let target = Target { server: Server::Salvo, database: Database::Sqlite };
    let app = App::start_with(target, &[("DATABASE_URL", &url)]).await;
    let user = app.signed_up().await;
    let todos = user.todos();
    let write = async || {
        let todo = json!({"title": "a todo", "description": "x".repeat(1000)});
        user.post(&todos, todo).await
    };
    write().await.expect(201);

    let mut filler = std::fs::File::create(disk.path("filler")).expect("a file");
    while filler.write_all(&[0; 4096]).is_ok() {}
    let mut written = 1;
    let mut refused = 0;
    while refused < 20 {
        let began = Instant::now();
        let answer = write().await;
        assert!(began.elapsed() < MAX_WAIT, "{:?}", began.elapsed());
        match answer.status {
            201 => written += 1,
            _ => {
                answer.problem(503, "unavailable");
                refused += 1;
            }
        }
        assert!(written < 2000, "the disk never filled up");
    }
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written);
    app.anonymous().get("/health/db").await.expect(200);
    let metrics = app.anonymous().get("/metrics").await.text();
    assert!(metrics.contains("database_breaker_open 0"), "{metrics}");

    drop(filler);
    std::fs::remove_file(disk.path("filler")).expect("a removed file");
    write().await.expect(201);
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written + 1);
    app.stop().await.expect("a clean stop");
    drop(cluster);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_waits_for_the_database_and_then_fails() {
    let mut cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = cluster.url().replace("postgres@", "postgres:hushhush@");
    cluster.shut_down().await.expect("a shutdown");

    for program in PROGRAMS {
        let settings = [("DATABASE_URL", &*url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "1")];
        let ended = timeout(STARTING, command(program, dir.path(), &settings).output()).await;
        let ended = ended.expect("an exit in time").expect("the program runs");
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("waiting for the database"), "{stderr}");
        assert_eq!(
            stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{stderr}"
        );
        assert!(
            stderr.lines().last().is_some_and(|l| l.starts_with("error: cannot open")),
            "{stderr}"
        );
        assert!(!stderr.contains("hushhush"), "{stderr}");
    }

    let settings = [("DATABASE_URL", &*url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let (started, restarted) =
        tokio::join!(Process::start(PROGRAMS[0], dir.path(), &settings), async {
            sleep(Duration::from_secs(1)).await;
            cluster.start_again().await
        });
    restarted.expect("a restart");
    Client::of(started.addr).get("/health/db").await.expect(200);
    assert!(started.output().contains("waiting for the database"), "{}", started.output());
    started.stop().await;

    // A permanent error is reported at once, with a minute of the startup time left.
    let missing = format!("{}/no_such_database", url.trim_end_matches("/postgres"));
    let settings =
        [("DATABASE_URL", &*missing), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let stderr = startup_error(PROGRAMS[1], dir.path(), &settings).await;
    assert!(!stderr.contains("waiting for the database"), "{stderr}");
}

/// Requests wait for a locked row for longer than a probe takes; other users are unaffected.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_does_not_block_other_users() {
    let Deployment { cluster, app, user: holder, todo: path } =
        Deployment::start(Server::Hyper).await;
    let other = app.signed_up().await;
    let mut lock = admin(&cluster).await;
    lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("a lock");

    // One request fewer than the pool has connections: another user can be served.
    let held = at_once(POOL - 1, |_| {
        let (holder, path) = ((*holder).clone(), path.clone());
        async move { holder.patch(&path, json!({"title": "changed"})).await.status }
    });
    let others = async {
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            other.get(&other.todos()).await.expect(200);
            let metrics = app.anonymous().get("/metrics").await.text();
            assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!(held, [503; POOL - 1]);
    lock.execute("ROLLBACK").await.expect("a released lock");
    holder.patch(&path, json!({"title": "changed"})).await.expect(200);
}
