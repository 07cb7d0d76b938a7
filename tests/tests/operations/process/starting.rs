//! A server starts without settings, and again with its files and accounts, also when several
//! servers start at once.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use todo_tests::{
    PROGRAMS, Process, SECRET, STARTING, at_once, built, empty_dir, eventually, lease,
    startup_error,
};

use super::{account, call, files, is_database, me_status, sign_up};

#[tokio::test]
async fn no_setting_is_required_and_a_restart_keeps_everything() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let first = Process::start(program, dir.path(), &[]).await;
        assert!(first.addr.ip().is_loopback(), "{program} listens on {}", first.addr);
        let token = sign_up(first.addr, "ann@example.com").await;
        let files = files(dir.path());
        assert!(files.contains_key("todo.db"), "{program}: {files:?}");
        let secrets: Vec<_> = files.iter().filter(|(name, _)| !is_database(name)).collect();
        let [(secret, (mode, size))] = secrets[..] else { panic!("{program}: {files:?}") };
        assert_eq!(*mode, 0o600, "{program}: the mode of {secret}");
        assert!(*size >= 32, "{program}: {secret} has {size} bytes");
        let log = first.stop().await;
        for private in [token.as_str(), "Correct1horse"] {
            assert!(!log.contains(private), "{program} logs {private}: {log}");
        }

        let second = Process::start(program, dir.path(), &[]).await;
        assert_eq!(
            me_status(second.addr, &token).await,
            200,
            "{program}: the token is still valid"
        );
        let (status, _) =
            call(second.addr, "POST", "/api/auth/signup", "", account("ANN@example.com")).await;
        assert_eq!(status, 409, "{program}: the account is still there");
        second.stop().await;
    }
}

#[tokio::test]
async fn the_two_programs_share_a_database_and_a_secret() {
    let dir = empty_dir();
    let one = Process::start(PROGRAMS[0], dir.path(), &[]).await;
    let other = Process::start(PROGRAMS[1], dir.path(), &[]).await;
    let token = sign_up(one.addr, "ann@example.com").await;
    assert_eq!(me_status(other.addr, &token).await, 200);
    let (status, _) = call(other.addr, "POST", "/api/auth/logout", &token, Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(me_status(one.addr, &token).await, 401, "logged out everywhere at once");
    one.stop().await;
    other.stop().await;
}

/// At startup, not only after some time: a process may never run that long.
#[tokio::test]
async fn a_server_deletes_expired_sessions() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::start(program, dir.path(), &[]).await;
        let kept = sign_up(process.addr, "kept@example.com").await;
        sign_up(process.addr, "expired@example.com").await;
        process.stop().await;
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        let mut db = SqliteConnection::connect(&url).await.expect("the file");
        db.execute(
            "UPDATE sessions SET expires_at = created_at + 1 WHERE user_id = \
             (SELECT id FROM users WHERE email = 'expired@example.com')",
        )
        .await
        .expect("an expired session");
        let process = Process::start(program, dir.path(), &[]).await;
        let is_left = async || {
            let count = sqlx::query_scalar("SELECT count(*) FROM sessions");
            let left: i64 = count.fetch_one(&mut db).await.expect("a count");
            left == 1
        };
        // The job is due a minute after the first process has run it, and is then looked for within
        // 15 seconds.
        assert!(
            eventually(STARTING + Duration::from_secs(30), is_left).await,
            "{program} did not delete the expired session"
        );
        assert_eq!(me_status(process.addr, &kept).await, 200, "{program}");
        process.stop().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let first = Process::start(program, dir.path(), &[]).await;
        let port = first.addr.port().to_string();
        let log = startup_error(program, dir.path(), &[("PORT", &port)]).await;
        assert!(log.contains(&port), "{program}: {log}");
        assert_eq!(me_status(first.addr, "none").await, 401, "the first process still serves");
        first.stop().await;
    }
}

/// Starts six processes at once, three of each program, and checks that one's session is valid in
/// all of them.
async fn start_six_at_once(dir: &Path, settings: &[(&'static str, String)]) {
    let (dir, settings) = (dir.to_owned(), settings.to_vec());
    let processes = at_once(6, |number| {
        let (dir, settings) = (dir.clone(), settings.clone());
        async move {
            let settings: Vec<_> =
                settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Process::start(PROGRAMS[number % 2], &dir, &settings).await
        }
    })
    .await;
    let token = sign_up(processes[0].addr, "ann@example.com").await;
    for process in &processes {
        assert_eq!(me_status(process.addr, &token).await, 200, "one database, one secret");
    }
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_starts_at_once_on_a_new_file_all_succeed() {
    // Builds before the race starts.
    built(PROGRAMS[0]);
    let dir = empty_dir();
    start_six_at_once(dir.path(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_starts_at_once_on_a_new_postgres_database_all_succeed() {
    built(PROGRAMS[0]);
    let leased = tokio::task::spawn_blocking(lease::postgres).await.expect("PostgreSQL");
    let dir = empty_dir();
    // As random as the name of the directory.
    let random = dir.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = format!("todo_race_{}", random.trim_start_matches('.'));
    let mut url = url::Url::parse(&leased.url).expect("PostgreSQL has a URL");
    url.set_path(&name);
    execute_as_admin(&leased.url, format!("CREATE DATABASE {name}")).await;

    let settings = [
        ("DATABASE_URL", url.to_string()),
        ("SECRET_KEY", SECRET.to_owned()),
        ("DATABASE_POOL_MIN", "0".to_owned()),
    ];
    let racing = dir.path().to_owned();
    let raced = tokio::spawn(async move { start_six_at_once(&racing, &settings).await }).await;
    execute_as_admin(&leased.url, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    raced.expect("all six start, work and stop");
    assert_eq!(files(dir.path()), BTreeMap::new(), "no files are created for a remote database");
}

async fn execute_as_admin(url: &str, statement: String) {
    let mut connection = PgConnection::connect(url).await.expect("the maintenance database");
    connection.execute(AssertSqlSafe(statement.clone())).await.expect(&statement);
}
