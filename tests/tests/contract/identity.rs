//! Tokens of another issuer, a real Better Auth server, in place of sessions of this API.

mod accounts;
mod addresses;
mod forgeries;
mod identities;
mod sessions;
mod tokens;

use serde_json::{Value, json};
use todo_tests::{App, Client, TestResponse};

use crate::text;

const ME: &str = "/api/auth/me";
const IDENTITIES: &str = "/api/auth/identities";
const SESSIONS: &str = "/api/auth/sessions";

fn bearing(app: &App, token: &str) -> Client {
    app.anonymous().bearing(token)
}

/// The response to the first or a later request with a token.
async fn me(app: &App, token: &str) -> TestResponse {
    bearing(app, token).get(ME).await
}

/// The id of a token's user.
async fn user_id(app: &App, token: &str) -> String {
    text(&me(app, token).await.expect(200), "id").to_owned()
}

/// The titles of the caller's todos; `user` is as in the path.
async fn titles(client: &Client, user: &str) -> Vec<String> {
    let list = client.get(&format!("/api/users/{user}/todos")).await.expect(200);
    let todos = list["todos"].as_array().expect("a list");
    todos.iter().map(|todo| text(todo, "title").to_owned()).collect()
}

async fn add_todo(client: &Client, user: &str, title: &str) -> Value {
    client.post(&format!("/api/users/{user}/todos"), json!({ "title": title })).await.expect(201)
}

/// The caller's identities.
async fn identities(client: &Client) -> Vec<Value> {
    let list = client.get(IDENTITIES).await.expect(200);
    list["identities"].as_array().expect("a list").clone()
}
