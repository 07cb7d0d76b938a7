//! The contract, route by route, on every target: each promise of docs/api.md and each error.

mod auth;
mod bulk;
mod changes;
mod conditions;
mod deletion;
mod equality;
mod events;
mod exchange;
mod export;
mod idempotency;
mod identity;
mod listing;
mod mail;
mod openapi;
mod public_url;
mod quotas;
mod rate_limits;
mod recurrence;
mod reminders;
mod sign_in;
mod statements;
mod tags_and_lists;
mod todos;
mod tokens;
mod trash;
mod webhook;
mod websocket;

/// The member `name` of `value`, which must be a string.
fn text<'a>(value: &'a serde_json::Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("`{name}` is not a string in {value}"))
}

/// The todos of a list by their id.
fn by_id(list: &serde_json::Value) -> std::collections::BTreeMap<String, serde_json::Value> {
    let todos = list["todos"].as_array().unwrap_or_else(|| panic!("no todos in {list}"));
    todos.iter().map(|todo| (text(todo, "id").to_owned(), todo.clone())).collect()
}
