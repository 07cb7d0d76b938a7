//! A rolling restart as nobody notices it: three replicas on one PostgreSQL behind HAProxy, by the
//! configuration that is shipped, while clients go on. No request fails, no POST is made twice.

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
use todo_tests::{Actor, Client, Process, STARTING, fresh_email, postgres::Cluster, tool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const RESTARTS: usize = 20;
const CLIENTS: usize = 12;
/// What a client waits between two requests: load enough, and the machine is left time for checks.
const PACE: Duration = Duration::from_millis(15);
const POLL: Duration = Duration::from_millis(20);
/// As docs/deployment.md says.
const SHUTDOWN_DELAY_SECONDS: &str = "3";
const SECRET: &str = "6b1f0a0d9b3c4e5f8a7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a392817";
/// As the shipped configuration calls them.
const SERVERS: [(&str, &str); 3] = [("one", "todo-1"), ("two", "todo-2"), ("three", "todo-3")];

/// A free port of an address.
fn free(host: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free port")
}

/// `text` with its only `from` replaced.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} in deploy/haproxy/haproxy.cfg");
    text.replace(from, to)
}

/// HAProxy by the shipped configuration, of which only the addresses are others.
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
        let addr = free(Ipv4Addr::LOCALHOST);
        config = replaced(&config, "bind :8080", &format!("bind {addr}"));
        for ((_, host), addr) in SERVERS.iter().zip(servers) {
            config = replaced(&config, &format!("{host}:8000"), &addr.to_string());
        }
        let stats = format!("global\n    stats socket {}\n", dir.path().join("stats").display());
        config = replaced(&config, "global\n", &stats);
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config).expect("it is written");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let mut haproxy = Command::new(tool("haproxy"));
        haproxy.args(["-db", "-f"]).arg(file).stdin(Stdio::null());
        let child = haproxy.stdout(log.try_clone().expect("the log")).stderr(log).spawn();
        Proxy { dir, child: child.expect("haproxy runs"), addr }
    }

    /// What HAProxy thinks of a server, such as `UP` or `DOWN 1/2`.
    async fn status(&self, server: &str) -> Option<String> {
        let mut stats = UnixStream::connect(self.dir.path().join("stats")).await.ok()?;
        stats.write_all(b"show stat\n").await.ok()?;
        let mut table = String::new();
        stats.read_to_string(&mut table).await.ok()?;
        let row = format!("servers,{server},");
        let row = table.lines().find(|line| line.starts_with(&row))?;
        row.split(',').nth(17).map(ToOwned::to_owned)
    }

    async fn is_up(&self, server: &str) {
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

/// One of the three, always at the same address.
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

/// Somebody who works on todos, over one connection or a new one for each request.
struct Worker {
    user: Actor,
    keeps: bool,
    made: usize,
    answered: Arc<AtomicUsize>,
}

impl Worker {
    async fn sign_up(client: &Client, number: usize, answered: Arc<AtomicUsize>) -> Worker {
        let password = "Correct1horse";
        let form = json!({"email": fresh_email(), "password": password, "name": "A Worker"});
        let auth = client.post("/api/auth/signup", form).await.expect(201);
        let user = Actor::of(client, &auth, password);
        Worker { user, keeps: number.is_multiple_of(2), made: 0, answered }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        expected: u16,
    ) -> Result<Value, String> {
        let connection = if self.keeps { "keep-alive" } else { "close" };
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

    /// Works until it is told to stop, or to the first request that fails.
    async fn work(mut self, stop: Arc<AtomicBool>) -> Result<Worker, String> {
        let todos = self.user.todos();
        while !stop.load(Ordering::Relaxed) {
            let title = format!("todo {}", self.made);
            let body = json!({ "title": title }).to_string();
            let todo = self.ask("POST", &todos, &body, 201).await?;
            self.made += 1;
            let todo = format!("{todos}/{}", todo["id"].as_str().ok_or("no id")?);
            let body = json!({ "description": title }).to_string();
            self.ask("PATCH", &todo, &body, 200).await?;
            let read = self.ask("GET", &todo, "", 200).await?;
            if read["title"] != title || read["description"] != title {
                return Err(format!("{title} is now {read}"));
            }
        }
        let list = self.ask("GET", &todos, "", 200).await?;
        if list["total"] == self.made {
            Ok(self)
        } else {
            Err(format!("{} were made of {}", list["total"], self.made))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn twenty_rolling_restarts_are_seen_by_no_client() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Not 127.0.0.1: what connects from there takes a port of it, and a replica needs its own back.
    let addrs = [2, 3, 4].map(|last| free(Ipv4Addr::new(127, 0, 0, last)));
    let mut replicas = Vec::new();
    for addr in addrs {
        replicas.push(replica(dir.path(), &url, addr).await);
    }
    let proxy = Proxy::start(&addrs);
    for (server, _) in SERVERS {
        proxy.is_up(server).await;
    }

    // Nobody outside sees the metrics, or says where it comes from.
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
            let said = replicas.iter().map(Process::said).collect::<String>();
            match said.lines().find(|line| line.contains("forged")) {
                Some(line) => break line.to_owned(),
                None => sleep(POLL).await,
            }
        }
    };
    let line = timeout(STARTING, line).await.expect("it is logged");
    assert!(line.contains("client_ip=127.0.0.1"), "{line}");

    let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut working = JoinSet::new();
    for number in 0..CLIENTS {
        // A client each, and so a connection each.
        let worker = Worker::sign_up(&Client::of(proxy.addr), number, answered.clone()).await;
        working.spawn(worker.work(stop.clone()));
    }

    for round in 0..RESTARTS {
        let nth = round % SERVERS.len();
        let old = replicas.remove(nth);
        old.stop().await;
        replicas.insert(nth, replica(dir.path(), &url, addrs[nth]).await);
        proxy.is_up(SERVERS[nth].0).await;
        if let Some(ended) = working.try_join_next() {
            let failed = ended.expect("a worker does not panic").map(|worker| worker.made);
            panic!("restart {round}: {failed:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in timeout(STARTING, working.join_all()).await.expect("the clients end") {
        worker.unwrap_or_else(|failed| panic!("{failed}"));
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > RESTARTS * CLIENTS, "{answered} requests are no load");
    for replica in replicas {
        replica.stop().await;
    }
    drop(proxy);
    cluster.stop().await.expect("PostgreSQL stops");
}
