//! Open connections that can only fail, and fewer connections than the pool's size.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use todo_tests::{
    Actor, App, Client, Forwarder, PROGRAMS, Process, Server, eventually, postgres::Cluster,
    unique_email,
};
use tokio::time::{Instant, sleep};

use super::{admin, app_url, cluster, side_by_side, start};

/// Longer than an idle connection is used without a check.
const IDLE: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Number of the application's open connections.
async fn connection_count(admin: &mut PgConnection) -> usize {
    let held = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(admin).await.expect("a count");
    usize::try_from(held).expect("a count")
}

/// A server with a pool of `size` connections, all of them idle.
async fn with_idle(server: Server, cluster: &Cluster, url: &str, size: usize) -> App {
    let size_text = size.to_string();
    let settings = [
        ("DATABASE_URL", url),
        ("DATABASE_POOL_MIN", &size_text),
        ("DATABASE_POOL_MAX", &size_text),
        ("DATABASE_TIMEOUT_MS", "1800"),
    ];
    let app = start(server, &settings).await.expect("a started server");
    let mut admin = admin(cluster).await;
    assert!(
        eventually(MAX_WAIT, async || connection_count(&mut admin).await == size).await,
        "the pool never filled up"
    );
    app
}

/// However many connections are silent, requests wait for a single probe over a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_silent_connections_costs_one_probe() {
    const SIZE: usize = 40;
    for server in [Server::Salvo, Server::Hyper] {
        let cluster = cluster().await;
        let port = cluster.port().expect("a dedicated cluster");
        let forwarder = Forwarder::to(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let (there, here) = (port.to_string(), forwarder.addr().port().to_string());
        let url = app_url(&cluster).replace(&there, &here);
        let app = with_idle(server, &cluster, &url, SIZE).await;
        let user = app.signed_up().await;
        sleep(IDLE).await;
        forwarder.silence();
        let began = Instant::now();
        let mut refused = 0;
        loop {
            let answer = user.get("/api/auth/me").await;
            match answer.status {
                200 => break,
                503 => refused += 1,
                _ => panic!("{answer}"),
            }
            assert!(began.elapsed() < MAX_WAIT, "{refused} refused");
        }
        let all = side_by_side(SIZE, async |n| match n % 2 {
            0 => user.get("/api/auth/me").await.status,
            _ => user.post(&user.todos(), json!({"title": "new"})).await.status - 1,
        });
        assert_eq!(all.await, [200; SIZE]);
        let took = began.elapsed();
        println!("{server:?}: {refused} refused, back after {took:?}");
        assert!(refused <= 1 && took < Duration::from_secs(4), "{refused} refused in {took:?}");
        app.stop().await.expect("a clean stop");
    }
}

/// Connections closed by PostgreSQL while idle fail neither a read nor a write.
#[tokio::test(flavor = "multi_thread")]
async fn closed_idle_connections_fail_no_request() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    for server in [Server::Salvo, Server::Hyper] {
        let app = with_idle(server, &cluster, &app_url(&cluster), SIZE).await;
        let user = app.signed_up().await;
        let mut admin = admin(&cluster).await;
        for round in 0..4 {
            side_by_side(SIZE, async |_| user.get("/api/auth/me").await.expect(200)).await;
            let end =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
            admin.execute(end).await.expect("closed connections");
            sleep(IDLE).await;
            if round % 2 == 0 {
                user.get("/api/auth/me").await.expect(200);
            } else {
                user.post(&user.todos(), json!({"title": "new"})).await.expect(201);
            }
        }
        app.stop().await.expect("a clean stop");
    }
}

/// A read whose connection is closed while it runs is retried and succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_a_closed_connection_is_retried_once() {
    let cluster = cluster().await;
    let app = with_idle(Server::Hyper, &cluster, &app_url(&cluster), 4).await;
    let user = app.signed_up().await;
    let todo = user.todo("kept").await;
    let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
    let mut lock = admin(&cluster).await;
    lock.execute("BEGIN; LOCK TABLE todos").await.expect("a lock");
    let read = tokio::spawn({
        let (user, path) = (user.clone(), path.clone());
        async move { user.get(&path).await }
    });
    let mut admin = admin(&cluster).await;
    let waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' \
                   AND wait_event_type = 'Lock'";
    let mut pid: Option<i32> = None;
    let found = eventually(MAX_WAIT, async || {
        pid = sqlx::query_scalar(waiting).fetch_optional(&mut admin).await.expect("activity");
        pid.is_some()
    });
    assert!(found.await, "no session waits");
    let end = "SELECT pg_terminate_backend($1)";
    sqlx::query(end).bind(pid.expect("a pid")).execute(&mut admin).await.expect("a closed session");
    lock.execute("ROLLBACK").await.expect("a released lock");
    read.await.expect("a response").expect(200);
    app.stop().await.expect("a clean stop");
}

/// A column's type changes while the server runs: PostgreSQL rejects cached plans (0A000).
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_column_type_fails_no_request() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    for server in [Server::Salvo, Server::Hyper] {
        let app = with_idle(server, &cluster, &app_url(&cluster), SIZE).await;
        let user = app.signed_up().await;
        let todo = user.todo("kept").await;
        let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
        // Prepares the statements on each connection.
        let work = async || {
            for _ in 0..4 {
                let all = side_by_side(SIZE, async |n| match n % 2 {
                    0 => user.get(&path).await.status,
                    _ => user.patch(&path, json!({"title": "changed"})).await.status,
                });
                assert_eq!(all.await, [200; SIZE]);
            }
        };
        work().await;
        let mut admin = admin(&cluster).await;
        // PostgreSQL refuses a new type of a column that a view or a trigger names.
        let definitions = "SELECT format('CREATE VIEW keyed_todos AS %s', \
                pg_get_viewdef(CAST('keyed_todos' AS regclass))) \
                || string_agg(pg_get_triggerdef(oid), ';') || '; GRANT ALL ON keyed_todos TO app' \
            FROM pg_trigger WHERE tgname IN ('keyed_todos_insert', 'todos_updated', 'todos_unfold')";
        let recreate: String =
            sqlx::query_scalar(definitions).fetch_one(&mut admin).await.expect("definitions");
        let alter = "BEGIN; DROP VIEW IF EXISTS keyed_todos; \
                     DROP TRIGGER IF EXISTS todos_updated ON todos; \
                     DROP TRIGGER IF EXISTS todos_unfold ON todos; \
                     ALTER TABLE todos ALTER description TYPE varchar(1000); COMMIT";
        admin.execute(alter).await.expect("a type");
        work().await;
        admin.execute("ALTER TABLE todos ALTER description TYPE text").await.expect("a type");
        work().await;
        admin.execute(AssertSqlSafe(recreate)).await.expect("the view and the triggers");
        app.stop().await.expect("a clean stop");
    }
}

/// A broken session is closed at its first error; a statement that had no effect is retried. A
/// trigger raises the errors, in sessions that existed before.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_error_closes_the_session() {
    const SIZE: usize = 4;
    let cluster = cluster().await;
    let app = with_idle(Server::Hyper, &cluster, &app_url(&cluster), SIZE).await;
    let user = app.signed_up().await;
    let mut admin = admin(&cluster).await;
    admin
        .execute(
            "CREATE TABLE cursed (pid int, code text); GRANT SELECT ON cursed TO PUBLIC; \
             CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$ \
             DECLARE found text := (SELECT code FROM cursed WHERE pid = pg_backend_pid()); \
             BEGIN \
                 IF found IS NOT NULL THEN RAISE EXCEPTION 'cursed' USING ERRCODE = found; END IF; \
                 RETURN NEW; \
             END $$; \
             CREATE TRIGGER curse BEFORE INSERT ON todos FOR EACH ROW EXECUTE FUNCTION curse()",
        )
        .await
        .expect("a trigger");
    let pids = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'";
    let write = async || user.post(&user.todos(), json!({"title": "new"})).await.status;
    // An error that proves the statement had no effect costs no request; another session error
    // costs one.
    for (code, costs) in [("26000", 0), ("42P05", 0), ("25P02", 0), ("25006", 0), ("XX000", 1)] {
        // Of this age, a read-only error is attributed to the session, not to the database.
        let are_old = "SELECT coalesce(bool_and(backend_start < now() - interval '1.1 s'), false) \
                       FROM pg_stat_activity WHERE usename = 'app'";
        let are_old = eventually(MAX_WAIT, async || {
            user.get("/api/auth/me").await.expect(200);
            sqlx::query_scalar::<_, bool>(are_old).fetch_one(&mut admin).await.expect("ages")
        });
        assert!(are_old.await, "no session of this age");
        admin.execute("TRUNCATE cursed").await.expect("a truncate");
        let curse = format!("INSERT INTO cursed SELECT pid, '{code}' FROM ({pids}) AS app");
        let cursed = admin.execute(AssertSqlSafe(curse)).await.expect("an insert").rows_affected();
        let mut failed = 0;
        while failed <= SIZE && write().await != 201 {
            failed += 1;
        }
        // At most one failure for each session that existed before.
        let most = costs * usize::try_from(cursed).expect("a few");
        assert!(failed <= most && failed >= costs, "{code}: {failed} failed, {cursed} cursed");
    }
    // A statement's error does not close its session.
    admin.execute("TRUNCATE cursed").await.expect("a truncate");
    assert_eq!(write().await, 201);
    let before: Vec<i32> = sqlx::query_scalar(pids).fetch_all(&mut admin).await.expect("pids");
    let curse = format!("INSERT INTO cursed SELECT pid, '22012' FROM ({pids}) AS app");
    admin.execute(AssertSqlSafe(curse)).await.expect("an insert");
    for _ in 0..3 {
        assert_eq!(write().await, 500);
    }
    let after: Vec<i32> = sqlx::query_scalar(pids).fetch_all(&mut admin).await.expect("pids");
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} are now {after:?}");
    app.stop().await.expect("a clean stop");
}

/// Sessions that began read-only are replaced, so writes work as soon as the database allows them.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_began_read_only_are_closed() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    let app = with_idle(Server::Salvo, &cluster, &app_url(&cluster), SIZE).await;
    let user = app.signed_up().await;
    let mut admin = admin(&cluster).await;
    let set = "ALTER ROLE app SET default_transaction_read_only = on";
    admin.execute(set).await.expect("a changed setting");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    admin.execute(end).await.expect("closed connections");
    sleep(IDLE).await;
    // Each session is new and read-only; reads are served.
    let me = async || side_by_side(SIZE, async |_| user.get("/api/auth/me").await.status).await;
    assert_eq!(me().await, [200; SIZE]);
    let write = async || user.post(&user.todos(), json!({"title": "new"})).await.status;
    for _ in 0..5 {
        assert_eq!(write().await, 503);
        assert_eq!(me().await, [200; SIZE]);
    }
    admin
        .execute("ALTER ROLE app RESET default_transaction_read_only")
        .await
        .expect("a changed setting");
    sleep(Duration::from_millis(1100)).await;
    let all = side_by_side(SIZE * 2, async |_| write().await).await;
    assert_eq!(all, [201; SIZE * 2]);
    app.stop().await.expect("a clean stop");
}

/// A connection limit below the pool's size: requests wait for a free connection, and the pool
/// grows once the limit is lifted.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_its_connection_limit_is_not_an_outage() {
    let cluster = cluster().await;
    let mut admin = admin(&cluster).await;
    for (program, limit) in [(PROGRAMS[0], 2), (PROGRAMS[1], 8), (PROGRAMS[1], 3)] {
        let to = async |admin: &mut PgConnection, n: i32| {
            let set = format!("ALTER ROLE app CONNECTION LIMIT {n}");
            admin.execute(AssertSqlSafe(set)).await.expect("a changed setting");
        };
        to(&mut admin, limit).await;
        let dir = tempfile::tempdir().expect("a directory");
        let url = app_url(&cluster);
        let settings = [
            ("DATABASE_URL", &*url),
            ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("DATABASE_STARTUP_SECONDS", "20"),
        ];
        let process = Process::start(program, dir.path(), &settings).await;
        let client = Client::of(process.addr);
        let mut users = Vec::new();
        for _ in 0..4 {
            let form = json!({"email": unique_email(), "password": "Correct1horse", "name": "Ada"});
            let auth = client.post("/api/auth/signup", form).await.expect(201);
            users.push(Actor::of(&client, &auth, "Correct1horse"));
        }
        let work = async || {
            side_by_side(16, async |n| {
                let mut refused = 0;
                for round in 0..5 {
                    let user = &users[n % users.len()];
                    let answer = match round % 2 {
                        0 => user.get(&user.todos()).await,
                        _ => user.post(&user.todos(), json!({"title": "new"})).await,
                    };
                    assert!([200, 201, 503].contains(&answer.status), "{answer}");
                    refused += usize::from(answer.status == 503);
                }
                refused
            })
            .await
            .into_iter()
            .sum::<usize>()
        };
        for _ in 0..3 {
            assert_eq!(work().await, 0, "{program}, {limit}: some requests were refused");
            let metrics = client.get("/metrics").await.text();
            assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
        }
        assert!(connection_count(&mut admin).await <= usize::try_from(limit).expect("a few"));
        let log = process.output();
        let lines = log.lines().filter(|line| line.contains("refuses further connections"));
        assert_eq!(lines.count(), 1, "{log}");
        to(&mut admin, -1).await;
        let limit = usize::try_from(limit).expect("a few");
        // The pause between two attempts is up to a minute: it doubles while the rounds above run.
        let grows = eventually(Duration::from_secs(90), async || {
            assert_eq!(work().await, 0, "{program}, {limit}: some requests were refused");
            connection_count(&mut admin).await > limit
        });
        assert!(grows.await, "{program}: still no more than {limit}");
        process.stop().await;
    }
}
