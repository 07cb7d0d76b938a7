//! JSON Schemas of the types in responses, written by hand: derived, a trait of a schema crate
//! would be part of the library's public types.

use chrono::DateTime;
use serde_json::{Map, Value, json};
use uuid::uuid;

use crate::{
    auth::{MAX_KEYS, MAX_SESSIONS, Scope},
    http::schema::reference,
    ids::{TodoId, UserId},
    todos::{Description, Priority, SortBy, SortOrder, Status, Title, Todo},
};

/// The schemas by name. A test compares each with the JSON of a response.
pub(crate) fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for (name, schema) in [
        ("Auth", auth()),
        ("User", user()),
        ("Sessions", sessions()),
        ("Session", session()),
        ("Identities", identities()),
        ("Identity", identity()),
        ("SignInProviders", sign_in_providers()),
        ("SignInPage", sign_in_page()),
        ("Keys", keys()),
        ("Key", key()),
        ("CreatedKey", created_key()),
        ("Scope", words("A right of an API key. None includes another.", Scope::ALL)),
        ("Export", export()),
        ("Todo", todo()),
        ("TodoList", todo_list()),
        ("TrashedTodo", trashed_todo()),
        ("TrashPage", trash_page()),
        ("ChangePage", change_page()),
        ("BulkResults", bulk_results()),
        ("BulkResult", bulk_result()),
        ("Filters", filters()),
        (
            "Priority",
            words("How urgent a todo is. Ordered by rank: low, medium, high.", Priority::ALL),
        ),
        ("Status", words("Filter of a list by completion.", Status::ALL)),
        (
            "SortBy",
            words(
                "The sort key of a list; ties are sorted by `created_at`, then `id`, in the same \
                 direction.",
                SortBy::ALL,
            ),
        ),
        ("Order", words("The sort direction of a list.", SortOrder::ALL)),
        ("Problem", problem()),
        ("FieldError", field_error()),
    ] {
        schemas.insert(name.to_owned(), schema);
    }
    schemas
}

/// An object, all of whose members are required.
fn object(description: &str, members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut object = super::object(&required, &properties.into());
    object["description"] = json!(description);
    object
}

fn words<T: AsRef<str>>(description: &str, words: &[T]) -> Value {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    json!({ "description": description, "type": "string", "enum": words })
}

fn string(description: &str) -> Value {
    json!({ "description": description, "type": "string" })
}

fn uuid(description: &str) -> Value {
    json!({ "description": description, "type": "string", "format": "uuid" })
}

fn time(description: &str) -> Value {
    json!({ "description": description, "type": "string", "format": "date-time" })
}

fn referring(description: &str, schema: &str) -> Value {
    let mut reference = reference(schema);
    reference["description"] = json!(description);
    reference
}

fn auth() -> Value {
    let mut auth = object(
        "The response to signup and login.",
        &[
            ("user", reference("User")),
            ("token", string("A JWT for the `Authorization: Bearer` header.")),
            ("access_token", string("The same as `token`, under its OAuth 2.0 name.")),
            (
                "token_type",
                json!({ "description": "`bearer`", "type": "string", "const": "bearer" }),
            ),
            ("expires_at", time("The end of the token's validity.")),
        ],
    );
    auth["example"] = json!({
        "user": user()["example"],
        "token": "eyJ0eXAiOiJKV1Qi…", "access_token": "eyJ0eXAiOiJKV1Qi…", "token_type": "bearer",
        "expires_at": "2026-11-30T09:29:12Z",
    });
    auth
}

fn user() -> Value {
    let mut user = object(
        "A user account. The password's hash is never sent.",
        &[
            ("id", uuid("A UUIDv7.")),
            ("email", string("In NFC and lower case.")),
            ("name", string("Trimmed, 2 to 100 characters.")),
            ("created_at", time("When the account was created.")),
            (
                "email_verified",
                json!({
                    "description": "Whether the user has confirmed the address by a mailed link.",
                    "type": "boolean",
                }),
            ),
            (
                "time_zone",
                json!({
                    "description": "The zone by which times of day count, for example of \
                        reminders: a name of the IANA time zone database; UTC if it is null.",
                    "type": ["string", "null"],
                }),
            ),
            (
                "reminder_mail",
                json!({
                    "description": "Whether the user is reminded of todos by mail.",
                    "type": "boolean",
                }),
            ),
        ],
    );
    user["example"] = json!({
        "id": "01938c6e-90b2-7c33-9a65-1d9b7a52c0de",
        "email": "ada@example.com",
        "name": "Ada Lovelace",
        "created_at": "2026-11-23T09:29:12.456789Z",
        "email_verified": false,
        "time_zone": "Europe/London",
        "reminder_mail": false,
    });
    user
}

fn export() -> Value {
    let list = |description: &str, schema: &str| json!({ "description": description, "type": "array", "items": reference(schema) });
    let mut export = object(
        "Everything that is stored about a user.",
        &[
            ("format", json!({ "description": "The format.", "const": "todo-export" })),
            ("version", json!({ "description": "The version of the format.", "const": 1 })),
            ("exported_at", time("When the export began.")),
            ("user", reference("User")),
            ("identities", list("The identities, the oldest first.", "Identity")),
            ("sessions", list("The live sessions, the newest first.", "Session")),
            ("keys", list("The API keys, without the keys themselves.", "Key")),
            ("todos", list("All todos, the oldest first.", "Todo")),
            ("trash", list("The deleted todos, the first deleted first.", "TrashedTodo")),
        ],
    );
    export["example"] = json!({
        "format": "todo-export", "version": 1, "exported_at": "2026-11-26T09:30:00Z",
        "user": user()["example"], "identities": [identity()["example"]], "sessions": [session()["example"]],
        "keys": [key()["example"]], "todos": [todo()["example"]],
        "trash": [trashed_todo()["example"]],
    });
    export
}

fn sessions() -> Value {
    let sessions = json!({
        "description": "The live sessions, the newest first.",
        "type": "array", "maxItems": MAX_SESSIONS, "items": reference("Session"),
    });
    let mut list = object("The sessions of a user.", &[("sessions", sessions)]);
    list["example"] = json!({ "sessions": [session()["example"]] });
    list
}

fn session() -> Value {
    let label = "The program that it was created from, as its `User-Agent`.";
    let client = "The address that it was created from: an IPv4 address, or the /64 of an IPv6 \
        address.";
    let kind = "How it was created: `password` is a login or a signup.";
    let current = "Whether it is the session of the request.";
    let mut session = object(
        "A session of a user.",
        &[
            ("id", uuid("Unique id. It is no secret.")),
            ("kind", words(kind, &["password", "oauth", "external"])),
            ("label", super::or_null(string(label))),
            ("client", super::or_null(string(client))),
            ("created_at", time("When it was created.")),
            ("seen_at", time("When it was last used, to about a minute.")),
            ("expires_at", time("When its token expires.")),
            ("current", json!({ "description": current, "type": "boolean" })),
        ],
    );
    session["example"] = json!({
        "id": "01938c70-1fd1-7bb0-95b9-0e6f9a1d7c11",
        "kind": "password",
        "label": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "client": "192.0.2.7",
        "created_at": "2026-11-23T09:29:12.456789Z",
        "seen_at": "2026-11-24T07:05:40.012345Z",
        "expires_at": "2026-11-30T09:29:12.000000Z",
        "current": true,
    });
    session
}

fn identities() -> Value {
    let identities = json!({
        "description": "The identities, the oldest first.",
        "type": "array", "items": reference("Identity"),
    });
    let mut list = object("The identities of a user.", &[("identities", identities)]);
    list["example"] = json!({ "identities": [identity()["example"]] });
    list
}

fn identity() -> Value {
    let verified = "Whether the issuer has verified the address.";
    let mut identity = object(
        "A user of another issuer who logs in to the account.",
        &[
            ("id", uuid("Unique id.")),
            ("issuer", string("The issuer.")),
            ("subject", string("The user's id at the issuer.")),
            ("email", super::or_null(string("The address, as the issuer last stated it."))),
            ("email_verified", json!({ "description": verified, "type": "boolean" })),
            ("name", super::or_null(string("The name, as the issuer last stated it."))),
            ("created_at", time("When it was added to the account.")),
        ],
    );
    identity["example"] = json!({
        "id": "01938c70-1fd1-7bb0-95b9-0e6f9a1d7c11",
        "issuer": "https://auth.example.com",
        "subject": "u7fRY3oZqwoIxtz0thnXSHKl7n43cCYD",
        "email": "ann@example.com",
        "email_verified": true,
        "name": "Ann Other",
        "created_at": "2026-11-23T09:29:12.456789Z",
    });
    identity
}

fn sign_in_providers() -> Value {
    let provider = object(
        "A provider with which users can sign in.",
        &[
            ("name", string("The name in the paths of the routes.")),
            ("title", string("The name for users.")),
        ],
    );
    let providers = json!({ "type": "array", "items": provider });
    let mut list = object("The providers of sign-ins.", &[("providers", providers)]);
    list["example"] = json!({ "providers": [{ "name": "github", "title": "GitHub" }] });
    list
}

fn sign_in_page() -> Value {
    let mut page = object(
        "Where to send the browser.",
        &[("url", string("The address of the provider's page."))],
    );
    page["example"] = json!({
        "url": "https://github.com/login/oauth/authorize?response_type=code&client_id=todo",
    });
    page
}

fn keys() -> Value {
    let keys = json!({
        "description": "The keys that have not expired, the newest first.",
        "type": "array", "maxItems": MAX_KEYS, "items": reference("Key"),
    });
    let mut list = object("The API keys of a user.", &[("keys", keys)]);
    list["example"] = json!({ "keys": [key()["example"]] });
    list
}

fn key() -> Value {
    let scopes = json!({
        "description": "What it allows.", "type": "array", "items": reference("Scope"),
    });
    let seen_at = "When it was last used, to about a minute; null if it was not used yet.";
    let mut key = object(
        "An API key of a user, without the key itself.",
        &[
            ("id", uuid("Unique id. It is no secret.")),
            ("name", string("Trimmed, 1 to 100 characters.")),
            ("scopes", scopes),
            ("created_at", time("When it was created.")),
            ("seen_at", super::or_null(time(seen_at))),
            ("expires_at", time("When it expires.")),
        ],
    );
    key["example"] = json!({
        "id": "ad4a22b7-24e1-b182-2d15-50a220f2c2f4",
        "name": "backup",
        "scopes": ["todos:read"],
        "created_at": "2026-11-23T09:29:12.456789Z",
        "seen_at": null,
        "expires_at": "2026-12-23T09:29:12.000000Z",
    });
    key
}

fn created_key() -> Value {
    let mut created = key();
    created["description"] = json!("A new API key of a user.");
    created["properties"]["key"] =
        string("The key, for the `Authorization: Bearer` header. It is shown this once.");
    if let Some(required) = created["required"].as_array_mut() {
        required.push(json!("key"));
    }
    created["example"]["key"] = json!("todo_…");
    created
}

fn todo() -> Value {
    let updated_at = "When it was last changed; increases strictly with every change.";
    let completed_at = "When it was completed; null while it is open.";
    let mut todo = object(
        "A todo.",
        &[
            ("id", uuid("A UUIDv7.")),
            ("user_id", uuid("The owner.")),
            ("title", string("Trimmed, 1 to 200 characters.")),
            ("description", super::or_null(string("Up to 1000 characters."))),
            ("priority", referring("`high`, `medium` or `low`.", "Priority")),
            ("completed", json!({ "description": "Whether it is completed.", "type": "boolean" })),
            ("created_at", time("When it was created.")),
            ("updated_at", time(updated_at)),
            ("completed_at", super::or_null(time(completed_at))),
        ],
    );
    todo["example"] = json!(example_todo());
    todo
}

/// The todo in the examples.
pub(crate) fn example_todo() -> Todo {
    let created_at = DateTime::from_timestamp_micros(1_795_426_200_123_456).unwrap_or_default();
    Todo {
        id: TodoId::new(uuid!("01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11")),
        user_id: UserId::new(uuid!("01938c6e-90b2-7c33-9a65-1d9b7a52c0de")),
        title: Title::from_stored("Buy milk".into()),
        description: Some(Description::from_stored("two litres".into())),
        priority: Priority::High,
        completed: false,
        created_at,
        updated_at: created_at,
        completed_at: None,
    }
}

/// The `ETag` of [`example_todo`].
pub(crate) const EXAMPLE_ETAG: &str = "\"1-AAZg7jzg-EA\"";
/// The `ETag` of a list.
pub(crate) const EXAMPLE_LIST_ETAG: &str = "W/\"8f14e45fceea167a.42-lQ0vYc6E0d3u\"";

fn trashed_todo() -> Value {
    let mut trashed = todo();
    trashed["description"] = json!("A deleted todo, as it was when it was deleted.");
    for (name, schema) in [
        ("deleted_at", time("When it was deleted.")),
        ("expires_at", time("When it is deleted permanently.")),
    ] {
        trashed["properties"][name] = schema;
        if let Some(required) = trashed["required"].as_array_mut() {
            required.push(json!(name));
        }
    }
    trashed["example"]["deleted_at"] = json!("2026-11-24T08:00:00Z");
    trashed["example"]["expires_at"] = json!("2026-12-24T08:00:00Z");
    trashed
}

fn trash_page() -> Value {
    let mut page = object(
        "A page of the trash.",
        &[
            (
                "todos",
                json!({
                    "description": "The deleted todos, the last deleted first.",
                    "type": "array", "items": reference("TrashedTodo"),
                }),
            ),
            (
                "total",
                json!({
                    "description": "The number of deleted todos, on all pages.",
                    "type": "integer", "format": "int64",
                }),
            ),
            (
                "next_cursor",
                super::or_null(string("The cursor of the next page, or null after the last.")),
            ),
        ],
    );
    page["example"] =
        json!({ "todos": [trashed_todo()["example"]], "total": 1, "next_cursor": null });
    page
}

fn change_page() -> Value {
    let changed = json!({
        "type": "object",
        "required": ["type", "todo"],
        "properties": {
            "type": { "type": "string", "const": "todo" },
            "todo": referring("The todo as it is now.", "Todo"),
        },
    });
    let deleted = json!({
        "type": "object",
        "required": ["type", "id"],
        "properties": {
            "type": { "type": "string", "const": "deleted" },
            "id": uuid("The id of a todo that is gone."),
        },
    });
    let mut page = object(
        "A page of changes.",
        &[
            (
                "changes",
                json!({
                    "description": "The changes in their order, each todo at most once. Clients \
                        ignore those of an unknown `type`.",
                    "type": "array", "items": { "oneOf": [changed, deleted] },
                }),
            ),
            ("next", string("The position after this page: the `since` of the next one.")),
            (
                "has_more",
                json!({ "description": "Whether there are more changes now.", "type": "boolean" }),
            ),
        ],
    );
    page["example"] = json!({
        "changes": [
            { "type": "todo", "todo": todo()["example"] },
            { "type": "deleted", "id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b12" },
        ],
        "next": "8f14e45fceea167a.42",
        "has_more": false,
    });
    page
}

fn bulk_results() -> Value {
    let mut results = object(
        "The response to a bulk.",
        &[(
            "results",
            json!({
                "description": "The result of each item, in their order.",
                "type": "array", "items": reference("BulkResult"),
            }),
        )],
    );
    results["example"] =
        json!({ "results": [{ "index": 0, "status": 201, "todo": todo()["example"] }] });
    results
}

fn bulk_result() -> Value {
    let mut result = object(
        "The result of an item of a bulk.",
        &[
            (
                "index",
                json!({
                    "description": "The item's index in the request, from 0.",
                    "type": "integer", "minimum": 0,
                }),
            ),
            (
                "status",
                json!({
                    "description": "The status that a request with this item alone would have.",
                    "type": "integer", "minimum": 200, "maximum": 499,
                }),
            ),
            (
                "todo",
                json!({
                    "description": "The todo; null if it was deleted or the item failed.",
                    "anyOf": [reference("Todo"), { "type": "null" }],
                }),
            ),
        ],
    );
    let code = "Why the item failed, as the `code` of a problem; only if `partial` is true.";
    result["properties"]["code"] = string(code);
    for (name, description) in [
        ("limit", "The maximum number of todos (`quota_exceeded`)."),
        ("used", "The present number of todos (`quota_exceeded`)."),
    ] {
        result["properties"][name] =
            json!({ "description": description, "type": "integer", "minimum": 0 });
    }
    result["properties"]["details"] = json!({
        "description": "The rules that the item's values break (`validation_error`).",
        "type": "array", "items": reference("FieldError"),
    });
    result
}

fn todo_list() -> Value {
    let mut list = object(
        "A list of todos, or one page of it.",
        &[
            (
                "todos",
                json!({
                    "description": "The todos, in the requested order.",
                    "type": "array", "items": reference("Todo"),
                }),
            ),
            (
                "total",
                json!({
                    "description": "The number of todos that match the filters, on all pages.",
                    "type": "integer", "format": "int64",
                }),
            ),
            (
                "filters_applied",
                referring("The filters of this list, defaults included.", "Filters"),
            ),
            (
                "next_cursor",
                super::or_null(string("The cursor of the next page, or null after the last.")),
            ),
        ],
    );
    list["example"] = json!({
        "todos": [todo()["example"]],
        "total": 1,
        "filters_applied": { "status": "all", "sort_by": "created_at", "order": "desc" },
        "next_cursor": null,
    });
    list
}

fn filters() -> Value {
    object(
        "The filter and the order of a list.",
        &[
            ("status", referring("The filter by completion.", "Status")),
            ("sort_by", referring("The sort key.", "SortBy")),
            ("order", referring("The sort direction.", "Order")),
        ],
    )
}

fn problem() -> Value {
    let details = "All invalid fields, with the rule that each breaks (400 and 422).";
    let request_id = "The response's `X-Request-Id`, for reports to an operator.";
    let mut problem = object(
        "The body of every error response (RFC 9457, section 3). `error` repeats `title`, and \
         `details`\nlists all invalid fields: clients of the Python backend read these, and show \
         `detail` and each\n`message` to users unchanged.",
        &[
            ("type", string("A relative URI that identifies the problem type.")),
            ("title", string("The problem type in words.")),
            (
                "status",
                json!({
                    "description": "The HTTP status.",
                    "type": "integer", "format": "int32", "minimum": 0,
                }),
            ),
            ("detail", string("This occurrence of the problem, in whole sentences for users.")),
            ("code", string("The problem type for programs.")),
            ("error", string("The same as `title`.")),
            ("request_id", string(request_id)),
        ],
    );
    problem["properties"]["details"] =
        json!({ "description": details, "type": "array", "items": reference("FieldError") });
    problem["properties"]["current"] =
        referring("The todo that does not match `If-Match` (412).", "Todo");
    for (name, description) in [
        ("limit", "The maximum number (409 `quota_exceeded`)."),
        ("used", "The present number (409 `quota_exceeded`)."),
    ] {
        problem["properties"][name] =
            json!({ "description": description, "type": "integer", "minimum": 0 });
    }
    problem["example"] = json!({
        "type": "/problems/validation-error",
        "title": "Validation Error",
        "status": 400,
        "detail": "Title cannot be empty.",
        "code": "validation_error",
        "error": "Validation Error",
        "details": [{
            "field": "title", "pointer": "/title",
            "code": "blank", "message": "Title cannot be empty.",
        }],
        "request_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
    });
    problem
}

fn field_error() -> Value {
    let with_example = |description, example| {
        let mut schema = string(description);
        schema["example"] = json!(example);
        schema
    };
    object(
        "A field and the rule that it breaks.",
        &[
            (
                "field",
                with_example(
                    "The field's name: a member of the body, or a query parameter.",
                    "title",
                ),
            ),
            (
                "pointer",
                with_example(
                    "The field's location, as a JSON Pointer (RFC 6901) into the body or the \
                     query parameters.",
                    "/title",
                ),
            ),
            ("code", with_example("The rule, for programs.", "blank")),
            (
                "message",
                with_example(
                    "The rule in one whole sentence, for users.",
                    "Title cannot be empty.",
                ),
            ),
        ],
    )
}
