//! Two servers, one contract: both return the same response to the same request, byte for byte,
//! after ids, times and tokens are normalised. Other suites check that the response is correct.

mod probes;

use serde_json::{Value, json};
use todo_tests::{Actor, App, Database, Server, Target, raw};

use self::probes::{HEADS, NOBODY, PROBES, Probe};

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
            "etag" if value.starts_with("\"2-") => fields.push(format!("{name}: <version>")),
            // The epoch is random.
            "etag" if value.starts_with("W/") => {
                let after = value.split_once('.').map_or(value, |(_epoch, after)| after);
                fields.push(format!("{name}: <epoch>.{after}"));
            }
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
        let position = [("<position>", quoted_after(rest, "\"next\":\""))];
        match found.into_iter().chain(cursor).chain(position).find(|(_, length)| *length > 0) {
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
