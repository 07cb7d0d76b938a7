//! PostgreSQL outages: stopped, crashed, frozen, out of connections, read-only. Every request that
//! needs the database gets a 503 in time, at once after the outage is detected, and succeeds soon
//! after the database recovers.
//!
//! A wrong response fails the test at once. Response times also depend on the machine's load, so
//! each scenario has three attempts to meet the promised times.

mod faults;
mod partial;
mod startup;

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use todo_core::{
    Secret,
    http::{Access, Endpoint},
    testing::{addition_state, link_token, sign_in_code},
};
use todo_tests::{
    Actor, App, Client, Database, MAIL_SETTINGS, SECRET, Server, Target, TestResponse, endpoint,
    postgres::Cluster, uncovered, unique_email,
};

/// Promised times: for a request before the outage is detected, after detection, and for recovery.
const DETECTED_WITHIN: Duration = Duration::from_secs(2);
const FAIL_FAST: Duration = Duration::from_millis(50);
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);
/// A wait longer than this is a failure even on a slow machine.
const MAX_WAIT: Duration = Duration::from_secs(20);
const POOL: usize = 4;

/// The header fields of the handshake of a WebSocket (RFC 6455, section 4.1).
const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The address of an app that users sign in to.
const APP_URL: &str = "https://app.example.com/";

/// A server on its own PostgreSQL cluster, and a user with a todo.
struct Deployment {
    cluster: Cluster,
    app: App,
    user: Actor,
    todo: String,
}

impl Deployment {
    async fn start(server: Server) -> Deployment {
        let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
        let role = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app";
        admin(&cluster).await.execute(role).await.expect("a role");
        let app = app(server, &cluster).await;
        let user = app.signed_up().await;
        let todo = user.todo("kept").await;
        let todo = format!("{}/{}", user.todos(), todo["id"].as_str().expect("an id"));
        Deployment { cluster, app, user, todo }
    }

    async fn metrics(&self) -> String {
        self.app.anonymous().get("/metrics").await.text()
    }
}

async fn admin(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url()).await.expect("a connection")
}

async fn app(server: Server, cluster: &Cluster) -> App {
    // The settings below override the database that the harness creates for the target.
    let target = Target { server, database: Database::Sqlite };
    let url = cluster.url().replace("postgres@", "app@");
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_POOL_MAX", "4"),
        ("DATABASE_TIMEOUT_MS", "1800"),
        // Rate limits are stored in the database, so each login starts with a query.
        ("RATE_LIMIT_PER_MINUTE", "10000"),
        // Nothing listens there, so mails only wait.
        ("SMTP_URL", "smtp://127.0.0.1:1"),
        MAIL_SETTINGS[0],
        MAIL_SETTINGS[1],
        // A provider that a start does not ask.
        ("PUBLIC_URL", "https://todo.example.com"),
        ("OAUTH_REDIRECTS", APP_URL),
        ("OAUTH_GITHUB_CLIENT_ID", "todo"),
        ("OAUTH_GITHUB_CLIENT_SECRET", "secret"),
    ];
    App::start_with(target, &settings).await
}

/// Sends one request to each route that needs the database, by the method `of_streams` to those
/// whose response has no end if it succeeds.
async fn every_route(user: &Actor, todo: &str, of_streams: &str) -> Vec<TestResponse> {
    let anonymous = Client::of(user.client.addr());
    let todos = user.todos();
    let form = json!({"email": unique_email(), "password": "Correct1horse", "name": "Ada"});
    let login = json!({"email": user.email(), "password": user.password()});
    let session = format!("/api/auth/sessions/{}", uuid::Uuid::now_v7());
    let change = json!({"current_password": "Wrong1horse", "new_password": "Other2battery"});
    let link = |kind| link_token(&Secret::new(SECRET).expect("long"), kind, uuid::Uuid::now_v7());
    let new_email = json!({"email": unique_email(), "password": user.password()});
    let key = format!("/api/auth/keys/{}", uuid::Uuid::now_v7());
    let identity = format!("/api/auth/identities/{}", uuid::Uuid::now_v7());
    let key_form = json!({
        "name": "n", "scopes": ["todos:read"], "expires_in_days": 1, "password": user.password(),
    });
    let secret = Secret::new(SECRET).expect("long");
    let challenge = "x".repeat(43);
    let start = format!(
        "/api/auth/oauth/github/start?redirect_uri={APP_URL}&code_challenge={challenge}\
         &code_challenge_method=S256"
    );
    let nobody = uuid::Uuid::now_v7();
    // Nothing asks the provider before the user does so with a token.
    let callback = format!(
        "/api/auth/oauth/github/callback?code=x&state={}",
        addition_state(&secret, nobody, APP_URL)
    );
    let code = json!({"code": sign_in_code(&secret, nobody), "code_verifier": "x"});
    let filtered = format!("{todos}?status=pending&sort_by=title&limit=5");
    let complete = format!("{todo}/complete");
    let (changes, trash) = (todos.replace("/todos", "/changes"), todos.replace("/todos", "/trash"));
    let events = todos.replace("/todos", "/events");
    let webhook = todos.replace("/todos", "/webhook");
    let socket = todos.replace("/todos", "/ws");
    let trashed = todo.replace("/todos/", "/trash/");
    let restore = format!("{trashed}/restore");
    let bulk = format!("{todos}/bulk");
    let export = todos.replace("/todos", "/export");
    let import = todos.replace("/todos", "/import?format=json");
    let move_ = format!("{todo}/move");
    let (tags, lists) = (todos.replace("/todos", "/tags"), todos.replace("/todos", "/lists"));
    let (rename, one_tag) = (format!("{tags}/rename"), format!("{tags}?name=a"));
    let list = format!("{lists}/{nobody}");
    let requests = [
        ("POST", "/api/auth/signup", form),
        ("POST", "/api/auth/login", login),
        ("GET", "/api/auth/me", json!(null)),
        ("PATCH", "/api/auth/me", json!({"name": "Ada King"})),
        ("GET", "/api/auth/sessions", json!(null)),
        ("DELETE", "/api/auth/sessions", json!(null)),
        ("DELETE", &session, json!(null)),
        ("POST", "/api/auth/password", change),
        ("POST", "/api/auth/keys", key_form),
        ("GET", "/api/auth/keys", json!(null)),
        ("DELETE", &key, json!(null)),
        ("POST", "/api/auth/identities", json!({"token": "x"})),
        ("GET", "/api/auth/identities", json!(null)),
        ("DELETE", &identity, json!(null)),
        ("GET", &start, json!(null)),
        ("GET", &callback, json!(null)),
        ("POST", "/api/auth/oauth/token", code),
        ("POST", "/api/auth/oauth/github/link", json!({"redirect_uri": APP_URL})),
        ("POST", "/api/auth/oauth/link", json!({"code": "x"})),
        ("GET", "/api/auth/export", json!(null)),
        ("DELETE", "/api/auth/me", json!({"password": "Wrong1horse"})),
        ("POST", "/api/auth/password/forgot", json!({"email": unique_email()})),
        (
            "POST",
            "/api/auth/password/reset",
            json!({"token": link("reset"), "password": "Other2battery"}),
        ),
        ("POST", "/api/auth/email", new_email),
        ("POST", "/api/auth/email/verify", json!(null)),
        ("POST", "/api/auth/email/confirm", json!({"token": link("verify")})),
        ("GET", &todos, json!(null)),
        ("GET", &filtered, json!(null)),
        ("POST", &todos, json!({"title": "new"})),
        ("POST", &bulk, json!({"create": [{"title": "new"}, {"title": "newer"}]})),
        ("POST", &move_, json!({"after": null})),
        ("GET", &tags, json!(null)),
        ("POST", &rename, json!({"from": "a", "to": "b"})),
        ("DELETE", &one_tag, json!(null)),
        ("POST", &lists, json!({"name": "new"})),
        ("GET", &lists, json!(null)),
        ("GET", &list, json!(null)),
        ("PATCH", &list, json!({"name": "other"})),
        ("DELETE", &list, json!(null)),
        ("GET", todo, json!(null)),
        ("PUT", todo, json!({"title": "other", "priority": "low"})),
        ("PATCH", todo, json!({"title": "other"})),
        ("PATCH", &complete, json!({"completed": true})),
        ("DELETE", todo, json!(null)),
        ("GET", &export, json!(null)),
        ("POST", &import, json!({"todos": [{"title": "new"}]})),
        ("GET", &changes, json!(null)),
        ("PUT", &webhook, json!({"url": "https://hooks.example.com/"})),
        ("GET", &webhook, json!(null)),
        ("DELETE", &webhook, json!(null)),
        (of_streams, &events, json!(null)),
        (of_streams, &socket, json!(null)),
        ("GET", &trash, json!(null)),
        ("POST", &restore, json!(null)),
        ("DELETE", &trashed, json!(null)),
        ("DELETE", &trash, json!(null)),
        ("POST", "/api/auth/logout", json!(null)),
    ];
    let mut covered = Vec::new();
    let mut answers = Vec::new();
    for (method, path, body) in requests {
        let endpoint = endpoint(if method == "HEAD" { "GET" } else { method }, path);
        covered.push(endpoint);
        let sender = if endpoint.access() == Access::Public { &anonymous } else { &**user };
        let headers: &[_] = match path == socket {
            true => &HANDSHAKE,
            false => &[("content-type", "application/json")],
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        answers.push(sender.send(method, path, headers, body).await);
    }
    let needs_database =
        |endpoint: &Endpoint| endpoint.statements().success > 0 && !endpoint.is_probe();
    assert_eq!(uncovered(covered, needs_database), [""; 0]);
    answers
}
