//! A server limits its connections, in total and by address. Beyond the limits, or out of file
//! descriptors, it refuses further ones or lets them wait, and it recovers.

use std::{fs, net::SocketAddr, time::Duration};

use todo_runtime::OVER_CAPACITY_CONNECTIONS;
use todo_tests::{PROGRAMS, Process, at_once, empty_dir, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::{HEAD, SLACK, SQLITE, signed_up, with_descriptors};

/// Processor time used by a server so far.
fn processor_time(server: &Process) -> Duration {
    let id = server.child.id().expect("a running process");
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process");
    // The fields after the name, which may contain spaces: user and system time are fields 14 and
    // 15 of the line, in ticks of 10 ms (proc_pid_stat(5)).
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |field: &str| field.parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(fields[11]) + ticks(fields[12])))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_descriptors_waits_and_recovers() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let server =
            Process::spawned(with_descriptors(program, dir.path(), SQLITE, "-n 64"), program).await;
        let ann = signed_up(server.addr, "ann@example.com").await;
        assert_eq!(ann.get("/api/auth/me").await.status, 200);

        let addr = server.addr;
        let flood = at_once(200, |_| TcpStream::connect(addr)).await;
        let out = async || server.output().contains("Too many open files");
        assert!(eventually(SLACK, out).await, "{program}: {}", server.output());
        let (used, lines) = (processor_time(&server), server.output().lines().count());
        sleep(Duration::from_secs(3)).await;
        let used = processor_time(&server) - used;
        let lines = server.output().lines().count() - lines;
        println!("{program}: {used:?} of processor time, {lines} lines of log in 3 s");
        assert!(used < Duration::from_millis(1500), "{program} spins: {used:?} in 3 s");
        assert!(lines < 100, "{program} logs {lines} lines in 3 s");

        drop(flood);
        let served = async || {
            let answer = ann.try_send("GET", "/api/auth/me", &[], "").await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        assert!(eventually(SLACK, served).await, "{program}: {}", server.output());
        server.stop().await;
    }
}

/// Sends a request on `stream`; returns the response and whether the connection stays open.
async fn send_request(stream: &mut TcpStream, path: &str) -> (String, bool) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a write");
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        // Reads up to the end of the response's JSON, or of the connection.
        match timeout(SLACK, stream.read(&mut chunk)).await.expect("a response in time") {
            Ok(n @ 1..) => received.extend_from_slice(&chunk[..n]),
            Ok(0) | Err(_) => break,
        }
        if received.ends_with(b"}") {
            break;
        }
    }
    let received = String::from_utf8_lossy(&received).to_ascii_lowercase();
    let kept = !received.contains("\r\nconnection: close\r\n");
    (received, kept)
}

/// Connections over capacity get a 503 at once; health checks are still answered.
#[tokio::test]
async fn connections_beyond_the_cap_are_answered_with_503() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let server = Process::start(program, dir.path(), &[("MAX_CONNECTIONS", "3")]).await;
        let connect = || async { TcpStream::connect(server.addr).await.expect("a connection") };
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = connect().await;
            let (received, kept) = send_request(&mut stream, "/").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received}");
            open.push(stream);
        }
        let mut further = connect().await;
        let start = Instant::now();
        let (received, kept) = send_request(&mut further, "/").await;
        let took = start.elapsed();
        assert!(received.starts_with("http/1.1 503") && !kept, "{program}: {received}");
        assert!(received.contains("\r\nretry-after: 1\r\n"), "{program}: {received}");
        assert!(received.contains("application/problem+json"), "{program}: {received}");
        assert!(took < Duration::from_millis(500), "{program}: {took:?}");
        let mut probe = connect().await;
        let (received, kept) = send_request(&mut probe, "/health").await;
        assert!(received.starts_with("http/1.1 200") && !kept, "{program}: {received}");
        // Existing connections still work, and closing one of them makes room.
        for stream in &mut open {
            let (received, kept) = send_request(stream, "/").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received}");
        }
        drop((further, probe, open.pop()));
        let room = async || {
            let (received, _) = send_request(&mut connect().await, "/").await;
            received.starts_with("http/1.1 200")
        };
        assert!(eventually(SLACK, room).await, "{program} accepts no further connection");
        server.stop().await;
    }
}

/// The number of over-capacity connections is limited too: further ones wait for a free slot.
#[tokio::test]
async fn connections_beyond_the_over_capacity_limit_wait() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let server = Process::start(program, dir.path(), &[("MAX_CONNECTIONS", "1")]).await;
        let mut first = TcpStream::connect(server.addr).await.expect("a connection");
        send_request(&mut first, "/").await;
        let silent = at_once(OVER_CAPACITY_CONNECTIONS, |_| TcpStream::connect(server.addr)).await;
        let mut further = TcpStream::connect(server.addr).await.expect("a connection");
        let early = timeout(Duration::from_secs(1), send_request(&mut further, "/health")).await;
        assert!(
            early.is_err(),
            "{program} serves more than {OVER_CAPACITY_CONNECTIONS} connections over capacity"
        );
        drop(silent);
        // This sends a second request after the one above.
        let (received, _) = send_request(&mut further, "/health").await;
        assert!(received.starts_with("http/1.1 200"), "{program}: {received}");
        server.stop().await;
    }
}

/// Connects from the given loopback address.
async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("an address");
    socket.connect(to).await.expect("a connection")
}

/// Connections beyond one address's limit get a 503, and other addresses can still connect.
#[tokio::test]
async fn an_address_cannot_hold_every_connection() {
    const ONE: [u8; 4] = [127, 0, 0, 8];
    const OTHER: [u8; 4] = [127, 0, 0, 9];
    for program in PROGRAMS {
        let dir = empty_dir();
        let settings = [("MAX_CONNECTIONS", "200"), ("MAX_CONNECTIONS_PER_ADDRESS", "5")];
        let server = Process::start(program, dir.path(), &settings).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut stream = connect_from(ONE, server.addr).await;
            let (received, kept) = send_request(&mut stream, "/").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received}");
            open.push(stream);
        }
        let mut further = connect_from(ONE, server.addr).await;
        let (received, kept) = send_request(&mut further, "/").await;
        assert!(received.starts_with("http/1.1 503") && !kept, "{program}: {received}");
        // Some further connections are held for a 503; those beyond are closed without a response.
        let mut closed = 0;
        for _ in 0..200 {
            let mut stream = connect_from(ONE, server.addr).await;
            match timeout(Duration::from_millis(300), stream.read(&mut [0; 1])).await {
                Ok(Ok(0) | Err(_)) => {
                    closed += 1;
                    if closed == 20 {
                        break;
                    }
                }
                Ok(Ok(_)) => panic!("{program} sends before a request"),
                Err(_) => open.push(stream),
            }
        }
        assert_eq!(closed, 20, "{program}");
        assert!(open.len() <= 5 + OVER_CAPACITY_CONNECTIONS, "{program}: {} are open", open.len());
        let mut others = Vec::new();
        for _ in 0..5 {
            let mut stream = connect_from(OTHER, server.addr).await;
            let (received, kept) = send_request(&mut stream, "/").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received}");
            others.push(stream);
        }
        drop((open, further));
        let room = async || {
            let (received, _) = send_request(&mut connect_from(ONE, server.addr).await, "/").await;
            received.starts_with("http/1.1 200")
        };
        assert!(eventually(SLACK, room).await, "{program} accepts no further connection");
        server.stop().await;
    }
}

/// A trusted proxy carries the connections of many clients.
#[tokio::test]
async fn a_trusted_proxy_has_no_per_address_limit() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let settings = [
            ("MAX_CONNECTIONS", "200"),
            ("MAX_CONNECTIONS_PER_ADDRESS", "1"),
            ("TRUSTED_PROXIES", "127.0.0.8"),
        ];
        let server = Process::start(program, dir.path(), &settings).await;
        let mut open = Vec::new();
        for _ in 0..10 {
            let mut stream = connect_from([127, 0, 0, 8], server.addr).await;
            let (received, kept) = send_request(&mut stream, "/").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received}");
            open.push(stream);
        }
        server.stop().await;
    }
}

/// A connection opened early, before its first request, is kept open like any other, and an idle
/// one for the keep-alive time. Unit tests check each deadline to the second.
#[tokio::test]
async fn an_idle_connection_is_kept_for_the_keep_alive_time() {
    const KEEP_ALIVE: Duration = Duration::from_secs(4);
    for program in PROGRAMS {
        let dir = empty_dir();
        let server = Process::start(program, dir.path(), &[("KEEP_ALIVE_SECONDS", "4")]).await;
        let mut early = TcpStream::connect(server.addr).await.expect("a connection");
        sleep(Duration::from_secs(3)).await;
        for _ in 0..2 {
            let (received, kept) = send_request(&mut early, "/health").await;
            assert!(received.starts_with("http/1.1 200") && kept, "{program}: {received:?}");
            sleep(KEEP_ALIVE / 2).await;
        }
        let since = Instant::now() - KEEP_ALIVE / 2;
        let ended = timeout(SLACK, early.read(&mut [0; 1])).await;
        assert_eq!(ended.expect("a close in time").expect("a close without error"), 0, "{program}");
        let took = since.elapsed();
        let expected = KEEP_ALIVE - Duration::from_millis(500)..HEAD - Duration::from_secs(1);
        assert!(expected.contains(&took), "{program}: closed after {took:?}");
        server.stop().await;
    }
}
