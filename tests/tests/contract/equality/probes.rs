//! The requests of which both servers must return the same responses.

/// A request without its version and framing: first line, header fields, content.
///
/// `{ann}` and `{bob}` are users, `{mine}` and `{theirs}` their todos, `{nobody}` an unknown id,
/// `{token}` is ann's token and `{gone}` one of hers that is logged out.
pub(super) type Probe = (&'static str, &'static [&'static str], &'static str);

const NONE: &[&str] = &[];
const JSON: &[&str] = &["Content-Type: application/json"];
const ANN: &[&str] = &["Authorization: Bearer {token}"];
const ANN_JSON: &[&str] = &["Authorization: Bearer {token}", "Content-Type: application/json"];
const IF_ANY: &[&str] =
    &["Authorization: Bearer {token}", "Content-Type: application/json", "If-Match: *"];
const IF_OLD: &[&str] = &[
    "Authorization: Bearer {token}",
    "Content-Type: application/json",
    "If-Match: \"1-AAZg7jzg-EA\", W/\"x\"",
];
const IF_BAD: &[&str] =
    &["Authorization: Bearer {token}", "Content-Type: application/json", "If-Match: x"];
const IF_NONE_ANY: &[&str] = &["Authorization: Bearer {token}", "If-None-Match: *"];
const IF_NONE_OLD: &[&str] =
    &["Authorization: Bearer {token}", "If-None-Match: \"1-AAZg7jzg-EA\", x"];
const KEYED: &[&str] = &[
    "Authorization: Bearer {token}",
    "Content-Type: application/json",
    "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324",
];
const KEYED_BULK: &[&str] = &[
    "Authorization: Bearer {token}",
    "Content-Type: application/json",
    "Idempotency-Key: 4c8f0a8e-5a62-4c0e-9a55-0d7a4b1f9a10",
];
const BULK_CREATE: &str = r#"{"create":[{"title":" a "},{"title":"b","priority":"low"}]}"#;
const BAD_KEY: &[&str] =
    &["Authorization: Bearer {token}", "Content-Type: application/json", "Idempotency-Key: a b"];
const GONE: &[&str] = &["Authorization: Bearer {gone}", "Content-Type: application/json"];
pub(super) const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// Sent in this order: some change the state for later ones.
pub(super) const PROBES: &[Probe] = &[
    // operations
    ("GET /", NONE, ""),
    ("HEAD /", NONE, ""),
    ("GET /health", NONE, ""),
    ("HEAD /health", NONE, ""),
    ("GET /health?x=%00", NONE, ""),
    ("GET /health/db", NONE, ""),
    ("GET /openapi.json", NONE, ""),
    ("POST /health", JSON, "{}"),
    ("OPTIONS /health", NONE, ""),
    // routing
    ("GET /nowhere", NONE, ""),
    ("GET /nowhere", &["Accept: text/html"], ""),
    ("GET /nowhere", &["Accept: application/xml", "Accept-Language: de"], ""),
    ("GET /health/", NONE, ""),
    ("GET /health/?x=1", NONE, ""),
    ("BREW /health/", NONE, ""),
    ("OPTIONS /api/auth/me/", NONE, ""),
    ("GET /nowhere/", NONE, ""),
    ("GET //health", NONE, ""),
    ("GET /HEALTH", NONE, ""),
    ("GET /./health", NONE, ""),
    ("GET /x/../health", NONE, ""),
    ("GET /%68ealth", NONE, ""),
    ("POST /api/auth/%73ignup", JSON, "{}"),
    ("POST //api/auth/login", JSON, "{}"),
    ("POST /api/auth/login/", JSON, "{}"),
    ("GET /api/auth/login", NONE, ""),
    ("PUT /api/auth/me", NONE, ""),
    ("BREW /health", NONE, ""),
    ("get /health", NONE, ""),
    ("TRACE /health", NONE, ""),
    ("OPTIONS /nowhere", NONE, ""),
    ("OPTIONS *", NONE, ""),
    ("GET *", NONE, ""),
    ("GET health", NONE, ""),
    ("GET /health#fragment", NONE, ""),
    ("GET /caf\u{e9}", NONE, ""),
    ("GET http://localhost/health", NONE, ""),
    ("GET http://localhost/nowhere", NONE, ""),
    ("GET http://localhost", NONE, ""),
    ("GET http://evil.example/health/", NONE, ""),
    ("GET http://u@localhost/health", NONE, ""),
    ("GET ftp://localhost/health", NONE, ""),
    // headers
    ("GET /health", &["X-Request-Id: probe-1"], ""),
    ("GET /nowhere", &["X-Request-Id: probe-2"], ""),
    ("GET /nowhere", &["X-Request-Id: not one"], ""),
    ("GET /nowhere", &["X-Request-Id: a", "X-Request-Id: b"], ""),
    ("GET /health", &["Origin: http://localhost:3000"], ""),
    ("GET /nowhere", &["Origin: http://localhost:3000"], ""),
    ("GET /health", &["Origin: https://evil.example"], ""),
    ("GET /health", &["Origin: null"], ""),
    (
        "OPTIONS /api/users/{ann}/todos",
        &["Origin: http://localhost:3000", "Access-Control-Request-Method: POST"],
        "",
    ),
    (
        "OPTIONS /api/users/{ann}/todos",
        &["Origin: https://evil.example", "Access-Control-Request-Method: POST"],
        "",
    ),
    (
        "OPTIONS /nowhere",
        &["Origin: http://localhost:3000", "Access-Control-Request-Method: POST"],
        "",
    ),
    ("OPTIONS /api/users/{ann}/todos", &["Origin: http://localhost:3000"], ""),
    ("GET /health", &["Accept-Encoding: identity"], ""),
    ("GET /health", &["Range: bytes=0-3"], ""),
    ("GET /health", &["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"], ""),
    ("GET /health", &["Transfer-Encoding: identity"], ""),
    ("GET /health", &["Expect: something"], ""),
    // tokens
    ("GET /api/auth/me", NONE, ""),
    ("GET /api/auth/me", ANN, ""),
    ("HEAD /api/auth/me", ANN, ""),
    ("GET /api/auth/me", &["Authorization: bEARER {token}"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer  {token}"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer {token}x"], ""),
    ("GET /api/auth/me", &["Authorization: Basic YTpi"], ""),
    ("GET /api/auth/me", &["Authorization: Bearer {token}", "Authorization: Bearer x"], ""),
    ("GET /api/auth/me", GONE, ""),
    ("PATCH /api/auth/me", NONE, "{}"),
    ("PATCH /api/auth/me", ANN_JSON, "{}"),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":null}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":7}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":" A\u0007 "}"#),
    ("PATCH /api/auth/me", ANN_JSON, r#"{"name":" Ann King ","email":"x"}"#),
    ("PATCH /api/auth/me", GONE, r#"{"name":"Ann"}"#),
    ("GET /api/auth/me?access_token={token}", NONE, ""),
    ("GET /api/auth/me", &["Cookie: access_token={token}"], ""),
    // accounts
    ("POST /api/auth/signup", JSON, ""),
    ("POST /api/auth/signup", JSON, "{"),
    ("POST /api/auth/signup", JSON, "{}"),
    ("POST /api/auth/signup", JSON, r#"{"email":1,"password":2,"name":3}"#),
    ("POST /api/auth/signup", JSON, r#"{"email":"x","password":"weak","name":"a"}"#),
    ("POST /api/auth/signup", NONE, r#"{"email":"x","password":"weak","name":"a"}"#),
    (
        "POST /api/auth/signup",
        JSON,
        r#"{"email":"ANN@example.com ","password":"Correct1horse","name":"Ann"}"#,
    ),
    (
        "POST /api/auth/signup",
        JSON,
        r#"{"email":" Carl@Example.com ","password":"Correct1horse","name":" Carl \u00e9 "}"#,
    ),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com","password":"Correct1horse"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com","password":"wrong"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"dora@example.com","password":"wrong"}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"not one","password":""}"#),
    ("POST /api/auth/login", JSON, r#"{"email":"carl@example.com"}"#),
    ("POST /api/auth/logout", NONE, ""),
    ("POST /api/auth/logout", GONE, ""),
    // todos
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":" a \u0130 ","extra":1}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"b","description":"","priority":"low"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":" ","priority":"urgent"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"a\u0000b"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":"x","title":"y"}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, r#"{"title":1}"#),
    ("POST /api/users/{ann}/todos", ANN_JSON, "[]"),
    ("POST /api/users/{ann}/todos", ANN_JSON, "null"),
    ("POST /api/users/{ann}/todos", ANN_JSON, "{\"title\":\"x\"} trailing"),
    ("POST /api/users/{ann}/todos", ANN, r#"{"title":"x"}"#),
    ("POST /api/users/{ann}/todos", JSON, r#"{"title":"x"}"#),
    ("POST /api/users/{ann}/todos", GONE, "{"),
    (
        "POST /api/users/{ann}/todos",
        &["Authorization: Bearer {token}", "Content-Type: text/plain"],
        r#"{"title":"x"}"#,
    ),
    (
        "POST /api/users/{ann}/todos",
        &[
            "Authorization: Bearer {token}",
            "Content-Type: application/json",
            "Content-Encoding: gzip",
        ],
        r#"{"title":"x"}"#,
    ),
    ("POST /api/users/{bob}/todos", ANN_JSON, r#"{"title":"x"}"#),
    ("POST /api/users/nobody/todos", ANN_JSON, r#"{"title":"x"}"#),
    ("GET /api/users/{ann}/todos", ANN, ""),
    ("HEAD /api/users/{ann}/todos", ANN, ""),
    ("GET /api/users/{ann}/todos?sort_by=title&order=asc", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=1", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=0&status=x&order=&sort_by=%00&cursor=x", ANN, ""),
    ("GET /api/users/{ann}/todos?limit=1&limit=1", ANN, ""),
    ("GET /api/users/{ann}/todos?status=%zz", ANN, ""),
    ("GET /api/users/{ann}/todos?unknown=1&=&&", ANN, ""),
    ("GET /api/users/{bob}/todos", ANN, ""),
    ("GET /api/users/%00/todos", ANN, ""),
    ("GET /api/users//todos", ANN, ""),
    ("GET /api/users/{ann}/todos/", ANN, ""),
    ("GET /api/users/{ann}/todos/{mine}", ANN, ""),
    ("HEAD /api/users/{ann}/todos/{mine}", ANN, ""),
    ("OPTIONS /api/users/{ann}/todos/{mine}", NONE, ""),
    ("POST /api/users/{ann}/todos/{mine}", ANN_JSON, "{}"),
    ("GET /api/users/{ann}/todos/{theirs}", ANN, ""),
    ("GET /api/users/{ann}/todos/{nobody}", ANN, ""),
    ("GET /api/users/{ann}/todos/1", ANN, ""),
    ("PUT /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":"c","priority":"high"}"#),
    ("PUT /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":"c"}"#),
    ("PUT /api/users/{ann}/todos/{theirs}", ANN_JSON, r#"{"title":"c","priority":"high"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"description":"d"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, "{}"),
    ("PATCH /api/users/{ann}/todos/{mine}", ANN_JSON, r#"{"title":null}"#),
    ("PATCH /api/users/{ann}/todos/{nobody}", ANN_JSON, r#"{"title":"x"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", ANN_JSON, r#"{"completed":true}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", ANN_JSON, r#"{"completed":"yes"}"#),
    ("GET /api/users/{ann}/todos?status=completed", ANN, ""),
    // conditions
    ("GET /api/users/{ann}/todos/{mine}", IF_NONE_ANY, ""),
    ("HEAD /api/users/{ann}/todos/{mine}", IF_NONE_ANY, ""),
    ("GET /api/users/{ann}/todos/{mine}", IF_NONE_OLD, ""),
    ("GET /api/users/{ann}/todos/{theirs}", IF_NONE_ANY, ""),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_ANY, r#"{"title":"e"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":"f"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, "{}"),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":""}"#),
    ("PATCH /api/users/{ann}/todos/{mine}", IF_BAD, r#"{"title":"f"}"#),
    ("PATCH /api/users/{ann}/todos/1", IF_BAD, r#"{"title":"f"}"#),
    ("PUT /api/users/{ann}/todos/{mine}", IF_OLD, r#"{"title":"f","priority":"high"}"#),
    ("PATCH /api/users/{ann}/todos/{mine}/complete", IF_OLD, r#"{"completed":true}"#),
    ("DELETE /api/users/{ann}/todos/{mine}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{theirs}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{nobody}", IF_OLD, ""),
    ("DELETE /api/users/{ann}/todos/{theirs}", ANN, ""),
    ("DELETE /api/users/{ann}/todos/{mine}", ANN, ""),
    ("DELETE /api/users/{ann}/todos/{mine}", ANN, ""),
    // trash
    ("GET /api/users/{ann}/trash", ANN, ""),
    ("HEAD /api/users/{ann}/trash?limit=1", ANN, ""),
    ("GET /api/users/{ann}/trash?limit=0&cursor=x", ANN, ""),
    ("GET /api/users/{bob}/trash", ANN, ""),
    ("POST /api/users/{ann}/trash/{mine}", ANN, ""),
    ("POST /api/users/{ann}/trash/{mine}/restore", ANN, ""),
    ("POST /api/users/{ann}/trash/{mine}/restore", ANN, ""),
    ("POST /api/users/{ann}/trash/{theirs}/restore", ANN, ""),
    ("POST /api/users/{ann}/trash/1/restore", ANN, ""),
    ("DELETE /api/users/{ann}/todos/{mine}", ANN, ""),
    ("DELETE /api/users/{ann}/trash/{theirs}", ANN, ""),
    ("DELETE /api/users/{ann}/trash/{mine}", ANN, ""),
    ("DELETE /api/users/{ann}/trash", ANN, ""),
    ("GET /api/users/{ann}/trash", ANN, ""),
    // repeated creations
    ("POST /api/users/{ann}/todos", KEYED, r#"{"title":"k"}"#),
    ("POST /api/users/{ann}/todos", KEYED, r#"{"title":"k"}"#),
    ("POST /api/users/{ann}/todos", KEYED, r#"{"title":"l"}"#),
    ("POST /api/users/{ann}/todos", BAD_KEY, r#"{"title":"k"}"#),
    // changes
    ("GET /api/users/{ann}/changes", ANN, ""),
    ("GET /api/users/{ann}/changes?since=x", ANN, ""),
    ("GET /api/users/{ann}/changes?since=x.1", ANN, ""),
    ("GET /api/users/{bob}/changes", ANN, ""),
    ("POST /api/users/{ann}/changes", ANN_JSON, "{}"),
    ("POST /api/auth/logout", ANN, ""),
    ("GET /api/users/{ann}/todos", ANN, ""),
    ("GET /api/users/{ann}/trash", ANN, ""),
];

/// Complete request heads, for requests with invalid framing.
pub(super) const HEADS: &[&str] = &[
    "GET /health HTTP/1.1\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a/b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a,b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: u@a\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: a b\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close",
    "GET /health HTTP/1.1\r\nHost: \r\nConnection: close",
    "GET /health HTTP/1.0",
    "GET /health HTTP/1.1\r\nHost: a\r\nBad Field: x\r\nConnection: close",
    "GET /health",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
     Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 70000",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
     Content-Length: 1\r\nContent-Length: 2",
    "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: x",
];
