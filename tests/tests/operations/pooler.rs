//! Poolers in front of PostgreSQL: a pooler that mixes up its clients' prepared statements is
//! refused at startup, any other works like a direct connection, and migrations can bypass it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use todo_core::{OpenError, check_pooler};
use todo_tests::{
    App, Database, PROGRAMS, SECRET_SETTING, STARTING, Server, Target, at_once, command,
    postgres::Cluster, startup_error, tool,
};
use tokio::time::{sleep, timeout};

/// Debian 12's PgBouncer does not track prepared statements; Debian 13's does if configured.
const UNTRACKED: &str = "pgbouncer";
const TRACKED: &str = "pgbouncer-1.24";

/// A PgBouncer in front of a cluster.
struct PgBouncer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    async fn start(
        cluster: &Cluster,
        program: &'static str,
        pool_mode: &str,
        pool_size: u32,
    ) -> PgBouncer {
        Self::start_with(cluster, program, pool_mode, pool_size, "").await
    }

    /// Like [`PgBouncer::start`], with additional lines of settings.
    async fn start_with(
        cluster: &Cluster,
        program: &'static str,
        pool_mode: &str,
        pool_size: u32,
        further: &str,
    ) -> PgBouncer {
        let found = tokio::task::spawn_blocking(move || tool(program));
        let found = found.await.expect("PgBouncer");
        let tracked = if program == TRACKED { "max_prepared_statements = 100\n" } else { "" };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let server = cluster.port().expect("a dedicated cluster");
        let settings = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={server}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {users}\n\
             pool_mode = {pool_mode}\n\
             default_pool_size = {pool_size}\n\
             {tracked}{further}",
            users = dir.path().join("users").display(),
        );
        fs::write(dir.path().join("settings"), settings).expect("a file");
        fs::write(dir.path().join("users"), "\"postgres\" \"\"\n\"app\" \"\"\n").expect("a file");
        let mut command: Command = cluster.command(&found, dir.path()).expect("a command");
        let child = command.arg("settings").spawn().expect("the program runs");
        let bouncer = PgBouncer { child, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen");
            sleep(Duration::from_millis(10)).await;
        }
        bouncer
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(server: Server, settings: &[(&str, &str)]) -> Result<App, String> {
    // The settings override the database that the harness creates for the target.
    App::try_start_with(Target { server, database: Database::Sqlite }, settings).await
}

/// With fewer server connections than clients, with as many, and with reused server connections.
/// The schema is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_statements_up_is_refused() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    for pool_size in [2, 20] {
        for pool_max in ["1", "3", "20"] {
            let bouncer = PgBouncer::start(&cluster, UNTRACKED, "transaction", pool_size).await;
            for server in [Server::Salvo, Server::Hyper] {
                let settings = [("DATABASE_URL", &*bouncer.url()), ("DATABASE_POOL_MAX", pool_max)];
                let settings = [&settings[..], &[("DATABASE_POOL_MIN", "0")]].concat();
                let why = start(server, &settings).await.expect_err("startup must fail");
                for hint in ["mixes up", "1.21", "max_prepared_statements", "session", "direct"] {
                    assert!(why.contains(hint), "{pool_size} {pool_max}: {why}");
                }
            }
        }
        for attempt in 0..5 {
            let bouncer = PgBouncer::start(&cluster, UNTRACKED, "transaction", pool_size).await;
            let found = check_pooler(&bouncer.url()).await;
            assert!(matches!(found, Err(OpenError::Pooler(_))), "{attempt}: {found:?}");
        }
    }
    let mut direct = PgConnection::connect(&cluster.url()).await.expect("a connection");
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&mut direct)
            .await
            .expect("a count");
    assert_eq!(tables, 0, "the schema was touched");

    // The programs report it in one line, without waiting.
    let bouncer = PgBouncer::start(&cluster, UNTRACKED, "transaction", 2).await;
    let (dir, url) = (tempfile::tempdir().expect("a directory"), bouncer.url());
    let settings = [("DATABASE_URL", &*url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let printed = startup_error(PROGRAMS[0], dir.path(), &settings).await;
    assert_eq!(printed.lines().filter(|line| line.contains("mixes up")).count(), 1, "{printed}");
    assert!(!printed.contains("waiting for the database"), "{printed}");

    let (printed, status) = doctor(dir.path(), &url).await;
    assert!(!status.success(), "{printed}");
    let names_mixup = |line: &str| line.starts_with("FAIL pooler: ") && line.contains("mixes up");
    assert!(printed.lines().any(names_mixup), "{printed}");
}

/// Output and exit status of `todo-server doctor` for a database.
async fn doctor(dir: &Path, url: &str) -> (String, ExitStatus) {
    let mut doctor = command(PROGRAMS[0], dir, &[("DATABASE_URL", url), SECRET_SETTING]);
    let output = timeout(STARTING, doctor.arg("doctor").output()).await;
    let output = output.expect("an exit in time").expect("the program runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status)
}

/// More clients than server connections wait for each other, and each connection has its limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_works() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let bouncer = PgBouncer::start(&cluster, UNTRACKED, "session", 8).await;
    check_pooler(&bouncer.url()).await.expect("no mix-up");
    assert_results_are_not_mixed_up(&cluster, &bouncer.url(), true).await;
}

/// Like Neon's pooler: each transaction uses any free connection, with its prepared statements. One
/// client's SET must not affect another client.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_tracks_statements_works() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let bouncer = PgBouncer::start(&cluster, TRACKED, "transaction", 3).await;
    for _ in 0..5 {
        check_pooler(&bouncer.url()).await.expect("no mix-up");
    }
    assert_results_are_not_mixed_up(&cluster, &bouncer.url(), false).await;

    let options: PgConnectOptions = bouncer.url().parse().expect("an address");
    // Poolers reject this startup parameter.
    let pooled = PgConnection::connect_with(&options.extra_float_digits(None)).await;
    let mut pooled = pooled.expect("a connection");
    for (name, default) in [
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("jit", "on"),
    ] {
        let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
        let left: String = sqlx::query_scalar(show)
            .persistent(false)
            .fetch_one(&mut pooled)
            .await
            .expect("a value");
        assert_eq!(left, default, "{name} is still set");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (printed, status) = doctor(dir.path(), &bouncer.url()).await;
    assert!(status.success() && printed.contains("ok   pooler: "), "{printed}");
}

/// Checks concurrent users and a locked row with a server on `url`, which leads to `cluster`.
/// `is_limited`: the connections have their own timeouts.
async fn assert_results_are_not_mixed_up(cluster: &Cluster, url: &str, is_limited: bool) {
    let settings = [
        ("DATABASE_URL", url),
        ("DATABASE_POOL_MIN", "0"),
        ("DATABASE_POOL_MAX", "4"),
        ("DATABASE_TIMEOUT_MS", "1800"),
    ];
    for server in [Server::Salvo, Server::Hyper] {
        let app = start(server, &settings).await.expect("a started server");
        let users = at_once(8, |n| {
            let client = app.anonymous();
            async move {
                let name = format!("User {n}");
                let email = todo_tests::unique_email();
                let form = serde_json::json!({
                    "email": email, "password": "Correct1horse", "name": name
                });
                let auth = client.post("/api/auth/signup", form).await.expect(201);
                let actor = todo_tests::Actor::of(&client, &auth, "Correct1horse");
                for round in 0..5 {
                    actor.todo(&format!("{round} of {name}")).await;
                    let me = actor.get("/api/auth/me").await.expect(200);
                    assert_eq!(me["name"], *name);
                    let list = actor.get(&actor.todos()).await.expect(200);
                    assert_eq!(list["total"], round + 1);
                }
                actor
            }
        })
        .await;

        // PostgreSQL reports the locked row before the call's own deadline if the timeouts SET on
        // the connection are in effect. Without SET, only that deadline applies.
        let todo = users[0].todo("held").await;
        let path = format!("{}/{}", users[0].todos(), todo["id"].as_str().expect("an id"));
        let mut lock = PgConnection::connect(&cluster.url()).await.expect("a connection");
        lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("a lock");
        users[0].patch(&path, serde_json::json!({"title": "x"})).await.problem(503, "unavailable");
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active' \
             AND query LIKE 'UPDATE%'",
        )
        .fetch_all(&mut lock)
        .await
        .expect("activity");
        assert_eq!(waiting.is_empty(), is_limited, "still waiting: {waiting:?}");
        lock.close().await.expect("a released lock");
        app.stop().await.expect("a clean stop");
    }
}

/// A pooler with a client limit below the pool's size is full, not an outage: requests wait for a
/// free connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_pooler_is_not_an_outage() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    for (program, mode) in [(UNTRACKED, "session"), (TRACKED, "transaction")] {
        let few = "max_client_conn = 4\n";
        let bouncer = PgBouncer::start_with(&cluster, program, mode, 8, few).await;
        let settings = [
            ("DATABASE_URL", &*bouncer.url()),
            ("DATABASE_POOL_MIN", "0"),
            ("DATABASE_POOL_MAX", "20"),
            ("DATABASE_TIMEOUT_MS", "1800"),
            // Connections closed during startup may still count for a moment.
            ("DATABASE_STARTUP_SECONDS", "20"),
        ];
        let app = start(Server::Hyper, &settings).await.expect("a started server");
        let mut users = Vec::new();
        for _ in 0..4 {
            users.push(app.signed_up().await);
        }
        let answers = at_once(16, |n| {
            let user = users[n % users.len()].clone();
            async move {
                let mut statuses = Vec::new();
                for _ in 0..5 {
                    statuses.push(user.get(&user.todos()).await.status);
                }
                statuses
            }
        })
        .await;
        assert!(answers.iter().flatten().all(|status| *status == 200), "{program}: {answers:?}");
        let metrics = app.anonymous().get("/metrics").await.text();
        assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
        app.stop().await.expect("a clean stop");
    }
}

/// A role without rights on the schema can serve after another role has migrated.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_use_a_separate_url() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let mut admin = PgConnection::connect(&cluster.url()).await.expect("a connection");
    admin
        .execute(
            "CREATE ROLE app LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA public \
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app",
        )
        .await
        .expect("a role");
    let bouncer = PgBouncer::start(&cluster, UNTRACKED, "session", 20).await;
    for direct in [true, false] {
        let app_url = if direct { cluster.url() } else { bouncer.url() };
        let app_url = app_url.replace("postgres@", "app@");
        let own = [("DATABASE_URL", &*app_url), ("DATABASE_POOL_MIN", "0")];
        if direct {
            let why = start(Server::Hyper, &own).await.expect_err("the role may not migrate");
            assert!(why.starts_with("cannot migrate the database"), "{why}");
        }
        let migrations = cluster.url();
        let settings = [&own[..], &[("MIGRATIONS_DATABASE_URL", &*migrations)]].concat();
        let app = start(Server::Hyper, &settings).await.expect("a started server");
        let actor = app.signed_up().await;
        actor.todo("by a role with few rights").await;
        app.stop().await.expect("a clean stop");
    }
}

/// Without a pooler, the check passes and leaves no connection open.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_connection_passes_the_check() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    for _ in 0..5 {
        let began = Instant::now();
        check_pooler(&cluster.url()).await.expect("no mix-up");
        println!("checked in {:?}", began.elapsed());
    }
    let mut direct = PgConnection::connect(&cluster.url()).await.expect("a connection");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .fetch_one(&mut direct)
        .await
        .expect("a count");
        if others == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{others} connections are still open");
        sleep(Duration::from_millis(20)).await;
    }
    let found = check_pooler("postgres://nobody:hushhush@127.0.0.1:1/none").await;
    assert!(matches!(&found, Err(OpenError::Connect(_))), "{found:?}");
    assert!(!format!("{found:?}").contains("hushhush"));
}
