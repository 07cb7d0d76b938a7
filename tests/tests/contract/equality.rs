//! Two servers, one contract: both return the same response to the same request, byte for byte,
//! after ids, times and tokens are normalised. Other suites check that the response is correct.

use serde_json::{Value, json};
use todo_tests::{Actor, App, Database, Server, Target, raw};

/// A request without its version and framing: first line, header fields, content.
///
/// `{ann}` and `{bob}` are users, `{mine}` and `{theirs}` their todos, `{nobody}` an unknown id,
/// `{token}` is ann's token and `{gone}` one of hers that is logged out.
type Probe = (&'static str, &'static [&'static str], &'static str);

const NONE: &[&str] = &[];
const JSON: &[&str] = &["Content-Type: application/json"];
const ANN: &[&str] = &["Authorization: Bearer {token}"];
const ANN_JSON: &[&str] = &["Authorization: Bearer {token}", "Content-Type: application/json"];
const IF_ANY: &[&str] =
    &["Authorization: Bearer {token}", "Content-Type: application/json", "If-Match: *"];
const IF_OLD: &[&str] = &[
    "Authorization: Bearer {token}",
    "Content-Type: application/json",
    "If-Match: \"1-AAZg7jzg-EA\", W/\"x\"",
];
const IF_BAD: &[&str] =
    &["Authorization: Bearer {token}", "Content-Type: application/json", "If-Match: x"];
const IF_NONE_ANY: &[&str] = &["Authorization: Bearer {token}", "If-None-Match: *"];
const IF_NONE_OLD: &[&str] =
    &["Authorization: Bearer {token}", "If-None-Match: \"1-AAZg7jzg-EA\", x"];
const GONE: &[&str] = &["Authorization: Bearer {gone}", "Content-Type: application/json"];
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// Sent in this order: some change the state for later ones.
const PROBES: &[Probe] = &[
    // operations
    ("GET /", NONE, ""),
    ("HEAD /", NONE, ""),
    ("GET /health", NONE, ""),
    ("HEAD /health", NONE, ""),
    ("GET /health?x=%00", NONE, ""),
    ("GET /health/db", NONE, ""),
    ("GET /openapi.json", NONE, ""),
    ("POST /health", JSON, "{}"),
    ("OPTIONS /health", NONE, ""),
    // routing
    ("GET /nowhere", NONE, ""),
    ("GET /nowhere", &["Accept: text/html"], ""),
    ("GET /nowhere", &["Accept: application/xml", "Accept-Language: de"], ""),
    ("GET /health/", NONE, ""),
    ("GET /health/?x=1", NONE, ""),
    ("BREW /health/", NONE, ""),
    ("OPTIONS /api/auth/me/", NONE, ""),
    ("GET /nowhere/", NONE, ""),
    ("GET //health", NONE, ""),
    ("GET /HEALTH", NONE, ""),
    ("GET /./health", NONE, ""),
    ("GET /x/../health", NONE, ""),
    ("GET /%68ealth", NONE, ""),
    ("POST /api/auth/%73ignup", JSON, "{}"),
    ("POST //api/auth/login", JSON, "{}"),
    ("POST /api/auth/login/", JSON, "{}"),
    ("GET /api/auth/login", NONE, ""),
    ("PUT /api/auth/me", NONE, ""),
    ("BREW /health", NONE, ""),
    ("get /health", NONE, ""),
    ("TRACE /health", NONE, ""),
    ("OPTIONS /nowhere", NONE, ""),
    ("OPTIONS *", NONE, ""),
    ("GET *", NONE, ""),
    ("GET health", NONE, ""),
    ("GET /health#fragment", NONE, ""),
    ("GET /caf\u{e9}", NONE, ""),
    ("GET http://localhost/health", NONE, ""),
    ("GET http://localhost/nowhere", NONE, ""),
    ("GET http://localhost", NONE, ""),
    ("GET http://evil.example/health/", NONE, ""),
    ("GET http://u@localhost/health", NONE, ""),
    ("GET ftp://localhost/health", NONE, ""),
    // headers
    ("GET /health", &["X-Request-Id: probe-1"], ""),
    ("GET /nowhere", &["X-Request-Id: probe-2"], ""),
    ("GET /nowhere", &["X-Request-Id: not one"], ""),
    ("GET /nowhere", &["X-Request-Id: a", "X-Request-Id: b"], ""),
    ("GET /health", &["Origin: http://localhost:3000"], ""),
    ("GET /nowhere", &["Origin: http://localhost:3000"], ""),
    ("GET /health", &["Origin: https://evil.example"], ""),
    ("GET /health", &["Origin: null"], ""),
    (
        "OPTIONS /api/users/{ann}/todos",
        &["Origin: http://localhost:3000", "Access-Control-Request-Method: POST"],
        "",
    ),
    (
        "OPTIONS /api/users/{ann}/todos",
        &["Origin: https://evil.example", "Access-Control-Request-Method: POST"],
        "",
    ),
    (
        "OPTIONS /nowhere",
        &["Origin: http://localhost:3000", "Access-Control-Request-Method: POST"],
        "",
    ),
    ("OPTIONS /api/users/{ann}/todos", &["Origin: http://localhost:3000"], ""),
    ("GET /health", &["Accept-Encoding: identity"], ""),
    ("GET /health", &["Range: bytes=0-3"], ""),
    ("GET /health", &["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"], ""),
    ("GET /health", &["Transfer-Encoding: identity"], ""),
    ("GET /health", &["Expect: something"], ""),
    // tokens
    ("GET /api/auth/me", NONE, ""),
    ("GET /api/auth/me", ANN, ""),
    ("HEAD /api/auth/me", ANN, ""),
    ("GET /api/auth/me", &["Authorization: bEARER {token}"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer  {token}"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer {token}x"], ""),
    ("GET /api/auth/me", &["Authorization: Basic YTpi"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer {token}", "Authorization: Bearer x"], ""),
    ("GET /api/auth/me", GONE, ""),
    ("PATCH /api/auth/me", NONE, "{}"),
    ("PATCH /api/auth/me", ANN_JSON, "{}"),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":null}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":7}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":" A\u0007 "}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":" Ann King ","email":"x"}"#),
    ("PATCH /api/auth/me", GONE, r#"{"name":"Ann"}"#),
    ("GET /api/auth/me?access_token={token}", NONE, ""),
    ("GET /api/auth/me", &["Cookie: access_token={token}"], ""),
    // accounts
    ("POST /api/auth/signup", JSON, ""),
    ("POST /api/auth/signup", JSON, "{"),
    ("POST /api/auth/signup", JSON, "{}"),
    ("POST /api/auth/signup", JSON, r#"{"email":1,"password":2,"name":3}"#),
    ("POST /api/auth/signup", JSON, r#"{"email":"x","password":"weak","name":"a"}"#),
    ("POST /api/auth/signup", NONE, r#"{"email":"x","password":"weak","name":"a"}"#),
    (
        "POST /api/auth/signup",
        JSON,
        r#"{"email":"ANN@example.com ","password":"Correct1horse","name":"Ann"}"#,
    ),
    (
        "POST /api/auth/signup",
        JSON,
        r#"{"email":" Carl@Example.com ","password":"Correct1horse","name":" Carl \u00e9 "}"#,
    ),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com","password":"Correct1horse"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com","password":"wrong"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"dora@example.com","password":"wrong"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"not one","password":""}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com"}"#),
    ("POST /api/auth/logout", NONE, ""),
    ("POST /api/auth/logout", GONE, ""),
    // todos
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":" a \u0130 ","extra":1}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"b","description":"","priority":"low"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":" ","priority":"urgent"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"a\u0000b"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"x","title":"y"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":1}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, "[]"),
    ("POST /api/users/{ann}/todos", ANN_JSON, "null"),
    ("POST /api/users/{ann}/todos", ANN_JSON, "{\"title\":\"x\"} trailing"),
    ("POST /api/users/{ann}/todos", ANN, r#"{"title":"x"}"#),
    ("POST /api/users/{ann}/todos", JSON, r#"{"title":"x"}"#),
    ("POST /api/users/{ann}/todos", GONE, "{"),
    (
        "POST /api/users/{ann}/todos",
        &["Authorization: Bearer {token}", "Content-Type: text/plain"],
        r#"{"title":"x"}"#,
    ),
    (
        "POST /api/users/{ann}/todos",
        &[
            "Authorization: Bearer {token}",
            "Content-Type: application/json",
            "Content-Encoding: gzip",
        ],
        r#"{"title":"x"}"#,
    ),
    ("POST /api/users/{bob}/todos", ANN_JSON, r#"{"title":"x"}"#),
    ("POST /api/users/nobody/todos", ANN_JSON, r#"{"title":"x"}"#),
    ("GET /api/users/{ann}/todos", ANN, ""),
    ("HEAD /api/users/{ann}/todos", ANN, ""),
    ("GET /api/users/{ann}/todos?sort_by=title&order=asc", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=1", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=0&status=x&order=&sort_by=%00&cursor=x", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=1&limit=1", ANN, ""),
    ("GET /api/users/{ann}/todos?status=%zz", ANN, ""),
    ("GET /api/users/{ann}/todos?unknown=1&=&&", ANN, ""),
    ("GET /api/users/{bob}/todos", ANN, ""),
    ("GET /api/users/%00/todos", ANN, ""),
    ("GET /api/users//todos", ANN, ""),
    ("GET /api/users/{ann}/todos/", ANN, ""),
    ("GET /api/users/{ann}/todos/{mine}", ANN, ""),
    ("HEAD /api/users/{ann}/todos/{mine}", ANN, ""),
    ("OPTIONS /api/users/{ann}/todos/{mine}", NONE, ""),
    ("POST /api/users/{ann}/todos/{mine}", ANN_JSON, "{}"),
    ("GET /api/users/{ann}/todos/{theirs}", ANN, ""),
    ("GET /api/users/{ann}/todos/{nobody}", ANN, ""),
    ("GET /api/users/{ann}/todos/1", ANN, ""),
    ("PUT /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":"c","priority":"high"}"#),
    ("PUT /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":"c"}"#),
    ("PUT /api/users/{ann}/todos/{theirs}", ANN_JSON, r#"{"title":"c","priority":"high"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"description":"d"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, "{}"),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":null}"#),
    ("PATCH /api/users/{ann}/todos/{nobody}", ANN_JSON, r#"{"title":"x"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", ANN_JSON, r#"{"completed":true}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", ANN_JSON, r#"{"completed":"yes"}"#),
    ("GET /api/users/{ann}/todos?status=completed", ANN, ""),
    // conditions
    ("GET /api/users/{ann}/todos/{mine}", IF_NONE_ANY, ""),
    ("HEAD /api/users/{ann}/todos/{mine}", IF_NONE_ANY, ""),
    ("GET /api/users/{ann}/todos/{mine}", IF_NONE_OLD, ""),
    ("GET /api/users/{ann}/todos/{theirs}", IF_NONE_ANY, ""),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_ANY, r#"{"title":"e"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":"f"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, "{}"),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":""}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_BAD, r#"{"title":"f"}"#),
    ("PATCH /api/users/{ann}/todos/1", IF_BAD, r#"{"title":"f"}"#),
    ("PUT /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":"f","priority":"high"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", IF_OLD, r#"{"completed":true}"#),
    ("DELETE /api/users/{ann}/todos/{mine}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{theirs}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{nobody}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{theirs}", ANN, ""),
    ("DELETE /api/users/{ann}/todos/{mine}", ANN, ""),
    ("DELETE /api/users/{ann}/todos/{mine}", ANN, ""),
    ("POST /api/auth/logout", ANN, ""),
    ("GET /api/users/{ann}/todos", ANN, ""),
];

/// Complete request heads, for requests with invalid framing.
const HEADS: &[&str] = &[
    "GET /health HTTP/1.1\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a/b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a,b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: u@a\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: \r\nConnection: close",
    "GET /health HTTP/1.0",
    "GET /health HTTP/1.1\r\nHost: a\r\nBad Field: x\r\nConnection: close",
    "GET /health",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
     Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 70000",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
     Content-Length: 1\r\nContent-Length: 2",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: x",
];

/// A server with a fixed set of users and todos.
struct Stage {
    app: App,
    names: Vec<(&'static str, String)>,
}

impl Stage {
    async fn set(server: Server, database: Database) -> Stage {
        let app = App::start(Target { server, database }).await;
        let ann = sign_up(&app, "ann@example.com").await;
        let bob = sign_up(&app, "bob@example.com").await;
        let body = json!({"email": ann.email(), "password": ann.password()});
        let again = app.anonymous().post("/api/auth/login", body).await.expect(200);
        let gone = Actor::of(&app.anonymous(), &again, ann.password());
        gone.post("/api/auth/logout", Value::Null).await.expect(200);
        let names = vec![
            ("{ann}", ann.id().to_owned()),
            ("{bob}", bob.id().to_owned()),
            ("{mine}", id(&ann.todo("mine").await)),
            ("{theirs}", id(&bob.todo("theirs").await)),
            ("{nobody}", NOBODY.to_owned()),
            ("{token}", ann.token().to_owned()),
            ("{gone}", gone.token().to_owned()),
        ];
        Stage { app, names }
    }

    async fn send(&self, head: &str, body: &str) -> String {
        let mut request = format!("{head}\r\n\r\n{body}");
        for (name, value) in &self.names {
            request = request.replace(name, value);
        }
        comparable(&raw(self.app.addr(), request.as_bytes()).await)
    }
}

async fn sign_up(app: &App, email: &str) -> Actor {
    let password = "Correct1horse";
    let body = json!({"email": email, "password": password, "name": "Some Body"});
    let auth = app.anonymous().post("/api/auth/signup", body).await.expect(201);
    Actor::of(&app.anonymous(), &auth, password)
}

fn id(todo: &Value) -> String {
    todo["id"].as_str().unwrap_or_else(|| panic!("no id in {todo}")).to_owned()
}

fn framed((line, headers, body): &Probe) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close");
    for header in *headers {
        head.push_str(&format!("\r\n{header}"));
    }
    if !body.is_empty() {
        head.push_str(&format!("\r\nContent-Length: {}", body.len()));
    }
    head
}

/// The reply as text: header fields sorted, without the date and connection management; ids, times
/// and tokens replaced by their kind.
fn comparable(reply: &[u8]) -> String {
    let reply = String::from_utf8_lossy(reply);
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "date" | "connection" | "keep-alive" => {}
            // Only todo-server compresses.
            "vary" if value.eq_ignore_ascii_case("accept-encoding") => {}
            // Trailing zeros of a time's fraction are omitted, so lengths may differ.
            "content-length" if body.is_empty() => fields.push(format!("{name}: of no content")),
            "content-length" => fields.push(format!("{name}: {}", value == body.len().to_string())),
            "etag" if value.starts_with("\"1-") => fields.push(format!("{name}: <version>")),
            "x-request-id" if value.len() > 16 => fields.push(format!("{name}: <new>")),
            _ => fields.push(format!("{name}: {value}")),
        }
    }
    fields.sort_unstable();
    normal(&format!("{status}\n{}\n\n{body}", fields.join("\n")))
}

/// Replaces the values that differ between runs.
fn normal(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let found = [("<time>", time(rest)), ("<id>", uuid(rest)), ("<token>", token(rest))];
        let cursor = [("<cursor>", cursor(rest)), ("<request>", request_id(rest))];
        match found.into_iter().chain(cursor).find(|(_, length)| *length > 0) {
            Some((name, length)) => {
                normal.push_str(name);
                rest = &rest[length..];
            }
            None => {
                normal.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    normal
}

/// The length of the UUID that `text` begins with, or 0.
fn uuid(text: &str) -> usize {
    shaped(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", |b| b.is_ascii_hexdigit())
}

/// The length of the timestamp that `text` begins with, or 0.
fn time(text: &str) -> usize {
    match shaped(text, "xxxx-xx-xxTxx:xx:xx", |b| b.is_ascii_digit()) {
        0 => 0,
        length => length + text[length..].find('Z').map_or(0, |end| end + 1),
    }
}

fn shaped(text: &str, shape: &str, matches_x: impl Fn(u8) -> bool) -> usize {
    let fits = text.len() >= shape.len()
        && text.bytes().zip(shape.bytes()).all(|(b, s)| b == s || s == b'x' && matches_x(b));
    if fits { shape.len() } else { 0 }
}

/// The length of the JWT that `text` begins with, or 0.
fn token(text: &str) -> usize {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    let length = text.bytes().take_while(|b| is_part(b)).count();
    if text.starts_with("eyJ") && length > 100 { length } else { 0 }
}

fn cursor(text: &str) -> usize {
    quoted_after(text, "\"next_cursor\":\"")
}

fn request_id(text: &str) -> usize {
    match quoted_after(text, "\"request_id\":\"") {
        // Generated ids are longer than those of the probes.
        length if length > 16 + "\"request_id\":\"\"".len() => length,
        _ => 0,
    }
}

fn quoted_after(text: &str, start: &str) -> usize {
    let value = text.strip_prefix(start).and_then(|value| value.find('"'));
    value.map_or(0, |end| start.len() + end + 1)
}

async fn both_servers_return_the_same_responses(database: Database) {
    let salvo = Stage::set(Server::Salvo, database).await;
    let hyper = Stage::set(Server::Hyper, database).await;
    let framed = PROBES.iter().map(|probe| (framed(probe), probe.2));
    let heads = HEADS.iter().map(|head| (head.to_string(), ""));
    let mut differences = Vec::new();
    for (head, body) in framed.chain(heads) {
        let (one, other) = tokio::join!(salvo.send(&head, body), hyper.send(&head, body));
        assert!(!one.trim().is_empty(), "no response to {head}");
        let (one, other) = (without_pages(&one), other);
        if one != other {
            differences.push(format!("=== {head}\n\n{body}\n--- salvo\n{one}\n--- hyper\n{other}"));
        }
    }
    assert!(differences.is_empty(), "{}\n{} differ", differences.join("\n"), differences.len());
}

/// A response, without the index's links to the pages that only todo-server has.
fn without_pages(answer: &str) -> String {
    answer.replace("\"docs\":\"/docs\",", "").replace(",\"redoc\":\"/redoc\"", "")
}

#[tokio::test]
async fn both_servers_return_the_same_responses_on_sqlite() {
    both_servers_return_the_same_responses(Database::Sqlite).await;
}

#[tokio::test]
async fn both_servers_return_the_same_responses_on_postgres() {
    both_servers_return_the_same_responses(Database::Postgres).await;
}

/// The comparison hides generated values and nothing else.
#[test]
fn only_ids_times_and_tokens_are_hidden() {
    let reply = |time: &str, title: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nDate: {time}\r\nX-Request-Id: {NOBODY}\r\nVary: Origin\r\n\r\n\
             {{\"id\":\"{NOBODY}\",\"at\":\"2026-01-01T00:00:0{time}Z\",\"title\":\"{title}\"}}",
        )
    };
    let one = comparable(reply("1.5", "a").as_bytes());
    assert_eq!(one, comparable(reply("2.123456", "a").as_bytes()));
    assert_ne!(one, comparable(reply("1.5", "b").as_bytes()));
    assert!(one.contains("\"id\":\"<id>\",\"at\":\"<time>\",\"title\":\"a\""), "{one}");
    assert!(one.contains("vary: Origin"), "{one}");
}
