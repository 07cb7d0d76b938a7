//! The todo routes: all their rules except the list's, access control, and the order of the checks.
//! Not here: sorting and paging (`listing.rs`), and HTTP below JSON (`protocol.rs`).

mod access;
mod changes;
mod details;
mod fields;

use serde_json::{Value, json};
use todo_tests::{Actor, TestResponse};

use crate::text;

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

/// The path of a todo in its owner's collection.
fn path(owner: &Actor, todo: &Value) -> String {
    format!("{}/{}", owner.todos(), text(todo, "id"))
}

/// Checks a timestamp's format (RFC 3339, `Z`, at most six decimals) and returns it in a form that
/// compares as text.
fn instant(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("not a timestamp: {value}"));
    let body = text.strip_suffix('Z').unwrap_or_else(|| panic!("not in UTC: {text}"));
    let (seconds, decimals) = body.split_once('.').unwrap_or((body, ""));
    let shape: String = seconds.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "not RFC 3339: {text}");
    assert!(decimals.len() <= 6, "finer than microseconds: {text}");
    assert!(decimals.bytes().all(|b| b.is_ascii_digit()), "not RFC 3339: {text}");
    format!("{seconds}.{decimals:0<6}")
}

/// Asserts a 400 whose `details` name exactly these fields.
fn invalid(answer: TestResponse, fields: &[&str]) {
    let problem = answer.problem(400, "validation_error");
    let details = problem["details"].as_array().unwrap_or_else(|| panic!("no details: {problem}"));
    let mut named: Vec<&str> = details.iter().map(|d| text(d, "field")).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, fields, "{problem}");
}

async fn create(owner: &Actor, body: Value) -> Value {
    owner.post(&owner.todos(), body).await.expect(201)
}

async fn sent(actor: &Actor, method: &str, path: &str, body: impl Into<Vec<u8>>) -> TestResponse {
    actor.send(method, path, &[JSON], body).await
}

/// Every operation on a single todo, with a valid body.
fn verbs() -> [(&'static str, &'static str, Value); 5] {
    [
        ("GET", "", Value::Null),
        ("PUT", "", json!({"title": "taken", "priority": "low"})),
        ("PATCH", "", json!({"title": "taken"})),
        ("PATCH", "/complete", json!({"completed": true})),
        ("DELETE", "", Value::Null),
    ]
}

/// Sends one of [`verbs`].
async fn try_verb(actor: &Actor, verb: &(&str, &str, Value), path: &str) -> TestResponse {
    let (method, suffix, body) = verb;
    let path = format!("{path}{suffix}");
    match body {
        Value::Null => actor.send(method, &path, &[], "").await,
        body => sent(actor, method, &path, body.to_string()).await,
    }
}
