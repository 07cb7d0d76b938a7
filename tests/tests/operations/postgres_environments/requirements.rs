//! Startup checks: a database or role that cannot serve requests is refused with its name, and
//! harmful defaults are overridden or reported.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use todo_core::{Core, DatabaseOptions, DatabaseUrl, Secret, auth::delete_left_rows};
use todo_tests::{
    Actor, App, PROGRAMS, SECRET_SETTING, STARTING, Server, command, eventually, postgres::Cluster,
    startup_error, unique_email,
};
use tokio::time::timeout;

use super::{admin, app_url, cluster, side_by_side, start};

const MAX_WAIT: Duration = Duration::from_secs(20);
/// The default limit of a role's statements and locks in these tests.
const ROLE_LIMIT: Duration = Duration::from_millis(500);
/// The minimal grants of a role, by column.
const GRANTS: [&str; 37] = [
    "SELECT, INSERT, DELETE ON users",
    "UPDATE (name, password_hash, email, email_verified_at, deleted_at, time_zone, reminder_mail) ON users",
    "SELECT, INSERT, UPDATE (seen_at), DELETE ON sessions",
    "SELECT ON todos",
    "INSERT ON todos",
    "UPDATE (title, title_key, description, priority, completed, updated_at, completed_at, search, tags, list_id, position, due_date, due_minute, due_zone, due_at, undated, due_key, rule, rule_from, series_id, occurrence, reminders) ON todos",
    "DELETE ON todos",
    "SELECT ON todo_counts",
    "INSERT (user_id) ON todo_counts",
    "UPDATE (pending, completed, seq), DELETE ON todo_counts",
    "SELECT ON changes",
    "INSERT (user_id, seq, kind, todo_id, tag, list_id, reminder_id) ON changes",
    "DELETE ON changes",
    "SELECT, INSERT, UPDATE (value) ON meta",
    "SELECT, INSERT, UPDATE (pending, completed), DELETE ON tags, list_counts",
    "SELECT, INSERT, DELETE ON todo_tags",
    "SELECT, INSERT, UPDATE (name, color, updated_at, deleted_at), DELETE ON lists",
    "SELECT, INSERT, DELETE ON trash",
    "UPDATE (deleted_at) ON trash",
    "SELECT, INSERT ON deletions",
    "SELECT, INSERT, DELETE ON idempotency",
    "SELECT, INSERT ON keyed_todos",
    "SELECT, INSERT, DELETE ON rate_limits",
    "UPDATE (taken_at, settled, prefix56, prefix48) ON rate_limits",
    "INSERT ON signups",
    "SELECT, INSERT ON new_sessions, password_changes, password_resets, email_confirmations, account_deletions, external_sessions, oauth_sign_ins, new_identities, identity_removals",
    "SELECT, INSERT, UPDATE, DELETE ON mails",
    "SELECT, INSERT, UPDATE, DELETE ON identities",
    "SELECT, INSERT, DELETE ON revoked_tokens, oauth_codes",
    "SELECT, INSERT, DELETE ON reminders",
    "UPDATE (fire_at, written_at, fired_at, is_late) ON reminders",
    "SELECT, INSERT ON reminder_firings",
    "SELECT, INSERT, UPDATE, DELETE ON webhooks",
    "SELECT, INSERT, DELETE ON webhook_deliveries",
    "UPDATE (attempts, next_attempt_at) ON webhook_deliveries",
    "SELECT, INSERT (kind, run_at) ON jobs",
    "UPDATE (run_at, attempts, lease, leased_until) ON jobs",
];

async fn run(admin: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    admin.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Output of `todo-server doctor`, and whether it succeeded.
async fn doctor(dir: &Path, settings: &[(&str, &str)]) -> (String, bool) {
    let mut doctor = command(PROGRAMS[0], dir, &[settings, &[SECRET_SETTING]].concat());
    let output = timeout(STARTING, doctor.arg("doctor").output()).await;
    let output = output.expect("an exit in time").expect("the program runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// Sends one request to each route that needs the database; none may be a 5xx. The rows of a
/// deleted account are deleted too.
async fn every_request_is_served(app: &App, cluster: &Cluster) {
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
    let trashed = path.replace("/todos/", "/trash/");
    let trash = todos.replace("/todos", "/trash");
    user.get(&trash).await.expect(200);
    user.send("POST", &format!("{trashed}/restore"), &[], "").await.expect(200);
    user.delete(&path).await.expect(200);
    user.delete(&trashed).await.expect(200);
    user.delete(&trash).await.expect(200);
    for _ in 0..2 {
        let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
        user.send("POST", &todos, &headers, r#"{"title": "once"}"#).await.expect(201);
    }
    let bulk = format!("{todos}/bulk");
    let made = user.post(&bulk, json!({"create": [{"title": "a"}, {"title": "b"}]})).await;
    let made = made.expect(200);
    let ids = json!([made["results"][0]["todo"]["id"], made["results"][1]["todo"]["id"]]);
    user.post(&bulk, json!({"patch": {"title": "c"}, "ids": ids})).await.expect(200);
    user.post(&bulk, json!({"complete": ids, "completed": true})).await.expect(200);
    user.post(&bulk, json!({"delete": ids})).await.expect(200);
    let headers = [("content-type", "application/json"), ("idempotency-key", "restored")];
    user.send("POST", &bulk, &headers, json!({"restore": ids}).to_string()).await.expect(200);
    let changes = todos.replace("/todos", "/changes");
    let now = user.get(&changes).await.expect(200);
    let since = now["next"].as_str().expect("a position");
    user.get(&format!("{changes}?since={since}")).await.expect(200);
    anonymous.get("/health/db").await.expect(200);
    user.get("/api/auth/export").await.expect(200);
    user.send("POST", "/api/auth/logout", &[], "").await.expect(200);
    let leaving = app.signed_up().await;
    leaving.todo("left").await;
    let headers = [("content-type", "application/json")];
    let body = json!({"password": leaving.password()}).to_string();
    leaving.send("DELETE", "/api/auth/me", &headers, body).await.expect(200);
    let secret = Secret::new(app.secret()).expect("a secret");
    let owner = DatabaseUrl::parse(&cluster.url()).expect("a URL");
    let options = DatabaseOptions::new().migrations_url(owner);
    let core = Core::builder(secret).database(options).open(app_url(cluster)).await;
    let core = core.expect("it opens");
    assert!(delete_left_rows(&core).await.expect("the rows are deleted"));
    core.close().await;
}

/// An encoding that cannot hold all text of requests is refused before anything is written.
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
        let settings = [("DATABASE_URL", &*url), SECRET_SETTING];
        for program in PROGRAMS {
            let printed = startup_error(program, dir.path(), &settings).await;
            let lines = printed.lines().filter(|line| line.contains("UTF8"));
            let lines: Vec<_> = lines.collect();
            assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{printed}");
            assert!(lines[0].contains(encoding), "{printed}");
            assert!(!printed.contains("waiting for the database"), "{printed}");
        }
        let mut there = PgConnection::connect(&url).await.expect("a connection");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut there).await.expect("a count");
        assert_eq!(tables, 0, "the schema was touched");
        let (printed, is_healthy) = doctor(dir.path(), &settings).await;
        let is_reported = |line: &str| line.starts_with("FAIL ") && line.contains("UTF8");
        assert!(!is_healthy && printed.lines().any(is_reported), "{printed}");
    }
}

/// A cluster with tables created by their owner and a role `app`, with the minimal grants if
/// `grants`.
async fn migrated(grants: bool) -> Cluster {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a directory");
    let mut migrate =
        command(PROGRAMS[0], dir.path(), &[("DATABASE_URL", &cluster.url()), SECRET_SETTING]);
    let done = timeout(STARTING, migrate.arg("migrate").output()).await;
    assert!(done.expect("an exit in time").expect("the program runs").status.success());
    let mut admin = admin(&cluster).await;
    // Revokes even the public default: trigger functions need no grant.
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

/// A role without grants, with the owner's URL for migrations.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_grants_is_refused_and_the_minimal_grants_suffice() {
    let cluster = migrated(false).await;
    let (url, owner) = (app_url(&cluster), cluster.url());
    let settings = [("DATABASE_URL", &*url), ("MIGRATIONS_DATABASE_URL", &*owner)];
    let dir = tempfile::tempdir().expect("a directory");
    for program in PROGRAMS {
        let printed =
            startup_error(program, dir.path(), &[&settings[..], &[SECRET_SETTING]].concat()).await;
        let lines: Vec<_> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{printed}");
        for named in ["role app", "SELECT, UPDATE on todos", "INSERT on signups", "users"] {
            assert!(lines[0].contains(named), "{named} in {printed}");
        }
    }
    let (printed, is_healthy) = doctor(dir.path(), &settings).await;
    let is_reported = |line: &str| line.starts_with("FAIL ") && line.contains("on todos");
    assert!(!is_healthy && printed.lines().any(is_reported), "{printed}");

    let mut admin = admin(&cluster).await;
    for grant in GRANTS {
        run(&mut admin, format!("GRANT {grant} TO app")).await;
    }
    let (printed, is_healthy) = doctor(dir.path(), &settings).await;
    assert!(is_healthy, "{printed}");
    for server in [Server::Salvo, Server::Hyper] {
        let limited = [&settings[..], &[("RATE_LIMIT_PER_MINUTE", "100")]].concat();
        let app = start(server, &limited).await.expect("a started server");
        every_request_is_served(&app, &cluster).await;

        // A grant is revoked while the server runs.
        run(&mut admin, "REVOKE UPDATE (pending) ON todo_counts FROM app").await;
        // Polled: requests within 100 ms of a check share its result.
        let health = async || app.anonymous().get("/health/db").await;
        assert!(eventually(MAX_WAIT, async || health().await.status == 503).await);
        assert_eq!(health().await.expect(503)["status"], "unhealthy");
        run(&mut admin, "GRANT UPDATE (pending) ON todo_counts TO app").await;
        assert!(eventually(MAX_WAIT, async || health().await.status == 200).await);
        app.stop().await.expect("a clean stop");
    }

    // Each grant is required, and a missing one is named.
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

/// Checks that a statement can wait for a lock for longer than a role's default limits.
///
/// `lock` is run first, in a transaction of `admin`; `waits` sends the statement and returns once
/// it was served. The limits also apply to a connection's first statement, which lifts them: they
/// must be long enough for it on a busy machine.
async fn outlasts_the_limits(
    admin: &mut PgConnection,
    lock: &str,
    waits: impl Future<Output = ()>,
) {
    run(admin, format!("BEGIN; {lock}")).await;
    let release = async {
        let mut is_waiting = false;
        let deadline = Instant::now() + MAX_WAIT;
        while !is_waiting {
            assert!(Instant::now() < deadline, "no statement waits after: {lock}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
            is_waiting = sqlx::query_scalar(waiting).fetch_one(&mut *admin).await.expect("locks");
        }
        tokio::time::sleep(2 * ROLE_LIMIT).await;
        run(admin, "COMMIT").await;
    };
    tokio::join!(release, waits);
}

/// Role defaults: the settings that the design relies on are set on each connection.
#[tokio::test(flavor = "multi_thread")]
async fn role_defaults_are_overridden() {
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
        "statement_timeout = '500ms'",
        "lock_timeout = '500ms'",
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
        let app = start(Server::Hyper, &settings).await.expect(default);
        every_request_is_served(&app, &cluster).await;
        if default.ends_with("'500ms'") {
            let user = app.signed_up().await;
            let todo = user.todo("locked").await;
            let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
            let waits = async {
                user.patch(&path, json!({"title": "changed"})).await.expect(200);
            };
            outlasts_the_limits(&mut admin, "SELECT FROM todos FOR UPDATE", waits).await;
        }
        // A user's concurrent writes contend for its row in `todo_counts`.
        let user = app.signed_up().await;
        let all = side_by_side(12, async |_| {
            user.post(&user.todos(), json!({"title": "new"})).await.status
        });
        assert_eq!(all.await, [201; 12], "{default}");
        let list = user.get(&user.todos()).await.expect(200);
        assert_eq!(list["total"], 12, "{default}");
        let created_at = list["todos"][0]["created_at"].as_str().expect("a time");
        assert!(created_at.ends_with('Z'), "{default}: {created_at}");
        app.stop().await.expect("a clean stop");
        run(&mut admin, "ALTER ROLE app RESET ALL").await;
    }

    // A default that only a superuser can override is refused; a deliberate one is a warning.
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
        let (printed, _) = doctor(dir.path(), &settings[..2]).await;
        let level = if is_refused { "FAIL " } else { "warn " };
        let is_reported = |line: &str| line.starts_with(level) && line.contains(name);
        assert!(printed.lines().any(is_reported), "{default}: {printed}");
        run(&mut admin, "ALTER ROLE app RESET ALL").await;
    }
    run(&mut admin, "ALTER TABLE todos ENABLE ROW LEVEL SECURITY").await;
    let (printed, _) = doctor(dir.path(), &settings[..2]).await;
    assert!(
        printed.lines().any(|l| l.starts_with("warn ") && l.contains("row security")),
        "{printed}"
    );
}

/// A role's default limits do not apply to migrations.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_use_their_own_limits() {
    let cluster = cluster().await;
    let mut admin = admin(&cluster).await;
    run(
        &mut admin,
        "ALTER ROLE app SET statement_timeout = '500ms'; \
         ALTER ROLE app SET lock_timeout = '500ms'; \
         ALTER ROLE app SET default_transaction_isolation = 'serializable'",
    )
    .await;
    let url = app_url(&cluster);
    let mut app = None;
    // Creating a table writes to pg_class.
    outlasts_the_limits(&mut admin, "LOCK TABLE pg_class IN SHARE MODE", async {
        app = Some(start(Server::Salvo, &[("DATABASE_URL", &*url)]).await);
    })
    .await;
    let app = app.expect("an outcome").expect("a started server");
    let form = json!({"email": unique_email(), "password": "Correct1horse", "name": "Ada"});
    let auth = app.anonymous().post("/api/auth/signup", form).await.expect(201);
    let user = Actor::of(&app.anonymous(), &auth, "Correct1horse");
    user.get("/api/auth/me").await.expect(200);
    app.stop().await.expect("a clean stop");
}
