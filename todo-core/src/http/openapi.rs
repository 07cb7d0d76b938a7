//! The OpenAPI 3.1 document: paths from the endpoints, schemas from the wire types.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::{
    ApiOptions,
    endpoint::{AnswerDocs, Endpoint, ErrorDocs, HeaderDocs, KeyAccess, Schema, Tag, endpoints},
    routes::{
        docs::{HTTPS_REQUIRED, NO_KEYS, OF_EVERY_ROUTE, SCOPE_REQUIRED},
        meta::METRICS,
    },
    schema::{UUID, object, reference, responses},
};

/// The OpenAPI document of an API with these options; needs no database.
#[must_use]
pub fn openapi_document(options: &ApiOptions) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints() {
        if endpoint.path == METRICS && !options.metrics {
            continue;
        }
        let path = format!("{}{}", options.mount_path, endpoint.full_path(&options.prefix));
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[endpoint.method.as_str().to_ascii_lowercase()] = operation(endpoint, options);
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
            { "name": "Lists", "description": "A user's lists of todos" },
            { "name": "Trash", "description": "A user's deleted todos" },
            { "name": "Operations", "description": "For operators and tools" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "The token of a session, which allows everything; or an API \
                        key (`todo_…`), for operations with `x-scopes`, if it has that scope: \
                        `todos:read`, `todos:write` or `account:read`",
                },
            },
            "headers": {
                "X-Request-Id": {
                    "description": "The id of the request: the client's, if it is 1 to 128 visible \
                        ASCII characters, else a new one",
                    "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
                },
                "RateLimit": {
                    "description": "Attempts left to this client (`r`), and seconds until the next \
                        one (`t`); absent before an attempt counts \
                        (draft-ietf-httpapi-ratelimit-headers)",
                    "schema": { "type": "string" },
                    "example": "\"login\";r=4;t=37",
                },
                "RateLimit-Policy": {
                    "description": "Attempts (`q`) in a window of seconds (`w`); absent without a \
                        limit (draft-ietf-httpapi-ratelimit-headers)",
                    "schema": { "type": "string" },
                    "example": "\"login\";q=5;w=60",
                },
                "ETag": {
                    "description": "The version of the todo, for `If-Match` and `If-None-Match` \
                        (RFC 9110, section 8.8.3)",
                    "schema": { "type": "string" },
                    "example": responses::EXAMPLE_ETAG,
                },
                "Retry-After": {
                    "description": "Whole seconds to wait before a retry",
                    "schema": { "type": "integer", "minimum": 1 },
                },
            },
        },
    })
}

fn operation(endpoint: &Endpoint, options: &ApiOptions) -> Value {
    let docs = &endpoint.docs;
    let tag = match docs.tag {
        Tag::Authentication => "Authentication",
        Tag::Todos => "Todos",
        Tag::Lists => "Lists",
        Tag::Trash => "Trash",
        Tag::Operations => "Operations",
    };
    let mut operation = json!({
        "tags": [tag],
        "summary": docs.summary,
        "description": format!("{}{}", docs.description, key_sentence(endpoint)),
        "operationId": docs.operation_id,
        "responses": responses(endpoint, options),
    });
    operation["security"] = match endpoint.key_access() {
        None => json!([]),
        Some(_) => json!([{ "bearer": [] }]),
    };
    // No standard member: those of `security` would be required of tokens of sessions too.
    if let Some(KeyAccess::With(scope)) = endpoint.key_access() {
        operation["x-scopes"] = json!([scope.as_str()]);
    }
    let parameters = parameters(endpoint);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(body) = docs.body {
        let schema = reference(body.schema);
        let mut content = json!({
            "application/json": { "schema": schema, "example": (body.example)() },
        });
        for media_type in body.files {
            content[media_type] = json!({ "schema": { "type": "string" } });
        }
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

/// The end of a description, about API keys.
fn key_sentence(endpoint: &Endpoint) -> String {
    match endpoint.key_access() {
        None => String::new(),
        Some(KeyAccess::Never) => " API keys cannot be used.".into(),
        Some(KeyAccess::With(scope)) => format!(" An API key needs the scope `{scope}`."),
    }
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters = Vec::new();
    for (name, description) in [
        ("user_id", "The caller's id"),
        ("todo_id", "The todo's id"),
        ("list_id", "The list's id"),
        ("session_id", "The session's id"),
        ("key_id", "The key's id"),
        ("identity_id", "The identity's id"),
    ] {
        if endpoint.path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": { "type": "string", "format": "uuid", "pattern": UUID },
                "example": "01938c6e-90b2-7c33-9a65-1d9b7a52c0de",
            }));
        }
    }
    if endpoint.path.contains("{provider}") {
        parameters.push(json!({
            "name": "provider", "in": "path", "required": true,
            "description": "The provider's name", "schema": { "type": "string" },
            "example": "github",
        }));
    }
    let query = endpoint.docs.query.map(|query| query()).unwrap_or_default();
    parameters.extend(query.into_iter().map(|parameter| {
        json!({
            "name": parameter.name, "in": "query", "required": parameter.is_required,
            "description": parameter.description, "schema": parameter.schema,
        })
    }));
    parameters.extend(endpoint.docs.headers.iter().map(|header| {
        json!({
            "name": header.name, "in": "header", "required": false,
            "description": header.description, "schema": { "type": "string" },
            "example": header.example,
        })
    }));
    parameters
}

fn responses(endpoint: &Endpoint, options: &ApiOptions) -> Value {
    let mut responses = Map::new();
    for docs in endpoint.docs.answers {
        responses.insert(docs.status.to_string(), answer(docs));
    }
    let own = endpoint.docs.errors;
    let max_body = endpoint.policy.max_body(options);
    let status = |error: &ErrorDocs| (error.example)(max_body).status();
    let has_own_403 = own.iter().any(|error| status(error) == StatusCode::FORBIDDEN);
    let forbidden = match endpoint.key_access() {
        None => (!endpoint.is_probe).then_some(&HTTPS_REQUIRED),
        Some(KeyAccess::Never) => Some(&NO_KEYS),
        Some(KeyAccess::With(_)) => Some(&SCOPE_REQUIRED),
    };
    let forbidden = forbidden.filter(|_| !has_own_403);
    for error in own.iter().chain(forbidden).chain(OF_EVERY_ROUTE) {
        const PROBLEM: &str = "application/problem+json";
        let failure = (error.example)(max_body);
        let status = failure.status();
        let mut problem = response(error.description, PROBLEM, &reference("Problem"));
        let body = failure.body("01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11");
        problem["content"][PROBLEM]["example"] = serde_json::from_slice(&body).unwrap_or_default();
        if failure.retry_after().is_some() {
            problem["headers"]["Retry-After"] = retry_after();
        }
        if status == StatusCode::PRECONDITION_FAILED {
            problem["headers"]["ETag"] = etag();
        }
        let challenge = match status {
            StatusCode::UNAUTHORIZED => Some("A Bearer challenge (RFC 6750)"),
            StatusCode::FORBIDDEN if endpoint.key_access().is_some() => {
                Some("A Bearer challenge (RFC 6750), if an API key lacks the scope")
            }
            _ => None,
        };
        if let Some(description) = challenge {
            problem["headers"]["WWW-Authenticate"] =
                json!({ "description": description, "schema": { "type": "string" } });
        }
        responses.insert(status.as_u16().to_string(), problem);
    }
    if endpoint.policy.rate_limit.is_some() {
        for response in responses.values_mut() {
            for name in ["RateLimit", "RateLimit-Policy"] {
                let header = format!("#/components/headers/{name}");
                response["headers"][name] = json!({ "$ref": header });
            }
        }
    }
    Value::Object(responses)
}

/// A response without a problem body.
fn answer(docs: &AnswerDocs) -> Value {
    let mut answer = match docs.schema {
        Schema::Named(name) => response(docs.description, docs.media_type, &reference(name)),
        Schema::Type(name) => response(docs.description, docs.media_type, &json!({ "type": name })),
        Schema::None => response_without_body(docs.description),
    };
    if let Some(example) = docs.example {
        answer["content"][docs.media_type]["example"] = example();
    }
    for header in docs.headers {
        match header {
            HeaderDocs::Location(description) => {
                answer["headers"]["Location"] =
                    json!({ "description": description, "schema": { "type": "string" } });
            }
            HeaderDocs::RetryAfter => answer["headers"]["Retry-After"] = retry_after(),
            HeaderDocs::ETag => answer["headers"]["ETag"] = etag(),
            HeaderDocs::ListETag => {
                answer["headers"]["ETag"] = json!({
                    "description": "The version of the list, for `If-None-Match`: another one \
                        after each change of the user's todos (RFC 9110, section 8.8.3)",
                    "schema": { "type": "string" },
                    "example": responses::EXAMPLE_LIST_ETAG,
                });
            }
            HeaderDocs::ETagOfList => {
                answer["headers"]["ETag"] = json!({
                    "description": "The version of the list, with the numbers of its todos, for \
                        `If-None-Match` and, without the numbers, for `If-Match` (RFC 9110, \
                        section 8.8.3)",
                    "schema": { "type": "string" },
                    "example": responses::EXAMPLE_OF_LIST_ETAG,
                });
            }
            #[cfg(feature = "identity")]
            HeaderDocs::FlowCookie => {
                answer["headers"]["Set-Cookie"] = json!({
                    "description": "The cookie `__Host-todo-flow`, which binds the sign-in to \
                        the browser, for ten minutes (RFC 6265)",
                    "schema": { "type": "string" },
                });
            }
            HeaderDocs::WebSocket => {
                for (name, description) in [
                    ("Sec-WebSocket-Accept", "The answer to the key (RFC 6455, section 4.2.2)"),
                    ("Sec-WebSocket-Protocol", "`todo.v1`, if the request has subprotocols"),
                ] {
                    answer["headers"][name] =
                        json!({ "description": description, "schema": { "type": "string" } });
                }
            }
            HeaderDocs::ContentDisposition => {
                answer["headers"]["Content-Disposition"] = json!({
                    "description": "`attachment` with the name of a file (RFC 6266)",
                    "schema": { "type": "string" },
                });
            }
            HeaderDocs::Replayed => {
                answer["headers"]["Idempotency-Replayed"] = json!({
                    "description": "Present if an earlier request with the same `Idempotency-Key` \
                        was answered by this",
                    "schema": { "type": "string", "const": "true" },
                });
            }
        }
    }
    answer
}

fn etag() -> Value {
    json!({ "$ref": "#/components/headers/ETag" })
}

fn retry_after() -> Value {
    json!({ "$ref": "#/components/headers/Retry-After" })
}

fn response(description: &str, media_type: &str, schema: &Value) -> Value {
    let mut response = response_without_body(description);
    response["content"] = json!({ media_type: { "schema": schema } });
    response
}

fn response_without_body(description: &str) -> Value {
    json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
    })
}

fn schemas() -> Value {
    let mut schemas = json!({
        "Message": object(&["message"], &json!({ "message": { "type": "string" } })),
        "Deleted": object(&["message", "deleted_id"], &json!({
            "message": { "type": "string" }, "deleted_id": { "type": "string", "format": "uuid" },
        })),
        "Emptied": object(&["message", "deleted_count"], &json!({
            "message": { "type": "string" }, "deleted_count": { "type": "integer", "minimum": 0 },
        })),
        "ChangedTodos": object(&["message", "changed_count"], &json!({
            "message": { "type": "string" }, "changed_count": { "type": "integer", "minimum": 0 },
        })),
        "DeletedList": object(&["message", "deleted_id", "deleted_count"], &json!({
            "message": { "type": "string" }, "deleted_id": { "type": "string", "format": "uuid" },
            "deleted_count": { "type": "integer", "minimum": 0 },
        })),
        "EndedSessions": object(&["ended"], &json!({
            "ended": { "type": "integer", "minimum": 0 },
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
    });
    for (name, schema) in responses::schemas() {
        schemas[name] = schema;
    }
    for body in endpoints().filter_map(|endpoint| endpoint.docs.body.as_ref()) {
        schemas[body.schema] = (body.json_schema)();
    }
    schemas
}
