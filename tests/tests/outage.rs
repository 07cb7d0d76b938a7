//! PostgreSQL's bad days: stopped, crashed, frozen, out of connections, read-only. Every answer that
//! needs it is a 503 in time, at once when the trouble is known, and all of it works again soon after
//! it is back.
//!
//! What an answer is, is never let pass. How long it takes is the machine's affair too, so each bad
//! day has three attempts to be within the promised times.

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
use todo_tests::{
    Actor, Answer, App, Cell, Client, Database, PROGRAMS, Process, STARTING, Server, at_once,
    command, fresh_email, postgres::Cluster, refusal,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// What is promised: for any request while nobody knows yet, once it is known, and after the return.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(50);
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// A client that shares two cores with all it talks to sees this much later what a server did.
const SLACK: Duration = Duration::from_millis(250);
/// Beyond this, no machine is the reason.
const EVER: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;
const POOL: usize = 4;

/// One bad day: how it comes, and how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// A fast shutdown: connections end, and new ones are refused.
    ShutDown,
    /// A crash, with recovery at the next start.
    Killed,
    /// Nothing ends and nothing answers.
    Frozen,
    /// The same, while every connection of the pool has a statement on it.
    FrozenWhenAllAreLent,
    /// Connections end, and the server has none left to give (53300).
    NoConnections,
}

const TROUBLES: [Trouble; 5] = [
    Trouble::ShutDown,
    Trouble::Killed,
    Trouble::Frozen,
    Trouble::FrozenWhenAllAreLent,
    Trouble::NoConnections,
];

/// A server on a PostgreSQL that only this test has, and a user with a todo.
struct Site {
    cluster: Cluster,
    app: App,
    user: Actor,
    todo: String,
}

impl Site {
    async fn open(server: Server) -> Site {
        let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
        let role = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app";
        admin(&cluster).await.execute(role).await.expect("a role");
        let app = app(server, &cluster).await;
        let user = app.signed_up().await;
        let todo = user.todo("kept").await;
        let todo = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
        Site { cluster, app, user, todo }
    }

    /// Sees one kind of trouble through. What is wrong is a panic, what is late an error.
    async fn attempt(&mut self, trouble: Trouble) -> Result<(), String> {
        self.is_back(Instant::now()).await?;
        let held = match trouble {
            Trouble::FrozenWhenAllAreLent => Some(self.lend_all().await?),
            _ => None,
        };
        let mut load = Load::start(self);
        self.bring(trouble).await;
        let away = self.is_away().await;
        // Restarts take their time; what is promised counts from their end.
        let back_since = self.mend(trouble).await;
        drop(held);
        let back = self.is_back(back_since).await;
        let slowest = load.stop().await;
        self.holds_no_more_than_its_pool().await;
        away.and(back)?;
        // A request that came in time to be served waits for connections behind others.
        let bound = KNOWN_WITHIN + SLACK;
        (slowest <= bound).then_some(()).ok_or_else(|| format!("an answer took {slowest:?}"))
    }

    async fn bring(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::ShutDown => self.cluster.shut_down().await.expect("it stops"),
            Trouble::Killed => {
                self.cluster.signal_all("KILL").expect("it crashes");
                self.cluster.ended().await.expect("it is gone");
            }
            Trouble::Frozen | Trouble::FrozenWhenAllAreLent => {
                self.cluster.signal_all("STOP").expect("it freezes");
            }
            Trouble::NoConnections => {
                let mut admin = admin(&self.cluster).await;
                admin.execute("ALTER ROLE app CONNECTION LIMIT 0").await.expect("none are left");
                // One may have come before it held.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE usename = 'app'";
                while admin.execute(end).await.expect("they end").rows_affected() > 0 {}
            }
        }
    }

    async fn mend(&mut self, trouble: Trouble) -> Instant {
        match trouble {
            Trouble::ShutDown | Trouble::Killed => {
                self.cluster.start_again().await.expect("it starts");
            }
            Trouble::Frozen | Trouble::FrozenWhenAllAreLent => {
                self.cluster.signal_all("CONT").expect("it wakes");
            }
            Trouble::NoConnections => {
                let any = "ALTER ROLE app CONNECTION LIMIT -1";
                admin(&self.cluster).await.execute(any).await.expect("some are left");
            }
        }
        Instant::now()
    }

    /// Has a statement of the application's wait on each connection of its pool, for a row that the
    /// returned connection holds. Each is of another user: one alone gets no more than a share.
    async fn lend_all(&self) -> Result<PgConnection, String> {
        let mut users = Vec::new();
        for _ in 0..POOL {
            let user = self.app.signed_up().await;
            let todo = user.todo("held").await;
            let todo = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
            users.push((user, todo));
        }
        let mut lock = admin(&self.cluster).await;
        lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("the row is locked");
        for (user, todo) in users {
            tokio::spawn(async move { user.patch(&todo, json!({"title": "late"})).await });
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE usename = 'app' AND wait_event_type = 'Lock'";
        let mut watch = admin(&self.cluster).await;
        // The server ends such a wait before the caller would.
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

    /// Sees the trouble through, from the first request on.
    async fn is_away(&self) -> Result<(), String> {
        let first = unavailable(&self.user).await;
        let known = async {
            while !self.metrics().await.contains("database_breaker_open 1") {
                unavailable(&self.user).await;
            }
        };
        timeout(EVER, known).await.expect("the trouble gets known");

        let mut known: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            known.push(unavailable(&self.user).await);
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
        if first > KNOWN_WITHIN + SLACK {
            return Err(format!("the first 503 took {first:?}"));
        }
        let median = known[known.len() / 2];
        (median <= AT_ONCE).then_some(()).ok_or_else(|| format!("a known outage took {median:?}"))
    }

    /// Sees that all is well again, with the whole pool and the same session.
    async fn is_back(&self, since: Instant) -> Result<(), String> {
        loop {
            let answer = self.user.get("/api/auth/me").await;
            match answer.status {
                200 => break,
                503 => assert!(since.elapsed() < EVER, "not back: {answer}"),
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
        let bound = BACK_WITHIN + SLACK;
        (took <= bound).then_some(()).ok_or_else(|| format!("it was back after {took:?}"))
    }

    /// Nothing that was opened meanwhile is left: a probe may be on its way out.
    async fn holds_no_more_than_its_pool(&self) {
        let mut admin = admin(&self.cluster).await;
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let deadline = Instant::now() + EVER;
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

/// Users who go on working whatever happens: each answer is theirs or a 503.
struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Duration>,
}

impl Load {
    fn start(site: &Site) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..3 {
            let (user, todo, stop) = (site.user.clone(), site.todo.clone(), stop.clone());
            workers.spawn(async move {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    for turn in 0..4 {
                        let began = Instant::now();
                        let answer = match turn {
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
        Load { stop, workers }
    }

    /// How long the slowest answer took.
    async fn stop(&mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        while let Some(worked) = self.workers.join_next().await {
            slowest = slowest.max(worked.expect("no answer is wrong"));
        }
        slowest
    }
}

async fn admin(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url()).await.expect("a connection")
}

async fn app(server: Server, cluster: &Cluster) -> App {
    // The harness makes a database by the cell; this one is given below.
    let cell = Cell { server, database: Database::Sqlite };
    let url = cluster.url().replace("postgres@", "app@");
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_POOL_MAX", "4"),
        ("DATABASE_TIMEOUT_MS", "1800"),
        // Kept in the database, so that each attempt to log in begins there.
        ("RATE_LIMIT_PER_MINUTE", "10000"),
    ];
    App::start_with(cell, &settings).await
}

async fn unavailable(client: &Client) -> Duration {
    let began = Instant::now();
    let answer = client.get("/api/auth/me").await;
    let took = began.elapsed();
    assert!(answer.header("retry-after").is_some(), "{answer}");
    answer.problem(503, "unavailable");
    took
}

/// One of each request that needs the database.
async fn every_route(user: &Actor, todo: &str) -> Vec<Answer> {
    let anonymous = Client::of(user.client.addr());
    let todos = user.todos();
    let form = json!({"email": fresh_email(), "password": "Correct1horse", "name": "Ada"});
    let login = json!({"email": user.email(), "password": user.password()});
    vec![
        anonymous.post("/api/auth/signup", form).await,
        anonymous.post("/api/auth/login", login).await,
        user.get("/api/auth/me").await,
        user.get(&todos).await,
        user.get(&format!("{todos}?status=pending&sort_by=title&limit=5")).await,
        user.post(&todos, json!({"title": "new"})).await,
        user.get(todo).await,
        user.put(todo, json!({"title": "other", "priority": "low"})).await,
        user.patch(todo, json!({"title": "other"})).await,
        user.patch(&format!("{todo}/complete"), json!({"completed": true})).await,
        user.delete(todo).await,
        user.send("POST", "/api/auth/logout", &[], "").await,
    ]
}

async fn bad_days(server: Server, troubles: &[Trouble]) {
    let mut site = Site::open(server).await;
    for &trouble in troubles {
        let mut late = Vec::new();
        while let Err(reason) = site.attempt(trouble).await {
            late.push(reason);
            assert!(late.len() < ATTEMPTS as usize, "{server:?}, {trouble:?}: {late:?}");
        }
        println!("{server:?}, {trouble:?}: late before: {late:?}");
    }
    site.app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_a_503_and_comes_back() {
    bad_days(Server::Salvo, &[Trouble::Frozen]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_a_503_and_comes_back() {
    bad_days(Server::Hyper, &[Trouble::ShutDown]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn every_bad_day_is_a_503_and_passes_salvo() {
    bad_days(Server::Salvo, &TROUBLES).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn every_bad_day_is_a_503_and_passes_hyper() {
    bad_days(Server::Hyper, &TROUBLES).await;
}

/// Its database may be read and not written: nobody is denied what still works.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_read() {
    let site = Site::open(Server::Hyper).await;
    let (user, todo) = (&site.user, &site.todo);
    let mut admin = admin(&site.cluster).await;
    let set = async |admin: &mut PgConnection, to: &'static str| {
        admin.execute(to).await.expect("it is set");
        admin.execute("SELECT pg_reload_conf()").await.expect("it is read");
    };
    set(&mut admin, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    let patch = async || user.patch(todo, json!({"title": "changed"})).await;
    let deadline = Instant::now() + EVER;
    while patch().await.status == 200 {
        assert!(Instant::now() < deadline, "it is never read-only");
    }
    for _ in 0..20 {
        let began = Instant::now();
        patch().await.problem(503, "unavailable");
        assert!(began.elapsed() < KNOWN_WITHIN, "{:?}", began.elapsed());
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

    // `set` would be a write as well.
    set(&mut admin, "SET default_transaction_read_only = off").await;
    set(&mut admin, "ALTER SYSTEM RESET default_transaction_read_only").await;
    let deadline = Instant::now() + EVER;
    while patch().await.status != 200 {
        assert!(Instant::now() < deadline, "it stays read-only");
    }
    site.app.stop().await.expect("a clean stop");
}

/// A small file system, which is taken down after what was declared later.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Disk, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs"]).arg(dir.path());
        let output = mount.output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(Disk(dir)) } else { Err(said) }
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

/// What fits is written, what does not is a 503, what is there is read; no write that was refused is
/// there in the end, and none that was acknowledged is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_read_and_refuses_writes() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            // Not eprintln!, which the test runner hides with the output of a test that passes.
            let line = format!("NOT RUN: PostgreSQL on a full disk: no tmpfs: {why}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
    };
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
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
    let cell = Cell { server: Server::Salvo, database: Database::Sqlite };
    let app = App::start_with(cell, &[("DATABASE_URL", &url)]).await;
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
        assert!(began.elapsed() < EVER, "{:?}", began.elapsed());
        match answer.status {
            201 => written += 1,
            _ => {
                answer.problem(503, "unavailable");
                refused += 1;
            }
        }
        assert!(written < 2000, "the disk is never full");
    }
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written);
    app.anonymous().get("/health/db").await.expect(200);
    let metrics = app.anonymous().get("/metrics").await.text();
    assert!(metrics.contains("database_breaker_open 0"), "{metrics}");

    drop(filler);
    std::fs::remove_file(disk.path("filler")).expect("there is room again");
    write().await.expect(201);
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written + 1);
    app.stop().await.expect("a clean stop");
    drop(cluster);
    drop(disk);
}

const SECRET: (&str, &str) =
    ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only");

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_the_database_and_then_gives_up() {
    let mut cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = cluster.url().replace("postgres@", "postgres:hushhush@");
    cluster.shut_down().await.expect("it stops");

    for program in PROGRAMS {
        let settings = [("DATABASE_URL", &*url), SECRET, ("DATABASE_STARTUP_SECONDS", "1")];
        let ended = timeout(STARTING, command(program, dir.path(), &settings).output()).await;
        let ended = ended.expect("it gives up").expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("waiting for the database"), "{said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
        assert!(said.lines().last().is_some_and(|l| l.starts_with("error: cannot open")), "{said}");
        assert!(!said.contains("hushhush"), "{said}");
    }

    let settings = [("DATABASE_URL", &*url), SECRET, ("DATABASE_STARTUP_SECONDS", "60")];
    let (started, restarted) =
        tokio::join!(Process::start(PROGRAMS[0], dir.path(), &settings), async {
            sleep(Duration::from_secs(1)).await;
            cluster.start_again().await
        });
    restarted.expect("it starts");
    Client::of(started.addr).get("/health/db").await.expect(200);
    assert!(started.said().contains("waiting for the database"), "{}", started.said());
    started.stop().await;

    // What waiting cannot mend is told at once, although there is a minute left.
    let missing = format!("{}/no_such_database", url.trim_end_matches("/postgres"));
    let settings = [("DATABASE_URL", &*missing), SECRET, ("DATABASE_STARTUP_SECONDS", "60")];
    let said = refusal(PROGRAMS[1], dir.path(), &settings).await;
    assert!(!said.contains("waiting for the database"), "{said}");
}

/// More callers than there are connections wait for one locked row, for longer than a probe takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_denies_nobody_else() {
    let Site { cluster, app, user: holder, todo: path } = Site::open(Server::Hyper).await;
    let other = app.signed_up().await;
    let mut lock = admin(&cluster).await;
    lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("the row is locked");

    // One connection fewer than the pool has: somebody else can be served.
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
    lock.execute("ROLLBACK").await.expect("the row is free");
    holder.patch(&path, json!({"title": "changed"})).await.expect(200);
}
