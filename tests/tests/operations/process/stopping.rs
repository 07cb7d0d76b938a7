//! A server stops promptly, finishes the running requests and accepts no new ones.

use std::time::Duration;

use todo_tests::{PROGRAMS, Process, STARTING, STOPPING, empty_dir};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{account, me_status, parse_response};

const SIGNALS: [&str; 2] = ["TERM", "INT"];

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            // The best of three: load only adds time.
            let mut best = STOPPING;
            for _ in 0..3 {
                let dir = empty_dir();
                let process = Process::start(program, dir.path(), &[]).await;
                assert_eq!(me_status(process.addr, "none").await, 401);
                let signalled = Instant::now();
                process.signal(signal);
                process.wait_for_exit().await;
                best = best.min(signalled.elapsed());
                if best < Duration::from_secs(1) {
                    break;
                }
            }
            assert!(best < Duration::from_secs(1), "{program} took {best:?} to stop by {signal}");
        }
    }
}

#[tokio::test]
async fn a_stopping_server_accepts_no_new_connections() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut process = Process::start(program, dir.path(), &[]).await;
        let running = TcpStream::connect(process.addr).await.expect("a connection");
        let mut running = BufReader::new(running);
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n";
        running.write_all(head.as_bytes()).await.expect("a write");
        let mut interim = String::new();
        running.read_line(&mut interim).await.expect("a response");
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n", "the request is in progress");
        process.signal("TERM");
        process.wait_for_stopping().await;
        let refused = async {
            while TcpStream::connect(process.addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        // A connection accepted now would wait for a response that never comes.
        let refused = timeout(STOPPING, refused).await;
        assert!(refused.is_ok(), "{program} still accepts connections");
        running.write_all(b"{}").await.expect("a write");
        process.wait_for_exit().await;
    }
}

#[tokio::test]
async fn silent_and_half_sent_requests_do_not_hold_up_a_stop() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            let dir = empty_dir();
            let process = Process::start(program, dir.path(), &[]).await;
            let silent = TcpStream::connect(process.addr).await.expect("a connection");
            let mut half = TcpStream::connect(process.addr).await.expect("a connection");
            half.write_all(b"GET /health HTTP/1.1\r\nHost: loc").await.expect("a write");
            let mut kept = TcpStream::connect(process.addr).await.expect("a connection");
            kept.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a write");
            let mut first = [0; 12];
            kept.read_exact(&mut first).await.expect("a response");
            assert_eq!(&first, b"HTTP/1.1 200");
            process.signal(signal);
            process.wait_for_exit().await;
            drop((silent, half, kept));
        }
    }
}

#[tokio::test]
async fn a_running_request_is_finished() {
    for program in PROGRAMS {
        for signal in SIGNALS {
            let dir = empty_dir();
            let mut process = Process::start(program, dir.path(), &[]).await;
            let body = account("ann@example.com").to_string();
            let mut running = TcpStream::connect(process.addr).await.expect("a connection");
            let head = format!(
                "POST /api/auth/signup HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len(),
            );
            running.write_all(head.as_bytes()).await.expect("a write");
            let mut interim = [0; 25];
            let read = timeout(STARTING, running.read_exact(&mut interim)).await;
            read.expect("a response in time").expect("a response");
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n", "the request is in progress");

            process.signal(signal);
            process.wait_for_stopping().await;
            running.write_all(body.as_bytes()).await.expect("a write");
            let mut answered = Vec::new();
            let read = timeout(STARTING, running.read_to_end(&mut answered)).await;
            read.expect("a response in time").expect("a response");
            let (status, auth) = parse_response(&answered);
            assert_eq!(status, 201, "{program} {signal}: {auth}");
            process.wait_for_exit().await;

            let again = Process::start(program, dir.path(), &[]).await;
            let token = auth["token"].as_str().expect("a token");
            assert_eq!(
                me_status(again.addr, token).await,
                200,
                "{program}: the account was stored"
            );
            again.stop().await;
        }
    }
}
