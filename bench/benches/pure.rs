//! Parts of a request: authentication with its SQLite read, and without I/O the JSON of a page,
//! routing and parsing. `cargo bench -p todo-bench`.
#![allow(missing_docs, reason = "criterion's macros generate a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, StatusCode};
use todo_bench::{Failure, fixture::Fixture};
use todo_core::{auth, todos};
use tokio::runtime::{Builder, Runtime};

criterion_group!(benches, all);
criterion_main!(benches);

fn all(criterion: &mut Criterion) {
    // A benchmark cannot return an error.
    if let Err(error) = pure(criterion) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn pure(criterion: &mut Criterion) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let fixture = runtime.block_on(Fixture::open())?;
    let caller = runtime.block_on(auth::authenticate(fixture.core(), fixture.token()))?;
    criterion.bench_function("authenticate a token", |bench| {
        bench.iter(|| {
            runtime.block_on(auth::authenticate(fixture.core(), black_box(fixture.token())))
        });
    });

    let query = todos::ListQuery::new().limit(todos::Limit::new(50)?);
    let page = runtime.block_on(todos::list(fixture.core(), &caller, query))?;
    criterion.bench_function("JSON of a page of 50", |bench| {
        bench.iter(|| serde_json::to_vec(black_box(&page)));
    });

    let malformed = r#"{"title": "Buy milk", "priority": "high""#;
    let (get, post) = (Method::GET, Method::POST);
    let bench = |criterion: &mut Criterion, name, method, path, body, expected| {
        request(criterion, &runtime, &fixture, name, (method, path, body, expected))
    };
    bench(criterion, "GET /health", &get, "/health", "", StatusCode::OK)?;
    bench(criterion, "an unknown route", &get, "/nowhere", "", StatusCode::NOT_FOUND)?;
    // The session is checked before an error response to its user: this includes one read.
    let bad = StatusCode::UNPROCESSABLE_ENTITY;
    bench(criterion, "create, malformed (SQLite)", &post, &fixture.todos, malformed, bad)?;
    bench(criterion, "get one (SQLite)", &get, &fixture.todo, "", StatusCode::OK)
}

/// Measures how long building one request and `Api::handle` take.
fn request(
    criterion: &mut Criterion,
    runtime: &Runtime,
    fixture: &Fixture,
    name: &str,
    (method, path, body, expected): (&Method, &str, &'static str, StatusCode),
) -> Result<(), Failure> {
    let send = || -> Result<StatusCode, Failure> {
        let request = fixture.request(method, path, body)?;
        Ok(runtime.block_on(fixture.send(request)).status())
    };
    let status = send()?;
    if status != expected {
        return Err(format!("{name}: {status} instead of {expected}").into());
    }
    criterion.bench_function(name, |bench| bench.iter(&send));
    Ok(())
}
