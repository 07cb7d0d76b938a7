//! What a server says and does between being told to stop and its end, to a load balancer that
//! looks at its readiness.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;
use todo_tests::{PROGRAMS, Process, STOPPING, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Much longer than [`STOPPING`]: a delay that is not cut short fails its test.
const DELAY: (&str, &str) = ("SHUTDOWN_DELAY_SECONDS", "60");

fn empty_dir() -> TempDir {
    TempDir::new().expect("a directory")
}

/// The head and the body of an answer.
async fn get(addr: SocketAddr, path: &str) -> (String, Value) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    answer(&raw(addr, request.as_bytes()).await)
}

fn answer(bytes: &[u8]) -> (String, Value) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

async fn drains(addr: SocketAddr) {
    let draining = async {
        while !get(addr, "/health/ready").await.0.starts_with("http/1.1 503") {
            tokio::task::yield_now().await;
        }
    };
    timeout(STOPPING, draining).await.expect("it tells that it drains");
}

#[tokio::test]
async fn readiness_goes_first_and_work_goes_on() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::start(program, dir.path(), &[DELAY]).await;
        let (head, body) = get(process.addr, "/health/ready").await;
        assert!(head.starts_with("http/1.1 200"), "{program}: {head}");
        assert_eq!(body, json!({ "status": "ready" }));
        let mut kept = TcpStream::connect(process.addr).await.expect("it listens");

        process.signal("TERM");
        drains(process.addr).await;
        let (head, body) = get(process.addr, "/health/ready").await;
        assert!(head.contains("\r\nretry-after: 1"), "{program}: {head}");
        assert_eq!(body, json!({ "status": "draining" }));
        let (head, _) = get(process.addr, "/health").await;
        assert!(head.starts_with("http/1.1 200"), "{program}: it lives: {head}");
        // It asks to be kept, and is answered and then closed.
        kept.write_all(b"GET /api/auth/me HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
        let mut read = Vec::new();
        let closed = timeout(STOPPING, kept.read_to_end(&mut read)).await;
        closed.expect("it is closed").expect("an answer");
        let (head, _) = answer(&read);
        assert!(head.starts_with("http/1.1 401"), "{program}: {head}");
        assert!(head.contains("\r\nconnection: close"), "{program}: {head}");

        // A second signal ends the delay at once.
        process.stop().await;
    }
}
