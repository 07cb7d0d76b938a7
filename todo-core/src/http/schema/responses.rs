//! JSON Schemas of the types in responses, written by hand: derived, a trait of a schema crate
//! would be part of the library's public types.

use chrono::DateTime;
use serde_json::{Map, Value, json};
use uuid::uuid;

use crate::{
    auth::{MAX_KEYS, MAX_SESSIONS, Scope},
    http::schema::{Member, TIME, reference},
    ids::{ListId, TodoId, UserId},
    todos::{
        Description, Due, DueFilter, List, ListColor, ListName, Priority, RecurrenceBase, Reminder,
        Reminders, Rule, SortBy, SortOrder, Status, Tags, TimeZone, Title, Todo,
    },
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
        ("ExportedWebhook", exported_webhook()),
        ("Todo", todo()),
        ("Due", due()),
        ("DueInput", due_input()),
        ("RecurrenceInput", recurrence_input()),
        ("Recurrence", recurrence()),
        ("Reminder", reminder()),
        ("TodoList", todo_list()),
        ("Tags", tags()),
        ("TagCount", tag_count()),
        ("Lists", lists()),
        ("List", list()),
        ("ListedTodo", listed_todo()),
        ("Match", a_match()),
        ("Completion", completion()),
        ("TrashedTodo", trashed_todo()),
        ("TrashPage", trash_page()),
        ("ChangePage", change_page()),
        ("FiredReminder", fired_reminder()),
        ("Webhook", webhook()),
        ("SetWebhookResult", set_webhook_result()),
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
                 direction. `due`: todos without a due date are last in both directions. \
                 `position`: the user's own order.",
                SortBy::ALL,
            ),
        ),
        ("Order", words("The sort direction of a list.", SortOrder::ALL)),
        (
            "DueFilter",
            words(
                "Filter of a list by due date: what has passed, what is of today, what has a due \
                 date, or what has none.",
                DueFilter::ALL,
            ),
        ),
        ("Problem", problem()),
        ("FieldError", field_error()),
    ] {
        schemas.insert(name.to_owned(), schema);
    }
    schemas.extend(super::files::schemas().map(|(name, schema)| (name.to_owned(), schema)));
    schemas
}

/// An object, all of whose members are required.
pub(super) fn object(description: &str, members: &[(&str, Value)]) -> Value {
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

pub(super) fn string(description: &str) -> Value {
    json!({ "description": description, "type": "string" })
}

fn uuid(description: &str) -> Value {
    json!({ "description": description, "type": "string", "format": "uuid" })
}

pub(super) fn time(description: &str) -> Value {
    json!({ "description": description, "type": "string", "format": "date-time" })
}

pub(super) fn referring(description: &str, schema: &str) -> Value {
    let mut reference = reference(schema);
    reference["description"] = json!(description);
    reference
}

pub(super) fn nullable(description: &str, schema: &str) -> Value {
    let mut nullable = super::or_null(reference(schema));
    nullable["description"] = json!(description);
    nullable
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
            ("lists", list("The lists, the oldest first.", "List")),
            (
                "webhook",
                nullable("The webhook, without its secret; null without one.", "ExportedWebhook"),
            ),
            ("todos", list("All todos, the oldest first.", "Todo")),
            ("trash", list("The deleted todos, the first deleted first.", "TrashedTodo")),
        ],
    );
    export["example"] = json!({
        "format": "todo-export", "version": 1, "exported_at": "2026-11-26T09:30:00Z",
        "user": user()["example"], "identities": [identity()["example"]], "sessions": [session()["example"]],
        "keys": [key()["example"]], "lists": [example_list()], "webhook": exported_webhook()["example"],
        "todos": [todo()["example"]],
        "trash": [trashed_todo()["example"]],
    });
    export
}

fn exported_webhook() -> Value {
    let mut webhook = object(
        "A webhook in an export: without its secret.",
        &[
            ("url", json!({ "description": "Where reminders are sent.", "type": "string" })),
            ("created_at", time("When it was set.")),
        ],
    );
    webhook["example"] = json!({
        "url": "https://example.com/reminders", "created_at": "2026-11-20T09:30:00Z",
    });
    webhook
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
            (
                "tags",
                json!({
                    "description": "Up to 20 tags, in code point order.", "type": "array",
                    "items": { "type": "string" },
                }),
            ),
            ("due", nullable("When it is due.", "Due")),
            ("recurrence", nullable("How it recurs.", "Recurrence")),
            (
                "reminders",
                json!({
                    "description": "Up to 5 reminders, the latest first.", "type": "array",
                    "items": reference("Reminder"),
                }),
            ),
            ("list_id", super::or_null(uuid("Its list; null for the inbox."))),
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
        tags: Tags::parse(["errand"]).unwrap_or_default(),
        due: Due::parse("2026-12-01", None, None).ok(),
        recurrence: None,
        reminders: Reminders::default(),
        list_id: None,
    }
}

fn due() -> Value {
    let mut due = json!({
        "description": "When a todo is due: a date, or a time in a time zone with its instant.",
        "type": "object",
        "required": ["date"],
        "properties": {
            "date": { "description": "A day of the calendar.", "type": "string", "format": "date" },
            "time": {
                "description": "Hours and minutes of the day in the time zone.", "type": "string",
                "pattern": TIME,
            },
            "time_zone": string("A name of the IANA time zone database; with `time`."),
            "at": time("The instant of the time, only with `time`."),
        },
    });
    due["example"] = json!(Due::parse("2026-12-01", Some("09:30"), Some("Europe/Berlin")).ok());
    due
}

/// A due date in a request.
fn due_input() -> Value {
    let date =
        json!({ "description": "A day of the calendar", "type": "string", "format": "date" });
    let time = json!({ "type": "string", "pattern": TIME });
    let timed = json!({ "date": &date, "time": time, "time_zone": TimeZone::schema() });
    json!({
        "description": "A date, or a time in a time zone.",
        "anyOf": [
            super::object(&["date"], &json!({ "date": date })),
            super::object(&["date", "time", "time_zone"], &timed),
        ],
        "example": { "date": "2026-12-01", "time": "09:30", "time_zone": "Europe/Berlin" },
    })
}

/// A recurrence in a request.
fn recurrence_input() -> Value {
    let rule = json!({
        "description": "A recurrence rule (RFC 5545, section 3.3.10)",
        "type": "string", "format": "recurrence-rule", "minLength": 1,
        "maxLength": Rule::MAX_CHARS,
    });
    let from = json!({ "type": "string", "enum": RecurrenceBase::ALL });
    let from = super::with_default(from, &RecurrenceBase::default());
    let mut input = super::object(&["rule"], &json!({ "rule": rule, "from": from }));
    input["description"] = json!("A recurrence. It needs a due date.");
    input["example"] = json!({ "rule": "FREQ=WEEKLY;BYDAY=MO" });
    input
}

fn recurrence() -> Value {
    object(
        "The rule by which the next occurrence is made when a todo is completed.",
        &[
            ("rule", string("A recurrence rule (RFC 5545, section 3.3.10).")),
            (
                "from",
                words(
                    "The date from which the next one is computed: that of `due`, or the day of \
                     the completion.",
                    RecurrenceBase::ALL,
                ),
            ),
        ],
    )
}

fn reminder() -> Value {
    object(
        "A reminder of a todo.",
        &[(
            "minutes_before",
            json!({
                "description": "Minutes before the todo is due.", "type": "integer",
                "minimum": 0, "maximum": Reminder::MAX_MINUTES,
            }),
        )],
    )
}

/// The `ETag` of [`example_todo`].
pub(crate) const EXAMPLE_ETAG: &str = "\"2-AAZg7jzg-EA\"";
/// The `ETag` of a list.
pub(crate) const EXAMPLE_LIST_ETAG: &str = "W/\"8f14e45fceea167a.42-lQ0vYc6E0d3u\"";

/// The `ETag` of [`example_list`].
pub(crate) const EXAMPLE_OF_LIST_ETAG: &str = "\"2-AAZg7jzg-EA.2.1\"";

fn count(description: &str) -> Value {
    json!({ "description": description, "type": "integer", "format": "int64", "minimum": 0 })
}

fn tags() -> Value {
    let tags = json!({
        "description": "The tags, in code point order.",
        "type": "array", "items": reference("TagCount"),
    });
    let mut list = object("The tags of a user.", &[("tags", tags)]);
    list["example"] = json!({ "tags": [tag_count()["example"]] });
    list
}

fn tag_count() -> Value {
    let mut tag = object(
        "A tag, and the number of todos that have it.",
        &[
            ("name", string("1 to 50 characters, in lower case.")),
            ("pending", count("The number of open todos.")),
            ("completed", count("The number of completed todos.")),
        ],
    );
    tag["example"] = json!({ "name": "errand", "pending": 2, "completed": 1 });
    tag
}

fn lists() -> Value {
    let lists = json!({
        "description": "The lists, in the order of their creation.",
        "type": "array", "items": reference("List"),
    });
    let mut all = object("The lists of a user.", &[("lists", lists)]);
    all["example"] = json!({ "lists": [example_list()] });
    all
}

fn list() -> Value {
    let updated_at = "When its name or color was last changed; increases strictly.";
    let mut list = object(
        "A list of todos.",
        &[
            ("id", uuid("A UUIDv7.")),
            ("name", string("Trimmed, 1 to 100 characters.")),
            ("color", super::or_null(string("`#rrggbb`, in lower case."))),
            ("pending", count("The number of open todos in it.")),
            ("completed", count("The number of completed todos in it.")),
            ("created_at", time("When it was created.")),
            ("updated_at", time(updated_at)),
        ],
    );
    list["example"] = json!(example_list());
    list
}

/// The list in the examples.
pub(crate) fn example_list() -> List {
    let created_at = DateTime::from_timestamp_micros(1_795_426_200_123_456).unwrap_or_default();
    List {
        id: ListId::new(uuid!("01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b21")),
        name: ListName::from_stored("Groceries".into()),
        color: ListColor::parse("#ff8800").ok(),
        pending: 2,
        completed: 1,
        created_at,
        updated_at: created_at,
    }
}

fn completion() -> Value {
    let mut completion = todo();
    completion["description"] = json!("A todo that was completed or reopened.");
    completion["properties"]["next_id"] =
        uuid("The next occurrence; only if the todo is completed, recurs, and has one.");
    completion
}

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

fn fired_reminder() -> Value {
    let minutes = "Minutes before the todo was due.";
    let late = "Whether it fired more than 60 seconds after its time.";
    let mut reminder = object(
        "A reminder that has fired. Each fires once, under one id.",
        &[
            ("id", uuid("Unique id, by which a receiver recognizes a repetition.")),
            ("todo_id", uuid("The todo, which may have changed since.")),
            (
                "minutes_before",
                json!({
                    "description": minutes, "type": "integer", "minimum": 0,
                    "maximum": Reminder::MAX_MINUTES,
                }),
            ),
            ("at", time("When it was to fire.")),
            ("fired_at", time("When it fired.")),
            ("late", json!({ "description": late, "type": "boolean" })),
        ],
    );
    reminder["example"] = json!({
        "id": "6f3a1f0e-4b52-4d0f-9c51-0c8f6d2d7a11",
        "todo_id": "01938c70-1fd1-7bb0-95b9-0e6f9a1d7c11",
        "minutes_before": 15,
        "at": "2026-12-01T08:15:00Z",
        "fired_at": "2026-12-01T08:15:03.123456Z",
        "late": false,
    });
    reminder
}

/// The members of a webhook.
fn webhook_members() -> Vec<(&'static str, Value)> {
    let since = "Its first failure since it last received a reminder. A day later it is off.";
    vec![
        ("url", string("Where reminders are sent.")),
        (
            "state",
            words("`off` after a day of failures, until it is set again.", &["active", "off"]),
        ),
        ("created_at", time("When it was set.")),
        ("last_success_at", super::or_null(time("When it last received a reminder."))),
        ("last_failure_at", super::or_null(time("When it last failed."))),
        ("last_failure", super::or_null(string("Why it last failed."))),
        ("failing_since", super::or_null(time(since))),
    ]
}

fn webhook() -> Value {
    let mut webhook = object("Where the reminders of a user are sent.", &webhook_members());
    webhook["example"] = json!({
        "url": "https://hooks.example.com/todo?key=7f3a",
        "state": "active",
        "created_at": "2026-11-23T09:29:12.456789Z",
        "last_success_at": "2026-12-01T08:15:03.456789Z",
        "last_failure_at": "2026-11-30T08:15:03.456789Z",
        "last_failure": "status 503",
        "failing_since": null,
    });
    webhook
}

fn set_webhook_result() -> Value {
    let mut members = webhook_members();
    members.push(("secret", string("The key of the signatures. No other answer contains it.")));
    let mut result = object("A webhook that was just set.", &members);
    result["example"] = json!({
        "url": "https://hooks.example.com/todo?key=7f3a",
        "state": "active",
        "created_at": "2026-11-23T09:29:12.456789Z",
        "last_success_at": null,
        "last_failure_at": null,
        "last_failure": null,
        "failing_since": null,
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDq7sJgA0nY9E=",
    });
    result
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
    let reminded = json!({
        "type": "object",
        "required": ["type", "reminder"],
        "properties": {
            "type": { "type": "string", "const": "reminder" },
            "reminder": referring("A reminder that has fired.", "FiredReminder"),
        },
    });
    let tag = json!({
        "type": "object",
        "required": ["type", "name", "tag"],
        "properties": {
            "type": { "type": "string", "const": "tag" },
            "name": string("A tag that a todo has and none had before, or that none has any more."),
            "tag": nullable("The numbers of its todos now; null if there are none.", "TagCount"),
        },
    });
    let list = json!({
        "type": "object",
        "required": ["type", "id", "list"],
        "properties": {
            "type": { "type": "string", "const": "list" },
            "id": uuid("The id of a list that is new, changed or gone."),
            "list": nullable("The list as it is now; null if it is gone.", "List"),
        },
    });
    let mut page = object(
        "A page of changes.",
        &[
            (
                "changes",
                json!({
                    "description": "The changes in their order, each todo, tag and list at most \
                        once. Clients ignore those of an unknown `type`.",
                    "type": "array", "items": { "oneOf": [changed, deleted, tag, reminded, list] },
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
            { "type": "reminder", "reminder": fired_reminder()["example"] },
            { "type": "tag", "name": "errand", "tag": tag_count()["example"] },
            { "type": "list", "id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b22", "list": null },
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
    result["properties"]["next_id"] =
        uuid("The next occurrence of a completed todo; only if it recurs, and has one.");
    let code = "Why the item failed, as the `code` of a problem; only if `partial` is true.";
    result["properties"]["code"] = string(code);
    let of = "What is counted, if it is not `todos` (`quota_exceeded`): `tags`.";
    result["properties"]["of"] = string(of);
    for (name, description) in [
        ("limit", "The maximum number (`quota_exceeded`)."),
        ("used", "The present number (`quota_exceeded`)."),
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
                    "type": "array", "items": reference("ListedTodo"),
                }),
            ),
            (
                "total",
                json!({
                    "description": "The number of todos that match the filters, on all pages; null \
                        if `include_total` is false.",
                    "type": ["integer", "null"], "format": "int64",
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

fn listed_todo() -> Value {
    let mut listed = todo();
    listed["description"] = json!("A todo of a list.");
    listed["properties"]["matches"] = json!({
        "description": "Where the terms of a search are, at most 100 places; only if there is a \
            search.",
        "type": "array", "items": reference("Match"),
    });
    listed
}

fn a_match() -> Value {
    let number =
        |description: &str| json!({ "description": description, "type": "integer", "minimum": 0 });
    object(
        "A place where terms of a search are. Places that overlap or touch are one.",
        &[
            ("field", string("`title`, `description`, or `tags/<index>`.")),
            ("start", number("Characters (Unicode scalar values) before the place.")),
            ("end", number("Characters (Unicode scalar values) before its end.")),
        ],
    )
}

fn filters() -> Value {
    let mut filters = object(
        "The filter and the order of a list. A filter that is not given is absent, but for the \
         first three.",
        &[
            ("status", referring("The filter by completion.", "Status")),
            ("sort_by", referring("The sort key.", "SortBy")),
            ("order", referring("The sort direction.", "Order")),
        ],
    );
    let tags = |description: &str| json!({ "description": description, "type": "array", "items": { "type": "string" } });
    for (name, schema) in [
        ("tag", tags("Tags, all of which a todo has.")),
        ("any_tag", tags("Tags, one of which a todo has.")),
        ("due", referring("The filter by due date.", "DueFilter")),
        ("due_before", string("A date, or a time: todos that are due before it.")),
        ("due_after", string("A date, or a time: todos that are due at it or later.")),
        ("time_zone", string("The time zone of the filters by due date.")),
        ("list", string("The id of a list, or `inbox`.")),
        ("q", string("The search.")),
    ] {
        filters["properties"][name] = schema;
    }
    filters
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
    problem["properties"]["current"] = json!({
        "description": "The todo or list that does not match `If-Match` (412).",
        "anyOf": [reference("Todo"), reference("List")],
    });
    for (name, description) in [
        ("limit", "The maximum number (409 `quota_exceeded`)."),
        ("used", "The present number (409 `quota_exceeded`)."),
        ("invalid", "The number of invalid todos of an imported file (400)."),
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
    let mut error = object(
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
    );
    error["properties"]["line"] =
        json!({ "description": "The line of an imported file.", "type": "integer", "minimum": 1 });
    error
}
