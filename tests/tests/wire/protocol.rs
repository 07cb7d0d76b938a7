//! HTTP rules common to all routes: routing, methods, headers, CORS, media types, body sizes and
//! malformed requests, down to the bytes on the socket. Valid requests are tested in the suites of
//! the routes.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use todo_tests::{App, Server, TestResponse, on_every_target, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";
const LIMIT: usize = 65_536;
const HUGE: usize = 3_000_000;
const ORIGIN: &str = "https://app.example";
const CORS: [(&str, &str); 1] =
    [("ALLOWED_ORIGINS", "https://app.example,https://admin.example:8443")];

/// Far longer than any exchange here takes; only a hanging server reaches it.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A response parsed from the bytes of the socket.
#[derive(Debug)]
struct RawResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl RawResponse {
    /// Removes the first response from `bytes`.
    fn take(bytes: &mut &[u8]) -> RawResponse {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let end = find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {shown:?}"));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        *bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let headers = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = RawResponse { status, headers, body: Vec::new() };
        reply.body = reply.take_body(bytes);
        reply
    }

    fn take_body(&self, bytes: &mut &[u8]) -> Vec<u8> {
        if self.header("transfer-encoding").is_some() {
            return take_chunks(bytes);
        }
        let length = match self.header("content-length") {
            Some(length) => length.parse().unwrap_or_else(|_| panic!("length {length:?}")),
            None if self.status < 200 || self.status == 204 => 0,
            None => bytes.len(),
        };
        assert!(bytes.len() >= length, "{self:?} is cut short: {} of {length}", bytes.len());
        let (body, rest) = bytes.split_at(length);
        *bytes = rest;
        body.to_vec()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// Checks status and code, and returns the problem document.
    fn problem(&self, status: u16, code: &str) -> Value {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{:?} {shown}", self.headers);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{shown}");
        let problem: Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)));
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{shown}");
        problem
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn take_chunks(bytes: &mut &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = find(bytes, b"\r\n").expect("a chunk's size");
        let size = String::from_utf8_lossy(&bytes[..line]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size in hexadecimal");
        *bytes = &bytes[line + 2..];
        body.extend_from_slice(&bytes[..size]);
        *bytes = &bytes[size + 2..];
        if size == 0 {
            return body;
        }
    }
}

/// Sends the lines of a head, then `body`, and reads the single response.
async fn send_raw(app: &App, head: &[&str], body: &[u8]) -> RawResponse {
    let mut bytes = head.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body);
    let answered = raw(app.addr(), &bytes).await;
    let mut rest = answered.as_slice();
    assert!(!rest.is_empty(), "no response to {head:?}");
    let reply = RawResponse::take(&mut rest);
    assert!(
        rest.is_empty(),
        "more than one response to {head:?}: {}",
        String::from_utf8_lossy(rest)
    );
    reply
}

/// Sends a request with one valid Host and `Connection: close`.
async fn request(app: &App, line: &str) -> RawResponse {
    send_raw(app, &[line, "Host: localhost", "Connection: close"], b"").await
}

/// Writes the whole request before reading, as simple clients do.
async fn write_then_read(app: &App, bytes: &[u8]) -> RawResponse {
    let exchange = async {
        let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
        // In chunks, as over a network: loopback would buffer all of it before a close shows.
        for piece in bytes.chunks(64 << 10) {
            stream.write_all(piece).await.expect("the server reads the whole request");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.expect("the response arrives before a reset");
        answered
    };
    let answered = timeout(MAX_WAIT, exchange).await.expect("a response and a close in time");
    let mut rest = answered.as_slice();
    let reply = RawResponse::take(&mut rest);
    assert!(rest.is_empty(), "two responses: {}", String::from_utf8_lossy(rest));
    reply
}

/// Reads up to the end of the first head.
async fn read_head(stream: &mut TcpStream) -> String {
    let read = async {
        let mut head = Vec::new();
        while find(&head, b"\r\n\r\n").is_none() {
            let mut byte = [0];
            let count = stream.read(&mut byte).await.expect("a readable socket");
            assert_eq!(count, 1, "closed after {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).into_owned()
    };
    timeout(MAX_WAIT, read).await.expect("a response in time")
}

/// The members of a comma separated header.
fn members(value: Option<&str>) -> BTreeSet<String> {
    let split = value.unwrap_or_default().split(',').map(|one| one.trim().to_owned());
    split.filter(|one| !one.is_empty()).collect()
}

/// Checks the headers that every response carries.
fn assert_security_headers(answer: &TestResponse) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer}");
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{answer}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer}");
    assert_eq!(answer.header("x-xss-protection"), Some("0"), "{answer}");
    let policy = answer.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src"), "{policy:?} of {answer}");
    assert!(policy.contains("frame-ancestors"), "{policy:?} of {answer}");
    let id = answer.header("x-request-id").unwrap_or_default();
    assert!(is_request_id(id), "{id:?} of {answer}");
}

fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A valid JSON body for a new todo, of exactly `size` bytes.
fn todo_of_size(size: usize) -> String {
    let (start, end) = (r#"{"title":"x","padding":""#, r#""}"#);
    format!("{start}{}{end}", "p".repeat(size - start.len() - end.len()))
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in body.chunks(10_000) {
        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// One response of every kind except server errors, each with a label.
async fn every_response_kind(
    app: &App,
    headers: &[(&str, &str)],
) -> Vec<(&'static str, TestResponse)> {
    let ann = app.signed_up().await;
    let todo = ann.todo("a").await;
    let mine = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
    let anonymous = app.anonymous();
    let mut json: Vec<(&str, &str)> = headers.to_vec();
    json.push(JSON);
    let heavy = vec![b' '; LIMIT + 1];
    let lost = "/api/users/1/todos";
    let me = ann.id();
    let preflight = [headers, &[("access-control-request-method", "PUT")]].concat();
    vec![
        ("index", anonymous.send("GET", "/", headers, "").await),
        ("health", anonymous.send("GET", "/health", headers, "").await),
        ("database health", anonymous.send("GET", "/health/db", headers, "").await),
        ("metrics", anonymous.send("GET", "/metrics", headers, "").await),
        ("document", anonymous.send("GET", "/openapi.json", headers, "").await),
        ("created", ann.send("POST", &ann.todos(), &json, r#"{"title":"b"}"#).await),
        ("list", ann.send("GET", &ann.todos(), headers, "").await),
        ("todo", ann.send("GET", &mine, headers, "").await),
        ("head", ann.send("HEAD", &mine, headers, "").await),
        ("me", ann.send("GET", "/api/auth/me", headers, "").await),
        ("no route", anonymous.send("GET", "/nowhere", headers, "").await),
        ("no todo", ann.send("GET", &format!("{}/{UNKNOWN_ID}", ann.todos()), headers, "").await),
        ("no method", anonymous.send("DELETE", "/health", headers, "").await),
        ("options", anonymous.send("OPTIONS", &mine, headers, "").await),
        ("preflight", anonymous.send("OPTIONS", &mine, &preflight, "").await),
        ("no token", anonymous.send("GET", &ann.todos(), headers, "").await),
        ("not the owner", ann.send("GET", lost, headers, "").await),
        ("media type", ann.send("POST", &ann.todos(), headers, "{}").await),
        ("too large", ann.send("POST", &ann.todos(), &json, heavy).await),
        ("shape", ann.send("POST", &ann.todos(), &json, "{").await),
        ("value", ann.send("POST", &ann.todos(), &json, r#"{"title":""}"#).await),
        ("query", ann.send("GET", &format!("/api/users/{me}/todos?limit=0"), headers, "").await),
        ("deleted", ann.send("DELETE", &mine, headers, "").await),
    ]
}

/// The methods allowed on each path of the contract, except OPTIONS.
fn allowed_methods(user: &str, todo: &str) -> Vec<(String, Vec<&'static str>)> {
    let todos = format!("/api/users/{user}/todos");
    vec![
        ("/api/auth/signup".into(), vec!["POST"]),
        ("/api/auth/login".into(), vec!["POST"]),
        ("/api/auth/logout".into(), vec!["POST"]),
        ("/api/auth/me".into(), vec!["GET", "HEAD", "PATCH"]),
        (todos.clone(), vec!["GET", "HEAD", "POST"]),
        (format!("{todos}/{todo}"), vec!["DELETE", "GET", "HEAD", "PATCH", "PUT"]),
        (format!("{todos}/{todo}/complete"), vec!["PATCH"]),
        ("/health".into(), vec!["GET", "HEAD"]),
        ("/health/db".into(), vec!["GET", "HEAD"]),
        ("/health/ready".into(), vec!["GET", "HEAD"]),
        ("/metrics".into(), vec!["GET", "HEAD"]),
        ("/openapi.json".into(), vec!["GET", "HEAD"]),
        ("/".into(), vec!["GET", "HEAD"]),
    ]
}

fn without_options(allow: Option<&str>) -> BTreeSet<String> {
    let mut allow = members(allow);
    allow.remove("OPTIONS");
    allow
}

on_every_target! {
    async fn a_valid_request_id_is_echoed(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let longest = "x".repeat(128);
        for id in ["1", "abc-123", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", &longest] {
            let headers = [("x-request-id", id)];
            let answer = client.send("GET", "/health", &headers, "").await;
            assert_eq!(answer.header("x-request-id"), Some(id));
            for path in ["/nowhere", "/api/auth/me"] {
                let answer = client.send("GET", path, &headers, "").await;
                assert_eq!(answer.header("x-request-id"), Some(id));
                assert_eq!(answer.json()["request_id"], id);
            }
        }
        app.stop().await.expect("a clean stop");
    }

    async fn an_invalid_request_id_is_replaced(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let long = "x".repeat(129);
        let mut seen = BTreeSet::new();
        for id in ["", "a b", "a\tb", "caf\u{e9}", "\u{1f600}", &long] {
            let headers = [("x-request-id", id)];
            let answer = client.send("GET", "/nowhere", &headers, "").await;
            let new = answer.header("x-request-id").expect("a generated id").to_owned();
            assert!(is_request_id(&new) && new != id, "{new:?} for {id:?}");
            assert!(seen.insert(new), "a duplicate id");
            answer.problem(404, "not_found");
        }
        for _ in 0..3 {
            let answer = client.get("/health").await;
            let id = answer.header("x-request-id").expect("a generated id").to_owned();
            assert!(is_request_id(&id), "{id:?}");
            assert!(seen.insert(id), "a duplicate id");
        }
    }

    async fn every_response_carries_the_security_headers(target) {
        let app = App::start(target).await;
        for (kind, answer) in every_response_kind(&app, &[]).await {
            assert_security_headers(&answer);
            assert_eq!(answer.header("strict-transport-security"), None, "{kind} in development");
            for name in ["x-content-type-options", "x-request-id", "content-security-policy"] {
                let times = answer.headers.get_all(name).iter().count();
                assert_eq!(times, 1, "{name} of {kind}");
            }
        }
    }

    async fn production_sends_hsts_over_https(target) {
        let app = App::start_with(target, &[
            ("ENVIRONMENT", "production"),
            ("ALLOWED_ORIGINS", ORIGIN),
            ("TRUSTED_PROXIES", "127.0.0.1/32"),
        ]).await;
        let client = app.anonymous();
        let secure = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")];
        for path in ["/health", "/nowhere", "/api/auth/me"] {
            let answer = client.send("GET", path, &secure, "").await;
            let policy = answer.header("strict-transport-security").unwrap_or_default();
            assert!(policy.contains("max-age="), "{policy:?} of {path}");
            assert_security_headers(&answer);
        }
        let plain = client.get("/health").await;
        assert_eq!(plain.status, 200, "a health probe that bypasses the proxy: {plain}");
    }

    async fn head_is_get_without_the_content(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let mine = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
        let constant = ["/", "/openapi.json", "/api/auth/me", &ann.todos(), &mine, "/health/db"];
        for path in constant {
            let get = ann.get(path).await;
            let head = ann.send("HEAD", path, &[], "").await;
            assert_eq!((get.status, head.status), (200, 200), "{path}");
            assert_eq!(head.body, b"", "{path}");
            let mut names: BTreeSet<&str> = get.headers.keys().map(|name| name.as_str()).collect();
            names.extend(head.headers.keys().map(|name| name.as_str()));
            for name in names.into_iter().filter(|name| !["date", "x-request-id"].contains(name)) {
                let of = |answer: &TestResponse| {
                    answer.headers.get_all(name).iter().cloned().collect::<Vec<_>>()
                };
                assert_eq!(of(&head), of(&get), "{name} of {path}");
            }
            let length = get.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");
        }
        for path in ["/health", "/metrics"] {
            let head = ann.send("HEAD", path, &[], "").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        }
        let head = app.anonymous().send("HEAD", &mine, &[], "").await;
        assert_eq!((head.status, head.body.len()), (401, 0));
        assert!(head.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
        let head = ann.send("HEAD", &format!("{}/{UNKNOWN_ID}", ann.todos()), &[], "").await;
        assert_eq!((head.status, head.body.len()), (404, 0));
        let bytes = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let bytes = raw(app.addr(), bytes).await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n\r\n"));
    }

    async fn options_lists_the_allowed_methods(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (path, methods) in allowed_methods(UNKNOWN_ID, UNKNOWN_ID) {
            let answer = client.send("OPTIONS", &path, &[], "").await;
            assert!([200, 204].contains(&answer.status), "{answer}");
            let methods: BTreeSet<String> = methods.iter().map(|one| one.to_string()).collect();
            assert_eq!(without_options(answer.header("allow")), methods, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        client.send("OPTIONS", "/nowhere", &[], "").await.problem(404, "not_found");
    }

    async fn a_method_that_is_not_allowed_is_a_405(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (path, methods) in allowed_methods(UNKNOWN_ID, UNKNOWN_ID) {
            let expected: BTreeSet<String> = methods.iter().map(|one| one.to_string()).collect();
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get"] {
                if methods.contains(&method) {
                    continue;
                }
                let answer = client.send(method, &path, &[], "").await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(without_options(answer.header("allow")), expected, "{method} {path}");
                answer.problem(405, "method_not_allowed");
            }
            if !methods.contains(&"HEAD") {
                let answer = client.send("HEAD", &path, &[], "").await;
                assert_eq!((answer.status, answer.body.len()), (405, 0), "HEAD {path}");
                assert_eq!(without_options(answer.header("allow")), expected, "HEAD {path}");
            }
        }
        for method in ["BREW", "PROPFIND", "M-SEARCH", "%"] {
            let reply = request(&app, &format!("{method} /nowhere HTTP/1.1")).await;
            assert!((400..500).contains(&reply.status), "{method}: {reply:?}");
        }
    }

    async fn only_the_routes_themselves_are_routes(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let todos = ann.todos();
        let mine = format!("{todos}/{}", todo["id"].as_str().expect("an id"));
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let mut paths: Vec<String> = [
            "/nowhere", "/api", "/api/", "/api/auth", "/api/users", "/api/auth/%73ignup",
            "/%61pi/auth/login", "//api/auth/login", "/api//auth/login", "/api/auth/login//",
            "/api/auth/./me", "/api/auth/x/../me", "/api/auth/%2e/me", "/API/auth/me",
            "/api/Auth/me", "/health//", "//health/", "/nowhere/", "/health%2Fdb", "//health",
            "/HEALTH", "/HEALTH/", "/api/auth/me;v=1", "/.", "/..", "/api/../health",
            "/.env", "/favicon.ico", "//", "///", "/auth/me", "/health/%2F",
        ].map(String::from).to_vec();
        paths.extend([
            format!("{todos}//"), format!("{mine}/nowhere/"),
            format!("{mine}/nowhere"), format!("/{todos}"),
            format!("{todos}/{UNKNOWN_ID}/complete/{UNKNOWN_ID}"),
            format!("/api/users/{}", ann.id()),
            todos.replace("/todos", "/TODOS"), todos.replace("/todos", "/%74odos"),
        ]);
        for path in &paths {
            for method in ["GET", "POST", "PATCH"] {
                let line = format!("{method} {path} HTTP/1.1");
                let head = [line.as_str(), "Host: localhost", "Connection: close", &bearer];
                let reply = send_raw(&app, &head, b"").await;
                assert_eq!(reply.status, 404, "{line}");
                reply.problem(404, "not_found");
            }
        }
        for path in ["/health?", "/health?x=1&y", "/?/nowhere", "/health/db?%00"] {
            assert_eq!(request(&app, &format!("GET {path} HTTP/1.1")).await.status, 200, "{path}");
        }
    }

    /// As in FastAPI, whose clients may send such paths.
    async fn a_trailing_slash_is_redirected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut paths: Vec<String> =
            allowed_methods(ann.id(), UNKNOWN_ID).into_iter().map(|(path, _)| path).collect();
        paths.retain(|path| path != "/");
        if target.server == Server::Salvo {
            paths.extend(["/docs".into(), "/redoc".into(), "/docs/page.css".into()]);
        }
        let client = app.anonymous();
        for path in &paths {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
                for query in ["", "?", "?a=1&b=%20/&c=http://d/"] {
                    let answer = client.send(method, &format!("{path}/{query}"), &[], "").await;
                    assert_eq!(answer.status, 307, "{answer}");
                    let location = answer.header("location");
                    assert_eq!(location, Some(&*format!("{path}{query}")), "{answer}");
                    assert_eq!(answer.body, b"", "{answer}");
                    assert_security_headers(&answer);
                }
            }
        }
        let slashed = format!("{}/", ann.todos());
        let answer = ann.post(&slashed, json!({"title": "x"})).await;
        let location = answer.header("location").expect("a Location").to_owned();
        ann.post(&location, json!({"title": "x"})).await.expect(201);
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(list["total"], 1, "the redirected request must not be executed");
        // The Location does not repeat a foreign authority.
        let reply = request(&app, "GET http://evil.example/health/?x HTTP/1.1").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some("/health?x")));
        let text = client.get("/metrics").await.text();
        assert!(text.contains("route=\"/health/db\",status=\"307\""), "{text}");
        assert!(!text.contains("/health/db/"), "{text}");
    }

    async fn routes_follow_their_prefix(target) {
        let app = App::start_with(target, &[("API_V1_PREFIX", "/v2/tasks")]).await;
        let client = app.anonymous();
        let body = json!({"email": "ann@example.com", "password": "Correct1horse", "name": "Ann"});
        client.post("/api/auth/signup", body.clone()).await.problem(404, "not_found");
        let auth = client.post("/v2/tasks/auth/signup", body).await.expect(201);
        let id = auth["user"]["id"].as_str().expect("an id");
        let todos = format!("/v2/tasks/users/{id}/todos");
        let ann = client.bearing(auth["token"].as_str().expect("a token"));
        let created = ann.post(&todos, json!({"title": "a"})).await;
        let location = created.header("location").expect("a Location header").to_owned();
        assert!(location.starts_with(&format!("{todos}/")), "{location}");
        assert_eq!(ann.get(&location).await.expect(200), created.expect(201));
        assert_eq!(client.get("/health").await.status, 200, "operational routes have no prefix");
    }

    async fn cors_admits_the_named_origins(target) {
        let app = App::start_with(target, &CORS).await;
        for origin in [ORIGIN, "https://admin.example:8443"] {
            for (kind, answer) in every_response_kind(&app, &[("origin", origin)]).await {
                // Neither a preflight nor a request that a preflight would allow.
                if kind == "options" {
                    continue;
                }
                let (of, allow) = (|name| answer.header(name), "access-control-allow-origin");
                assert_eq!(of(allow), Some(origin), "{kind}");
                assert_eq!(of("access-control-allow-credentials"), Some("true"), "{kind}");
                assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
                assert_no_cors_wildcard(&answer);
            }
        }
    }

    async fn origins_are_compared_as_browsers_write_them(target) {
        let written = "https://Example.com,https://example.org:443/,http://[::1]:80,https://B\u{fc}cher.example,\
                       capacitor://localhost,tauri://LocalHost,chrome-extension://abcdef";
        let app = App::start_with(target, &[("ALLOWED_ORIGINS", written)]).await;
        for (origin, is_admitted) in [
            ("https://example.com", true),
            ("https://example.org", true),
            ("http://[::1]", true),
            ("https://xn--bcher-kva.example", true),
            ("capacitor://localhost", true),
            ("tauri://localhost", true),
            ("chrome-extension://abcdef", true),
            ("http://localhost", false),
            ("https://example.com:444", false),
            ("capacitor://localhost:80", false),
        ] {
            let answer = app.anonymous().send("GET", "/health", &[("origin", origin)], "").await;
            let admitted = answer.header("access-control-allow-origin");
            assert_eq!(admitted, is_admitted.then_some(origin), "{origin}");
        }
    }

    async fn cors_refuses_every_other_origin(target) {
        let app = App::start_with(target, &CORS).await;
        for origin in [
            "https://evil.example", "http://app.example", "https://app.example:444", "null", "*",
            "https://app.example.evil.example", "https://evilapp.example", "https://APP.example.",
        ] {
            let headers = [("origin", origin)];
            let answer = app.anonymous().send("GET", "/health", &headers, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert!(varies_by_origin(&answer), "{origin}: {:?}", answer.headers);
        }
        let evil = [("origin", "https://evil.example")];
        for (kind, answer) in every_response_kind(&app, &evil).await {
            assert_eq!(answer.header("access-control-allow-origin"), None, "{kind}");
            assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
        }
        for (kind, answer) in every_response_kind(&app, &[]).await {
            assert_eq!(answer.header("access-control-allow-origin"), None, "{kind}");
            assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
        }
    }

    async fn a_preflight_names_methods_and_headers(target) {
        let app = App::start_with(target, &CORS).await;
        let path = format!("/api/users/{UNKNOWN_ID}/todos/{UNKNOWN_ID}");
        let preflight = |origin: &'static str, method: &'static str| {
            let client = app.anonymous();
            let path = path.clone();
            async move {
                let headers = [
                    ("origin", origin),
                    ("access-control-request-method", method),
                    ("access-control-request-headers", "authorization,content-type"),
                ];
                client.send("OPTIONS", &path, &headers, "").await
            }
        };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = preflight(ORIGIN, method).await;
            assert!([200, 204].contains(&answer.status), "{answer}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
            let methods = members(answer.header("access-control-allow-methods"));
            assert!(methods.contains(method), "{methods:?}");
            let named = answer.header("access-control-allow-headers").unwrap_or_default();
            let named = members(Some(&named.to_ascii_lowercase()));
            for name in [
                "authorization", "content-type", "x-request-id", "traceparent", "tracestate",
                "idempotency-key", "if-match", "if-none-match", "last-event-id",
                "x-requested-with",
            ] {
                assert!(named.contains(name), "{name} in {named:?}");
            }
            assert_no_cors_wildcard(&answer);
            assert_security_headers(&answer);
        }
        let refused = preflight("https://evil.example", "PUT").await;
        assert_eq!(refused.header("access-control-allow-origin"), None);
        assert!(refused.status < 500);
    }

    async fn an_invalid_host_is_refused(target) {
        let app = App::start(target).await;
        let cases: &[&[&str]] = &[
            &[],
            &["Host: localhost", "Host: localhost"],
            &["Host: localhost", "Host: evil.example"],
            &["Host: a,b"],
            &["Host: a/b"],
            &["Host: localhost/"],
            &["Host: user@localhost"],
            &["Host: a b"],
            &["Host: a\tb"],
            &["Host: http://localhost"],
            &["Host: localhost:port"],
            &["Host: localhost:80:80"],
            &["Host: [::1"],
            &["Host: localhost?x"],
            &["Host: localhost#x"],
            &["Host: a\\b"],
            &["Host: caf\u{e9}.example"],
        ];
        for hosts in cases {
            let head = [&["GET /health HTTP/1.1", "Connection: close"], *hosts].concat();
            let reply = send_raw(&app, &head, b"").await;
            assert_eq!(reply.status, 400, "{hosts:?}");
            assert_problem_or_empty(&reply);
        }
        for host in ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "a-b.Example"] {
            let host = format!("Host: {host}");
            let head = ["GET /health HTTP/1.1", "Connection: close", &host];
            assert_eq!(send_raw(&app, &head, b"").await.status, 200, "{host}");
        }
    }

    async fn a_target_is_an_ascii_path(target) {
        let app = App::start(target).await;
        for target in [
            "*", "health", "localhost:80", "/caf\u{e9}", "/health?\u{1f600}", "/a b",
            "/health\u{7f}", "?x", "", "//", "ftp://localhost/health", "file:///health",
            "ws://localhost/health", "mailto:a@localhost", "http://a@localhost/health",
            "http://a:b@localhost/health", "http://@localhost/health", "http:///health",
            "http:/health", "http:health", "http://", "http://:80/health", "http://[::1/health",
            "http://[x]/health", "http://a,b/health", "http://a:b/health",
            "http://localhost:123456/health", "http://localhost/caf\u{e9}",
            "http://caf\u{e9}.example/health", "http://a b/health",
        ] {
            let reply = request(&app, &format!("GET {target} HTTP/1.1")).await;
            // An unknown path, but a valid one.
            let status = if target == "//" { 404 } else { 400 };
            assert_eq!(reply.status, status, "{target:?}");
            assert_problem_or_empty(&reply);
        }
        // hyper may remove a fragment before our code runs: then it must be removed entirely.
        let fragment = request(&app, "GET /health#/../nowhere HTTP/1.1").await;
        assert!([200, 400].contains(&fragment.status), "{fragment:?}");
        let asterisk = request(&app, "OPTIONS * HTTP/1.1").await;
        assert!(asterisk.status < 500, "{asterisk:?}");
    }

    /// A server MUST accept it (RFC 9112, section 3.2.2) and take the host from its authority.
    async fn a_target_in_absolute_form_is_its_path(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for (target, status) in [
            ("http://localhost/health", 200),
            ("http://other.example:8080/health?x=http://y", 200),
            ("HTTPS://LOCALHOST/health/db", 200),
            ("http://127.0.0.1:1/health", 200),
            ("http://[::1]:80/health", 200),
            ("http://localhost:/health", 200),
            ("http://localhost", 200),
            ("http://localhost/", 200),
            ("http://localhost?x", 200),
            ("http://localhost/nowhere", 404),
            ("http://localhost//health", 404),
            ("http://localhost/api/auth/me", 401),
            ("http://localhost/api/auth/login", 405),
        ] {
            let reply = request(&app, &format!("GET {target} HTTP/1.1")).await;
            assert_eq!(reply.status, status, "{target}: {reply:?}");
            if status >= 400 {
                assert_problem_or_empty(&reply);
            }
        }
        let line = format!("GET http://other.example{} HTTP/1.1", ann.todos());
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let head = [line.as_str(), "Host: localhost", "Connection: close", &bearer];
        assert_eq!(send_raw(&app, &head, b"").await.status, 200);
        let line = "GET http://localhost/health HTTP/1.0";
        assert_eq!(send_raw(&app, &[line], b"").await.status, 200, "HTTP/1.0 needs no Host");
        // The Host field's value is ignored, but must still be valid.
        let line = "GET http://localhost/health HTTP/1.1";
        for hosts in [&[][..], &["Host: a", "Host: a"], &["Host: a/b"], &["Host: u@a"]] {
            let head = [&[line, "Connection: close"], hosts].concat();
            let reply = send_raw(&app, &head, b"").await;
            assert_eq!(reply.status, 400, "{hosts:?}");
            assert_problem_or_empty(&reply);
        }
        let options = request(&app, "OPTIONS http://localhost/health HTTP/1.1").await;
        assert_eq!((options.status, options.header("allow").is_some()), (204, true));
    }

    /// Invalid requests are refused on every path, whichever component serves it.
    async fn documentation_pages_reject_invalid_requests(target) {
        let app = App::start(target).await;
        for path in ["/docs", "/redoc", "/docs/page.css", "/redoc/page.js", "/docs/"] {
            let line = format!("GET {path} HTTP/1.1");
            let absolute = format!("GET http://a@localhost{path} HTTP/1.1");
            let cases: &[&[&str]] = &[
                &[&line],
                &[&line, "Host: a", "Host: b"],
                &[&line, "Host: a/b"],
                &[&line, "Host: u@a"],
                &[&absolute, "Host: a"],
                &["GET ftp://localhost/docs HTTP/1.1", "Host: a"],
            ];
            for head in cases {
                let reply = send_raw(&app, &[head, &["Connection: close"][..]].concat(), b"").await;
                assert_eq!(reply.status, 400, "{head:?}");
                assert_problem_or_empty(&reply);
            }
            let long = format!("GET {path}?{} HTTP/1.1", "x".repeat(9_000));
            request(&app, &long).await.problem(414, "uri_too_long");
            let big = format!("X-Big: {}", "x".repeat(40_000));
            let head = [line.as_str(), "Host: a", "Connection: close", &big];
            send_raw(&app, &head, b"").await.problem(431, "header_fields_too_large");
        }
        if target.server == Server::Salvo {
            let reply = request(&app, "GET http://localhost/docs HTTP/1.1").await;
            assert_eq!(reply.status, 200);
        }
    }

    async fn a_broken_head_is_refused(target) {
        let app = App::start(target).await;
        let cases: &[&[&str]] = &[
            &["GET /health"],
            &["GET  /health HTTP/1.1", "Host: a"],
            &["GET /health HTTP/9.9", "Host: a"],
            &["GET /health HTTP/1.1", "Host: a", "Broken"],
            &["GET /health HTTP/1.1", "Host: a", "Space : before"],
            &["GET /health HTTP/1.1", "Host: a", ": nameless"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: -1"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999"],
        ];
        for head in cases {
            let head = [head, &["Connection: close"][..]].concat();
            let reply = send_raw(&app, &head, b"x").await;
            assert!([400, 413, 505].contains(&reply.status), "{head:?}: {reply:?}");
        }
        assert_eq!(app.anonymous().get("/health").await.status, 200);
    }

    async fn a_head_is_bounded(target) {
        let app = App::start(target).await;
        let big = format!("X-Big: {}", "x".repeat(1_000_000));
        let many = vec!["X-Many: x"; 400];
        for extra in [vec![big.as_str()], many] {
            let head = [&["GET /health HTTP/1.1", "Host: a", "Connection: close"][..], &extra];
            let reply = send_raw(&app, &head.concat(), b"").await;
            assert_eq!(reply.status, 431, "{reply:?}");
        }
        let line = format!("GET /{} HTTP/1.1", "x".repeat(1_000_000));
        let status = request(&app, &line).await.status;
        assert!([400, 414, 431].contains(&status), "a long target: {status}");
        let line = format!("GET /health?{} HTTP/1.1", "x".repeat(4_000));
        assert_eq!(request(&app, &line).await.status, 200, "4 KB is within the limit");
    }

    async fn a_head_slightly_over_the_limit_gets_a_problem(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let big = "x".repeat(40_000);
        let answer = client.send("GET", "/health", &[("x-big", &big)], "").await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        answer.problem(431, "header_fields_too_large");
        let many = vec![("x-many", "x"); 100];
        let answer = client.send("GET", "/health", &many, "").await;
        answer.problem(431, "header_fields_too_large");
        let long = format!("/health?{}", "x".repeat(9_000));
        let answer = client.get(&long).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        answer.problem(414, "uri_too_long");
        let fits = vec![("x-many", "x"); 50];
        assert_eq!(client.send("GET", "/health", &fits, "").await.status, 200);
    }

    async fn http_1_0_needs_no_host(target) {
        let app = App::start(target).await;
        let reply = send_raw(&app, &["GET /health HTTP/1.0"], b"").await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("transfer-encoding").is_none(), "{reply:?}");
    }

    async fn the_media_type_is_json(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = r#"{"title":"x"}"#;
        for valid in [
            "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8",
            "Application/JSON", "application/json ; charset=\"utf-8\"",
            "application/json; charset=utf8", "application/json;charset=\"UTF8\"",
            "application/json; charset=us-ascii", "application/json; charset=US-ASCII",
        ] {
            let answer = ann.send("POST", &ann.todos(), &[("content-type", valid)], body).await;
            assert_eq!(answer.status, 201, "{valid}");
        }
        for bad in [
            "", "text/plain", "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x", "text/json", "application/jsonp",
            "application", "json", "application/", "*/*",
        ] {
            let answer = ann.send("POST", &ann.todos(), &[("content-type", bad)], body).await;
            assert_eq!(answer.status, 415, "{bad}");
            answer.problem(415, "unsupported_media_type");
        }
        let answer = ann.send("POST", &ann.todos(), &[], body).await;
        answer.problem(415, "unsupported_media_type");
        let answer = app.anonymous().send("POST", "/api/auth/login", &[], "{}").await;
        answer.problem(415, "unsupported_media_type");
        for bad in ["utf-16", "utf-32", "iso-8859-1", "windows-1252", "utf-7", "utf", ""] {
            let kind = format!("application/json; charset={bad}");
            let answer = ann.send("POST", &ann.todos(), &[("content-type", &kind)], body).await;
            assert_eq!(answer.status, 415, "{kind}");
            answer.problem(415, "unsupported_media_type");
        }
        for coding in ["identity", "Identity", "IDENTITY", "identity, identity", ""] {
            let headers = [JSON, ("content-encoding", coding)];
            let answer = ann.send("POST", &ann.todos(), &headers, body).await;
            assert_eq!(answer.status, 201, "{coding}");
        }
        for coding in ["gzip", "br", "deflate", "zstd", "gzip, gzip", "identity, gzip"] {
            let headers = [JSON, ("content-encoding", coding)];
            let answer = ann.send("POST", &ann.todos(), &headers, body).await;
            assert_eq!(answer.status, 415, "{coding}");
            answer.problem(415, "unsupported_media_type");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 14);
    }

    /// Editors and PowerShell write one; RFC 8259, section 8.1, allows a parser to ignore it.
    async fn a_byte_order_mark_before_the_json_is_skipped(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let send = async |body: &[u8]| ann.send("POST", &ann.todos(), &[JSON], body).await;
        let todo = send(b"\xef\xbb\xbf{\"title\":\"x\"}").await.expect(201);
        assert_eq!(todo["title"], "x");
        for bad in [
            &b"\xef\xbb\xbf"[..], b"\xef\xbb{\"title\":\"x\"}",
            b"\xef\xbb\xbf\xef\xbb\xbf{\"title\":\"x\"}", b"{\"title\":\xef\xbb\xbf\"x\"}",
            b"\xfe\xff\0{\0}",
        ] {
            send(bad).await.problem(422, "malformed_body");
        }
    }

    async fn a_body_is_bounded_to_the_byte(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = todo_of_size(LIMIT + 1);
        let headers = [("content-type", "application/json")];
        let answer = ann.send("POST", &ann.todos(), &headers, body).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        let line = format!("POST {} HTTP/1.1", ann.todos());
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let json = "Content-Type: application/json";
        let head = [line.as_str(), "Host: a", "Connection: close", json, &bearer];
        for (size, status) in [(LIMIT, 201), (LIMIT + 1, 413)] {
            let body = todo_of_size(size);
            assert_eq!(body.len(), size);
            let length = format!("Content-Length: {size}");
            let reply = send_raw(&app, &[&head[..], &[&length]].concat(), body.as_bytes()).await;
            assert_eq!(reply.status, status, "{size} bytes");
            let chunks = chunked(body.as_bytes());
            let coded = [&head[..], &["Transfer-Encoding: chunked"]].concat();
            let reply = send_raw(&app, &coded, &chunks).await;
            assert_eq!(reply.status, status, "{size} bytes in chunks");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 2);
    }

    async fn the_body_limit_is_a_setting(target) {
        let app = App::start_with(target, &[("MAX_BODY_BYTES", "2000")]).await;
        let ann = app.signed_up().await;
        for (size, status) in [(2000, 201), (2001, 413)] {
            let answer = ann.send("POST", &ann.todos(), &[JSON], todo_of_size(size)).await;
            assert_eq!(answer.status, status, "{size} bytes");
        }
    }

    async fn a_request_that_takes_too_long_is_a_504(target) {
        let app = App::start_with(target, &[("REQUEST_TIMEOUT_SECONDS", "1")]).await;
        let json = "Content-Type: application/json";
        // The body never arrives, and its own timeout is longer than the whole request's.
        let head = ["POST /api/auth/login HTTP/1.1", "Host: a", json, "Content-Length: 9"];
        send_raw(&app, &head, b"").await.problem(504, "timeout");
    }

    async fn a_client_that_writes_first_still_reads_the_413(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = vec![b'x'; HUGE];
        let head = |length: &str| {
            format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\n{length}\r\n\r\n",
                ann.todos(), ann.token(),
            ).into_bytes()
        };
        let sized = [head(&format!("Content-Length: {HUGE}")), body.clone()].concat();
        write_then_read(&app, &sized).await.problem(413, "content_too_large");
        let coded = [head("Transfer-Encoding: chunked"), chunked(&body)].concat();
        write_then_read(&app, &coded).await.problem(413, "content_too_large");
    }

    async fn a_client_that_writes_first_still_reads_the_401(target) {
        let app = App::start(target).await;
        let head = format!(
            "POST /api/users/{UNKNOWN_ID}/todos HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n",
        );
        let bytes = [head.into_bytes(), vec![b'x'; 1_000_000]].concat();
        write_then_read(&app, &bytes).await.problem(401, "unauthorized");
    }

    async fn a_refused_body_is_not_parsed_as_a_request(target) {
        let app = App::start(target).await;
        let smuggled = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3000);
        let head = format!(
            "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            smuggled.len(),
        );
        let answered = raw(app.addr(), &[head.as_bytes(), &smuggled].concat()).await;
        let mut rest = answered.as_slice();
        RawResponse::take(&mut rest).problem(413, "content_too_large");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(rest));
    }

    async fn expect_100_continue_is_answered_only_for_an_acceptable_body(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let head = |token: &str, length: usize| {
            format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\n\
                 Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n",
                ann.todos(),
            ).into_bytes()
        };
        for (request, status) in [(head(ann.token(), HUGE), 413), (head("none", 13), 401)] {
            let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
            stream.write_all(&request).await.expect("a write");
            let first = read_head(&mut stream).await;
            assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{first}");
        }
        let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
        stream.write_all(&head(ann.token(), 13)).await.expect("a write");
        let first = read_head(&mut stream).await;
        assert!(first.starts_with("HTTP/1.1 100 "), "{first}");
        stream.write_all(br#"{"title":"x"}"#).await.expect("a write");
        let last = read_head(&mut stream).await;
        assert!(last.starts_with("HTTP/1.1 201 "), "{last}");
    }

    async fn pipelined_requests_are_answered_in_order(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bearer = format!("Authorization: Bearer {}\r\n", ann.token());
        let json = "Content-Type: application/json\r\nContent-Length: 13\r\n";
        let todos = ann.todos();
        let requests = [
            ("GET", "/health", String::new(), "", 200),
            ("GET", "/nowhere", String::new(), "", 404),
            ("POST", &todos, format!("{bearer}{json}"), r#"{"title":"1"}"#, 201),
            ("GET", &todos, bearer.clone(), "", 200),
            ("POST", &todos, json.to_owned(), r#"{"title":"2"}"#, 401),
            ("GET", "/health/db", "Connection: close\r\n".to_owned(), "", 200),
        ];
        let mut bytes = String::new();
        for (number, (method, path, headers, body, _)) in requests.iter().enumerate() {
            let start = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}");
            bytes.push_str(&format!("{start}\r\n{headers}\r\n{body}"));
        }
        let answered = raw(app.addr(), bytes.as_bytes()).await;
        let mut rest = answered.as_slice();
        for (number, (method, path, _, _, status)) in requests.iter().enumerate() {
            let reply = RawResponse::take(&mut rest);
            assert_eq!(reply.status, *status, "{method} {path}");
            assert_eq!(reply.header("x-request-id"), Some(number.to_string().as_str()));
        }
        assert!(rest.is_empty());
        assert_eq!(ann.get(&todos).await.expect(200)["total"], 1);
    }

    async fn health_and_index_match_the_contract(target) {
        let app = App::start_with(target, &[("PROJECT_NAME", "Tasks of tests")]).await;
        let client = app.anonymous();
        let health = client.get("/health").await;
        assert_eq!(health.header("content-type"), Some("application/json"));
        let health = health.expect(200);
        let at = health["timestamp"].as_str().expect("a timestamp");
        assert!(at.ends_with('Z') && at.contains('T'), "{at}");
        assert_eq!(health, json!({"status": "healthy", "timestamp": at}));
        let database = client.get("/health/db").await.expect(200);
        assert_eq!(database, json!({"status": "healthy", "database": "connected"}));
        let index = client.get("/").await.expect(200);
        assert_eq!(index["name"], "Tasks of tests", "{index}");
        assert!(index["version"].as_str().is_some_and(|it| !it.is_empty()), "{index}");
        assert_eq!(index["message"], "Tasks of tests is running.", "{index}");
        let links = index["links"].as_object().expect("links");
        assert_eq!(links["openapi"], "/openapi.json");
        let has_pages = target.server == Server::Salvo;
        for (name, path) in [("docs", "/docs"), ("redoc", "/redoc")] {
            let path = has_pages.then(|| json!(path));
            assert_eq!(links.get(name), path.as_ref(), "{index}");
        }
        for link in links.values() {
            let path = link.as_str().expect("a path");
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    }

    async fn metrics_name_routes_and_no_user(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let id = todo["id"].as_str().expect("an id");
        ann.get(&format!("{}/{id}", ann.todos())).await.expect(200);
        app.anonymous().get("/raw-path-of-nobody").await.problem(404, "not_found");
        app.anonymous().send("BREW-of-nobody", "/health", &[], "").await;
        let answer = app.anonymous().get("/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/plain"), "{kind}");
        let text = answer.text();
        assert!(text.contains("/api/users/{user_id}/todos/{todo_id}\""), "{text}");
        for secret in [ann.id(), id, ann.email(), ann.token(), "of-nobody"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line:?}");
        }
        for part in ["# TYPE ", "_bucket{", "le=\"+Inf\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    async fn the_documentation_loads_nothing_from_other_hosts(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for page in ["/docs", "/redoc"] {
            let answer = client.get(page).await;
            if target.server == Server::Hyper {
                answer.problem(404, "not_found");
                continue;
            }
            assert_eq!(answer.status, 200, "{page}");
            assert_security_headers(&answer);
            let kind = answer.header("content-type").unwrap_or_default();
            assert!(kind.starts_with("text/html"), "{kind}");
            assert_policy_is_local(answer.header("content-security-policy").unwrap_or_default());
            let html = answer.text();
            let named = referenced_files(&html);
            assert!(!named.is_empty(), "{page} loads nothing: {html}");
            for path in named {
                // Relative, so that it works below any prefix that a proxy strips.
                assert!(!path.starts_with('/') && !path.contains(':'), "{path} in {page}");
                let file = client.get(&format!("/{path}")).await;
                assert_eq!(file.status, 200, "{path} in {page}");
                assert_security_headers(&file);
            }
            let head = client.send("HEAD", page, &[], "").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {page}");
            let posted = client.post(page, json!({})).await;
            assert!([404, 405].contains(&posted.status), "{posted}");
        }
    }
}

fn varies_by_origin(answer: &TestResponse) -> bool {
    let values = answer.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| members(Some(value))).any(|one| one.eq_ignore_ascii_case("origin"))
}

/// With credentials, `*` in these headers is not a wildcard but a literal name (Fetch standard).
fn assert_no_cors_wildcard(answer: &TestResponse) {
    for (name, value) in &answer.headers {
        if name.as_str().starts_with("access-control-") {
            assert!(!value.as_bytes().contains(&b'*'), "{name}: {value:?} of {answer}");
        }
    }
}

/// Checks that a refusal outside the routes has an empty body or a problem document.
fn assert_problem_or_empty(reply: &RawResponse) {
    if !reply.body.is_empty() {
        let problem: Value = serde_json::from_slice(&reply.body).expect("a problem document");
        assert_eq!(problem["status"], reply.status, "{problem}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}

/// Checks that every source of the policy is a keyword, a hash, a nonce, `data:` or `blob:`.
fn assert_policy_is_local(policy: &str) {
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"));
    for directive in policy.split(';') {
        for source in directive.split_ascii_whitespace().skip(1) {
            let local = source.starts_with('\'') || ["data:", "blob:"].contains(&source);
            assert!(local && source != "'unsafe-eval'", "{source} in {policy}");
        }
    }
}

/// The values of a page's `src` and `href` attributes, except `data:` URLs.
fn referenced_files(html: &str) -> Vec<String> {
    let mut named = Vec::new();
    for attribute in ["src=", "href="] {
        for (at, _) in html.match_indices(attribute) {
            let value = &html[at + attribute.len()..];
            let (quote, value) = value.split_at(1);
            assert!(["\"", "'"].contains(&quote), "an unquoted attribute in {html}");
            let value = value.split(quote).next().unwrap_or_default();
            if !value.starts_with("data:") {
                named.push(value.to_owned());
            }
        }
    }
    named
}
