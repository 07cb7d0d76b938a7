//! Databases and roles that cannot do what requests need are refused at the start, by name; defaults
//! that could do harm are set or named.

use std::{path::Path, time::Duration};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use todo_tests::{
    Actor, App, PROGRAMS, STARTING, Server, comes_true, command, fresh_email, postgres::Cluster,
    refusal,
};
use tokio::time::timeout;

use super::{admin, app_url, cluster, side_by_side, start};

const SECRET: (&str, &str) =
    ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only");
const PATIENCE: Duration = Duration::from_secs(20);
/// All that a role needs, to the column.
const GRANTS: [&str; 12] = [
    "SELECT, INSERT, UPDATE (password_hash) ON users",
    "SELECT, INSERT, DELETE ON sessions",
    "SELECT ON todos",
    "INSERT ON todos",
    "UPDATE (title, title_key, description, priority, completed, updated_at, completed_at) ON todos",
    "DELETE ON todos",
    "SELECT ON todo_counts",
    "INSERT (user_id) ON todo_counts",
    "UPDATE (pending, completed) ON todo_counts",
    "SELECT, INSERT, DELETE ON rate_limits",
    "UPDATE (taken_at, settled, prefix56, prefix48) ON rate_limits",
    "INSERT ON signups",
];

async fn run(admin: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    admin.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// What `todo-server doctor` says, and whether it is content.
async fn doctor(dir: &Path, settings: &[(&str, &str)]) -> (String, bool) {
    let mut doctor = command(PROGRAMS[0], dir, &[settings, &[SECRET]].concat());
    let output = timeout(STARTING, doctor.arg("doctor").output()).await;
    let output = output.expect("it ends").expect("it runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// One of each request that needs the database; none is a 5xx.
async fn every_request_is_served(app: &App) {
    let anonymous = app.anonymous();
    let user = app.signed_up().await;
    let todos = user.todos();
    let path = format!("{todos}/{}", user.todo("kept").await["id"].as_str().expect("an id"));
    let login = json!({"email": user.email(), "password": user.password()});
    anonymous.post("/api/auth/login", login).await.expect(200);
    let login = json!({"email": user.email(), "password": "Wrong1horse"});
    anonymous.post("/api/auth/login", login).await.expect(401);
    user.get("/api/auth/me").await.expect(200);
    user.get(&todos).await.expect(200);
    user.get(&path).await.expect(200);
    user.put(&path, json!({"title": "other", "priority": "low"})).await.expect(200);
    user.patch(&path, json!({"description": "\u{1f600}"})).await.expect(200);
    user.patch(&format!("{path}/complete"), json!({"completed": true})).await.expect(200);
    user.delete(&path).await.expect(200);
    anonymous.get("/health/db").await.expect(200);
    user.send("POST", "/api/auth/logout", &[], "").await.expect(200);
}

/// What does not hold all text that requests may have is refused before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf_8_is_refused() {
    let cluster = cluster().await;
    let mut admin = admin(&cluster).await;
    let dir = tempfile::tempdir().expect("a directory");
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let create = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' \
             TEMPLATE template0 OWNER app"
        );
        run(&mut admin, create).await;
        let url = app_url(&cluster).replace("/postgres", &format!("/{name}"));
        let settings = [("DATABASE_URL", &*url), SECRET];
        for program in PROGRAMS {
            let said = refusal(program, dir.path(), &settings).await;
            let lines = said.lines().filter(|line| line.contains("UTF8"));
            let lines: Vec<_> = lines.collect();
            assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{said}");
            assert!(lines[0].contains(encoding), "{said}");
            assert!(!said.contains("waiting for the database"), "{said}");
        }
        let mut there = PgConnection::connect(&url).await.expect("a connection");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut there).await.expect("a count");
        assert_eq!(tables, 0, "the schema was touched");
        let (said, is_content) = doctor(dir.path(), &settings).await;
        let is_told = |line: &str| line.starts_with("FAIL ") && line.contains("UTF8");
        assert!(!is_content && said.lines().any(is_told), "{said}");
    }
}

/// Tables made by their owner, and a role `app` that may do what `grants` say.
async fn migrated(grants: bool) -> Cluster {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a directory");
    let mut migrate = command(PROGRAMS[0], dir.path(), &[("DATABASE_URL", &cluster.url()), SECRET]);
    let done = timeout(STARTING, migrate.arg("migrate").output()).await;
    assert!(done.expect("it ends").expect("it runs").status.success());
    let mut admin = admin(&cluster).await;
    // Not even what everybody may: functions of triggers need none.
    run(
        &mut admin,
        "CREATE ROLE app LOGIN; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC",
    )
    .await;
    for grant in GRANTS.iter().filter(|_| grants) {
        run(&mut admin, format!("GRANT {grant} TO app")).await;
    }
    cluster
}

/// A role without grants beside an owner's address for migrations.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_grants_is_refused_and_one_with_just_those_serves() {
    let cluster = migrated(false).await;
    let (url, owner) = (app_url(&cluster), cluster.url());
    let settings = [("DATABASE_URL", &*url), ("MIGRATIONS_DATABASE_URL", &*owner)];
    let dir = tempfile::tempdir().expect("a directory");
    for program in PROGRAMS {
        let said = refusal(program, dir.path(), &[&settings[..], &[SECRET]].concat()).await;
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        for named in ["role app", "SELECT, UPDATE on todos", "INSERT on signups", "users"] {
            assert!(lines[0].contains(named), "{named} in {said}");
        }
    }
    let (said, is_content) = doctor(dir.path(), &settings).await;
    let is_told = |line: &str| line.starts_with("FAIL ") && line.contains("on todos");
    assert!(!is_content && said.lines().any(is_told), "{said}");

    let mut admin = admin(&cluster).await;
    for grant in GRANTS {
        run(&mut admin, format!("GRANT {grant} TO app")).await;
    }
    let (said, is_content) = doctor(dir.path(), &settings).await;
    assert!(is_content, "{said}");
    for server in [Server::Salvo, Server::Hyper] {
        let limited = [&settings[..], &[("RATE_LIMIT_PER_MINUTE", "100")]].concat();
        let app = start(server, &limited).await.expect("it serves");
        every_request_is_served(&app).await;

        // Lost while it serves.
        run(&mut admin, "REVOKE UPDATE (pending) ON todo_counts FROM app").await;
        // Polled: callers within 100 ms of a check share its outcome.
        let health = async || app.anonymous().get("/health/db").await;
        assert!(comes_true(PATIENCE, async || health().await.status == 503).await);
        assert_eq!(health().await.expect(503)["status"], "unhealthy");
        run(&mut admin, "GRANT UPDATE (pending) ON todo_counts TO app").await;
        assert!(comes_true(PATIENCE, async || health().await.status == 200).await);
        app.stop().await.expect("a clean stop");
    }

    // Each of them is needed, and named.
    for grant in GRANTS {
        run(&mut admin, format!("REVOKE {grant} FROM app")).await;
        let why = start(Server::Hyper, &settings).await.expect_err(grant);
        let table = grant.rsplit(' ').next().expect("a table");
        assert!(why.contains("the role app lacks") && why.contains(table), "{grant}: {why}");
        run(&mut admin, format!("GRANT {grant} TO app")).await;
    }
    run(&mut admin, "REVOKE USAGE ON SCHEMA public FROM PUBLIC").await;
    let why = start(Server::Hyper, &settings).await.expect_err("no schema");
    assert!(why.contains("not in its search_path"), "{why}");
}

/// Starts a server. A limit of 1 ms holds for the first statement of a connection, which lifts it,
/// and ends that statement now and then on a busy machine: such a start is tried again.
async fn start_within(default: &str, settings: &[(&str, &str)]) -> App {
    for _ in 0..10 {
        match start(Server::Hyper, settings).await {
            Err(why) if default.ends_with("'1ms'") && why.contains("timeout") => {}
            started => return started.expect(default),
        }
    }
    panic!("{default}: no start in ten");
}

/// Defaults of the role: what the design relies on is set on each connection.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_a_role_do_no_harm() {
    let cluster = migrated(true).await;
    let (url, owner) = (app_url(&cluster), cluster.url());
    let settings = [
        ("DATABASE_URL", &*url),
        ("MIGRATIONS_DATABASE_URL", &*owner),
        ("DATABASE_POOL_MIN", "4"),
        ("DATABASE_TIMEOUT_MS", "10000"),
    ];
    let mut admin = admin(&cluster).await;
    for default in [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "TimeZone = 'Asia/Tokyo'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
        "standard_conforming_strings = off",
        "row_security = off",
        "default_transaction_deferrable = on",
        "exit_on_error = on",
        "lc_messages = 'C'",
        "plan_cache_mode = 'force_generic_plan'",
        "transform_null_equals = on",
    ] {
        run(&mut admin, format!("ALTER ROLE app SET {default}")).await;
        let app = start_within(default, &settings).await;
        every_request_is_served(&app).await;
        // Writers of one user meet at its row of counts.
        let user = app.signed_up().await;
        let all = side_by_side(12, async |_| {
            user.post(&user.todos(), json!({"title": "new"})).await.status
        });
        assert_eq!(all.await, [201; 12], "{default}");
        let list = user.get(&user.todos()).await.expect(200);
        assert_eq!(list["total"], 12, "{default}");
        let made = list["todos"][0]["created_at"].as_str().expect("a time");
        assert!(made.ends_with('Z'), "{default}: {made}");
        app.stop().await.expect("a clean stop");
        run(&mut admin, "ALTER ROLE app RESET ALL").await;
    }

    // What only a superuser can set back is refused, and what is meant may be so.
    let dir = tempfile::tempdir().expect("a directory");
    for (default, is_refused) in [
        ("session_replication_role = 'replica'", true),
        ("search_path = 'nowhere'", true),
        ("default_transaction_read_only = on", false),
        ("synchronous_commit = off", false),
    ] {
        run(&mut admin, format!("ALTER ROLE app SET {default}")).await;
        let name = default.split(' ').next().expect("a name");
        match start(Server::Hyper, &settings).await {
            Err(why) => assert!(is_refused && why.contains(name), "{default}: {why}"),
            Ok(app) => {
                assert!(!is_refused, "{default}");
                app.stop().await.expect("a clean stop");
            }
        }
        let (said, _) = doctor(dir.path(), &settings[..2]).await;
        let level = if is_refused { "FAIL " } else { "warn " };
        let is_told = |line: &str| line.starts_with(level) && line.contains(name);
        assert!(said.lines().any(is_told), "{default}: {said}");
        run(&mut admin, "ALTER ROLE app RESET ALL").await;
    }
    run(&mut admin, "ALTER TABLE todos ENABLE ROW LEVEL SECURITY").await;
    let (said, _) = doctor(dir.path(), &settings[..2]).await;
    assert!(said.lines().any(|l| l.starts_with("warn ") && l.contains("row security")), "{said}");
}

/// The limits of an owner's requests do not hold for migrations.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_has_limits_of_its_own() {
    let cluster = cluster().await;
    let mut admin = admin(&cluster).await;
    run(
        &mut admin,
        "ALTER ROLE app SET statement_timeout = '1ms'; \
         ALTER ROLE app SET default_transaction_isolation = 'serializable'",
    )
    .await;
    let url = app_url(&cluster);
    let app = start(Server::Salvo, &[("DATABASE_URL", &*url)]).await.expect("it serves");
    let form = json!({"email": fresh_email(), "password": "Correct1horse", "name": "Ada"});
    let auth = app.anonymous().post("/api/auth/signup", form).await.expect(201);
    let user = Actor::of(&app.anonymous(), &auth, "Correct1horse");
    let served = comes_true(PATIENCE, async || user.get("/api/auth/me").await.status == 200);
    assert!(served.await);
    app.stop().await.expect("a clean stop");
}
