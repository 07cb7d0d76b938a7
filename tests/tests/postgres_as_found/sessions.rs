//! Connections that are there and can only fail, and fewer of them than the pool wants.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use todo_tests::{
    Actor, App, Client, Forwarder, PROGRAMS, Process, Server, comes_true, fresh_email,
    postgres::Cluster,
};
use tokio::time::{Instant, sleep};

use super::{admin, app_url, cluster, side_by_side, start};

/// Longer than an idle connection is trusted without being asked.
const IDLE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

/// How many connections the application has.
async fn held(admin: &mut PgConnection) -> usize {
    let held = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(admin).await.expect("a count");
    usize::try_from(held).expect("a count")
}

/// A server whose pool holds `size` connections, all of them idle.
async fn with_idle(server: Server, cluster: &Cluster, url: &str, size: usize) -> App {
    let size_text = size.to_string();
    let settings = [
        ("DATABASE_URL", url),
        ("DATABASE_POOL_MIN", &size_text),
        ("DATABASE_POOL_MAX", &size_text),
        ("DATABASE_TIMEOUT_MS", "1800"),
    ];
    let app = start(server, &settings).await.expect("it serves");
    let mut admin = admin(cluster).await;
    assert!(comes_true(PATIENCE, async || held(&mut admin).await == size).await, "never filled");
    app
}

/// However many connections have fallen silent, one probe over a new connection is all that
/// requests wait for.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_cost_one_pause_however_many_they_are() {
    const SIZE: usize = 40;
    for server in [Server::Salvo, Server::Hyper] {
        let cluster = cluster().await;
        let port = cluster.port().expect("a cluster of its own");
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
            assert!(began.elapsed() < PATIENCE, "{refused} refused");
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

/// The server has closed idle connections: that costs nobody an answer, reads or writes.
#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_cost_no_answer() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    for server in [Server::Salvo, Server::Hyper] {
        let app = with_idle(server, &cluster, &app_url(&cluster), SIZE).await;
        let user = app.signed_up().await;
        let mut admin = admin(&cluster).await;
        for turn in 0..4 {
            side_by_side(SIZE, async |_| user.get("/api/auth/me").await.expect(200)).await;
            let end =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
            admin.execute(end).await.expect("they end");
            sleep(IDLE).await;
            if turn % 2 == 0 {
                user.get("/api/auth/me").await.expect(200);
            } else {
                user.post(&user.todos(), json!({"title": "new"})).await.expect(201);
            }
        }
        app.stop().await.expect("a clean stop");
    }
}

/// A read whose connection is closed while it runs has an answer: it runs once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_ends_runs_once_more() {
    let cluster = cluster().await;
    let app = with_idle(Server::Hyper, &cluster, &app_url(&cluster), 4).await;
    let user = app.signed_up().await;
    let todo = user.todo("kept").await;
    let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
    let mut lock = admin(&cluster).await;
    lock.execute("BEGIN; LOCK TABLE todos").await.expect("the table is locked");
    let read = tokio::spawn({
        let (user, path) = (user.clone(), path.clone());
        async move { user.get(&path).await }
    });
    let mut admin = admin(&cluster).await;
    let waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' \
                   AND wait_event_type = 'Lock'";
    let mut pid: Option<i32> = None;
    let found = comes_true(PATIENCE, async || {
        pid = sqlx::query_scalar(waiting).fetch_optional(&mut admin).await.expect("activity");
        pid.is_some()
    });
    assert!(found.await, "nobody waits");
    let end = "SELECT pg_terminate_backend($1)";
    sqlx::query(end).bind(pid.expect("one")).execute(&mut admin).await.expect("it ends");
    lock.execute("ROLLBACK").await.expect("the table is free");
    read.await.expect("an answer").expect(200);
    app.stop().await.expect("a clean stop");
}

/// The type of a column changes under a running server: plans that were kept are refused (0A000).
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_column_type_costs_no_answer() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    for server in [Server::Salvo, Server::Hyper] {
        let app = with_idle(server, &cluster, &app_url(&cluster), SIZE).await;
        let user = app.signed_up().await;
        let todo = user.todo("kept").await;
        let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
        // Prepared on each connection.
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
        admin
            .execute("ALTER TABLE todos ALTER description TYPE varchar(1000)")
            .await
            .expect("a type");
        work().await;
        admin.execute("ALTER TABLE todos ALTER description TYPE text").await.expect("a type");
        work().await;
        app.stop().await.expect("a clean stop");
    }
}

/// A session that can only fail is given up at its first error; a statement that never ran, runs
/// once more. The errors are raised by a trigger, on the sessions that were there before.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_session_ends_the_session() {
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
    // What provably had no effect has an answer at once; what else is of the session costs one.
    for (code, costs) in [("26000", 0), ("42P05", 0), ("25P02", 0), ("25006", 0), ("XX000", 1)] {
        // Old enough for a refusal to write to be the session's own.
        sleep(Duration::from_millis(1100)).await;
        let filled = comes_true(PATIENCE, async || {
            user.get("/api/auth/me").await.expect(200);
            held(&mut admin).await > 0
        });
        assert!(filled.await);
        admin.execute("TRUNCATE cursed").await.expect("none");
        let curse = format!("INSERT INTO cursed SELECT pid, '{code}' FROM ({pids}) AS app");
        let cursed = admin.execute(AssertSqlSafe(curse)).await.expect("some").rows_affected();
        assert!(cursed > 0, "no session");
        let mut failed = 0;
        while failed <= SIZE && write().await != 201 {
            failed += 1;
        }
        // One for each session that was there, at the most.
        let most = costs * usize::try_from(cursed).expect("a few");
        assert!(failed <= most && failed >= costs, "{code}: {failed} failed, {cursed} cursed");
    }
    // An error of the statement leaves its session alone.
    admin.execute("TRUNCATE cursed").await.expect("none");
    assert_eq!(write().await, 201);
    let before: Vec<i32> = sqlx::query_scalar(pids).fetch_all(&mut admin).await.expect("pids");
    let curse = format!("INSERT INTO cursed SELECT pid, '22012' FROM ({pids}) AS app");
    admin.execute(AssertSqlSafe(curse)).await.expect("some");
    for _ in 0..3 {
        assert_eq!(write().await, 500);
    }
    let after: Vec<i32> = sqlx::query_scalar(pids).fetch_all(&mut admin).await.expect("pids");
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} are now {after:?}");
    app.stop().await.expect("a clean stop");
}

/// Sessions that began read-only write again as soon as their database does.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_began_read_only_are_given_up() {
    const SIZE: usize = 6;
    let cluster = cluster().await;
    let app = with_idle(Server::Salvo, &cluster, &app_url(&cluster), SIZE).await;
    let user = app.signed_up().await;
    let mut admin = admin(&cluster).await;
    let set = "ALTER ROLE app SET default_transaction_read_only = on";
    admin.execute(set).await.expect("it is set");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    admin.execute(end).await.expect("they end");
    sleep(IDLE).await;
    // Each session anew, and read-only; reads are served.
    let me = async || side_by_side(SIZE, async |_| user.get("/api/auth/me").await.status).await;
    assert_eq!(me().await, [200; SIZE]);
    let write = async || user.post(&user.todos(), json!({"title": "new"})).await.status;
    for _ in 0..5 {
        assert_eq!(write().await, 503);
        assert_eq!(me().await, [200; SIZE]);
    }
    admin.execute("ALTER ROLE app RESET default_transaction_read_only").await.expect("it is set");
    sleep(Duration::from_millis(1100)).await;
    let all = side_by_side(SIZE * 2, async |_| write().await).await;
    assert_eq!(all, [201; SIZE * 2]);
    app.stop().await.expect("a clean stop");
}

/// Fewer connections than the pool wants: requests wait for one that comes back, and the limit is
/// forgotten once it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_not_away() {
    let cluster = cluster().await;
    let mut admin = admin(&cluster).await;
    for (program, limit) in [(PROGRAMS[0], 2), (PROGRAMS[1], 8), (PROGRAMS[1], 3)] {
        let to = async |admin: &mut PgConnection, n: i32| {
            let set = format!("ALTER ROLE app CONNECTION LIMIT {n}");
            admin.execute(AssertSqlSafe(set)).await.expect("it is set");
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
            let form = json!({"email": fresh_email(), "password": "Correct1horse", "name": "Ada"});
            let auth = client.post("/api/auth/signup", form).await.expect(201);
            users.push(Actor::of(&client, &auth, "Correct1horse"));
        }
        let work = async || {
            side_by_side(16, async |n| {
                let mut refused = 0;
                for turn in 0..5 {
                    let user = &users[n % users.len()];
                    let answer = match turn % 2 {
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
            assert_eq!(work().await, 0, "{program}, {limit}: refused");
            let metrics = client.get("/metrics").await.text();
            assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
        }
        assert!(held(&mut admin).await <= usize::try_from(limit).expect("a few"));
        let said = process.said();
        let lines = said.lines().filter(|line| line.contains("refuses further connections"));
        assert_eq!(lines.count(), 1, "{said}");
        to(&mut admin, -1).await;
        let limit = usize::try_from(limit).expect("a few");
        let grows = comes_true(PATIENCE, async || {
            assert_eq!(work().await, 0, "{program}, {limit}: refused");
            held(&mut admin).await > limit
        });
        assert!(grows.await, "{program}: still no more than {limit}");
        process.stop().await;
    }
}
