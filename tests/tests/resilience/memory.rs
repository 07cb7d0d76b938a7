//! Memory that clients can make a server hold: responses that they do not read, bodies and heads
//! that they do not finish. Long lists are streamed, and the bodies in flight share one budget.

mod lists;
mod unfinished_requests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tempfile::TempDir;
use todo_tests::{Client, Process, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

/// Memory limit of a server in these tests: three quarters of the 512 MB in the shipped unit. The
/// highest measured was 256 MB, in a debug build, for 10,000 requests over HTTP/2.
const MAX_MEMORY: u64 = 384 << 20;

/// A separate process, whose memory is measured.
struct Measured {
    dir: TempDir,
    server: Process,
    idle: u64,
}

impl Measured {
    async fn start(program: &str) -> Measured {
        // Each test holds thousands of sockets.
        rlimit::increase_nofile_limit(16_384).expect("descriptors");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = [("RATE_LIMIT_PER_MINUTE", "0")];
        let server = Process::start(program, dir.path(), &settings).await;
        let idle = server.memory();
        Measured { dir, server, idle }
    }

    fn database_url(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("todo.db").display())
    }

    fn client(&self) -> Client {
        Client::of(self.server.addr)
    }

    /// Asserts that the server is responsive and within its memory limit.
    async fn assert_healthy(&self, what: &str) {
        let began = Instant::now();
        self.client().get("/health").await.expect(200);
        let (took, memory) = (began.elapsed(), self.server.memory());
        println!("{what}: {} MB, /health in {took:?}", memory >> 20);
        assert!(memory < MAX_MEMORY, "{what}: {} MB", memory >> 20);
        assert!(took < Duration::from_secs(8), "{what}: /health took {took:?}");
    }

    /// After the load, the whole budget is free again.
    async fn recovers(self) {
        let client = self.client();
        // The response with the metrics takes a few KiB itself.
        let is_free = eventually(Duration::from_secs(20), async || held(&client).await < 64 << 10);
        assert!(is_free.await, "{} bytes are held", held(&client).await);
        let now = self.server.memory();
        println!("idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        assert!(now < MAX_MEMORY, "idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        let most = self.idle + (32 << 20);
        let is_back = eventually(Duration::from_secs(30), async || self.server.memory() < most);
        assert!(is_back.await, "{} MB are kept", self.server.memory() >> 20);
        self.server.stop().await;
    }
}

/// The bytes held for bodies in flight, by the server's metrics.
async fn held(client: &Client) -> u64 {
    let text = String::from_utf8(client.get("/metrics").await.body).expect("text");
    let held = text.lines().find_map(|line| line.strip_prefix("body_memory_bytes "));
    held.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("no gauge in {text}"))
}

/// One of 16 loopback addresses: connections per address are limited.
fn source(number: usize) -> IpAddr {
    let last = u8::try_from(number % 16).expect("small");
    Ipv4Addr::new(127, 0, 1, last + 1).into()
}

async fn connect(addr: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(addr).await
}

/// Sends `bytes` and nothing more; returns the start of the response, if one arrives in time.
async fn start_request(
    addr: SocketAddr,
    from: IpAddr,
    bytes: Vec<u8>,
    wait: Duration,
) -> (Option<TcpStream>, Option<String>) {
    let Ok(mut stream) = connect(addr, from).await else { return (None, None) };
    // The server may respond and close before all is sent.
    let _ = timeout(wait, stream.write_all(&bytes)).await;
    let mut status = [0; 12];
    let status = match timeout(wait, stream.read_exact(&mut status)).await {
        Ok(Ok(_)) => Some(String::from_utf8_lossy(&status).into_owned()),
        _ => None,
    };
    (Some(stream), status)
}

fn count<'a>(outcomes: impl Iterator<Item = &'a Option<String>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome.clone().unwrap_or("none".into())).or_insert(0) += 1;
    }
    counts
}
