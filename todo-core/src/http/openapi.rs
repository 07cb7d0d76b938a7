//! The OpenAPI 3.1 document: paths from the table of routes, schemas from the wire types.

use std::time::Duration;

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use crate::{
    auth::User,
    error::{BoxError, Error, FieldError},
    http::{
        ApiOptions,
        handlers::{AuthResponse, PUBLIC_BODY_BYTES},
        problem::{ApiError, Detail, Problem},
        routes::{self, Operation, ROUTES, Route},
    },
    todos::{Filters, Priority, SortBy, SortOrder, Status, Todo, TodoList},
};

/// The values that the types of `auth` and `todos` accept, as regular expressions with the same
/// meaning in JSON Schema's dialect (ECMA-262) and Python's `re`: a value that matches is never
/// rejected. They are stricter where an expression cannot be exact: a leading or trailing blank of
/// a name is trimmed, and a password's letters may be of any script.
const UUID: &str = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";
const CURSOR: &str = "^[A-Za-z0-9_-]+$";
/// Non-ASCII letters that are valid at any position of an address (Latin, Greek, Cyrillic, kana,
/// Han, Hangul). For other letters the valid positions cannot be expressed.
macro_rules! letters {
    () => {
        "\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u012f\\u0134-\\u013e\\u0141-\\u0148\\u014a-\\u017e\
         \\u0391-\\u03a1\\u03a3-\\u03c9\\u0410-\\u044f\\u1ea0-\\u1ef9\
         \\u3041-\\u3093\\u30a1-\\u30f6\\u4e00-\\u9fa5\\uac00-\\ud7a3"
    };
}
/// A domain in ASCII, or a short one with such letters: its ASCII form is longer than the original.
const EMAIL: &str = concat!(
    "^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~",
    letters!(),
    "-]+@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\
     (\\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+|([A-Za-z0-9",
    letters!(),
    "]{1,10}\\.){1,3}[A-Za-z0-9",
    letters!(),
    "]{1,10})$"
);
const TEXT: &str = "^[^\\u0000]*$";
const NOT_BLANK: &str = "^[^\\u0000]*[^\\s\\u0000\\u0085][^\\u0000]*$";
const NAME: &str = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*\
    [^\\s\\u0000-\\u001f\\u007f-\\u009f]$";
const PASSWORD: &str = "^(?=[^\\u0000]*[A-Z])(?=[^\\u0000]*[a-z])(?=[^\\u0000]*[0-9])[^\\u0000]+$";

/// The document of an API with these options.
pub(crate) fn document(options: &ApiOptions) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        if route.operation == Operation::Metrics && !options.metrics {
            continue;
        }
        let path = format!("{}{}", options.mount_path, route.full_path(&options.prefix));
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(&route, options);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": options.name,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Accounts and todos, strictly separate for each user. Errors are \
                application/problem+json (RFC 9457) and carry the request's X-Request-Id.",
            "license": {
                "name": "MIT or Apache 2.0, at your choice",
                "identifier": "MIT OR Apache-2.0",
            },
            "contact": { "name": options.name },
        },
        // The paths below already contain the mount path.
        "servers": [{ "url": options.public_url.as_ref().map_or("/".into(), ToString::to_string) }],
        "tags": [
            { "name": "Authentication", "description": "Accounts and sessions" },
            { "name": "Todos", "description": "A user's todos" },
            { "name": "Operations", "description": "For operators and tools" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
            "headers": {
                "X-Request-Id": {
                    "description": "The id of the request: the client's, if it is 1 to 128 visible \
                        ASCII characters, else a new one",
                    "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
                },
                "Retry-After": {
                    "description": "Whole seconds to wait before a retry",
                    "schema": { "type": "integer", "minimum": 1 },
                },
            },
        },
    })
}

fn operation(route: &Route, options: &ApiOptions) -> Value {
    let tag = match (route.is_api, route.path.starts_with("/auth")) {
        (true, true) => "Authentication",
        (true, false) => "Todos",
        (false, _) => "Operations",
    };
    let mut operation = json!({
        "tags": [tag],
        "summary": route.summary,
        "description": description(route.operation),
        "operationId": operation_id(route.operation),
        "responses": responses(route, options),
    });
    if route.auth {
        operation["security"] = json!([{ "bearer": [] }]);
    } else {
        operation["security"] = json!([]);
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some((schema, example)) = body(route.operation) {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": reference(schema), "example": example } },
        });
    }
    operation
}

fn operation_id(operation: Operation) -> &'static str {
    match operation {
        Operation::Signup => "signup",
        Operation::Login => "login",
        Operation::Logout => "logout",
        Operation::CurrentUser => "getCurrentUser",
        Operation::CreateTodo => "createTodo",
        Operation::ListTodos => "listTodos",
        Operation::GetTodo => "getTodo",
        Operation::ReplaceTodo => "replaceTodo",
        Operation::PatchTodo => "patchTodo",
        Operation::DeleteTodo => "deleteTodo",
        Operation::CompleteTodo => "completeTodo",
        Operation::Health => "health",
        Operation::Readiness => "readiness",
        Operation::DatabaseHealth => "databaseHealth",
        Operation::Metrics => "metrics",
        Operation::OpenApi => "openapi",
        Operation::Index => "index",
    }
}

fn description(operation: Operation) -> &'static str {
    match operation {
        Operation::Signup => {
            "Creates an account and its first session. Signups are rate-limited per client address."
        }
        Operation::Login => {
            "Creates a session. The errors for a wrong e-mail and a wrong password are \
             indistinguishable. Failures are rate-limited per client address."
        }
        Operation::Logout => "Ends this session: its token is rejected from now on.",
        Operation::CurrentUser => "Returns the account of the authenticated user.",
        Operation::CreateTodo => "Creates a todo of the caller. `Location` is its path.",
        Operation::GetTodo => "Returns one todo of the caller.",
        Operation::DeleteTodo => "Deletes a todo permanently: it is a 404 from now on.",
        Operation::ListTodos => {
            "Returns one page with `limit` or `cursor`, else the whole list, up to 10,000 todos. \
             Pagination is by key: a todo that exists throughout is returned exactly once."
        }
        Operation::ReplaceTodo => {
            "Replaces title, priority and description; `completed` is unchanged."
        }
        Operation::PatchTodo => {
            "Updates the given members (RFC 7396): absent ones are unchanged, a null description \
             is cleared."
        }
        Operation::CompleteTodo => {
            "Sets `completed`. `completed_at` is set on completion, unchanged if the todo is \
             already completed, and cleared on reopening."
        }
        Operation::Readiness => {
            "For load balancers: 503 once the server is shutting down, while it still serves \
             requests. The database is not checked."
        }
        Operation::Health => {
            "For supervisors: 200 as long as the process responds, independent of the database."
        }
        Operation::DatabaseHealth => {
            "For alerts: queries the database, and responds within two seconds with the result."
        }
        Operation::Metrics => {
            "Metrics in Prometheus' text format. No label contains an id, an address or a raw path."
        }
        Operation::OpenApi => "Returns this document, in OpenAPI 3.1.",
        Operation::Index => {
            "Returns the name and version of the API, and links to its other resources."
        }
    }
}

/// The schema of the request body, and an example.
fn body(operation: Operation) -> Option<(&'static str, Value)> {
    Some(match operation {
        Operation::Signup => (
            "Signup",
            json!({ "email": "ada@example.com", "password": "Passw0rd", "name": "Ada Lovelace" }),
        ),
        Operation::Login => {
            ("Login", json!({ "email": "ada@example.com", "password": "Passw0rd" }))
        }
        Operation::CreateTodo => (
            "NewTodo",
            json!({ "title": "Buy milk", "description": "two litres", "priority": "high" }),
        ),
        Operation::ReplaceTodo => {
            ("ReplaceTodo", json!({ "title": "Buy oat milk", "priority": "low" }))
        }
        Operation::PatchTodo => ("PatchTodo", json!({ "description": null })),
        Operation::CompleteTodo => ("CompleteTodo", json!({ "completed": true })),
        _ => return None,
    })
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for (name, description) in [("user_id", "The caller's id"), ("todo_id", "The todo's id")] {
        if route.path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": { "type": "string", "format": "uuid", "pattern": UUID },
                "example": "01938c6e-90b2-7c33-9a65-1d9b7a52c0de",
            }));
        }
    }
    if route.operation == Operation::ListTodos {
        for (name, schema, description) in [
            ("status", with_default("Status", "all"), "Filter by completion"),
            ("sort_by", with_default("SortBy", "created_at"), "Field to sort by"),
            ("order", with_default("Order", "desc"), "Sort direction"),
            (
                "limit",
                json!({ "type": "integer", "minimum": 1, "maximum": 500 }),
                "Maximum number of todos on the page",
            ),
            (
                "cursor",
                json!({ "type": "string", "minLength": 1, "pattern": CURSOR }),
                "The `next_cursor` of the previous page, with the same filters",
            ),
        ] {
            parameters.push(json!({
                "name": name, "in": "query", "required": false, "description": description,
                "schema": schema,
            }));
        }
    }
    parameters
}

fn with_default(schema: &str, default: &str) -> Value {
    json!({ "allOf": [reference(schema)], "default": default })
}

fn responses(route: &Route, options: &ApiOptions) -> Value {
    let mut responses = Map::new();
    let (status, description, schema) = success(route.operation);
    let media_type = match route.operation {
        Operation::Metrics => "text/plain",
        _ => "application/json",
    };
    let mut success = response(description, media_type, &schema);
    if let Some(example) = success_example(route.operation) {
        success["content"][media_type]["example"] = example;
    }
    if route.operation == Operation::CreateTodo {
        success["headers"]["Location"] = json!({
            "description": "The path of the todo", "schema": { "type": "string" },
        });
    }
    responses.insert(status.into(), success);
    for (status, description) in errors(route).iter().copied().chain(common_errors(route)) {
        const PROBLEM: &str = "application/problem+json";
        let mut problem = response(description, PROBLEM, &reference("Problem"));
        let failure = example(route, status, options);
        let body = failure.body("01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11");
        problem["content"][PROBLEM]["example"] = serde_json::from_slice(&body).unwrap_or_default();
        if failure.retry_after().is_some() {
            problem["headers"]["Retry-After"] =
                json!({ "$ref": "#/components/headers/Retry-After" });
        }
        if status == "401" {
            problem["headers"]["WWW-Authenticate"] = json!({
                "description": "A Bearer challenge (RFC 6750)", "schema": { "type": "string" },
            });
        }
        responses.insert(status.into(), problem);
    }
    if route.operation == Operation::DatabaseHealth {
        let mut unhealthy =
            response("The database does not respond", "application/json", &reference("Unhealthy"));
        unhealthy["content"]["application/json"]["example"] =
            json!({ "status": "unhealthy", "error": "the database does not answer" });
        unhealthy["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
        responses.insert("503".into(), unhealthy);
    }
    if route.operation == Operation::Readiness {
        let mut draining =
            response("The server is shutting down", "application/json", &reference("Draining"));
        draining["content"]["application/json"]["example"] = json!({ "status": "draining" });
        draining["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
        responses.insert("503".into(), draining);
    }
    Value::Object(responses)
}

fn success(operation: Operation) -> (&'static str, &'static str, Value) {
    match operation {
        Operation::Signup => ("201", "The account and its first session", reference("Auth")),
        Operation::Login => ("200", "A session", reference("Auth")),
        Operation::Logout => ("200", "Logged out", reference("Message")),
        Operation::CurrentUser => ("200", "The account", reference("User")),
        Operation::CreateTodo => ("201", "The todo", reference("Todo")),
        Operation::ListTodos => ("200", "The todos", reference("TodoList")),
        Operation::GetTodo
        | Operation::ReplaceTodo
        | Operation::PatchTodo
        | Operation::CompleteTodo => ("200", "The todo", reference("Todo")),
        Operation::DeleteTodo => ("200", "Deleted", reference("Deleted")),
        Operation::Health => ("200", "The process is running", reference("Health")),
        Operation::Readiness => ("200", "The server is ready for requests", reference("Ready")),
        Operation::DatabaseHealth => ("200", "The database responds", reference("DatabaseHealth")),
        Operation::Metrics => ("200", "The metrics", json!({ "type": "string" })),
        Operation::OpenApi => ("200", "The OpenAPI document", json!({ "type": "object" })),
        Operation::Index => ("200", "The index", reference("Index")),
    }
}

/// An example of a success response whose schema has none.
fn success_example(operation: Operation) -> Option<Value> {
    Some(match operation {
        Operation::Health => {
            json!({ "status": "healthy", "timestamp": "2026-11-23T09:30:00.123456Z" })
        }
        Operation::Readiness => json!({ "status": "ready" }),
        Operation::DatabaseHealth => json!({ "status": "healthy", "database": "connected" }),
        Operation::Metrics => {
            json!("# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight 1\n")
        }
        Operation::OpenApi => json!({ "openapi": "3.1.0" }),
        Operation::Index => json!({
            "message": "Todo API is running.",
            "name": "Todo API",
            "version": env!("CARGO_PKG_VERSION"),
            "links": { "openapi": "/openapi.json" },
        }),
        Operation::Logout => json!({ "message": "Successfully logged out" }),
        Operation::DeleteTodo => json!({
            "message": "Todo deleted successfully",
            "deleted_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
        }),
        _ => return None,
    })
}

/// Error responses that are possible on every route.
fn common_errors(route: &Route) -> impl Iterator<Item = (&'static str, &'static str)> {
    let https = ("403", "Plain http where https is required");
    let may_be_plain = routes::is_probe(route.path) || errors(route).iter().any(|e| e.0 == https.0);
    let long = [("414", "The request target is too long"), ("431", "The headers are too large")];
    (!may_be_plain).then_some(https).into_iter().chain(long)
}

/// An example error of a route for this status.
fn example(route: &Route, status: &str, options: &ApiOptions) -> ApiError {
    let field = |name, code, message| vec![FieldError::new(name, code, message)];
    match (status, route.operation) {
        ("400", Operation::CreateTodo | Operation::ReplaceTodo | Operation::PatchTodo) => {
            ApiError::Core(Error::Invalid(field("title", "blank", "Title cannot be empty.")))
        }
        ("400", Operation::ListTodos) => ApiError::Core(Error::Invalid(field(
            "limit",
            "out_of_range",
            "Limit must be a whole number from 1 to 500.",
        ))),
        ("400", _) => ApiError::BadRequest("There must be a Host header."),
        ("401", Operation::Login) => ApiError::Core(Error::InvalidCredentials),
        ("401", _) => ApiError::Core(Error::Unauthenticated),
        // Routes with a user in the path can be another user's.
        ("403", _) if route.path.contains("{todo_id}") => ApiError::Core(Error::Forbidden),
        ("403", _) if route.path.contains("{user_id}") => ApiError::OtherUser,
        ("403", _) => ApiError::HttpsRequired,
        ("404", _) => ApiError::Core(Error::NotFound),
        ("408", _) => ApiError::BodyTimeout,
        ("409", _) => ApiError::Core(Error::EmailTaken),
        ("413", Operation::Signup | Operation::Login) => {
            ApiError::TooLarge(options.max_body_bytes.min(PUBLIC_BODY_BYTES))
        }
        ("413", _) => ApiError::TooLarge(options.max_body_bytes),
        ("414", _) => ApiError::UriTooLong,
        ("415", _) => ApiError::UnsupportedMediaType,
        ("422", Operation::Signup | Operation::Login) => {
            ApiError::Malformed("", field("password", "missing", "Password is required."))
        }
        ("422", Operation::CompleteTodo) => {
            ApiError::Malformed("", field("completed", "missing", "Completed is required."))
        }
        ("422", _) => ApiError::Malformed("", field("title", "missing", "Title is required.")),
        ("429", _) => ApiError::Core(Error::RateLimited { retry_after: Duration::from_secs(42) }),
        ("431", _) => ApiError::HeadTooLarge,
        ("503", _) => ApiError::Core(Error::Busy),
        ("504", _) => ApiError::Timeout,
        _ => ApiError::Core(Error::Internal(BoxError::new("example"))),
    }
}

/// The error responses of a route, besides those of [`common_errors`].
fn errors(route: &Route) -> &'static [(&'static str, &'static str)] {
    const INVALID: (&str, &str) = ("400", "A value is invalid, or the request is malformed");
    const UNAUTHORIZED: (&str, &str) = ("401", "No token, or one that is not valid");
    const FORBIDDEN: (&str, &str) =
        ("403", "It belongs to another user, or plain http where https is required");
    const NOT_FOUND: (&str, &str) = ("404", "There is no such todo");
    const BODY_TIMEOUT: (&str, &str) = ("408", "The body did not arrive in time");
    const TOO_LARGE: (&str, &str) = ("413", "The body is too large");
    const MEDIA_TYPE: (&str, &str) = ("415", "The body is not application/json");
    const MALFORMED: (&str, &str) = ("422", "The body is not JSON of the request's shape");
    const LIMITED: (&str, &str) = ("429", "Too many attempts from this client");
    const INTERNAL: (&str, &str) = ("500", "Internal server error");
    const UNAVAILABLE: (&str, &str) =
        ("503", "The database is unavailable or the server overloaded");
    const TIMEOUT: (&str, &str) = ("504", "The request took too long");
    match route.operation {
        Operation::Signup => &[
            INVALID,
            ("409", "An account with this e-mail exists"),
            BODY_TIMEOUT,
            TOO_LARGE,
            MEDIA_TYPE,
            MALFORMED,
            LIMITED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
        Operation::Login => &[
            INVALID,
            ("401", "Wrong e-mail or password"),
            BODY_TIMEOUT,
            TOO_LARGE,
            MEDIA_TYPE,
            MALFORMED,
            LIMITED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
        Operation::Logout | Operation::CurrentUser => {
            &[INVALID, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT]
        }
        Operation::CreateTodo => &[
            INVALID,
            UNAUTHORIZED,
            FORBIDDEN,
            BODY_TIMEOUT,
            TOO_LARGE,
            MEDIA_TYPE,
            MALFORMED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
        Operation::ListTodos => &[INVALID, UNAUTHORIZED, FORBIDDEN, INTERNAL, UNAVAILABLE, TIMEOUT],
        Operation::GetTodo | Operation::DeleteTodo => {
            &[INVALID, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, INTERNAL, UNAVAILABLE, TIMEOUT]
        }
        Operation::ReplaceTodo | Operation::PatchTodo | Operation::CompleteTodo => &[
            INVALID,
            UNAUTHORIZED,
            FORBIDDEN,
            NOT_FOUND,
            BODY_TIMEOUT,
            TOO_LARGE,
            MEDIA_TYPE,
            MALFORMED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
        Operation::Health
        | Operation::DatabaseHealth
        | Operation::Metrics
        | Operation::OpenApi
        | Operation::Readiness
        | Operation::Index => &[INVALID, INTERNAL],
    }
}

fn response(description: &str, media_type: &str, schema: &Value) -> Value {
    json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
        "content": { media_type: { "schema": schema } },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> Value {
    fn of<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap_or_default()
    }
    let email = json!({ "type": "string", "maxLength": 254, "pattern": EMAIL });
    let title = json!({ "type": "string", "minLength": 1, "maxLength": 200, "pattern": NOT_BLANK });
    let description = json!({ "type": ["string", "null"], "maxLength": 1000, "pattern": TEXT });
    let mut auth = of::<AuthResponse>();
    auth["properties"]["token_type"]["const"] = json!("bearer");
    auth["example"] = json!({
        "user": of::<User>()["example"],
        "token": "eyJ0eXAiOiJKV1Qi…", "access_token": "eyJ0eXAiOiJKV1Qi…", "token_type": "bearer",
        "expires_at": "2026-11-30T09:29:12Z",
    });
    let mut list = of::<TodoList>();
    list["example"] = json!({
        "todos": [of::<Todo>()["example"]], "total": 1,
        "filters_applied": { "status": "all", "sort_by": "created_at", "order": "desc" },
        "next_cursor": null,
    });
    json!({
        "Signup": object(&["email", "password", "name"], &json!({
            "email": email,
            "password": {
                "type": "string", "format": "password", "minLength": 8, "maxLength": 128,
                "pattern": PASSWORD,
                "description": "At least one upper-case and one lower-case letter and one digit",
            },
            "name": { "type": "string", "minLength": 2, "maxLength": 100, "pattern": NAME },
        })),
        "Login": object(&["email", "password"], &json!({
            "email": email,
            "password": { "type": "string", "format": "password", "pattern": TEXT },
        })),
        "NewTodo": object(&["title"], &json!({
            "title": title, "description": description,
            "priority": with_default("Priority", "medium"),
        })),
        "ReplaceTodo": object(&["title", "priority"], &json!({
            "title": title, "description": description, "priority": reference("Priority"),
        })),
        "PatchTodo": object(&[], &json!({
            "title": title, "description": description, "priority": reference("Priority"),
        })),
        "CompleteTodo": object(&["completed"], &json!({ "completed": { "type": "boolean" } })),
        "Message": object(&["message"], &json!({ "message": { "type": "string" } })),
        "Deleted": object(&["message", "deleted_id"], &json!({
            "message": { "type": "string" }, "deleted_id": { "type": "string", "format": "uuid" },
        })),
        "Index": object(&["message", "name", "version", "links"], &json!({
            "message": { "type": "string" },
            "name": { "type": "string" },
            "version": { "type": "string" },
            "links": {
                "type": "object",
                "description": "Paths by name",
                "additionalProperties": { "type": "string" },
            },
        })),
        "Health": object(&["status", "timestamp"], &json!({
            "status": { "const": "healthy" },
            "timestamp": { "type": "string", "format": "date-time" },
        })),
        "Ready": object(&["status"], &json!({ "status": { "const": "ready" } })),
        "Draining": object(&["status"], &json!({ "status": { "const": "draining" } })),
        "DatabaseHealth": object(&["status", "database"], &json!({
            "status": { "const": "healthy" }, "database": { "const": "connected" },
        })),
        "Unhealthy": object(&["status", "error"], &json!({
            "status": { "const": "unhealthy" }, "error": { "type": "string" },
        })),
        "Auth": auth,
        "User": of::<User>(),
        "Todo": of::<Todo>(),
        "TodoList": list,
        "Filters": of::<Filters>(),
        "Priority": of::<Priority>(),
        "Status": of::<Status>(),
        "SortBy": of::<SortBy>(),
        "Order": of::<SortOrder>(),
        "Problem": of::<Problem<'static>>(),
        "FieldError": of::<Detail<'static>>(),
    })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}
