//! The OpenAPI document: it is complete and consistent, the servers' responses match it, and every
//! change shows in the diff of `golden/openapi.json`. To accept a change:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p todo-tests --test contract openapi
//! ```

mod description;
mod golden;
mod requests;
mod responses;

use serde_json::Value;
use todo_tests::{App, Database, Server, Target};

const TODOS: &str = "/api/users/{user_id}/todos";
const BULK: &str = "/api/users/{user_id}/todos/bulk";
const TODO: &str = "/api/users/{user_id}/todos/{todo_id}";
const MOVE: &str = "/api/users/{user_id}/todos/{todo_id}/move";
const TAGS: &str = "/api/users/{user_id}/tags";
const RENAME_TAG: &str = "/api/users/{user_id}/tags/rename";
const LISTS: &str = "/api/users/{user_id}/lists";
const LIST: &str = "/api/users/{user_id}/lists/{list_id}";
const TRASH: &str = "/api/users/{user_id}/trash";
const TRASHED: &str = "/api/users/{user_id}/trash/{todo_id}";
const RESTORE: &str = "/api/users/{user_id}/trash/{todo_id}/restore";
const EXPORT: &str = "/api/users/{user_id}/export";
const IMPORT: &str = "/api/users/{user_id}/import";
const CHANGES: &str = "/api/users/{user_id}/changes";
const EVENTS: &str = "/api/users/{user_id}/events";
const WEBHOOK: &str = "/api/users/{user_id}/webhook";
const SOCKET: &str = "/api/users/{user_id}/ws";
const START: &str = "/api/auth/oauth/{provider}/start";
const CALLBACK: &str = "/api/auth/oauth/{provider}/callback";
const COMPLETE: &str = "/api/users/{user_id}/todos/{todo_id}/complete";

/// A route of the contract.
struct Route {
    method: &'static str,
    path: &'static str,
    is_protected: bool,
    has_body: bool,
    statuses: &'static [&'static str],
}

const fn route(
    method: &'static str,
    path: &'static str,
    is_protected: bool,
    has_body: bool,
    statuses: &'static [&'static str],
) -> Route {
    Route { method, path, is_protected, has_body, statuses }
}

#[rustfmt::skip]
const ROUTES: [Route; 63] = [
    route("post", "/api/auth/signup", false, true,
        &["201", "400", "409", "413", "415", "422", "429", "500", "503"]),
    route("post", "/api/auth/login", false, true,
        &["200", "401", "413", "415", "422", "429", "500", "503"]),
    route("post", "/api/auth/logout", true, false, &["200", "401", "500", "503"]),
    route("get", "/api/auth/me", true, false, &["200", "401", "500", "503"]),
    route("patch", "/api/auth/me", true, true,
        &["200", "400", "401", "413", "415", "422", "500", "503"]),
    route("delete", "/api/auth/me", true, true,
        &["200", "400", "401", "403", "413", "415", "422", "429", "500", "503"]),
    route("get", "/api/auth/sessions", true, false, &["200", "401", "500", "503"]),
    route("delete", "/api/auth/sessions", true, false, &["200", "401", "500", "503"]),
    route("delete", "/api/auth/sessions/{session_id}", true, false,
        &["200", "401", "404", "500", "503"]),
    route("post", "/api/auth/password", true, true,
        &["200", "400", "401", "413", "415", "422", "429", "500", "503"]),
    route("post", "/api/auth/keys", true, true,
        &["201", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503"]),
    route("get", "/api/auth/keys", true, false, &["200", "401", "403", "500", "503"]),
    route("delete", "/api/auth/keys/{key_id}", true, false,
        &["200", "401", "403", "404", "500", "503"]),
    route("post", "/api/auth/identities", true, true,
        &["201", "400", "401", "403", "409", "413", "415", "422", "500", "503"]),
    route("get", "/api/auth/identities", true, false, &["200", "401", "403", "500", "503"]),
    route("delete", "/api/auth/identities/{identity_id}", true, false,
        &["200", "401", "403", "404", "409", "500", "503"]),
    route("get", "/api/auth/oauth", false, false, &["200", "500", "503"]),
    route("get", START, false, false,
        &["302", "400", "404", "429", "500", "503"]),
    route("get", CALLBACK, false, false,
        &["303", "400", "404", "429", "500", "503"]),
    route("post", "/api/auth/oauth/token", false, true,
        &["200", "400", "413", "415", "422", "500", "503"]),
    route("post", "/api/auth/oauth/{provider}/link", true, true,
        &["200", "400", "401", "403", "404", "413", "415", "422", "500", "503"]),
    route("post", "/api/auth/oauth/link", true, true,
        &["201", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503"]),
    route("get", "/api/auth/export", true, false, &["200", "401", "429", "500", "503"]),
    route("post", "/api/auth/password/forgot", false, true,
        &["202", "400", "413", "415", "422", "429", "500", "501", "503"]),
    route("post", "/api/auth/password/reset", false, true,
        &["200", "400", "413", "415", "422", "500", "501", "503"]),
    route("post", "/api/auth/email", true, true,
        &["202", "400", "401", "413", "415", "422", "429", "500", "501", "503"]),
    route("post", "/api/auth/email/verify", true, false,
        &["202", "401", "409", "429", "500", "501", "503"]),
    route("post", "/api/auth/email/confirm", false, true,
        &["200", "400", "409", "413", "415", "422", "500", "501", "503"]),
    route("post", TODOS, true, true,
        &["201", "400", "401", "403", "409", "413", "415", "422", "500", "503"]),
    route("get", TODOS, true, false, &["200", "304", "400", "401", "403", "500", "503"]),
    route("post", BULK, true, true,
        &["200", "400", "401", "403", "404", "409", "413", "415", "422", "500", "503"]),
    route("post", MOVE, true, true,
        &["200", "400", "401", "403", "404", "412", "413", "415", "422", "500", "503"]),
    route("get", TAGS, true, false, &["200", "304", "401", "403", "500", "503"]),
    route("delete", TAGS, true, false, &["200", "400", "401", "403", "404", "500", "503"]),
    route("post", RENAME_TAG, true, true,
        &["200", "400", "401", "403", "404", "413", "415", "422", "500", "503"]),
    route("post", LISTS, true, true,
        &["201", "400", "401", "403", "409", "413", "415", "422", "500", "503"]),
    route("get", LISTS, true, false, &["200", "304", "401", "403", "500", "503"]),
    route("get", LIST, true, false, &["200", "304", "401", "403", "404", "500", "503"]),
    route("patch", LIST, true, true,
        &["200", "400", "401", "403", "404", "412", "413", "415", "422", "500", "503"]),
    route("delete", LIST, true, false, &["200", "401", "403", "404", "412", "500", "503"]),
    route("get", TODO, true, false, &["200", "304", "401", "403", "404", "500", "503"]),
    route("put", TODO, true, true,
        &["200", "400", "401", "403", "404", "412", "413", "415", "422", "500", "503"]),
    route("patch", TODO, true, true,
        &["200", "400", "401", "403", "404", "412", "413", "415", "422", "500", "503"]),
    route("patch", COMPLETE, true, true,
        &["200", "401", "403", "404", "412", "413", "415", "422", "500", "503"]),
    route("delete", TODO, true, false, &["200", "401", "403", "404", "412", "500", "503"]),
    route("get", TRASH, true, false, &["200", "400", "401", "403", "500", "503"]),
    route("delete", TRASH, true, false, &["200", "401", "403", "500", "503"]),
    route("delete", TRASHED, true, false, &["200", "401", "403", "404", "500", "503"]),
    route("post", RESTORE, true, false,
        &["200", "401", "403", "404", "409", "422", "500", "503"]),
    route("get", EXPORT, true, false, &["200", "400", "401", "403", "500", "503"]),
    route("post", IMPORT, true, true,
        &["200", "400", "401", "403", "409", "413", "415", "422", "500", "503"]),
    route("get", CHANGES, true, false, &["200", "400", "401", "403", "410", "500", "503"]),
    route("get", EVENTS, true, false,
        &["200", "400", "401", "403", "410", "429", "500", "503"]),
    route("put", WEBHOOK, true, true,
        &["200", "400", "401", "403", "413", "415", "422", "500", "503"]),
    route("get", WEBHOOK, true, false, &["200", "401", "403", "404", "500", "503"]),
    route("delete", WEBHOOK, true, false, &["200", "401", "403", "404", "500", "503"]),
    route("get", SOCKET, true, false,
        &["101", "400", "401", "403", "426", "429", "500", "503"]),
    route("get", "/health", false, false, &["200"]),
    route("get", "/health/ready", false, false, &["200", "503"]),
    route("get", "/health/db", false, false, &["200", "503"]),
    route("get", "/metrics", false, false, &["200"]),
    route("get", "/openapi.json", false, false, &["200"]),
    route("get", "/", false, false, &["200"]),
];

async fn document(app: &App) -> Value {
    let answer = app.anonymous().get("/openapi.json").await;
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/") && kind.contains("json"), "{kind}");
    answer.expect(200)
}

/// The document of one target; a separate test compares the other targets with it.
async fn sqlite_document() -> Value {
    document(&App::start(Target { server: Server::Hyper, database: Database::Sqlite }).await).await
}

fn operation<'a>(document: &'a Value, route: &Route) -> &'a Value {
    let operation = &document["paths"][route.path][route.method];
    assert!(operation.is_object(), "{} {} is not described", route.method, route.path);
    operation
}

/// Follows a `$ref`, if the value is one.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    let pointer = reference.strip_prefix('#');
    let target = pointer.and_then(|pointer| document.pointer(pointer));
    let target = target.unwrap_or_else(|| panic!("{reference} does not resolve"));
    resolved(document, target)
}

/// The schema of a body's content, with its media type: JSON, if there are several, as of a file.
fn content<'a>(document: &'a Value, body: &'a Value) -> Option<(&'a str, &'a Value)> {
    const JSON: &str = "application/json";
    let content = resolved(document, body)["content"].as_object()?;
    if let Some(media) = content.get(JSON) {
        return Some((JSON, media));
    }
    assert_eq!(content.len(), 1, "one media type: {body}");
    let (kind, media) = content.iter().next()?;
    Some((kind, media))
}

/// Validates `value` by the part of JSON Schema 2020-12 that the document uses. Stricter in one
/// point: an undescribed property is an error.
fn validate(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolved(document, schema);
    let wrong = |what: &str| Err(format!("{at}: {what}: {value} against {schema}"));
    for (keyword, enough) in [("oneOf", 1), ("anyOf", 1), ("allOf", usize::MAX)] {
        let Some(branches) = schema[keyword].as_array() else { continue };
        let fitting =
            branches.iter().filter(|branch| validate(document, branch, value, at).is_ok()).count();
        if fitting < enough.min(branches.len()) {
            return wrong(keyword);
        }
    }
    if let Some(kinds) = schema.get("type") {
        let one = [kinds.clone()];
        let kinds = kinds.as_array().map_or(&one[..], Vec::as_slice);
        if !kinds.iter().any(|kind| has_type(kind.as_str().unwrap_or_default(), value)) {
            return wrong("type");
        }
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return wrong("enum");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("const");
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            validate(document, &schema["items"], item, &format!("{at}/{index}"))?;
        }
    }
    let (Some(described), Some(members)) = (schema["properties"].as_object(), value.as_object())
    else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap_or_default()) {
            return wrong(&format!("{name} is required"));
        }
    }
    for (name, member) in members {
        match described.get(name) {
            Some(schema) => validate(document, schema, member, &format!("{at}/{name}"))?,
            None => return wrong(&format!("{name} is not described")),
        }
    }
    Ok(())
}

fn has_type(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
