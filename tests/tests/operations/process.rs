//! Both programs as processes: the files and settings of a start, the errors for bad settings, and
//! a stop that is prompt and loses nothing. Other suites test the responses.

mod full_disk;
mod output;
mod settings;
mod starting;
mod stopping;

use std::{collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use todo_tests::raw;

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
