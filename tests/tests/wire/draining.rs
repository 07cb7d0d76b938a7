//! The behaviour of a server between the shutdown signal and its exit, for a load balancer that
//! polls its readiness.

use std::net::SocketAddr;

use serde_json::{Value, json};
use todo_tests::{PROGRAMS, Process, STARTING, STOPPING, command, empty_dir, raw};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Much longer than [`STOPPING`]: a delay that is not cut short fails the test.
const DELAY: (&str, &str) = ("SHUTDOWN_DELAY_SECONDS", "60");

/// The head and the body of a response.
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
    timeout(STOPPING, draining).await.expect("it reports that it drains");
}

#[tokio::test]
async fn readiness_fails_first_while_requests_are_still_served() {
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
        assert!(head.starts_with("http/1.1 200"), "{program}: alive: {head}");
        // With keep-alive requested, it responds and then closes.
        kept.write_all(b"GET /api/auth/me HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
        let mut read = Vec::new();
        let closed = timeout(STOPPING, kept.read_to_end(&mut read)).await;
        closed.expect("it is closed").expect("an answer");
        let (head, _) = answer(&read);
        assert!(head.starts_with("http/1.1 401"), "{program}: {head}");
        assert!(head.contains("\r\nconnection: close"), "{program}: {head}");

        // The documentation pages do the same.
        if program == "todo-server" {
            let paths = ["/docs", "/docs/page.js", "/redoc"];
            for path in paths {
                let mut kept = TcpStream::connect(process.addr).await.expect("it listens");
                let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                kept.write_all(request.as_bytes()).await.expect("it reads");
                let mut read = Vec::new();
                let closed = timeout(STOPPING, kept.read_to_end(&mut read)).await;
                closed.expect("it is closed").expect("an answer");
                let (head, _) = answer(&read);
                assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
                assert!(head.contains("\r\nconnection: close"), "{path}: {head}");
            }
        }

        // A second signal ends the delay at once.
        process.stop().await;
    }
}

/// A start may wait for its database for minutes; a signal ends it at once.
#[tokio::test]
async fn a_start_that_waits_for_its_database_can_be_stopped() {
    // Bound but not listening: connections are refused, and the port stays taken.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let url = format!("postgres://nobody@127.0.0.1:{port}/none");
    for program in PROGRAMS {
        let dir = empty_dir();
        let settings = [
            ("DATABASE_URL", &*url),
            ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only"),
            // Much longer than STOPPING.
            ("DATABASE_STARTUP_SECONDS", "60"),
        ];
        let mut child = command(program, dir.path(), &settings).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let waits = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.contains("waiting for the database") {
                    return;
                }
            }
            panic!("{program} does not wait");
        };
        timeout(STARTING, waits).await.expect("it logs that it waits");
        let id = child.id().expect("it still runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("kill runs").success());
        let ended = timeout(STOPPING, child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{program} still waits"));
        let status = ended.expect("a status");
        assert!(status.success(), "{program}: {status}");
    }
}
