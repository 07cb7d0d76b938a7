//! JSON Schemas of exported files and of the report of an import.

use serde_json::{Value, json};

use super::{
    or_null, reference,
    responses::{nullable, object, referring, string, time},
};

/// The schemas by name.
pub(super) fn schemas() -> [(&'static str, Value); 4] {
    [
        ("TodoFile", todo_file()),
        ("FileTodo", file_todo()),
        ("ImportReport", import_report()),
        ("ImportError", import_error()),
    ]
}

fn array(description: &str, items: &Value) -> Value {
    json!({ "description": description, "type": "array", "items": items })
}

fn todo_file() -> Value {
    let list = json!({
        "type": "object",
        "required": ["name", "color"],
        "properties": { "name": string("Its name."), "color": or_null(string("`#rrggbb`.")) },
    });
    let mut file = object(
        "All todos of a user. A todo is on a line of its own.",
        &[
            ("format", json!({ "description": "The format.", "const": "todos" })),
            ("version", json!({ "description": "The version of the format.", "const": 1 })),
            ("lists", array("The lists, in the order of their creation.", &list)),
            ("todos", array("All todos, the oldest first.", &reference("FileTodo"))),
        ],
    );
    file["properties"]["trash"] =
        array("The deleted todos, with `trash=true`.", &reference("FileTodo"));
    file["example"] = json!({
        "format": "todos", "version": 1, "lists": [{ "name": "Home", "color": null }],
        "todos": [file_todo()["example"]],
    });
    file
}

fn file_todo() -> Value {
    let mut todo = object(
        "A todo without what belongs to an account.",
        &[
            ("title", string("Its title.")),
            ("description", or_null(string("Its description."))),
            ("priority", referring("`high`, `medium` or `low`.", "Priority")),
            ("completed", json!({ "description": "Whether it is completed.", "type": "boolean" })),
            ("created_at", time("When it was created.")),
            ("updated_at", time("When it was last changed.")),
            ("completed_at", or_null(time("When it was completed; null while it is open."))),
            ("tags", array("Its tags.", &json!({ "type": "string" }))),
            ("due", nullable("When it is due.", "Due")),
            ("recurrence", nullable("How it recurs.", "Recurrence")),
            ("reminders", array("Its reminders.", &reference("Reminder"))),
            ("list", or_null(string("The name of its list; null for the inbox."))),
        ],
    );
    for (name, schema) in [
        ("position", string("Its place in the manual order, if it has one.")),
        ("ical", string("Lines of iCalendar of an imported todo that no other member has.")),
        ("deleted_at", time("When it was deleted, in the trash.")),
    ] {
        todo["properties"][name] = schema;
    }
    todo["example"] = json!({
        "title": "Buy milk", "description": null, "priority": "medium", "completed": false,
        "created_at": "2026-11-26T09:30:00Z", "updated_at": "2026-11-26T09:30:00Z",
        "completed_at": null, "tags": ["errand"], "due": { "date": "2026-12-01" },
        "recurrence": null, "reminders": [], "list": "Home",
    });
    todo
}

fn import_report() -> Value {
    let number =
        |description: &str| json!({ "description": description, "type": "integer", "minimum": 0 });
    let mut report = object(
        "What an import did, or would do.",
        &[
            (
                "dry_run",
                json!({ "description": "Whether the file was only checked.", "type": "boolean" }),
            ),
            ("created", number("The number of todos that were created.")),
            ("invalid", number("The number of todos that are invalid, and were skipped.")),
            ("trashed", number("The number of todos in the file's trash, which are left out.")),
            (
                "lists",
                array("The names of the lists that were created.", &json!({ "type": "string" })),
            ),
            ("errors", array("The first 100 errors.", &reference("ImportError"))),
        ],
    );
    report["example"] = json!({
        "dry_run": false, "created": 2, "invalid": 1, "trashed": 0, "lists": ["Home"],
        "errors": [import_error()["example"]],
    });
    report
}

fn import_error() -> Value {
    let mut error = object(
        "A field of a todo of a file, and the rule that it breaks.",
        &[
            ("field", string("The field: `todos/`, the place of the todo, its member.")),
            ("code", string("The rule, for programs.")),
            ("message", string("The rule in one whole sentence, for users.")),
            (
                "line",
                json!({ "description": "The line, from 1.", "type": "integer", "minimum": 1 }),
            ),
        ],
    );
    error["example"] = json!({
        "field": "todos/2/title", "code": "blank", "message": "Title cannot be empty.", "line": 4,
    });
    error
}
