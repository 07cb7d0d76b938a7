//! Both programs as processes: the files and settings of a start, the errors for bad settings, and
//! a stop that is prompt and loses nothing. Other suites test the responses.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use todo_tests::{
    PROGRAMS, Process, SECRET, STARTING, STOPPING, at_once, built, command, empty_dir, eventually,
    lease, raw, startup_error,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::{Instant, timeout},
};

const SIGNALS: [&str; 2] = ["TERM", "INT"];

/// Sends one request on its own connection.
async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: Value,
) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len(),
    );
    parse_response(&raw(addr, request.as_bytes()).await)
}

fn parse_response(bytes: &[u8]) -> (u16, Value) {
    let text = String::from_utf8_lossy(bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a response: {text:?}"));
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn account(email: &str) -> Value {
    json!({"email": email, "password": "Correct1horse", "name": "Some Body"})
}

/// Signs up a user and returns the token.
async fn sign_up(addr: SocketAddr, email: &str) -> String {
    let (status, auth) = call(addr, "POST", "/api/auth/signup", "", account(email)).await;
    assert_eq!(status, 201, "{auth}");
    auth["token"].as_str().expect("a token").to_owned()
}

async fn me_status(addr: SocketAddr, token: &str) -> u16 {
    call(addr, "GET", "/api/auth/me", token, Value::Null).await.0
}

/// Runs a program with a file size limit of `blocks` KiB, which acts like a full disk.
fn on_a_small_disk(program: &str, dir: &Path, blocks: u32) -> Command {
    let mut command = command("bash", dir, &[]);
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\"");
    command.args(["-c", &script]).arg(built(program));
    command
}

/// The files of a directory with their modes and sizes.
fn files(dir: &Path) -> BTreeMap<String, (u32, u64)> {
    let entries = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry"));
    let file = |entry: fs::DirEntry| {
        let about = entry.metadata().expect("a file");
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, (about.permissions().mode() & 0o777, about.len()))
    };
    entries.map(file).collect()
}

/// Whether the file belongs to the database, not to the secret.
fn is_database(name: &str) -> bool {
    ["todo.db", "todo.db-wal", "todo.db-shm", "todo.db-journal", "todo.db.lock"].contains(&name)
}

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

#[tokio::test]
async fn a_bad_setting_is_named_in_one_line_with_what_is_allowed() {
    let dir = empty_dir();
    for program in PROGRAMS {
        for (name, value, allowed) in [
            ("PORT", "http", "65535"),
            ("PORT", "65536", "65535"),
            ("PORT", "-1", "65535"),
            ("HOST", "not a host", ""),
            ("DATABASE_URL", "mysql://localhost/todo", "postgres"),
            ("DATABASE_URL", "todo.db", "sqlite"),
            ("SECRET_KEY", "short", "32"),
            ("SECRET_KEY_PREVIOUS", "short", "32"),
            ("ALGORITHM", "none", "HS256"),
            ("ALGORITHM", "RS256", "HS256"),
            ("ACCESS_TOKEN_EXPIRE_DAYS", "0", "1"),
            ("ACCESS_TOKEN_EXPIRE_DAYS", "week", "1"),
            ("ALLOWED_ORIGINS", "example.com", "http"),
            ("ALLOWED_ORIGINS", "https://app.example/path", ""),
            ("RATE_LIMIT_PER_MINUTE", "-1", "0"),
            ("RATE_LIMIT_PER_MINUTE", "5/minute", "0"),
            ("PUBLIC_URL", "todo.example.org", "https://example.com/todo"),
            ("PUBLIC_URL", "https://todo.example.org/?x", "https://example.com/todo"),
            ("TRUSTED_PROXIES", "10.0.0.0/33", ""),
            ("TRUSTED_PROXIES", "the proxy", ""),
            ("ENVIRONMENT", "prod", "production"),
            ("DEBUG", "maybe", "true"),
            ("LOG_LEVEL", "loud", "info"),
            ("API_V1_PREFIX", "api", "/"),
            ("DATABASE_POOL_MAX", "0", "1"),
            ("DATABASE_POOL_MIN", "-1", "0"),
            ("DATABASE_POOL_MIN", "many", "0"),
            ("REQUEST_TIMEOUT_SECONDS", "0", "1"),
            ("MAX_BODY_BYTES", "64K", ""),
        ] {
            let log = startup_error(program, dir.path(), &[(name, value)]).await;
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let [line] = lines[..] else { panic!("{program} {name}={value}: {log}") };
            assert!(line.contains(name), "{program} {name}={value}: {line}");
            assert!(line.contains(allowed), "{program} {name}={value}: {line}");
        }
        let pool = [("DATABASE_POOL_MIN", "9"), ("DATABASE_POOL_MAX", "3")];
        let log = startup_error(program, dir.path(), &pool).await;
        assert!(log.contains("DATABASE_POOL_M"), "{program}: {log}");
    }
    assert_eq!(files(dir.path()), BTreeMap::new(), "a refused start creates no files");
}

#[tokio::test]
async fn all_bad_settings_are_named_together() {
    let dir = empty_dir();
    let bad =
        [("PORT", "x"), ("ENVIRONMENT", "prod"), ("ALGORITHM", "none"), ("LOG_LEVEL", "loud")];
    for program in PROGRAMS {
        let log = startup_error(program, dir.path(), &bad).await;
        for (name, _) in bad {
            assert!(log.contains(name), "{program}: {name} in {log}");
        }
    }
}

#[tokio::test]
async fn a_settings_error_contains_no_secret() {
    let dir = empty_dir();
    for program in PROGRAMS {
        for (name, value) in [
            ("SECRET_KEY", "hunter2"),
            ("SECRET_KEY_PREVIOUS", "hunter2"),
            ("DATABASE_URL", "mysql://ann:hunter2@localhost/todo"),
            ("DATABASE_URL", "postgres://ann:hunter2@local host/todo"),
            ("DATABASE_URL", "postgres://ann:hunter2@127.0.0.1:99999/todo"),
            // No server listens on port 1.
            ("DATABASE_URL", "postgres://ann:hunter2@127.0.0.1:1/todo"),
        ] {
            // A start that waits for the database logs nothing else.
            const AT_ONCE: (&str, &str) = ("DATABASE_STARTUP_SECONDS", "0");
            let log = startup_error(program, dir.path(), &[(name, value), AT_ONCE]).await;
            assert!(!log.trim().is_empty(), "{program} {name}={value} prints nothing");
            assert!(!log.contains("hunter2"), "{program}: {log}");
        }
    }
}

#[tokio::test]
async fn production_requires_its_own_secret() {
    let dir = empty_dir();
    let base = [("ENVIRONMENT", "production"), ("ALLOWED_ORIGINS", "https://app.example")];
    for program in PROGRAMS {
        let log = startup_error(program, dir.path(), &base).await;
        assert!(log.contains("SECRET_KEY"), "{program}: {log}");
        let mut unfit = vec!["short".to_owned(), "x".repeat(31), "x".repeat(64)];
        unfit.push("your-secret-key-here-min-32-characters-long".to_owned());
        unfit.extend(example_secret());
        for secret in unfit {
            let settings = [&base[..], &[("SECRET_KEY", &secret)]].concat();
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("SECRET_KEY"), "{program} with {secret}: {log}");
        }
        for origins in ["*", "https://app.example,*", "https://*.example"] {
            let settings = [
                ("ENVIRONMENT", "production"),
                ("SECRET_KEY", SECRET),
                ("ALLOWED_ORIGINS", origins),
            ];
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("ALLOWED_ORIGINS"), "{program} with {origins}: {log}");
        }
    }
    assert_eq!(files(dir.path()), BTreeMap::new(), "a refused start creates no files");
    for program in PROGRAMS {
        let settings = [&base[..], &[("SECRET_KEY", SECRET)]].concat();
        let process = Process::start(program, dir.path(), &settings).await;
        let log = process.stop().await;
        assert!(!log.contains(SECRET), "{program}: {log}");
        for line in log.lines() {
            let logged: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{program} logs no JSON ({error}): {line}"));
            assert!(logged.is_object(), "{program}: {line}");
        }
        assert!(
            files(dir.path()).keys().all(|name| is_database(name)),
            "no secret is written to a file"
        );
    }
}

/// The placeholder secret of `.env.example`, if it has one. It must be refused if copied unchanged.
fn example_secret() -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example");
    let text = fs::read_to_string(path).ok()?;
    let values = text.lines().filter_map(|line| {
        line.trim_start_matches(['#', ' ']).strip_prefix("SECRET_KEY=").map(str::trim)
    });
    values.map(|value| value.trim_matches('"').to_owned()).find(|value| !value.is_empty())
}

#[tokio::test]
async fn an_env_file_holds_settings_and_the_environment_overrides_it() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let text = "# settings\nPROJECT_NAME=\"From the file\"\nMAX_BODY_BYTES=1024\n\
                    DATABASE_URL=sqlite://elsewhere.db\n";
        fs::write(dir.path().join(".env"), text).expect("a .env");
        let process = Process::start(program, dir.path(), &[]).await;
        let (_, index) = call(process.addr, "GET", "/", "", Value::Null).await;
        assert_eq!(index["name"], "From the file", "{program}");
        let mut large = account("ann@example.com");
        large["padding"] = "x".repeat(1024).into();
        let (status, _) = call(process.addr, "POST", "/api/auth/signup", "", large).await;
        assert_eq!(status, 413, "{program}: MAX_BODY_BYTES");
        process.stop().await;
        let files = files(dir.path());
        assert!(files.contains_key("elsewhere.db") && !files.contains_key("todo.db"), "{files:?}");

        let settings = [("PROJECT_NAME", "From outside"), ("MAX_BODY_BYTES", "4096")];
        let process = Process::start(program, dir.path(), &settings).await;
        let (_, index) = call(process.addr, "GET", "/", "", Value::Null).await;
        assert_eq!(index["name"], "From outside", "{program}");
        sign_up(process.addr, "ann@example.com").await;
        process.stop().await;

        fs::write(dir.path().join(".env"), "PORT=none\n").expect("a .env");
        let mut command = command(program, dir.path(), &[]);
        command.env_remove("PORT");
        let output = timeout(STARTING, command.output()).await.expect("an end in time");
        let output = output.expect("the program runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && log.contains("PORT"), "{program}: {log}");
    }
}

#[tokio::test]
async fn secrets_are_read_from_the_named_files() {
    let dir = empty_dir();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a written file");
        path.display().to_string()
    };
    let url = file("url", "sqlite://of-a-file.db\r\n");
    let secret = file("secret", &format!("{SECRET}\n"));
    let next = file("next", &"0123456789".repeat(4));
    for program in PROGRAMS {
        let settings = [("DATABASE_URL_FILE", &*url), ("SECRET_KEY_FILE", &secret)];
        let first = Process::start(program, dir.path(), &settings).await;
        let token = sign_up(first.addr, &format!("{program}@example.com")).await;
        first.stop().await;
        assert!(dir.path().join("of-a-file.db").is_file(), "{program}");
        // The trailing newline of the file is not part of the key.
        let settings = [("DATABASE_URL_FILE", &*url), ("SECRET_KEY", SECRET)];
        let second = Process::start(program, dir.path(), &settings).await;
        assert_eq!(me_status(second.addr, &token).await, 200, "{program}");
        second.stop().await;
        let settings = [
            ("DATABASE_URL_FILE", &*url),
            ("MIGRATIONS_DATABASE_URL_FILE", &url),
            ("SECRET_KEY_FILE", &next),
            ("SECRET_KEY_PREVIOUS_FILE", &secret),
        ];
        let third = Process::start(program, dir.path(), &settings).await;
        assert_eq!(me_status(third.addr, &token).await, 200, "{program}: the previous key");
        third.stop().await;
    }
}

#[tokio::test]
async fn an_unusable_secret_file_is_reported_by_its_setting_name_only() {
    let dir = empty_dir();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a written file");
        path.display().to_string()
    };
    let valid = file("valid", SECRET.as_bytes());
    let unfit = [
        dir.path().join("hunter2").display().to_string(),
        dir.path().display().to_string(),
        file("empty", b"\n"),
        file("short", b"hunter2\n"),
        file("binary", &[0xff; 64]),
        file("large", &[b'x'; 65537]),
        // An endless file.
        "/dev/zero".to_owned(),
    ];
    let names = ["DATABASE_URL", "MIGRATIONS_DATABASE_URL", "SECRET_KEY", "SECRET_KEY_PREVIOUS"];
    for program in PROGRAMS {
        for unfit in &unfit {
            let settings = [("SECRET_KEY_FILE", &**unfit)];
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("SECRET_KEY") && log.lines().count() == 1, "{unfit}: {log}");
            assert!(!log.contains("hunter2"), "{program}: {log}");
        }
        for name in names {
            let named = format!("{name}_FILE");
            let log = startup_error(program, dir.path(), &[(&named, "hunter2")]).await;
            assert!(log.starts_with(&format!("error: bad settings: {named} must")), "{log}");
            assert!(!log.contains("hunter2"), "{program}: {log}");
            let both = [(name, SECRET), (&named, &valid)];
            let log = startup_error(program, dir.path(), &both).await;
            assert!(log.contains(&format!("{named} must be unset")), "{program}: {log}");
            assert!(!log.contains(SECRET), "{program}: {log}");
        }
    }
    assert!(!dir.path().join("todo.db").exists(), "a refused start creates no files");
}

/// With TLS configured, it would still transmit passwords in the clear.
#[tokio::test]
async fn the_minimal_server_refuses_a_certificate() {
    let dir = empty_dir();
    let settings = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")];
    let log = startup_error(PROGRAMS[1], dir.path(), &settings).await;
    assert!(log.contains("plain http") && log.contains("todo-server"), "{log}");
    assert!(files(dir.path()).is_empty(), "no file was created");
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
        assert!(
            eventually(STARTING, is_left).await,
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

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            // The best of three: load only adds time.
            let mut best = STOPPING;
            for _ in 0..3 {
                let dir = empty_dir();
                let process = Process::start(program, dir.path(), &[]).await;
                assert_eq!(me_status(process.addr, "none").await, 401);
                let signalled = Instant::now();
                process.signal(signal);
                process.wait_for_exit().await;
                best = best.min(signalled.elapsed());
                if best < Duration::from_secs(1) {
                    break;
                }
            }
            assert!(best < Duration::from_secs(1), "{program} took {best:?} to stop by {signal}");
        }
    }
}

#[tokio::test]
async fn a_stopping_server_accepts_no_new_connections() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut process = Process::start(program, dir.path(), &[]).await;
        let running = TcpStream::connect(process.addr).await.expect("a connection");
        let mut running = BufReader::new(running);
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n";
        running.write_all(head.as_bytes()).await.expect("a write");
        let mut interim = String::new();
        running.read_line(&mut interim).await.expect("a response");
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n", "the request is in progress");
        process.signal("TERM");
        process.wait_for_stopping().await;
        let refused = async {
            while TcpStream::connect(process.addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        // A connection accepted now would wait for a response that never comes.
        let refused = timeout(STOPPING, refused).await;
        assert!(refused.is_ok(), "{program} still accepts connections");
        running.write_all(b"{}").await.expect("a write");
        process.wait_for_exit().await;
    }
}

#[tokio::test]
async fn silent_and_half_sent_requests_do_not_hold_up_a_stop() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            let dir = empty_dir();
            let process = Process::start(program, dir.path(), &[]).await;
            let silent = TcpStream::connect(process.addr).await.expect("a connection");
            let mut half = TcpStream::connect(process.addr).await.expect("a connection");
            half.write_all(b"GET /health HTTP/1.1\r\nHost: loc").await.expect("a write");
            let mut kept = TcpStream::connect(process.addr).await.expect("a connection");
            kept.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a write");
            let mut first = [0; 12];
            kept.read_exact(&mut first).await.expect("a response");
            assert_eq!(&first, b"HTTP/1.1 200");
            process.signal(signal);
            process.wait_for_exit().await;
            drop((silent, half, kept));
        }
    }
}

#[tokio::test]
async fn a_running_request_is_finished() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            let dir = empty_dir();
            let mut process = Process::start(program, dir.path(), &[]).await;
            let body = account("ann@example.com").to_string();
            let mut running = TcpStream::connect(process.addr).await.expect("a connection");
            let head = format!(
                "POST /api/auth/signup HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len(),
            );
            running.write_all(head.as_bytes()).await.expect("a write");
            let mut interim = [0; 25];
            let read = timeout(STARTING, running.read_exact(&mut interim)).await;
            read.expect("a response in time").expect("a response");
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n", "the request is in progress");

            process.signal(signal);
            process.wait_for_stopping().await;
            running.write_all(body.as_bytes()).await.expect("a write");
            let mut answered = Vec::new();
            let read = timeout(STARTING, running.read_to_end(&mut answered)).await;
            read.expect("a response in time").expect("a response");
            let (status, auth) = parse_response(&answered);
            assert_eq!(status, 201, "{program} {signal}: {auth}");
            process.wait_for_exit().await;

            let again = Process::start(program, dir.path(), &[]).await;
            let token = auth["token"].as_str().expect("a token");
            assert_eq!(
                me_status(again.addr, token).await,
                200,
                "{program}: the account was stored"
            );
            again.stop().await;
        }
    }
}

/// A single write has its own commit, concurrent writes share a group commit: if either fails on a
/// full disk, the client must not receive a success.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::spawned(on_a_small_disk(program, dir.path(), 1000), program).await;
        let addr = process.addr;
        let token = sign_up(addr, "full@example.com").await;
        let me = call(addr, "GET", "/api/auth/me", &token, Value::Null).await.1;
        let todos = format!("/api/users/{}/todos", me["id"].as_str().expect("an id"));
        let write = async || {
            let todo = json!({"title": "t", "description": "d".repeat(1000)});
            let (status, todo) = call(addr, "POST", &todos, &token, todo).await;
            assert!([201, 503].contains(&status), "{status} {todo}");
            (status == 201).then(|| todo["id"].as_str().expect("an id").to_owned())
        };
        let (mut written, mut refused) = (Vec::new(), 0);
        while refused < 5 {
            assert!(written.len() < 5000, "the disk never filled up");
            match write().await {
                Some(id) => written.push(id),
                None => refused += 1,
            }
        }
        for id in run_concurrently(16, write).await {
            match id {
                Some(id) => written.push(id),
                None => refused += 1,
            }
        }
        assert!(written.len() > 10, "{} were written", written.len());
        // Reads still succeed, and with a larger disk everything is there.
        let seen = async |addr| {
            let (status, list) = call(addr, "GET", &todos, &token, Value::Null).await;
            assert_eq!(status, 200, "{list}");
            let list = list["todos"].as_array().expect("todos").clone();
            list.iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect()
        };
        let before: Vec<String> = seen(addr).await;
        process.stop().await;
        let process = Process::start(program, dir.path(), &[]).await;
        let after: Vec<String> = seen(process.addr).await;
        for id in &written {
            assert!(before.contains(id) && after.contains(id), "{program} lost {id}");
        }
        assert!(
            after.len() <= written.len() + refused,
            "{program} created more todos than requested"
        );
        process.stop().await;
    }
}

/// Runs `n` futures concurrently on this task.
async fn run_concurrently<T>(n: usize, make: impl AsyncFn() -> T) -> Vec<T> {
    futures_util::future::join_all((0..n).map(|_| make())).await
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

/// The listen address of a program, from its standard error, which is read only up to that line.
async fn read_listen_address(stderr: &mut (impl AsyncBufReadExt + Unpin)) -> SocketAddr {
    let mut line = String::new();
    let listens = async {
        loop {
            line.clear();
            assert_ne!(
                stderr.read_line(&mut line).await.expect("a readable stream"),
                0,
                "the stream ended"
            );
            if let Some((_, address)) = line.split_once("listening on http://") {
                let address = address.split_whitespace().next().expect("an address");
                return address.parse().expect("an address");
            }
        }
    };
    timeout(STARTING, listens).await.expect("a listen address in time")
}

/// Requests `/health` `count` times on one connection and counts the responses.
async fn count_health_responses(addr: SocketAddr, count: usize) -> usize {
    let (mut reader, mut writer) =
        TcpStream::connect(addr).await.expect("a connection").into_split();
    let sender = tokio::spawn(async move {
        let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
        for _ in 0..count / 50 {
            if writer.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        writer
    });
    let (mut seen, mut chunk, mut last) = (0, [0; 8192], Vec::new());
    let counting = async {
        while let Ok(read @ 1..) = reader.read(&mut chunk).await {
            last.extend_from_slice(&chunk[..read]);
            seen += last.windows(12).filter(|bytes| bytes == b"HTTP/1.1 200").count();
            // A status line may be cut in two.
            last.drain(..last.len().saturating_sub(11));
            if seen == count {
                break;
            }
        }
    };
    let _ = timeout(STARTING, counting).await;
    sender.abort();
    seen
}

/// An unread log fills its pipe after some 300 requests. Requests beyond that, and beyond the
/// server's buffer of log lines, are still answered, and a stop is as prompt as otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_log_blocks_nothing() {
    const EACH: usize = 2500;
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut child = command(program, dir.path(), &[]).spawn().expect("the program runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let addr = read_listen_address(&mut stderr).await;
        let answered = at_once(4, |_| count_health_responses(addr, EACH)).await;
        assert_eq!(answered, [EACH; 4], "{program}");
        let metrics = String::from_utf8_lossy(
            &raw(addr, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await,
        )
        .into_owned();
        let dropped =
            metrics.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total "));
        let dropped: f64 = dropped.expect(&metrics).parse().expect("a number");
        println!("{program}: {dropped} of {} lines were dropped", 4 * EACH);
        assert!(dropped > 0.0, "{program}: no line was dropped, so nothing was tested");

        let id = child.id().expect("a running process").to_string();
        let sent = std::process::Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("kill runs").success());
        let ended = timeout(STOPPING, child.wait()).await.expect("an exit in time");
        assert!(ended.expect("a status").success(), "{program}");
        drop(stderr);
    }
}

/// Once the log is read again, it contains the number of dropped lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_read_again_reports_the_dropped_lines() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut child = command(program, dir.path(), &[]).spawn().expect("the program runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let addr = read_listen_address(&mut stderr).await;
        assert_eq!(
            at_once(4, |_| count_health_responses(addr, 2500)).await,
            [2500; 4],
            "{program}"
        );
        let mut line = String::new();
        let reported = async {
            while !line.contains("log lines were dropped") {
                line.clear();
                assert_ne!(stderr.read_line(&mut line).await.expect("a readable stream"), 0);
            }
        };
        timeout(STARTING, reported).await.expect("a log line in time");
        assert!(line.contains("lines="), "{program}: {line}");
        child.kill().await.expect("a kill");
    }
}

/// A reader such as `head` closes the pipe before all output is written.
#[tokio::test]
async fn a_closed_output_pipe_does_not_change_the_exit_status() {
    for (program, argument) in
        [(PROGRAMS[0], "--help"), (PROGRAMS[1], "--help"), (PROGRAMS[1], "-V")]
    {
        let dir = empty_dir();
        let mut command = command("bash", dir.path(), &[]);
        // The reader exits before the program writes.
        let script = "exec 3> >(:); sleep 0.3; \"$0\" \"$1\" >&3";
        let output = command.args(["-c", script]).arg(built(program)).arg(argument).output();
        let output = timeout(STARTING, output).await.expect("in time").expect("the program runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.is_empty(), "{program} {argument}: {log}");
    }
}
