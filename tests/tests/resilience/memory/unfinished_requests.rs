//! Bodies and heads that clients do not finish take little memory, and bodies share one budget.

use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::StreamBody;
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use todo_tests::{Actor, Client, PROGRAMS, Process, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

use super::{Measured, connect, count, held, source, start_request};

/// Unfinished bodies over HTTP/1.1, without and with a token.
async fn unfinished_bodies(program: &str) {
    let measured = Measured::start(program).await;
    let ann = Actor::sign_up_to(&measured.client()).await;
    let addr = measured.server.addr;
    let authorization = format!("Authorization: Bearer {}\r\n", ann.token());
    let todos = ann.todos();
    let cases = [
        ("/api/auth/login", "", 8192, 8000, 3000),
        (todos.as_str(), authorization.as_str(), 65_536, 65_000, 1000),
    ];
    for (path, header, length, sent, connections) in cases {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{header}\
             Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.resize(request.len() + sent, b' ');
        let mut sending = JoinSet::new();
        for number in 0..connections {
            let request = request.clone();
            sending.spawn(start_request(addr, source(number), request, Duration::from_secs(6)));
        }
        let all = sending.join_all().await;
        let statuses = count(all.iter().map(|(_, status)| status));
        println!("{program}: {path}: {statuses:?}");
        measured.assert_healthy(&format!("{connections} bodies of {sent} bytes")).await;
        assert!(statuses.get("none").is_some_and(|waiting| *waiting > 100), "{statuses:?}");
        // One user may take a quarter of the budget.
        assert_eq!(statuses.contains_key("HTTP/1.1 503"), !header.is_empty(), "{statuses:?}");
        drop(all);
    }
    measured.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn unfinished_bodies_take_little_memory_over_http1() {
    for program in PROGRAMS {
        unfinished_bodies(program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn unfinished_bodies_take_little_memory_over_http2() {
    const CONNECTIONS: usize = 100;
    const STREAMS: usize = 100;
    let measured = Measured::start(PROGRAMS[0]).await;
    let ann = Actor::sign_up_to(&measured.client()).await;
    let addr = measured.server.addr;
    let bearer = format!("Bearer {}", ann.token());
    for (path, sent) in [("/api/auth/login".to_owned(), 8000), (ann.todos(), 65_000)] {
        let mut connections = JoinSet::new();
        for number in 0..CONNECTIONS {
            let (path, bearer) = (path.clone(), bearer.clone());
            connections.spawn(async move {
                let stream = connect(addr, source(number)).await.expect("it listens");
                let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .handshake(TokioIo::new(stream))
                    .await
                    .expect("an HTTP/2 handshake");
                let connection = tokio::spawn(connection);
                let mut answers = Vec::new();
                for _ in 0..STREAMS {
                    let piece = Bytes::from(vec![b' '; 1000]);
                    let pieces = stream::repeat(piece).take(sent / 1000).map(Frame::data);
                    let body = pieces.chain(stream::pending()).map(Ok::<_, std::io::Error>);
                    let request = Request::post(format!("http://a{path}"))
                        .header("content-type", "application/json")
                        .header("authorization", &bearer)
                        .body(StreamBody::new(body))
                        .expect("a request");
                    sender.ready().await.expect("room for a stream");
                    answers.push(sender.send_request(request));
                }
                let answered = futures_util::future::join_all(
                    // Less than the time limit of a body, 15 s, also on a busy machine.
                    answers.into_iter().map(|answer| timeout(Duration::from_secs(12), answer)),
                );
                let rejected = answered
                    .await
                    .into_iter()
                    .filter(|answer| matches!(answer, Ok(Ok(answer)) if answer.status() == 503));
                (rejected.count(), connection, sender)
            });
        }
        let open = connections.join_all().await;
        let rejected: usize = open.iter().map(|(rejected, ..)| rejected).sum();
        println!("{path}: {rejected} of {} rejected", CONNECTIONS * STREAMS);
        measured.assert_healthy(&format!("{path}: 10,000 bodies of {sent} bytes")).await;
        if sent > 8192 {
            assert!(rejected > 0, "no request was rejected");
        }
        for (_, connection, _) in open {
            connection.abort();
        }
    }
    measured.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn unfinished_heads_take_little_memory() {
    for program in PROGRAMS {
        let measured = Measured::start(program).await;
        let addr = measured.server.addr;
        let mut head = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
        head.resize(60_000, b'x');
        let mut sending = JoinSet::new();
        for number in 0..3000 {
            sending.spawn(start_request(
                addr,
                source(number),
                head.clone(),
                Duration::from_secs(5),
            ));
        }
        let all = sending.join_all().await;
        let statuses = count(all.iter().map(|(_, status)| status));
        println!("{program}: {statuses:?}");
        measured.assert_healthy("3,000 heads of 60,000 bytes").await;
        assert!(statuses.contains_key("HTTP/1.1 503"), "{statuses:?}");
        drop(all);
        measured.recovers().await;
    }
}

/// A body over the budget is rejected at once, its connection is closed, and freed memory is
/// available to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_budget_is_a_503_and_closes_the_connection() {
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // A user's quarter is 1 MiB: 16 bodies of 64 KiB.
        let settings = [("BODY_MEMORY_BYTES", "4194304")];
        let server = Process::start(program, dir.path(), &settings).await;
        let ann = Actor::sign_up_to(&Client::of(server.addr)).await;
        let request = |sent: usize| {
            let mut request = format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                 Authorization: Bearer {}\r\nContent-Length: 65536\r\n\r\n",
                ann.todos(),
                ann.token()
            )
            .into_bytes();
            request.resize(request.len() + sent, b' ');
            request
        };
        let mut open = Vec::new();
        for number in 0..16 {
            let mut stream = connect(server.addr, source(number)).await.expect("it listens");
            stream.write_all(&request(65_535)).await.expect("it reads");
            open.push(stream);
        }
        let client = Client::of(server.addr);
        let is_full =
            eventually(Duration::from_secs(10), async || held(&client).await >= 16 * 65_535);
        assert!(is_full.await, "{program}: {} bytes are held", held(&client).await);
        // Small enough for one write: a client still sending at the close may miss the response.
        let from = Ipv4Addr::LOCALHOST.into();
        let wait = Duration::from_secs(10);
        let (stream, status) = start_request(server.addr, from, request(8000), wait).await;
        assert_eq!(status.as_deref(), Some("HTTP/1.1 503"), "{program}");
        let mut rest = Vec::new();
        let mut stream = stream.expect("a connection");
        timeout(wait, stream.read_to_end(&mut rest)).await.expect("it is closed").expect("its end");
        let rest = String::from_utf8_lossy(&rest).to_ascii_lowercase();
        assert!(rest.contains("\r\nretry-after: 1\r\n"), "{rest}");
        assert!(rest.contains("\r\nconnection: close\r\n"), "{rest}");
        assert!(rest.contains("\"code\":\"unavailable\""), "{rest}");
        // Small bodies are exempt, and other users have their own share.
        ann.todo("small").await;
        let bob = Actor::sign_up_to(&Client::of(server.addr)).await;
        let mut body = json!({"title": "t"}).to_string();
        body.push_str(&" ".repeat(60_000));
        let headers = [("content-type", "application/json")];
        bob.send("POST", &bob.todos(), &headers, body.clone()).await.expect(201);
        drop(open);
        let is_free = eventually(Duration::from_secs(10), async || {
            ann.send("POST", &ann.todos(), &headers, body.clone()).await.status == 201
        });
        assert!(is_free.await, "{program}: no memory is freed");
        server.stop().await;
    }
}
