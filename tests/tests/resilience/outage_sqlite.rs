//! SQLite outages: another process holds the file's lock. Writes get a 503 in time, at once after
//! the lock is detected; reads succeed; writes succeed again after the lock is released.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};
use todo_tests::{
    Actor, App, Client, Database, PROGRAMS, Process, Server, Target, at_once, unique_email,
};
use tokio::time::{Instant, sleep};

/// Promised times, and the measurement delay of a client that shares two cores with the server.
const DETECTED_WITHIN: Duration = Duration::from_secs(2);
const FAIL_FAST: Duration = Duration::from_millis(50);
const SLACK: Duration = Duration::from_millis(250);
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

async fn locked_file_scenario(server: Server) {
    let target = Target { server, database: Database::Sqlite };
    // Login attempts are counted in the database, so each starts with a write.
    let settings = [("DATABASE_TIMEOUT_MS", "1800"), ("RATE_LIMIT_PER_MINUTE", "10000")];
    let app = App::start_with(target, &settings).await;
    let user = app.signed_up().await;
    let todo = user.todo("kept").await;
    let path = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
    let mut holder = SqliteConnection::connect(app.database_url()).await.expect("a connection");

    // A wrong status fails at once; times have three attempts, since the machine may be busy.
    let mut late = Vec::new();
    for _ in 0..3 {
        holder.execute("BEGIN EXCLUSIVE").await.expect("a lock");
        let took = async || {
            let began = Instant::now();
            let answer = user.patch(&path, json!({"title": "changed"})).await;
            let took = began.elapsed();
            assert!(answer.header("retry-after").is_some(), "{answer}");
            answer.problem(503, "unavailable");
            took
        };
        let first = took().await;
        let mut known = Vec::new();
        for _ in 0..20 {
            known.push(took().await);
        }
        known.sort();

        let (todos, anonymous) = (user.todos(), app.anonymous());
        let form = json!({"email": unique_email(), "password": "Correct1horse", "name": "Ada"});
        let login = json!({"email": user.email(), "password": user.password()});
        let writes = [
            anonymous.post("/api/auth/signup", form).await,
            anonymous.post("/api/auth/login", login).await,
            user.post(&todos, json!({"title": "new"})).await,
            user.put(&path, json!({"title": "other", "priority": "low"})).await,
            user.patch(&format!("{path}/complete"), json!({"completed": true})).await,
            user.delete(&path).await,
            user.send("POST", "/api/auth/logout", &[], "").await,
        ];
        for answer in writes {
            answer.problem(503, "unavailable");
        }
        for path in [&*todos, &path, "/api/auth/me", "/health", "/health/db"] {
            user.get(path).await.expect(200);
        }
        // Concurrent writes queue, but no longer than promised.
        let many = at_once(32, |_| {
            let (user, todos) = (user.clone(), user.todos());
            async move {
                let began = Instant::now();
                user.post(&todos, json!({"title": "new"})).await.problem(503, "unavailable");
                began.elapsed()
            }
        });
        let slowest = many.await.into_iter().max().expect("a time");

        holder.execute("ROLLBACK").await.expect("a released lock");
        let freed = Instant::now();
        loop {
            let answer = user.patch(&path, json!({"title": "changed"})).await;
            match answer.status {
                200 => break,
                503 => assert!(freed.elapsed() < RECOVERED_WITHIN * 10, "not recovered: {answer}"),
                _ => panic!("{answer}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
        let back = freed.elapsed();
        let list = user.get(&user.todos()).await.expect(200);
        assert_eq!(list["total"], 1, "a write that was answered with 503 took effect");

        // After recovery, a write waits for a briefly held lock.
        holder.execute("BEGIN EXCLUSIVE").await.expect("a lock");
        let moment = async {
            sleep(Duration::from_millis(300)).await;
            holder.execute("ROLLBACK").await.expect("a released lock");
        };
        let (answer, ()) = tokio::join!(user.patch(&path, json!({"title": "waited"})), moment);
        answer.expect(200);

        let median = known[known.len() / 2];
        let in_time = first <= DETECTED_WITHIN + SLACK
            && slowest <= DETECTED_WITHIN + SLACK
            && median <= FAIL_FAST
            && back <= RECOVERED_WITHIN + SLACK;
        if in_time {
            app.stop().await.expect("a clean stop");
            return;
        }
        late.push((first, median, slowest, back));
    }
    panic!("too late: first, median after detection, slowest of many, recovery: {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_locked_by_another_process_still_serves_reads_salvo() {
    locked_file_scenario(Server::Salvo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_locked_by_another_process_still_serves_reads_hyper() {
    locked_file_scenario(Server::Hyper).await;
}

/// Concurrent writes fail while another process holds the file's lock: the log names the lock.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_lock_on_a_locked_file() {
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        let settings = [
            ("DATABASE_URL", &*url),
            ("DATABASE_TIMEOUT_MS", "400"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
        ];
        let server = Process::start(program, dir.path(), &settings).await;
        let user = Actor::sign_up(&Client::of(server.addr)).await;
        let mut holder = SqliteConnection::connect(&url).await.expect("a connection");
        holder.execute("BEGIN EXCLUSIVE").await.expect("a lock");
        for _ in 0..3 {
            let answers = at_once(16, |_| {
                let user = user.clone();
                async move { user.post(&user.todos(), json!({"title": "new"})).await }
            });
            for answer in answers.await {
                answer.problem(503, "unavailable");
            }
        }
        holder.execute("ROLLBACK").await.expect("a released lock");
        let log = server.stop().await;
        assert!(log.contains("holds the database file's lock"), "{program}: {log}");
        assert!(!log.contains("was closed"), "{program}: {log}");
    }
}
