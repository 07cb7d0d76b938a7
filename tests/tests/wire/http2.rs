//! Abuse that HTTP/2 permits and HTTP/1.1 does not: many concurrent requests on one connection, a
//! response held in the server by a closed window, an idle connection kept alive by PINGs. Only
//! `todo-server` supports HTTP/2, in cleartext with prior knowledge (RFC 9113, section 3.3).

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use todo_tests::{Actor, Client, PROGRAMS, Process};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const SERVER: &str = PROGRAMS[0];
/// The documented limits: how long a client may read nothing of a response, and how long a
/// connection may be without a request, on top of the request timeout.
const STALL: Duration = Duration::from_secs(30);
/// Tolerance for a busy machine and the server's polling interval.
const SLACK: Duration = Duration::from_secs(15);

type Sender = SendRequest<Full<Bytes>>;
type Io = Connection<TokioIo<TcpStream>, Full<Bytes>, TokioExecutor>;

/// A connection that sends PINGs and gives each stream a window of this size.
async fn handshake(addr: SocketAddr, window: u32) -> (Sender, Io) {
    let stream = TcpStream::connect(addr).await.expect("it listens");
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .keep_alive_interval(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .expect("an HTTP/2 handshake")
}

/// As [`handshake`], with a task that returns how the connection ends.
async fn connected(addr: SocketAddr, window: u32) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let (sender, connection) = handshake(addr, window).await;
    (sender, tokio::spawn(connection))
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(format!("http://localhost{path}")).version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

async fn answered(answer: Response<Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn heads_and_streams_have_the_limits_of_the_contract() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Process::start(SERVER, dir.path(), &[]).await;
    let (mut sender, mut connection) = handshake(server.addr, 1 << 20).await;
    for (size, status) in [(20 << 10, 200), (40 << 10, 431)] {
        let request = get("/health", &[("x-long", &*"x".repeat(size))]);
        let answer = async { answered(sender.send_request(request).await.expect("it")).await };
        let (seen, body) = tokio::select! {
            answer = answer => answer,
            ended = &mut connection => panic!("no response: {ended:?}"),
        };
        assert_eq!(seen, status, "{body}");
        if status == 431 {
            assert_eq!(body["code"], "header_fields_too_large", "{body}");
        }
    }
    assert_eq!(connection.current_max_send_streams(), 100);
    server.stop().await;
}

/// A response sent in small pieces is the same as in one piece.
#[tokio::test]
async fn a_large_response_is_complete_through_a_small_window() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Process::start(SERVER, dir.path(), &[]).await;
    let ann = Actor::with_a_large_list(&Client::of(server.addr)).await;
    let expected = ann.get(&ann.todos()).await.body;
    let bearer = format!("Bearer {}", ann.token());
    for headers in [
        &[("authorization", &*bearer)][..],
        &[("authorization", &*bearer), ("accept-encoding", "gzip")],
    ] {
        let (mut sender, _connection) = connected(server.addr, 5000).await;
        let answer = sender.send_request(get(&ann.todos(), headers)).await.expect("a response");
        assert_eq!(answer.status(), 200);
        let is_compressed = answer.headers().contains_key("content-encoding");
        assert_eq!(is_compressed, headers.len() == 2);
        // A long list is generated while it is sent.
        assert!(!answer.headers().contains_key("content-length"));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(is_compressed && body.starts_with(b"\x1f\x8b") || body == expected);
    }
    server.stop().await;
}

/// A DELETE may have content, which it requires here (RFC 9110, section 9.3.5).
#[tokio::test]
async fn an_account_is_deleted_over_http2() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Process::start(SERVER, dir.path(), &[]).await;
    let ann = Actor::sign_up_to(&Client::of(server.addr)).await;
    let (mut sender, _connection) = connected(server.addr, 1 << 20).await;
    for (password, expected) in [("Wrong1horse", 401), (ann.password(), 200)] {
        let request = Request::delete("http://localhost/api/auth/me")
            .version(Version::HTTP_2)
            .header("authorization", format!("Bearer {}", ann.token()))
            .header("content-type", "application/json")
            .body(Full::from(format!("{{\"password\": \"{password}\"}}")))
            .expect("a request");
        let (status, body) = answered(sender.send_request(request).await.expect("it")).await;
        assert_eq!(status, expected, "{body}");
    }
    ann.get("/api/auth/me").await.problem(401, "unauthorized");
    server.stop().await;
}

/// A login that fails after the time of a password hash.
fn login() -> Request<Full<Bytes>> {
    let body = r#"{"email":"nobody@example.com","password":"Wrong1horse"}"#;
    Request::post("http://localhost/api/auth/login")
        .version(Version::HTTP_2)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .expect("a request")
}

/// Starts a request and resets it.
async fn reset(sender: &mut Sender) -> bool {
    if sender.ready().await.is_err() {
        return false;
    }
    let answer = sender.send_request(login());
    // The request is sent; then the future is dropped, which resets the stream.
    timeout(Duration::from_millis(5), answer).await.is_err_and(|_| true)
}

/// A client that only starts and resets requests loses its connection, and no other client does
/// (CVE-2023-44487); one that resets some and awaits the others keeps its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_only_its_own_connection() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = [("RATE_LIMIT_PER_MINUTE", "0")];
    let server = Process::start(SERVER, dir.path(), &settings).await;
    let (mut fair, fairs) = connected(server.addr, 1 << 20).await;
    let (mut flood, ended) = connected(server.addr, 1 << 20).await;
    let mut resets = 0;
    let flooding = async {
        while !ended.is_finished() && reset(&mut flood).await {
            resets += 1;
        }
    };
    timeout(Duration::from_secs(20), flooding).await.expect("the connection ends");
    println!("ended after {resets} resets");
    assert!(resets < 1000, "{resets} resets");
    for _ in 0..20 {
        reset(&mut fair).await;
        let answer = fair.send_request(get("/health", &[])).await.expect("a response");
        assert_eq!(answered(answer).await.0, 200);
    }
    assert!(!fairs.is_finished());
    server.stop().await;
}

/// Reads nothing of one response; its other requests meanwhile do not keep the connection.
async fn reads_no_response(addr: SocketAddr, ann: &Actor) {
    let (mut sender, connection) = connected(addr, 1000).await;
    let bearer = format!("Bearer {}", ann.token());
    let request = get(&ann.todos(), &[("authorization", &*bearer)]);
    let answer = sender.send_request(request).await.expect("a response");
    assert_eq!(answer.status(), 200);
    let start = Instant::now();
    while start.elapsed() < STALL + SLACK && !connection.is_finished() {
        if let Ok(answer) = sender.send_request(get("/health", &[])).await {
            assert_eq!(answered(answer).await.0, 200);
        }
        sleep(Duration::from_secs(1)).await;
    }
    let took = start.elapsed();
    println!("without a window for {took:?}");
    assert!(took > STALL - Duration::from_secs(1) && connection.is_finished(), "{took:?}");
    drop(answer);
}

async fn sends_no_request(addr: SocketAddr, requests_first: bool) {
    let (mut sender, connection) = connected(addr, 1 << 20).await;
    if requests_first {
        let answer = sender.send_request(get("/health", &[])).await.expect("a response");
        assert_eq!(answered(answer).await.0, 200);
    }
    let start = Instant::now();
    let ended = timeout(STALL + SLACK, connection).await.expect("the connection ends");
    let took = start.elapsed();
    println!("idle for {took:?}");
    assert!(took > STALL, "{took:?}");
    // By a GOAWAY, not by an error.
    ended.expect("it does not panic").expect("a clean end");
}

#[tokio::test]
#[ignore = "slow: run by .ci/run"]
async fn stalled_and_idle_connections_are_closed_despite_pings() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = [("REQUEST_TIMEOUT_SECONDS", "1")];
    let server = Process::start(SERVER, dir.path(), &settings).await;
    let ann = Actor::with_a_large_list(&Client::of(server.addr)).await;
    let addr = server.addr;
    tokio::join!(
        reads_no_response(addr, &ann),
        sends_no_request(addr, false),
        sends_no_request(addr, true),
    );
    server.stop().await;
}
