//! Exports and imports at size, whose connections are cut, and whose server is killed.

mod cuts;
mod kills;
mod size;

use todo_tests::{Actor, TestResponse};

const JSON: &str = "application/json";

/// Exports in a format.
async fn export(actor: &Actor, format: &str) -> TestResponse {
    actor.get(&format!("/api/users/{}/export?format={format}", actor.id())).await
}

fn import_path(actor: &Actor, format: &str) -> String {
    format!("/api/users/{}/import?format={format}", actor.id())
}

/// The number of todos.
async fn total(actor: &Actor) -> u64 {
    let list = actor.get(&format!("{}?limit=1", actor.todos())).await.expect(200);
    list["total"].as_u64().expect("a number")
}
