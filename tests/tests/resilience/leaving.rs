//! Large accounts: an export takes little memory and time of others, and a deletion is answered at
//! once, goes on after a crash, and does not delay others.

use std::{
    collections::BTreeSet,
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use todo_tests::{
    Actor, Client, PROGRAMS, Process, clone_the_only_todo, count_rows, empty_dir, eventually,
    execute_sql, postgres::Cluster,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{Instant, sleep},
};

const EXPORTED: i64 = 100_000;
const DELETED: i64 = 200_000;
/// On the second server, whose jobs are the same.
const DELETED_AGAIN: i64 = 40_000;
const EXPORT: &str = "/api/auth/export";
/// Maximum memory above that of an idle server, in bytes.
pub(super) const MEMORY: u64 = 20 << 20;

/// Runs a case on a server over SQLite and over PostgreSQL.
pub(super) async fn on_both(program: &str, case: impl AsyncFn(&str, &Path, &str)) {
    let dir = empty_dir();
    let file = format!("sqlite://{}", dir.path().join("todo.db").display());
    case(program, dir.path(), &file).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let dir = empty_dir();
    case(program, dir.path(), &cluster.url()).await;
    cluster.stop().await.expect("PostgreSQL stops");
}

pub(super) async fn started(program: &str, dir: &Path, url: &str) -> Process {
    let settings = [
        ("DATABASE_URL", url),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("MAX_TODOS_PER_USER", "0"),
        ("SECRET_KEY", todo_tests::SECRET),
    ];
    Process::start(program, dir, &settings).await
}

/// Clones the only todo until there are `count`.
async fn fill(url: &str, count: i64) {
    if url.starts_with("sqlite:") {
        return clone_the_only_todo(url, count - 1).await;
    }
    // In one transaction, each update of a counter reads all of its earlier versions.
    execute_sql(url, "ALTER TABLE todos DISABLE TRIGGER todos_inserted").await;
    clone_the_only_todo(url, count - 1).await;
    execute_sql(url, "ALTER TABLE todos ENABLE TRIGGER todos_inserted").await;
    execute_sql(url, &format!("UPDATE todo_counts SET pending = {count}")).await;
}

/// Records the maximum memory of a process until it is dropped.
struct Peak {
    bytes: Arc<AtomicU64>,
    is_done: Arc<AtomicBool>,
}

impl Peak {
    fn of(pid: u32) -> Peak {
        let peak = Peak { bytes: Arc::default(), is_done: Arc::default() };
        let (bytes, is_done) = (peak.bytes.clone(), peak.is_done.clone());
        std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                bytes.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        peak
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// The resident memory of a process in bytes; 0 if it has ended.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_u64) << 10
}

fn ids(todos: &Value) -> Vec<&str> {
    let todos = todos.as_array().expect("todos").iter();
    todos.map(|todo| todo["id"].as_str().expect("an id")).collect()
}

async fn export_much(program: &str, dir: &Path, url: &str) {
    let server = started(program, dir, url).await;
    let client = Client::of(server.addr);
    let ann = Actor::sign_up_to(&client).await;
    ann.todo("t").await;
    fill(url, EXPORTED).await;
    // Its buffers exist from now on.
    ann.get(&format!("{}?limit=500", ann.todos())).await.expect(200);
    let pid = server.child.id().expect("it runs");
    let idle = resident(pid);
    let peak = Peak::of(pid);
    let began = Instant::now();
    let answer = ann.get(EXPORT).await;
    let took = began.elapsed();
    let most = peak.bytes();
    drop(peak);
    println!(
        "{program}: {} MB in {took:?}, {} KiB above idle",
        answer.body.len() >> 20,
        most.saturating_sub(idle) >> 10
    );
    assert!(most < idle + MEMORY, "{most} bytes, idle {idle}");
    let export = answer.expect(200);
    let exported = ids(&export["todos"]);
    assert_eq!(i64::try_from(exported.len()), Ok(EXPORTED));
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ann.get(&format!("{}?order=asc{cursor}", ann.todos())).await.expect(200);
        listed.extend(page["todos"].as_array().expect("todos").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(export["todos"].as_array() == Some(&listed), "the export differs from the list");
    assert_eq!(exported.iter().collect::<BTreeSet<_>>().len(), exported.len());

    let packed = ann.send("GET", EXPORT, &[("accept-encoding", "gzip")], "").await;
    let mut plain = Vec::new();
    match packed.header("content-encoding") {
        Some("gzip") => {
            GzDecoder::new(&packed.body[..]).read_to_end(&mut plain).expect("gzip");
            assert!(packed.body.len() < plain.len() / 4, "{}", packed.body.len());
        }
        // todo-hyper-min does not compress.
        _ => plain.clone_from(&packed.body),
    }
    let again: Value = serde_json::from_slice(&plain).expect("JSON");
    assert_eq!(packed.status, 200);
    assert_eq!(packed.header("content-encoding").is_some(), program == "todo-server");
    assert!(again["todos"] == export["todos"], "the compressed export differs");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn an_export_takes_little_memory() {
    for program in PROGRAMS {
        on_both(program, export_much).await;
    }
}

/// A client that reads nothing is disconnected, and its memory is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn an_unread_export_is_cut() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        let server = started(program, dir.path(), &url).await;
        let client = Client::of(server.addr);
        let ann = Actor::sign_up_to(&client).await;
        ann.todo("t").await;
        fill(&url, EXPORTED).await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        let mut stream = socket.connect(server.addr).await.expect("a connection");
        let request = format!(
            "GET {EXPORT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.token()
        );
        stream.write_all(request.as_bytes()).await.expect("a request");
        let held = async || {
            let metrics = client.get("/metrics").await.text();
            let held = metrics.lines().find_map(|line| line.strip_prefix("body_memory_bytes "));
            held.and_then(|bytes| bytes.parse::<u64>().ok()).expect("a gauge")
        };
        let is_held = eventually(Duration::from_secs(10), async || held().await > 256 << 10).await;
        assert!(is_held, "{program}: {}", held().await);
        let is_free = eventually(Duration::from_secs(60), async || held().await < 64 << 10).await;
        assert!(is_free, "{program}: {}", held().await);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{program}: the response seems complete");
        server.stop().await;
    }
}

/// The p99 and the longest of 300 creations.
async fn timed_writes(actor: &Actor) -> [Duration; 2] {
    let mut took = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        actor.todo("timed").await;
        took.push(began.elapsed());
    }
    took.sort();
    [took[took.len() * 99 / 100], took[took.len() - 1]]
}

async fn delete_much(program: &str, dir: &Path, url: &str) {
    let count = if program == PROGRAMS[0] { DELETED } else { DELETED_AGAIN };
    let mut server = started(program, dir, url).await;
    let client = Client::of(server.addr);
    let ann = Actor::sign_up_to(&client).await;
    ann.todo("t").await;
    fill(url, count).await;
    let bob = Actor::sign_up_to(&client).await;
    let kept = bob.todo("bob's").await;
    let alone = timed_writes(&bob).await;
    let began = Instant::now();
    let headers = [("content-type", "application/json")];
    let body = json!({"password": ann.password()}).to_string();
    ann.send("DELETE", "/api/auth/me", &headers, body).await.expect(200);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    ann.get("/api/auth/me").await.problem(401, "unauthorized");

    let user = match url.starts_with("sqlite:") {
        true => format!("x'{}'", ann.id().replace('-', "")),
        false => format!("'{}'", ann.id()),
    };
    let left = async || {
        count_rows(url, &format!("SELECT count(*) FROM todos WHERE user_id = {user}")).await
    };
    let due = "UPDATE jobs SET run_at = (SELECT min(created_at) FROM users)";
    execute_sql(url, due).await;
    let began = eventually(Duration::from_secs(60), async || left().await < count).await;
    assert!(began, "the deletion has not begun");
    let meanwhile = timed_writes(&bob).await;
    println!("{program}: answered in {took:?}; writes {alone:?}, meanwhile {meanwhile:?}");
    assert!(left().await > 0, "it was done before it could be interrupted");
    server.child.kill().await.expect("killed");
    drop(server);
    let rest = left().await;
    assert!(rest > 0 && rest < count, "{rest}");
    println!("{program}: killed with {rest} todos left");

    // As its lease is a minute later.
    execute_sql(url, "UPDATE jobs SET lease = NULL, leased_until = NULL").await;
    server = started(program, dir, url).await;
    let is_gone = eventually(Duration::from_secs(400), async || {
        sleep(Duration::from_secs(1)).await;
        count_rows(url, &format!("SELECT count(*) FROM users WHERE id = {user}")).await == 0
    });
    assert!(is_gone.await, "{} todos are left", left().await);
    for table in ["sessions", "todos", "todo_counts", "changes", "trash", "idempotency", "mails"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE user_id = {user}");
        assert_eq!(count_rows(url, &sql).await, 0, "{table}");
    }
    let bob = bob.at(&Client::of(server.addr));
    let path = format!("{}/{}", bob.todos(), kept["id"].as_str().expect("an id"));
    assert_eq!(bob.get(&path).await.expect(200), kept);
    assert_eq!(bob.get(&format!("{}?limit=1", bob.todos())).await.expect(200)["total"], 601);
    // One statement for all would take several seconds.
    assert!(meanwhile[1] < Duration::from_secs(1), "{alone:?} {meanwhile:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn a_large_account_is_deleted_in_pieces() {
    for program in PROGRAMS {
        on_both(program, delete_much).await;
    }
}
