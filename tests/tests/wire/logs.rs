//! Logs: one access line for each request, whatever its outcome; each success and failure of
//! authentication with its reason; and no secret at any level, wherever a client puts it.

mod session;

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use todo_tests::{Client, PROGRAMS, Process, STARTING, command};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use self::session::{KEY, LOGIN, Session, session};

/// Runs a program with these settings and a session on it; returns the session and the output.
async fn run(program: &str, settings: &[(&str, &str)]) -> (Session, String) {
    let dir = TempDir::new().expect("a temporary directory");
    let mut all =
        vec![("SECRET_KEY", KEY), ("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_PER_MINUTE", "2")];
    all.extend(settings);
    let process = Process::start(program, dir.path(), &all).await;
    let session = session(program, process.addr).await;
    (session, process.stop().await)
}

/// As [`run`], at `LOG_LEVEL=warn`, where a program does not log its address.
async fn run_quietly(program: &str) -> (Session, String) {
    let dir = TempDir::new().expect("a temporary directory");
    // Free a moment ago; another process is unlikely to get it in between.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let addr = free.expect("a free port");
    let port = addr.port().to_string();
    let settings = [
        ("SECRET_KEY", KEY),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("RATE_LIMIT_PER_MINUTE", "2"),
        ("LOG_FORMAT", "json"),
        ("LOG_LEVEL", "warn"),
        ("PORT", &port),
    ];
    let child = command(program, dir.path(), &settings).spawn().expect("it runs");
    let deadline = Instant::now() + STARTING;
    while TcpStream::connect(addr).await.is_err() {
        assert!(Instant::now() < deadline, "{program} does not listen");
        sleep(Duration::from_millis(20)).await;
    }
    let session = session(program, addr).await;
    let id = child.id().expect("it still runs").to_string();
    let sent = std::process::Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(sent.expect("kill runs").success());
    let output = timeout(STARTING, child.wait_with_output()).await.expect("it stops");
    let output = output.expect("an output");
    assert!(output.stdout.is_empty(), "{program}: logs go to standard error");
    (session, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn parsed(printed: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    printed.lines().map(parse).collect()
}

fn of_target<'v>(lines: &'v [Value], target: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["target"] == target).collect()
}

/// Each request has exactly one access line, and each access line a request.
fn check_access(session: &Session, lines: &[Value]) {
    let lines = of_target(lines, "todo_core::access");
    let ids: Vec<_> =
        lines.iter().map(|line| line["request_id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), session.lines.len(), "{ids:?}");
    for (id, expected) in &session.lines {
        let [line] = lines.iter().filter(|line| line["request_id"] == *id).collect::<Vec<_>>()[..]
        else {
            panic!("not exactly one line for {id}: {ids:?}");
        };
        assert_eq!(line["level"], "INFO", "{line}");
        assert_eq!(line["method"], expected.method, "{line}");
        assert_eq!(line["route"], expected.route, "{line}");
        assert_eq!(line["status"], expected.status, "{line}");
        assert_eq!(line["client_ip"], expected.client, "{line}");
        assert!(
            line["duration_ms"].as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)),
            "{line}"
        );
        assert_eq!(line["user_id"].is_string(), expected.has_user, "{line}");
    }
}

/// Each success and failure is logged, with its reason.
fn check_events(session: &Session, lines: &[Value], with_successes: bool) {
    let lines = of_target(lines, "todo_core::auth");
    for (id, tried, reason, has_user) in &session.events {
        if reason.is_none() && !with_successes {
            continue;
        }
        let is_it = |line: &&&Value| line["request_id"] == **id && line["attempted"] == **tried;
        let [event] = lines.iter().filter(is_it).collect::<Vec<_>>()[..] else {
            panic!("not exactly one {tried} event in {id}: {lines:?}");
        };
        assert_eq!(event["reason"].as_str(), *reason, "{event}");
        assert_eq!(event["level"], if reason.is_some() { "WARN" } else { "INFO" }, "{event}");
        assert_eq!(event["user_id"].is_string(), *has_user, "{event}");
        assert_eq!(event["client_ip"], session.lines[id].client, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_logs_one_json_line_per_request_and_every_authentication() {
    for program in PROGRAMS {
        let settings = [("ENVIRONMENT", "production")];
        let (session, printed) = run(program, &settings).await;
        let lines = parsed(&printed);
        check_access(&session, &lines);
        check_events(&session, &lines, true);
        session.assert_no_secret(&printed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_logs_a_secret() {
    for program in PROGRAMS {
        let (session, printed) =
            run(program, &[("LOG_FORMAT", "json"), ("LOG_LEVEL", "trace")]).await;
        let lines = parsed(&printed);
        check_access(&session, &lines);
        check_events(&session, &lines, true);
        session.assert_no_secret(&printed);
        let events = of_target(&lines, "todo_core::auth");
        let of = |id: &str| {
            let is_it = |line: &&&Value| line["request_id"] == id;
            events.iter().find(is_it).map(|event| (event["level"].clone(), event["reason"].clone()))
        };
        assert_eq!(of("no-token"), Some(("DEBUG".into(), "no token".into())), "{program}");
        assert_eq!(of("me"), Some(("DEBUG".into(), Value::Null)), "{program}: a valid token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warn_has_failures_and_no_access_lines() {
    for program in PROGRAMS {
        let (session, printed) = run_quietly(program).await;
        let lines = parsed(&printed);
        assert_eq!(of_target(&lines, "todo_core::access").len(), 0, "{program}: {printed}");
        check_events(&session, &lines, false);
        session.assert_no_secret(&printed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_lines_cannot_be_forged() {
    for program in PROGRAMS {
        let (session, printed) =
            run(program, &[("LOG_FORMAT", "text"), ("LOG_LEVEL", "trace")]).await;
        session.assert_no_secret(&printed);
        for line in printed.lines() {
            let is_one = line.starts_with("20") && line.get(19..20) == Some(".");
            assert!(is_one, "{program}: a line that is none of ours: {line:?}");
        }
        let answered = printed.lines().filter(|line| line.contains("todo_core::access:")).count();
        assert_eq!(answered, session.lines.len(), "{program}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_has_an_access_line() {
    for program in PROGRAMS {
        let dir = TempDir::new().expect("a temporary directory");
        let process = Process::start(program, dir.path(), &[("LOG_FORMAT", "json")]).await;
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: left\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        let mut stream = TcpStream::connect(process.addr).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        // In progress for certain once a later request has been served.
        Client::of(process.addr).get("/health").await.expect(200);
        drop(stream);
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_left =
            |line: &str| line.contains("\"request_id\":\"left\"") && line.contains("access");
        let line = loop {
            if let Some(line) = process.output().lines().find(|line| is_left(line)) {
                break line.to_owned();
            }
            assert!(Instant::now() < deadline, "{program}: no line: {}", process.output());
            sleep(Duration::from_millis(20)).await;
        };
        let line: Value = serde_json::from_str(&line).expect("JSON");
        let status = line["status"].as_u64();
        // 400 or 499, by whether the end of the body or of the connection is detected first.
        assert!(matches!(status, Some(400 | 499)), "{program}: {line}");
        assert_eq!(line["route"], LOGIN, "{program}: {line}");
        process.stop().await;
    }
}
