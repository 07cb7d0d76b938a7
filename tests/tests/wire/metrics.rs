//! `/metrics` under clients with arbitrary input, and its documentation.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::Request;
use http_body_util::{Empty, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use todo_core::{
    Clock, Core, Secret,
    http::{Api, ApiOptions},
};
use todo_tests::{
    App, Client, Database, PROGRAMS, Process, STARTING, Server, Target, eventually,
    on_every_target, startup_error, unique_email,
};
use tokio::time::sleep;
use uuid::Uuid;

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yml");

async fn scraped(client: &Client) -> String {
    let answer = client.get("/metrics").await;
    assert_eq!(answer.status, 200);
    answer.text()
}

/// Names with their labels, without values.
fn series(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').expect("a value").0).collect()
}

/// Requests with arbitrary method, path and headers: 30 kinds, each new.
async fn send_arbitrary(client: &Client) {
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    for method in ["GET", "POST", "PATCH", "DELETE", "OPTIONS", &format!("M{}", a.simple())] {
        for path in [
            format!("/{a}"),
            format!("/api/users/{a}/todos"),
            format!("/api/users/{a}/todos/{b}"),
            format!("/health?{a}={b}"),
            format!("/docs/{a}"),
        ] {
            let id = b.to_string();
            let headers = [("x-request-id", id.as_str()), ("origin", "http://localhost:3000")];
            client.send(method, &path, &headers, "").await;
        }
    }
}

on_every_target! {
    async fn clients_cannot_create_series(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        // The first round creates every combination of route, method and status.
        send_arbitrary(&client).await;
        scraped(&client).await;
        let before = scraped(&client).await;
        for _ in 0..20 {
            send_arbitrary(&client).await;
        }
        let after = scraped(&client).await;
        assert_eq!(series(&after), series(&before));
        assert!(before.contains("route=\"unmatched\"") && before.contains("method=\"other\""));
    }
}

#[tokio::test]
async fn a_request_of_a_disconnected_client_is_counted() {
    let secret = Secret::new("a secret of more than thirty-two bytes").expect("long enough");
    let core = Core::builder(secret).open("sqlite::memory:").await.expect("it opens");
    let api = Api::new(core, ApiOptions::default());
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let asked = Request::post("/api/auth/login")
        .header("host", "localhost")
        .header("content-type", "application/json");
    let handled = api.handle(asked.body(body).expect("a request"));
    // Polled once and dropped, as by a server when the connection ends.
    assert!(handled.now_or_never().is_none(), "it waits for its body");
    let asked = Request::get("/metrics").header("host", "localhost").body(Empty::<Bytes>::new());
    let text = api.handle(asked.expect("a request")).await.into_body().into_bytes();
    let text = String::from_utf8_lossy(&text.expect("a whole body")).into_owned();
    let left = "http_requests_total{method=\"POST\",route=\"/api/auth/login\",status=\"499\"} 1";
    assert!(text.contains(left), "{text}");
    assert!(text.contains("http_requests_in_flight 1"), "only the scrape: {text}");
}

#[tokio::test]
async fn a_panic_is_a_500_without_details() {
    let secret = Secret::new("a secret of more than thirty-two bytes").expect("long enough");
    let clock = Clock::from_fn(|| panic!("a secret panic message"));
    let core = Core::builder(secret).clock(clock).open("sqlite::memory:").await.expect("it opens");
    let api = Api::new(core, ApiOptions::default());
    // With a request id: generating one would call the clock.
    let asked = Request::get("/health").header("host", "localhost").header("x-request-id", "mine");
    let answer = api.handle(asked.body(Empty::<Bytes>::new()).expect("a request")).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["x-request-id"], "mine");
    let body = String::from_utf8_lossy(&answer.into_body().into_bytes().expect("a whole body"))
        .into_owned();
    assert!(body.contains(r#""code":"internal""#) && body.contains(r#""request_id":"mine""#));
    assert!(!body.contains("nobody"), "{body}");
}

/// The value of a series.
async fn value(client: &Client, name: &str) -> f64 {
    let text = scraped(client).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

on_every_target! {
    async fn failed_logins_are_counted_and_limited_ones_are_not_hashed(target) {
        let app = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "1")]).await;
        let client = app.anonymous();
        let login = json!({"email": "nobody@example.com", "password": "Wrong1password"});
        let signup = |email: String| {
            json!({"email": email, "password": "Correct1horse", "name": "Ada"})
        };
        client.post("/api/auth/login", login.clone()).await.problem(401, "invalid_credentials");
        client.post("/api/auth/signup", signup(unique_email())).await.expect(201);
        assert_eq!(value(&client, "failed_logins_total").await, 1.0);
        assert_eq!(value(&client, "password_hashes_total").await, 2.0);
        client.post("/api/auth/login", login).await.problem(429, "rate_limited");
        client.post("/api/auth/signup", signup(unique_email())).await.problem(429, "rate_limited");
        assert_eq!(value(&client, "failed_logins_total").await, 1.0);
        assert_eq!(value(&client, "password_hashes_total").await, 2.0);
    }
}

/// One connection, whose statement waits for a locked row, and a second call that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_the_pool_is_exported() {
    for server in [Server::Salvo, Server::Hyper] {
        let target = Target { server, database: Database::Postgres };
        let settings = [("DATABASE_POOL_MAX", "1"), ("DATABASE_TIMEOUT_MS", "10000")];
        let app = App::start_with(target, &settings).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("held").await;
        let path = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
        let client = app.anonymous();
        let idle = "database_connections{state=\"idle\"}";
        let used = "database_connections{state=\"used\"}";
        // A connection that answers late on a busy machine is replaced.
        let is_idle =
            async || value(&client, idle).await == 1.0 && value(&client, used).await == 0.0;
        assert!(eventually(Duration::from_secs(10), is_idle).await);
        assert_eq!(value(&client, "database_calls_waiting").await, 0.0);

        let mut lock = PgConnection::connect(app.database_url()).await.expect("a connection");
        lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("the row is held");
        let (first, second) = (ann.clone(), ann.clone());
        let held = tokio::spawn(async move { first.patch(&path, json!({"title": "x"})).await });
        let is_used = async || value(&client, used).await == 1.0;
        assert!(eventually(STARTING, is_used).await, "{server:?}: no connection is used");
        let waits = tokio::spawn(async move { second.get("/api/auth/me").await });
        let is_awaited = async || value(&client, "database_calls_waiting").await == 1.0;
        assert!(eventually(STARTING, is_awaited).await, "{server:?}: no call waits");
        assert_eq!(value(&client, idle).await, 0.0);
        sleep(Duration::from_millis(100)).await;
        lock.close().await.expect("the row is free");
        held.await.expect("no panic").expect(200);
        waits.await.expect("no panic").expect(200);
        assert_eq!(value(&client, "database_calls_waiting").await, 0.0);
        assert!(value(&client, "database_wait_seconds_total").await >= 0.1);
        app.stop().await.expect("a clean stop");
    }
}

/// A separate metrics listener, for a server with TLS or without a proxy; plain http even in
/// production.
#[tokio::test]
async fn metrics_may_have_a_separate_listener() {
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = [
            ("METRICS_ADDRESS", "127.0.0.1:0"),
            ("ENVIRONMENT", "production"),
            ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only"),
            ("ALLOWED_ORIGINS", "https://app.example"),
            ("TRUSTED_PROXIES", "127.0.0.1/32"),
        ];
        let server = Process::start(program, dir.path(), &settings).await;
        let printed = server.output();
        let (_, rest) = printed.split_once("metrics are at http://").expect(&printed);
        let own = rest.split_once("/metrics").expect("a path").0.parse().expect("an address");
        let main = Client::of(server.addr);
        let secure = [("x-forwarded-proto", "https")];
        let answer = main.send("GET", "/metrics", &secure, "").await;
        answer.problem(404, "not_found");
        let index = main.send("GET", "/", &secure, "").await.expect(200);
        assert_eq!(index["links"]["metrics"], Value::Null, "{program}: {index}");
        let document = main.send("GET", "/openapi.json", &secure, "").await.expect(200);
        assert_eq!(document["paths"]["/metrics"], Value::Null, "{program}");

        let own = Client::of(own);
        let answer = own.get("/metrics").await;
        assert_eq!(answer.status, 200, "{program}: {answer}");
        let counted = "http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1";
        assert!(answer.text().contains(counted), "{program}: {answer}");
        let head = own.send("HEAD", "/metrics", &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{program}");
        own.send("POST", "/metrics", &[], "").await.problem(405, "method_not_allowed");
        for path in ["/", "/health", "/api/auth/me", "/openapi.json", "/docs"] {
            own.get(path).await.problem(404, "not_found");
        }
        // An address in use fails the start.
        let taken = own.addr().to_string();
        let printed = startup_error(program, dir.path(), &[("METRICS_ADDRESS", &taken)]).await;
        assert!(printed.contains(&format!("cannot listen on {taken}")), "{program}: {printed}");
        server.stop().await;
    }
}

/// The possible metric names in a PromQL query: all contain an underscore, and no label does.
fn metrics_in(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.contains('_') && *word != "histogram_quantile").collect()
}

/// The texts between backticks, line by line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[tokio::test]
async fn the_documentation_matches_the_metrics() {
    let target = Target { server: Server::Salvo, database: Database::Sqlite };
    // Some metrics are those of an issuer of tokens.
    let issuer = [("AUTH_ISSUER", "http://localhost:9"), ("AUTH_AUDIENCE", "todo")];
    let app = App::start_with(target, &issuer).await;
    let client = app.anonymous();
    client.get("/docs").await;
    let text = scraped(&client).await;
    let without = scraped(&App::start(target).await.anonymous()).await;
    assert!(!without.contains("auth_foreign_tokens_total"), "{without}");
    let types: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let samples = series(&text);
    let is_there = |name: &str| {
        types.iter().any(|(family, _)| *family == name)
            || samples.iter().any(|sample| sample.split('{').next() == Some(name))
    };
    let named: BTreeSet<&str> = quoted(DOCUMENT)
        .filter(|text| !text.contains("/") || text.contains('('))
        .flat_map(metrics_in)
        .collect();
    assert!(named.len() > 8, "{named:?}");
    for name in named {
        assert!(is_there(name), "docs/metrics.md names {name}, which is not in {text}");
    }
    for (family, kind) in &types {
        let row = format!("| `{family}` | {kind} |");
        assert!(DOCUMENT.contains(&row), "docs/metrics.md has no row {row}");
    }

    let alerts = ALERTS.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut named = BTreeSet::new();
    for line in alerts {
        named.extend(metrics_in(line).into_iter().filter(|word| *word != "todo_core"));
    }
    assert!(named.contains("failed_logins_total"), "{named:?}");
    for name in named {
        assert!(is_there(name), "alerts.yml names {name}, which is not in {text}");
    }
    assert_eq!(ALERTS.matches("- alert:").count(), 4);
}
