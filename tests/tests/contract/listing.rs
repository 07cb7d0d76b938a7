//! Lists of todos: filters, sort orders and paging, which neither repeats nor skips a todo under
//! concurrent changes. `todos.rs` tests the single todo.

mod filters;
mod long_lists;
mod order;
mod paging;
mod parameters;
mod versions;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use todo_tests::{Actor, TestResponse};

use crate::text;

const SORTS: [&str; 3] = ["created_at", "priority", "title"];
const ORDERS: [&str; 2] = ["desc", "asc"];
const FILTERS: [&str; 3] = ["all", "pending", "completed"];

fn todos(list: &Value) -> &[Value] {
    list["todos"].as_array().unwrap_or_else(|| panic!("no todos in {list}"))
}

fn ids(list: &Value) -> Vec<String> {
    todos(list).iter().map(|todo| text(todo, "id").to_owned()).collect()
}

fn titles(list: &Value) -> Vec<&str> {
    todos(list).iter().map(|todo| text(todo, "title")).collect()
}

async fn list(owner: &Actor, query: &str) -> Value {
    owner.get(&format!("{}?{query}", owner.todos())).await.expect(200)
}

async fn create(owner: &Actor, title: &str, priority: &str, completed: bool) -> Value {
    let body = json!({"title": title, "priority": priority});
    let todo = owner.post(&owner.todos(), body).await.expect(201);
    if !completed {
        return todo;
    }
    let path = format!("{}/{}/complete", owner.todos(), text(&todo, "id"));
    owner.patch(&path, json!({"completed": true})).await.expect(200)
}

/// Twenty todos with many equal titles and priorities; every third is completed.
async fn twenty(owner: &Actor) {
    for number in 0..20 {
        let title = ["beta", "Alpha", "alpha", "\u{df}", "\u{e9}t\u{e9}"][number % 5];
        let priority = ["high", "medium", "low"][number / 2 % 3];
        create(owner, title, priority, number % 3 == 0).await;
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Follows `next_cursor` from the first page to the last.
async fn pages(owner: &Actor, query: &str, limit: usize) -> Vec<Value> {
    let mut pages = vec![list(owner, &format!("{query}&limit={limit}")).await];
    while let Some(cursor) = pages[pages.len() - 1]["next_cursor"].as_str() {
        let query = format!("{query}&limit={limit}&cursor={}", encoded(cursor));
        pages.push(list(owner, &query).await);
        assert!(pages.len() <= 500, "{query}: too many pages");
    }
    assert_eq!(pages[pages.len() - 1]["next_cursor"], Value::Null);
    pages
}

/// Asserts a 400 whose `details` name exactly these query parameters.
fn invalid(answer: TestResponse, query: &str, names: &[&str]) {
    assert_eq!(answer.status, 400, "{query}");
    let problem = answer.problem(400, "validation_error");
    let details = problem["details"].as_array().unwrap_or_else(|| panic!("no details: {problem}"));
    let named: BTreeSet<&str> = details.iter().map(|d| text(d, "field")).collect();
    assert_eq!(named, names.iter().copied().collect(), "{query}: {problem}");
}
