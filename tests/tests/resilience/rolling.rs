//! Rolling restarts without downtime: three replicas on one PostgreSQL behind HAProxy with the
//! shipped configuration, under load. No request fails, and no POST is executed twice.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use todo_tests::{Actor, Client, Process, SECRET, STARTING, postgres::Cluster, tool, unique_email};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const RESTARTS: usize = 20;
const CLIENTS: usize = 12;
/// Pause between a client's requests: enough load, and time left on the machine for health checks.
const PACE: Duration = Duration::from_millis(15);
const POLL: Duration = Duration::from_millis(20);
/// The value recommended in docs/deployment.md.
const SHUTDOWN_DELAY_SECONDS: &str = "3";
/// Server names and hosts in the shipped configuration.
const SERVERS: [(&str, &str); 3] = [("one", "todo-1"), ("two", "todo-2"), ("three", "todo-3")];

/// An address on `host` with a free port.
fn free_addr(host: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free port")
}

/// Replaces `from`, which must occur exactly once in `text`.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} in deploy/haproxy/haproxy.cfg");
    text.replace(from, to)
}

/// HAProxy with the shipped configuration; only the addresses differ.
struct Proxy {
    dir: TempDir,
    child: Child,
    addr: SocketAddr,
}

impl Proxy {
    fn start(servers: &[SocketAddr]) -> Proxy {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy/haproxy.cfg");
        let mut config = fs::read_to_string(shipped).expect("deploy/haproxy/haproxy.cfg");
        let addr = free_addr(Ipv4Addr::LOCALHOST);
        config = replaced(&config, "bind :8080", &format!("bind {addr}"));
        for ((_, host), addr) in SERVERS.iter().zip(servers) {
            config = replaced(&config, &format!("{host}:8000"), &addr.to_string());
        }
        let stats = format!("global\n    stats socket {}\n", dir.path().join("stats").display());
        config = replaced(&config, "global\n", &stats);
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config).expect("a written file");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let mut haproxy = Command::new(tool("haproxy"));
        haproxy.args(["-db", "-f"]).arg(file).stdin(Stdio::null());
        let child = haproxy.stdout(log.try_clone().expect("the log")).stderr(log).spawn();
        Proxy { dir, child: child.expect("haproxy runs"), addr }
    }

    /// HAProxy's status of a server, such as `UP` or `DOWN 1/2`.
    async fn status(&self, server: &str) -> Option<String> {
        let mut stats = UnixStream::connect(self.dir.path().join("stats")).await.ok()?;
        stats.write_all(b"show stat\n").await.ok()?;
        let mut table = String::new();
        stats.read_to_string(&mut table).await.ok()?;
        let row = format!("servers,{server},");
        let row = table.lines().find(|line| line.starts_with(&row))?;
        row.split(',').nth(17).map(ToOwned::to_owned)
    }

    async fn wait_until_up(&self, server: &str) {
        let up = async {
            while self.status(server).await.as_deref() != Some("UP") {
                sleep(POLL).await;
            }
        };
        if timeout(STARTING, up).await.is_err() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            panic!("{server} is {:?} in haproxy: {log}", self.status(server).await);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts one of the three replicas, always at the same address.
async fn replica(dir: &Path, url: &str, addr: SocketAddr) -> Process {
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    let settings = [
        ("DATABASE_URL", url),
        ("DATABASE_POOL_MIN", "0"),
        ("DATABASE_POOL_MAX", "5"),
        ("HOST", &host),
        ("PORT", &port),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("SECRET_KEY", SECRET),
        ("SHUTDOWN_DELAY_SECONDS", SHUTDOWN_DELAY_SECONDS),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    let process = Process::start("todo-server", dir, &settings).await;
    assert_eq!(process.addr, addr);
    process
}

/// A client that works on todos, over one connection or a new one for each request.
struct Worker {
    user: Actor,
    keeps_alive: bool,
    made: usize,
    answered: Arc<AtomicUsize>,
}

impl Worker {
    async fn sign_up(client: &Client, number: usize, answered: Arc<AtomicUsize>) -> Worker {
        let password = "Correct1horse";
        let form = json!({"email": unique_email(), "password": password, "name": "A Worker"});
        let auth = client.post("/api/auth/signup", form).await.expect(201);
        let user = Actor::of(client, &auth, password);
        Worker { user, keeps_alive: number.is_multiple_of(2), made: 0, answered }
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
        expected: u16,
    ) -> Result<Value, String> {
        let connection = if self.keeps_alive { "keep-alive" } else { "close" };
        let headers = [("content-type", "application/json"), ("connection", connection)];
        let answer = self.user.try_send(method, path, &headers, body).await;
        let answer = answer.map_err(|error| format!("{method} {path}: {error}"))?;
        if answer.status != expected {
            return Err(format!("{answer}"));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        sleep(PACE).await;
        Ok(answer.json())
    }

    /// Sends requests until `stop` is set or a request fails.
    async fn work(mut self, stop: Arc<AtomicBool>) -> Result<Worker, String> {
        let todos = self.user.todos();
        while !stop.load(Ordering::Relaxed) {
            let title = format!("todo {}", self.made);
            let body = json!({ "title": title }).to_string();
            let todo = self.request("POST", &todos, &body, 201).await?;
            self.made += 1;
            let todo = format!("{todos}/{}", todo["id"].as_str().ok_or("no id")?);
            let body = json!({ "description": title }).to_string();
            self.request("PATCH", &todo, &body, 200).await?;
            let read = self.request("GET", &todo, "", 200).await?;
            if read["title"] != title || read["description"] != title {
                return Err(format!("{title} was read as {read}"));
            }
        }
        let list = self.request("GET", &todos, "", 200).await?;
        if list["total"] == self.made {
            Ok(self)
        } else {
            Err(format!("the list has {}, {} were created", list["total"], self.made))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn twenty_rolling_restarts_fail_no_request() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Not 127.0.0.1: outgoing connections use ports there, and a replica needs its port again.
    let addrs = [2, 3, 4].map(|last| free_addr(Ipv4Addr::new(127, 0, 0, last)));
    let mut replicas = Vec::new();
    for addr in addrs {
        replicas.push(replica(dir.path(), &url, addr).await);
    }
    let proxy = Proxy::start(&addrs);
    for (server, _) in SERVERS {
        proxy.wait_until_up(server).await;
    }

    // An outside client can neither read the metrics nor forge its address.
    let client = Client::of(proxy.addr);
    assert_eq!(client.get("/metrics").await.status, 404);
    let forged = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "forged"),
    ];
    assert_eq!(client.send("GET", "/", &forged, "").await.status, 200);
    let line = async {
        loop {
            let logs = replicas.iter().map(Process::output).collect::<String>();
            match logs.lines().find(|line| line.contains("forged")) {
                Some(line) => break line.to_owned(),
                None => sleep(POLL).await,
            }
        }
    };
    let line = timeout(STARTING, line).await.expect("a log line in time");
    assert!(line.contains("client_ip=127.0.0.1"), "{line}");

    let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for number in 0..CLIENTS {
        // One `Client` each, and so one connection each.
        let worker = Worker::sign_up(&Client::of(proxy.addr), number, answered.clone()).await;
        workers.spawn(worker.work(stop.clone()));
    }

    for round in 0..RESTARTS {
        let nth = round % SERVERS.len();
        let old = replicas.remove(nth);
        old.stop().await;
        replicas.insert(nth, replica(dir.path(), &url, addrs[nth]).await);
        proxy.wait_until_up(SERVERS[nth].0).await;
        if let Some(ended) = workers.try_join_next() {
            let failed = ended.expect("a worker does not panic").map(|worker| worker.made);
            panic!("restart {round}: {failed:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in timeout(STARTING, workers.join_all()).await.expect("the clients end") {
        worker.unwrap_or_else(|failed| panic!("{failed}"));
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > RESTARTS * CLIENTS, "only {answered} requests were sent");
    for replica in replicas {
        replica.stop().await;
    }
    drop(proxy);
    cluster.stop().await.expect("PostgreSQL stops");
}
