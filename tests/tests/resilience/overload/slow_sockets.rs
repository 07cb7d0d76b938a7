//! Clients that send or read slowly, or not at all: they do not slow other clients, and each is
//! disconnected at its deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, SockRef, Socket, Type};
use todo_runtime::SHUTDOWN_GRACE;
use todo_tests::{Actor, Client, PROGRAMS, Process, empty_dir, eventually, postgres::Cluster};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use super::{HEAD, Healthy, SLACK, SQLITE, descriptors, signed_up, with_descriptors};

/// The timeout of a body, and of a client that does not read its response.
const BODY: Duration = Duration::from_secs(15);
const STALL: Duration = Duration::from_secs(30);

/// Number of slow sockets of each kind.
const SOCKETS_PER_KIND: usize = 400;

/// A slow socket after its end: the time from connecting to the close, and the bytes received.
struct ClosedSocket {
    after: Duration,
    received: Vec<u8>,
}

/// A client that sends `first`, then `then` once a second, until the server closes the connection.
async fn slow_socket(addr: SocketAddr, first: String, then: Option<u8>) -> ClosedSocket {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let start = Instant::now();
    stream.write_all(first.as_bytes()).await.expect("a write");
    let (mut seconds, mut received) = (interval(Duration::from_secs(1)), Vec::new());
    let mut chunk = [0; 4096];
    let ends = async {
        loop {
            tokio::select! {
                read = stream.read(&mut chunk) => match read {
                    Ok(n @ 1..) => received.extend_from_slice(&chunk[..n]),
                    // A reset, if the server did not read all bytes.
                    Ok(0) | Err(_) => break,
                },
                _ = seconds.tick(), if then.is_some() => {
                    let _ = stream.write_all(&[then.unwrap_or_default()]).await;
                }
            }
        }
    };
    // A socket that is never closed fails the caller's check of `after`, which names its kind.
    let _ = timeout(STALL + SLACK, ends).await;
    ClosedSocket { after: start.elapsed(), received }
}

/// A client that requests `path` and, after the response's first bytes, reads nothing until `wake`.
/// A usual segment size and a small buffer: otherwise loopback would buffer the whole response.
async fn stalled_reader(
    addr: SocketAddr,
    actor: Actor,
    path: String,
    permit: OwnedSemaphorePermit,
    mut wake: watch::Receiver<bool>,
) -> Vec<u8> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_tcp_mss(1400).expect("a segment size");
    socket.set_recv_buffer_size(8 << 10).expect("a buffer size");
    socket.set_nonblocking(true).expect("a mode");
    let socket = TcpSocket::from_std_stream(socket.into());
    let mut stream = socket.connect(addr).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        actor.token()
    );
    stream.write_all(request.as_bytes()).await.expect("a write");
    let mut first = [0; 12];
    let read = timeout(Duration::from_secs(60), stream.read_exact(&mut first)).await;
    read.expect("a response in time").expect("a response");
    drop(permit);
    let _ = wake.wait_for(|wake| *wake).await;
    let mut received = first.to_vec();
    // The rest in the kernel's buffers arrives through a small window, or the connection is reset.
    let _ = SockRef::from(&stream).set_recv_buffer_size(1 << 20);
    let _ = timeout(SLACK, stream.read_to_end(&mut received)).await;
    received
}

/// Slow sockets of each kind, connected to a server.
struct SlowSockets {
    per_kind: usize,
    /// The size of the response that the readers leave unread, and its body.
    size: usize,
    readers: JoinSet<Vec<u8>>,
    last_reader: Instant,
    wake: watch::Sender<bool>,
    silent: JoinSet<ClosedSocket>,
    heads: JoinSet<ClosedSocket>,
    bodies: JoinSet<ClosedSocket>,
    idle: JoinSet<ClosedSocket>,
    /// The descriptors of the server before, and at least while all sockets are connected.
    before: usize,
    all: usize,
}

impl SlowSockets {
    async fn connect(server: &Process, large: &Actor, per_kind: usize) -> SlowSockets {
        let addr = server.addr;
        let size = large.get(&large.todos()).await.body.len();
        assert!(size > 400_000, "the list has {size} bytes");
        let before = descriptors(server);

        // First the readers, which cost the server work, a few at a time.
        let (wake, woken) = watch::channel(false);
        let few = Arc::new(Semaphore::new(8));
        let mut readers = JoinSet::new();
        for _ in 0..per_kind {
            let permit = few.clone().acquire_owned().await.expect("an open semaphore");
            let (actor, path) = (large.clone(), large.todos());
            readers.spawn(stalled_reader(addr, actor, path, permit, woken.clone()));
        }
        drop(few.acquire_many(8).await);
        let last_reader = Instant::now();
        println!("{before} descriptors before, {} with all readers", descriptors(server));

        let head = "GET /health HTTP/1.1\r\nHost: a\r\n";
        let body = "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Content-Length: 1000\r\n\r\n";
        let mut silent = JoinSet::new();
        let mut heads = JoinSet::new();
        let mut bodies = JoinSet::new();
        let mut idle = JoinSet::new();
        // Some of the descriptors open before are idle connections, which may be closed meanwhile.
        let all = before + 5 * per_kind - 50;
        for i in 0..per_kind {
            silent.spawn(slow_socket(addr, String::new(), None));
            heads.spawn(slow_socket(addr, format!("{head}X-Slow: "), Some(b'x')));
            bodies.spawn(slow_socket(addr, body.to_owned(), Some(b' ')));
            idle.spawn(slow_socket(addr, format!("{head}\r\n"), None));
            // A connection beyond the kernel's backlog may be lost without the client noticing.
            if (i + 1) % 50 == 0 {
                let so_far = all - 4 * (per_kind - i - 1);
                let there = eventually(HEAD / 4, async || descriptors(server) >= so_far).await;
                assert!(there, "expected {so_far} open descriptors, found {}", descriptors(server));
            }
        }
        SlowSockets {
            per_kind,
            size,
            readers,
            last_reader,
            wake,
            silent,
            heads,
            bodies,
            idle,
            before,
            all,
        }
    }

    /// Checks that each kind is closed at its deadline, with its response.
    async fn are_closed_in_time(self, server: &Process, program: &str) {
        for (kind, sockets, deadline) in [
            ("silent", self.silent, HEAD),
            ("head", self.heads, HEAD),
            ("body", self.bodies, BODY),
            ("idle", self.idle, HEAD),
        ] {
            let ended = sockets.join_all().await;
            for ClosedSocket { after, received } in &ended {
                let received = String::from_utf8_lossy(received);
                let whole = deadline - Duration::from_secs(1)..deadline + SLACK;
                assert!(
                    whole.contains(after),
                    "{program}: {kind} was closed after {after:?}: {received:?}"
                );
                let expected = match kind {
                    "silent" => received.is_empty(),
                    "head" | "body" => {
                        received.starts_with("HTTP/1.1 408")
                            && received.contains("application/problem+json")
                            && received.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n")
                            && received.contains("\"code\":\"request_timeout\"")
                    }
                    _ => received.starts_with("HTTP/1.1 200"),
                };
                assert!(expected, "{program}: {kind} received {received:?}");
            }
            let times = ended.iter().map(|ended| ended.after);
            println!("{program}: {kind} {:?} to {:?}", times.clone().min(), times.max());
        }
        // The healthy clients keep one connection each; SQLite may have opened another reader.
        let left = self.before + self.per_kind / 10;
        let remaining =
            (self.last_reader + STALL + SLACK).saturating_duration_since(Instant::now());
        let gone = eventually(remaining, async || descriptors(server) <= left).await;
        println!("{program}: readers closed {:?} after the last", self.last_reader.elapsed());
        let open = descriptors(server);
        assert!(gone, "{program}: {open} descriptors are open, {} before", self.before);
        self.wake.send_replace(true);
        // The kernel may have buffered the whole response for some readers.
        let received = self.readers.join_all().await;
        let stalled = received.iter().filter(|received| received.len() < self.size).count();
        println!("{program}: {stalled} responses stalled");
        assert!(received.iter().all(|received| received.starts_with(b"HTTP/1.1 200")), "{program}");
        assert!(stalled > self.per_kind / 2, "{program}: only {stalled} responses stalled");
    }
}

async fn slow_sockets_do_not_slow_other_clients(program: &str, url: &str) {
    rlimit::increase_nofile_limit(u64::MAX).expect("a higher limit of descriptors");
    let dir = empty_dir();
    // The usual soft limit: the server must raise it to hold 2000 connections.
    let server =
        Process::spawned(with_descriptors(program, dir.path(), url, "-S -n 1024"), program).await;
    let addr = server.addr;
    let large = Actor::with_a_large_list(&Client::of(addr)).await;
    let healthy = Healthy::of(&signed_up(addr, "ann@example.com").await).await;
    let bound = healthy.bound().await;
    let slow = SlowSockets::connect(&server, &large, SOCKETS_PER_KIND).await;

    // The best of up to three windows, each with all slow sockets connected.
    let mut seen = Vec::new();
    while seen.len() < 3 && seen.iter().all(|p99| *p99 > bound) {
        let p99 = healthy.window_p99().await;
        if descriptors(&server) < slow.all {
            break;
        }
        seen.push(p99);
    }
    println!("{program}: p99 {seen:?}, bound {bound:?}");
    assert!(seen.iter().any(|p99| *p99 <= bound), "{program}: p99 {seen:?}, allowed {bound:?}");
    // Another test waits for their end.
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn slow_sockets_do_not_slow_other_clients_on_sqlite() {
    for program in PROGRAMS {
        slow_sockets_do_not_slow_other_clients(program, SQLITE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn slow_sockets_do_not_slow_other_clients_on_postgres() {
    for program in PROGRAMS {
        let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
        slow_sockets_do_not_slow_other_clients(program, &cluster.url()).await;
        cluster.stop().await.expect("PostgreSQL stops");
    }
}

/// The deadlines are the same on each database. This is the test of the values in production:
/// others set shorter ones.
async fn slow_sockets_are_closed_in_time(program: &str) {
    let dir = empty_dir();
    let server =
        Process::spawned(with_descriptors(program, dir.path(), SQLITE, "-S -n 1024"), program)
            .await;
    let large = Actor::with_a_large_list(&Client::of(server.addr)).await;
    let slow = SlowSockets::connect(&server, &large, SOCKETS_PER_KIND / 4).await;
    slow.are_closed_in_time(&server, program).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn slow_sockets_are_closed_in_time_by_both() {
    rlimit::increase_nofile_limit(u64::MAX).expect("a higher limit of descriptors");
    let [salvo, hyper] = PROGRAMS;
    tokio::join!(slow_sockets_are_closed_in_time(salvo), slow_sockets_are_closed_in_time(hyper));
}

/// A client that does not read its response delays a stop by the promised time and no longer.
async fn a_stop_cuts_off_stalled_readers(program: &str) {
    let dir = empty_dir();
    let mut server =
        Process::spawned(with_descriptors(program, dir.path(), SQLITE, "-n 1024"), program).await;
    let large = Actor::with_a_large_list(&Client::of(server.addr)).await;
    let (_wake, woken) = watch::channel(false);
    let one = Arc::new(Semaphore::new(1));
    let permit = one.clone().acquire_owned().await.expect("an open semaphore");
    let path = large.todos();
    let reader = tokio::spawn(stalled_reader(server.addr, large, path, permit, woken));
    drop(one.acquire().await);
    let signalled = Instant::now();
    server.signal("TERM");
    let ended = timeout(SHUTDOWN_GRACE + SLACK, server.child.wait()).await;
    let took = signalled.elapsed();
    println!("{program}: stopped after {took:?}");
    assert!(ended.expect("an exit in time").expect("a status").success(), "{}", server.output());
    assert!(took > SHUTDOWN_GRACE - Duration::from_secs(1), "{program} did not wait: {took:?}");
    reader.abort();
}

#[tokio::test]
#[ignore = "slow: run by .ci/run"]
async fn a_stop_cuts_off_stalled_readers_on_either() {
    let [salvo, hyper] = PROGRAMS;
    tokio::join!(a_stop_cuts_off_stalled_readers(salvo), a_stop_cuts_off_stalled_readers(hyper));
}
