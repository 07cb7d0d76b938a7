//! Poolers in front of PostgreSQL: one that mixes up the statements of its clients is refused at the
//! start, one that does not is none to be noticed, and migrations can go another way.

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
    App, Cell, Database, PROGRAMS, STARTING, Server, at_once, command, postgres::Cluster, refusal,
    tool,
};
use tokio::time::{sleep, timeout};

const SECRET: (&str, &str) =
    ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only");

/// PgBouncer as Debian 12 has it does not track prepared statements; that of Debian 13 does, when told
/// to.
const MIXES: &str = "pgbouncer";
const TRACKS: &str = "pgbouncer-1.24";

/// A PgBouncer in front of a cluster.
struct Bouncer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Bouncer {
    async fn start(
        cluster: &Cluster,
        program: &'static str,
        pool_mode: &str,
        pool_size: u32,
    ) -> Bouncer {
        Self::start_with(cluster, program, pool_mode, pool_size, "").await
    }

    /// As [`Bouncer::start`], with further lines of settings.
    async fn start_with(
        cluster: &Cluster,
        program: &'static str,
        pool_mode: &str,
        pool_size: u32,
        further: &str,
    ) -> Bouncer {
        let found = tokio::task::spawn_blocking(move || tool(program));
        let found = found.await.expect("PgBouncer");
        let tracked = if program == TRACKS { "max_prepared_statements = 100\n" } else { "" };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let server = cluster.port().expect("a cluster of its own");
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
        let child = command.arg("settings").spawn().expect("it runs");
        let bouncer = Bouncer { child, port, _dir: dir };
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

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(server: Server, settings: &[(&str, &str)]) -> Result<App, String> {
    // The harness makes a database by the cell; another one is given by the settings.
    App::try_start_with(Cell { server, database: Database::Sqlite }, settings).await
}

/// With fewer connections to the server than clients, with as many, and on one that served others
/// before: the schema is not even touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_statements_up_is_refused() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    for pool_size in [2, 20] {
        for pool_max in ["1", "3", "20"] {
            let bouncer = Bouncer::start(&cluster, MIXES, "transaction", pool_size).await;
            for server in [Server::Salvo, Server::Hyper] {
                let settings = [("DATABASE_URL", &*bouncer.url()), ("DATABASE_POOL_MAX", pool_max)];
                let settings = [&settings[..], &[("DATABASE_POOL_MIN", "0")]].concat();
                let why = start(server, &settings).await.expect_err("it must not serve");
                for hint in ["mixes up", "1.21", "max_prepared_statements", "session", "direct"] {
                    assert!(why.contains(hint), "{pool_size} {pool_max}: {why}");
                }
            }
        }
        for attempt in 0..5 {
            let bouncer = Bouncer::start(&cluster, MIXES, "transaction", pool_size).await;
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

    // The programs say so in one line, and wait for nothing.
    let bouncer = Bouncer::start(&cluster, MIXES, "transaction", 2).await;
    let (dir, url) = (tempfile::tempdir().expect("a directory"), bouncer.url());
    let settings = [("DATABASE_URL", &*url), SECRET, ("DATABASE_STARTUP_SECONDS", "60")];
    let said = refusal(PROGRAMS[0], dir.path(), &settings).await;
    assert_eq!(said.lines().filter(|line| line.contains("mixes up")).count(), 1, "{said}");
    assert!(!said.contains("waiting for the database"), "{said}");

    let (said, status) = doctor(dir.path(), &url).await;
    assert!(!status.success(), "{said}");
    let told = |line: &str| line.starts_with("FAIL pooler: ") && line.contains("mixes up");
    assert!(said.lines().any(told), "{said}");
}

/// What `todo-server doctor` says of a database.
async fn doctor(dir: &Path, url: &str) -> (String, ExitStatus) {
    let mut doctor = command(PROGRAMS[0], dir, &[("DATABASE_URL", url), SECRET]);
    let output = timeout(STARTING, doctor.arg("doctor").output()).await;
    let output = output.expect("it ends").expect("it runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status)
}

/// More clients than the pooler has connections take turns, and each connection has its limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_none_to_be_noticed() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let bouncer = Bouncer::start(&cluster, MIXES, "session", 8).await;
    check_pooler(&bouncer.url()).await.expect("nothing is mixed up");
    serves_each_its_own(&cluster, &bouncer.url(), true).await;
}

/// As Neon's pooler is: whichever connection is free, for a transaction, with its statements. What one
/// client would SET on it is not left behind for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_tracks_statements_is_none_to_be_noticed() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let bouncer = Bouncer::start(&cluster, TRACKS, "transaction", 3).await;
    for _ in 0..5 {
        check_pooler(&bouncer.url()).await.expect("nothing is mixed up");
    }
    serves_each_its_own(&cluster, &bouncer.url(), false).await;

    let options: PgConnectOptions = bouncer.url().parse().expect("an address");
    // Poolers take no such thing at the start of a connection.
    let pooled = PgConnection::connect_with(&options.extra_float_digits(None)).await;
    let mut pooled = pooled.expect("a connection");
    for name in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
        let left: String =
            sqlx::query_scalar(show).persistent(false).fetch_one(&mut pooled).await.expect("it");
        assert_eq!(left, "0", "{name} was left behind");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (said, status) = doctor(dir.path(), &bouncer.url()).await;
    assert!(status.success() && said.contains("ok   pooler: "), "{said}");
}

/// Serves at `url`, which leads to `cluster`: users at once, and a row that somebody holds. Whether
/// its connections are to have limits of their own.
async fn serves_each_its_own(cluster: &Cluster, url: &str, is_limited: bool) {
    let settings = [
        ("DATABASE_URL", url),
        ("DATABASE_POOL_MIN", "0"),
        ("DATABASE_POOL_MAX", "4"),
        ("DATABASE_TIMEOUT_MS", "1800"),
    ];
    for server in [Server::Salvo, Server::Hyper] {
        let app = start(server, &settings).await.expect("it serves");
        let users = at_once(8, |n| {
            let client = app.anonymous();
            async move {
                let name = format!("User {n}");
                let email = todo_tests::fresh_email();
                let form = serde_json::json!({
                    "email": email, "password": "Correct1horse", "name": name
                });
                let auth = client.post("/api/auth/signup", form).await.expect(201);
                let actor = todo_tests::Actor::of(&client, &auth, "Correct1horse");
                for turn in 0..5 {
                    actor.todo(&format!("{turn} of {name}")).await;
                    let me = actor.get("/api/auth/me").await.expect(200);
                    assert_eq!(me["name"], *name);
                    let list = actor.get(&actor.todos()).await.expect(200);
                    assert_eq!(list["total"], turn + 1);
                }
                actor
            }
        })
        .await;

        // A row that somebody holds is told by the server, before the call's own deadline: what was
        // SET on the connections has reached it. Where nothing may be SET, that deadline is all.
        let todo = users[0].todo("held").await;
        let path = format!("{}/{}", users[0].todos(), todo["id"].as_str().expect("an id"));
        let mut lock = PgConnection::connect(&cluster.url()).await.expect("a connection");
        lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("the row is locked");
        users[0].patch(&path, serde_json::json!({"title": "x"})).await.problem(503, "unavailable");
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active' \
             AND query LIKE 'UPDATE%'",
        )
        .fetch_all(&mut lock)
        .await
        .expect("activity");
        assert_eq!(waiting.is_empty(), is_limited, "still waiting: {waiting:?}");
        lock.close().await.expect("the row is free");
        app.stop().await.expect("a clean stop");
    }
}

/// A pooler that takes fewer clients than the pool wants connections is full, and not away: requests
/// wait for a connection that comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_full_is_not_away() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    for (program, mode) in [(MIXES, "session"), (TRACKS, "transaction")] {
        let few = "max_client_conn = 4\n";
        let bouncer = Bouncer::start_with(&cluster, program, mode, 8, few).await;
        let settings = [
            ("DATABASE_URL", &*bouncer.url()),
            ("DATABASE_POOL_MIN", "0"),
            ("DATABASE_POOL_MAX", "20"),
            ("DATABASE_TIMEOUT_MS", "1800"),
            // Connections that a start has closed may still count for a moment.
            ("DATABASE_STARTUP_SECONDS", "20"),
        ];
        let app = start(Server::Hyper, &settings).await.expect("it serves");
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

/// A role that may not change the schema serves, once another one has migrated.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_go_over_an_address_of_their_own() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let mut admin = PgConnection::connect(&cluster.url()).await.expect("a connection");
    admin
        .execute(
            "CREATE ROLE app LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA public \
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app",
        )
        .await
        .expect("a role");
    let bouncer = Bouncer::start(&cluster, MIXES, "session", 20).await;
    for direct in [true, false] {
        let app_url = if direct { cluster.url() } else { bouncer.url() };
        let app_url = app_url.replace("postgres@", "app@");
        let own = [("DATABASE_URL", &*app_url), ("DATABASE_POOL_MIN", "0")];
        if direct {
            let why = start(Server::Hyper, &own).await.expect_err("it may not migrate");
            assert!(why.starts_with("cannot migrate the database"), "{why}");
        }
        let migrations = cluster.url();
        let settings = [&own[..], &[("MIGRATIONS_DATABASE_URL", &*migrations)]].concat();
        let app = start(Server::Hyper, &settings).await.expect("it serves");
        let actor = app.signed_up().await;
        actor.todo("by a role with few rights").await;
        app.stop().await.expect("a clean stop");
    }
}

/// Where nothing stands in between, nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_connection_passes() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    for _ in 0..5 {
        let began = Instant::now();
        check_pooler(&cluster.url()).await.expect("nothing is mixed up");
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
        assert!(Instant::now() < deadline, "{others} connections are left");
        sleep(Duration::from_millis(20)).await;
    }
    let found = check_pooler("postgres://nobody:hushhush@127.0.0.1:1/none").await;
    assert!(matches!(&found, Err(OpenError::Connect(_))), "{found:?}");
    assert!(!format!("{found:?}").contains("hushhush"));
}
