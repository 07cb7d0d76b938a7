//! HTTP rules common to all routes: routing, methods, headers, CORS, media types, body sizes and
//! malformed requests, down to the bytes on the socket. Valid requests are tested in the suites of
//! the routes.

mod bodies;
mod cors;
mod headers;
mod operational_routes;
mod request_heads;
mod routing;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use todo_tests::{App, TestResponse, raw};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";
const LIMIT: usize = 65_536;
const ORIGIN: &str = "https://app.example";

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
