//! What the programs log: one access line a request, whatever became of it; every success and failure
//! of authentication with its reason; and nothing secret at any level, wherever a client puts it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use todo_tests::{Client, PROGRAMS, Process, STARTING, command, raw};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const KEY: &str = "a signing key of more than thirty-two bytes";
const EMAIL: &str = "ada.secret@example.com";
const PASSWORD: &str = "Sup3rSecretHorse";
const WRONG: &str = "Wr0ngSecretHorse";
/// What clients write so that a terminal or a log reader takes it for something else.
const INJECTED: &str = "inj\u{1b}[31mected\r\n{\"level\":\"ERROR\"}";

/// What a request's access line must say.
#[derive(Debug)]
struct Expected {
    method: &'static str,
    route: &'static str,
    status: u16,
    client: String,
    has_user: bool,
}

/// What was asked, and what must and must not be found in the log.
#[derive(Default)]
struct Session {
    lines: BTreeMap<String, Expected>,
    /// By request: what was tried, why it failed (if it did), whether the user is known.
    events: Vec<(String, &'static str, Option<&'static str>, bool)>,
    secrets: Vec<String>,
}

/// One request of a session.
struct Ask<'a> {
    id: &'a str,
    method: &'a str,
    path: &'a str,
    from: &'a str,
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: Option<Value>,
}

impl<'a> Ask<'a> {
    fn new(id: &'a str, method: &'a str, path: &'a str) -> Self {
        Self { id, method, path, from: "203.0.113.1", token: None, headers: &[], body: None }
    }
}

impl Session {
    /// Asks, and notes what is to be logged of it; returns the answer's JSON.
    async fn ask(
        &mut self,
        client: &Client,
        ask: Ask<'_>,
        (method, route, status): (&'static str, &'static str, u16),
    ) -> Value {
        let authorization = ask.token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("x-request-id", ask.id),
            ("x-forwarded-for", ask.from),
            ("x-forwarded-proto", "https"),
        ];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(ask.headers);
        let body = ask.body.map_or(String::new(), |body| {
            headers.push(("content-type", "application/json"));
            body.to_string()
        });
        let answer = client.send(ask.method, ask.path, &headers, body).await;
        assert_eq!(answer.status, status, "{}: {answer}", ask.id);
        let client = ask.from.to_owned();
        let line = Expected { method, route, status, client, has_user: false };
        assert!(self.lines.insert(ask.id.to_owned(), line).is_none(), "{} twice", ask.id);
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    fn event(&mut self, id: &str, tried: &'static str, reason: Option<&'static str>, user: bool) {
        self.events.push((id.to_owned(), tried, reason, user));
    }

    fn user(&mut self, id: &str) {
        self.lines.get_mut(id).expect("asked").has_user = true;
    }

    /// Fails if anything secret is in `said`.
    fn holds_no_secret(&self, said: &str) {
        for secret in &self.secrets {
            assert!(!said.contains(secret.as_str()), "{secret} is in the log: {said}");
        }
        assert!(!said.contains("$argon2") && !said.contains(KEY), "{said}");
        assert!(!said.contains('\u{1b}') && !said.contains("[31m"), "{said:?}");
    }
}

/// A token that this installation signed.
fn signed(user: &str, expires_at: i64) -> String {
    let claims = json!({
        "sub": user, "user_id": user, "jti": user, "iat": 1, "exp": expires_at,
        "iss": "todo", "aud": "todo",
    });
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let head = encode(br#"{"typ":"JWT","alg":"HS256"}"#);
    let text = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    format!("{text}.{}", encode(&mac.finalize().into_bytes()))
}

fn account(email: &str, password: &str) -> Option<Value> {
    Some(json!({ "email": email, "password": password, "name": "Ada Lovelace" }))
}

const TODOS: &str = "/api/users/{user_id}/todos";
const LOGIN: &str = "/api/auth/login";
const SIGNUP: &str = "/api/auth/signup";
const LOGOUT: &str = "/api/auth/logout";
const ME: &str = "/api/auth/me";

/// Good and bad requests, with secrets where they belong and where they do not.
async fn session(program: &str, addr: SocketAddr) -> Session {
    let mut s = Session::default();
    let client = Client::of(addr);
    s.secrets = [EMAIL, PASSWORD, WRONG, "nobody.secret"].map(str::to_owned).into();

    let ask = Ask { body: account(EMAIL, PASSWORD), ..Ask::new("signup", "POST", SIGNUP) };
    let auth = s.ask(&client, ask, ("POST", SIGNUP, 201)).await;
    s.event("signup", "signup", None, true);
    let token = auth["token"].as_str().expect("a token").to_owned();
    let user = auth["user"]["id"].as_str().expect("an id").to_owned();
    s.secrets.extend(token.split('.').skip(1).map(str::to_owned));
    let todos = format!("/api/users/{user}/todos");

    let ask = Ask { body: account(EMAIL, PASSWORD), ..Ask::new("taken", "POST", SIGNUP) };
    s.ask(&client, ask, ("POST", SIGNUP, 409)).await;
    s.event("taken", "signup", Some("e-mail taken"), false);
    let ask = Ask { body: account(PASSWORD, EMAIL), ..Ask::new("swapped", "POST", SIGNUP) };
    s.ask(&client, ask, ("POST", SIGNUP, 400)).await;
    s.event("swapped", "signup", Some("invalid form"), false);
    let ask = Ask { body: account(INJECTED, PASSWORD), ..Ask::new("injected", "POST", SIGNUP) };
    s.ask(&client, ask, ("POST", SIGNUP, 400)).await;
    s.event("injected", "signup", Some("invalid form"), false);

    let from = "203.0.113.2";
    let login = |id, email, password| Ask {
        body: account(email, password).map(|mut form| {
            form.as_object_mut().expect("an object").remove("name");
            form
        }),
        from,
        ..Ask::new(id, "POST", LOGIN)
    };
    let auth = s.ask(&client, login("login", EMAIL, PASSWORD), ("POST", LOGIN, 200)).await;
    s.event("login", "login", None, true);
    let second = auth["token"].as_str().expect("a token").to_owned();
    s.secrets.extend(second.split('.').skip(1).map(str::to_owned));
    s.ask(&client, login("wrong", EMAIL, WRONG), ("POST", LOGIN, 401)).await;
    s.event("wrong", "login", Some("wrong password"), true);
    let nobody = "nobody.secret@example.com";
    s.ask(&client, login("nobody", nobody, WRONG), ("POST", LOGIN, 401)).await;
    s.event("nobody", "login", Some("no such account"), false);
    s.ask(&client, login("limited", EMAIL, WRONG), ("POST", LOGIN, 429)).await;
    s.event("limited", "login", Some("rate limited"), false);
    let ask = Ask {
        headers: &[("content-type", "application/json")],
        ..Ask::new("no-json", "POST", LOGIN)
    };
    s.ask(&client, ask, ("POST", LOGIN, 422)).await;
    s.event("no-json", "login", Some("unreadable form"), false);

    let token = Some(token.as_str());
    s.ask(&client, Ask { token, ..Ask::new("me", "GET", ME) }, ("GET", ME, 200)).await;
    s.user("me");
    let query = format!("{todos}?access_token={second}&password={PASSWORD}&x=%0d%0a%1b%5b31m");
    let ask = Ask { token, ..Ask::new("query", "GET", &query) };
    s.ask(&client, ask, ("GET", TODOS, 200)).await;
    s.user("query");
    let ask = Ask { token, ..Ask::new("foreign", "GET", "/api/users/x/todos") };
    s.ask(&client, ask, ("GET", TODOS, 403)).await;
    s.user("foreign");
    let ask = Ask { headers: &[("x-api-key", PASSWORD)], ..Ask::new("no-token", "GET", ME) };
    s.ask(&client, ask, ("GET", ME, 401)).await;
    let cookie = format!("session={second}");
    let ask = Ask {
        headers: &[("cookie", &cookie), ("referer", EMAIL)],
        ..Ask::new("cookie", "HEAD", "/health")
    };
    s.ask(&client, ask, ("HEAD", "/health", 200)).await;
    let basic = format!("Basic {PASSWORD}");
    let ask = Ask { headers: &[("authorization", &basic)], ..Ask::new("basic", "GET", ME) };
    s.ask(&client, ask, ("GET", ME, 401)).await;
    s.event("basic", "token", Some("malformed header"), false);
    for (id, token, reason, has_user) in [
        ("garbage", PASSWORD.to_owned(), "malformed token", false),
        ("altered", format!("{second}A"), "bad signature", false),
        ("expired", signed(&user, 2), "token expired", true),
        ("revoked", signed(&user, 9_999_999_999), "session ended", true),
        ("long", PASSWORD.repeat(200), "token too long", false),
    ] {
        s.secrets.extend(token.split('.').skip(1).map(str::to_owned));
        let ask = Ask { token: Some(&token), ..Ask::new(id, "GET", ME) };
        s.ask(&client, ask, ("GET", ME, 401)).await;
        s.event(id, "token", Some(reason), has_user);
    }
    s.user("revoked");

    // What no handler sees.
    let path = format!("/{PASSWORD}/{EMAIL}?token={second}");
    s.ask(&client, Ask::new("no-route", "GET", &path), ("GET", "unmatched", 404)).await;
    let ask = Ask { token, ..Ask::new("method", "PATCH", &todos) };
    s.ask(&client, ask, ("PATCH", TODOS, 405)).await;
    s.ask(&client, Ask::new("made-up", "SECRET", &todos), ("other", TODOS, 405)).await;
    let headers: &[_] = &[
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let ask = Ask { headers, ..Ask::new("preflight", "OPTIONS", &todos) };
    s.ask(&client, ask, ("OPTIONS", TODOS, 200)).await;
    let ask = Ask { headers, ..Ask::new("preflight-404", "OPTIONS", &path) };
    s.ask(&client, ask, ("OPTIONS", "unmatched", 200)).await;
    s.ask(&client, Ask::new("options", "OPTIONS", &todos), ("OPTIONS", TODOS, 204)).await;
    let body = Some(json!({ "title": PASSWORD.repeat(5000) }));
    let ask = Ask { token, body, ..Ask::new("large", "POST", &todos) };
    s.ask(&client, ask, ("POST", TODOS, 413)).await;
    s.user("large");
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: {EMAIL}, x\r\nConnection: close\r\nX-Request-Id: host\r\n\
         X-Forwarded-For: 203.0.113.1\r\n\r\n"
    );
    let answer = raw(addr, head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let line = Expected {
        method: "GET",
        route: "unmatched",
        status: 400,
        client: "203.0.113.1".into(),
        has_user: false,
    };
    s.lines.insert("host".into(), line);
    if program == "todo-server" {
        s.ask(&client, Ask::new("docs", "GET", "/docs"), ("GET", "docs", 200)).await;
        s.ask(&client, Ask::new("redoc", "HEAD", "/redoc"), ("HEAD", "docs", 200)).await;
        s.ask(&client, Ask::new("docs-405", "POST", "/docs"), ("POST", "docs", 405)).await;
    }

    let second = Some(second.as_str());
    s.ask(
        &client,
        Ask { token: second, ..Ask::new("logout", "POST", LOGOUT) },
        ("POST", LOGOUT, 200),
    )
    .await;
    s.event("logout", "logout", None, true);
    s.user("logout");
    s.ask(
        &client,
        Ask { token: second, ..Ask::new("again", "POST", LOGOUT) },
        ("POST", LOGOUT, 401),
    )
    .await;
    s.event("again", "logout", Some("session ended"), true);
    s.user("again");
    s
}

/// Runs a program with these settings and a session on it; returns both and what it said.
async fn run(program: &str, settings: &[(&str, &str)]) -> (Session, String) {
    let dir = TempDir::new().expect("a temporary directory");
    let mut all =
        vec![("SECRET_KEY", KEY), ("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_PER_MINUTE", "2")];
    all.extend(settings);
    let process = Process::start(program, dir.path(), &all).await;
    let session = session(program, process.addr).await;
    (session, process.stop().await)
}

/// As [`run`], at `LOG_LEVEL=warn`, where a program does not say where it listens.
async fn run_quietly(program: &str) -> (Session, String) {
    let dir = TempDir::new().expect("a temporary directory");
    // Free a moment ago; nothing else on this machine is likely to be given it meanwhile.
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

fn parsed(said: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    said.lines().map(parse).collect()
}

fn of_target<'v>(lines: &'v [Value], target: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["target"] == target).collect()
}

/// Every request has one line, every line has its request.
fn check_access(session: &Session, lines: &[Value]) {
    let lines = of_target(lines, "todo_core::access");
    let ids: Vec<_> =
        lines.iter().map(|line| line["request_id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), session.lines.len(), "{ids:?}");
    for (id, expected) in &session.lines {
        let [line] = lines.iter().filter(|line| line["request_id"] == *id).collect::<Vec<_>>()[..]
        else {
            panic!("{id} has not one line: {ids:?}");
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

/// Every success and failure is there, with its reason.
fn check_events(session: &Session, lines: &[Value], with_successes: bool) {
    let lines = of_target(lines, "todo_core::auth");
    for (id, tried, reason, has_user) in &session.events {
        if reason.is_none() && !with_successes {
            continue;
        }
        let is_it = |line: &&&Value| line["request_id"] == **id && line["attempted"] == **tried;
        let [event] = lines.iter().filter(is_it).collect::<Vec<_>>()[..] else {
            panic!("not one event of {tried} in {id}: {lines:?}");
        };
        assert_eq!(event["reason"].as_str(), *reason, "{event}");
        assert_eq!(event["level"], if reason.is_some() { "WARN" } else { "INFO" }, "{event}");
        assert_eq!(event["user_id"].is_string(), *has_user, "{event}");
        assert_eq!(event["client_ip"], session.lines[id].client, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_logs_one_json_line_a_request_and_every_authentication() {
    for program in PROGRAMS {
        let settings = [("ENVIRONMENT", "production")];
        let (session, said) = run(program, &settings).await;
        let lines = parsed(&said);
        check_access(&session, &lines);
        check_events(&session, &lines, true);
        session.holds_no_secret(&said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_logs_a_secret() {
    for program in PROGRAMS {
        let (session, said) = run(program, &[("LOG_FORMAT", "json"), ("LOG_LEVEL", "trace")]).await;
        let lines = parsed(&said);
        check_access(&session, &lines);
        check_events(&session, &lines, true);
        session.holds_no_secret(&said);
        let events = of_target(&lines, "todo_core::auth");
        let of = |id: &str| {
            let is_it = |line: &&&Value| line["request_id"] == id;
            events.iter().find(is_it).map(|event| (event["level"].clone(), event["reason"].clone()))
        };
        assert_eq!(of("no-token"), Some(("DEBUG".into(), "no token".into())), "{program}");
        assert_eq!(of("me"), Some(("DEBUG".into(), Value::Null)), "{program}: a good token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warn_has_failures_and_no_access_lines() {
    for program in PROGRAMS {
        let (session, said) = run_quietly(program).await;
        let lines = parsed(&said);
        assert_eq!(of_target(&lines, "todo_core::access").len(), 0, "{program}: {said}");
        check_events(&session, &lines, false);
        session.holds_no_secret(&said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_lines_cannot_be_forged() {
    for program in PROGRAMS {
        let (session, said) = run(program, &[("LOG_FORMAT", "text"), ("LOG_LEVEL", "trace")]).await;
        session.holds_no_secret(&said);
        for line in said.lines() {
            let is_one = line.starts_with("20") && line.get(19..20) == Some(".");
            assert!(is_one, "{program}: a line that is none of ours: {line:?}");
        }
        let answered = said.lines().filter(|line| line.contains("todo_core::access:")).count();
        assert_eq!(answered, session.lines.len(), "{program}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_has_its_line() {
    for program in PROGRAMS {
        let dir = TempDir::new().expect("a temporary directory");
        let process = Process::start(program, dir.path(), &[("LOG_FORMAT", "json")]).await;
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: left\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        let mut stream = TcpStream::connect(process.addr).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        // Known to be under way once another request was answered after it.
        Client::of(process.addr).get("/health").await.expect(200);
        drop(stream);
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_left =
            |line: &str| line.contains("\"request_id\":\"left\"") && line.contains("access");
        let line = loop {
            if let Some(line) = process.said().lines().find(|line| is_left(line)) {
                break line.to_owned();
            }
            assert!(Instant::now() < deadline, "{program}: no line: {}", process.said());
            sleep(Duration::from_millis(20)).await;
        };
        let line: Value = serde_json::from_str(&line).expect("JSON");
        let status = line["status"].as_u64();
        // Which of the two depends on whether the body's end or the connection's is seen first.
        assert!(matches!(status, Some(400 | 499)), "{program}: {line}");
        assert_eq!(line["route"], LOGIN, "{program}: {line}");
        process.stop().await;
    }
}
