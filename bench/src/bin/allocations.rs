//! Allocations and allocated bytes per request: through `Api::handle`, on SQLite, without a socket.
//! Includes all threads of the process, but not SQLite's own C code.

use http::{Method, StatusCode};
use todo_bench::{Failure, fixture::Fixture};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Uncounted requests at the start, which fill caches and pools.
const WARM_UP: u32 = 50;
/// Counted requests, for the average.
const COUNTED: u32 = 200;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let _profiler = dhat::Profiler::builder().testing().build();
    let fixture = Fixture::open().await?;
    let list = format!("{}?limit=50", fixture.todos);
    let create = r#"{"title": "Buy milk", "priority": "high"}"#;
    let cases = [
        ("health", Method::GET, "/health", "", StatusCode::OK),
        ("get one", Method::GET, &fixture.todo, "", StatusCode::OK),
        ("list 50", Method::GET, &list, "", StatusCode::OK),
        ("create", Method::POST, &fixture.todos, create, StatusCode::CREATED),
        ("404", Method::GET, "/nowhere", "", StatusCode::NOT_FOUND),
    ];
    println!("| request | allocations | bytes |\n|---|---:|---:|");
    for (name, method, path, body, expected) in cases {
        let all = (0..WARM_UP + COUNTED).map(|_| fixture.request(&method, path, body));
        let mut requests = all.collect::<Result<Vec<_>, _>>()?.into_iter();
        for request in requests.by_ref().take(WARM_UP as usize) {
            fixture.send(request).await;
        }
        let before = dhat::HeapStats::get();
        for request in requests {
            let status = fixture.send(request).await.status();
            if status != expected {
                return Err(format!("{name}: {status} instead of {expected}").into());
            }
        }
        let after = dhat::HeapStats::get();
        let blocks = (after.total_blocks - before.total_blocks) / u64::from(COUNTED);
        let bytes = (after.total_bytes - before.total_bytes) / u64::from(COUNTED);
        println!("| {name} | {blocks} | {bytes} |");
    }
    Ok(())
}
