//! Memory that clients can make a server hold: responses that they do not read, bodies and heads
//! that they do not finish. Long lists are streamed, and the bodies in flight share one budget.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::StreamBody;
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use todo_tests::{
    Actor, App, Client, PROGRAMS, Process, Target, clone_the_only_todo, eventually, on_every_target,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

/// Memory limit of a server in these tests: three quarters of the 512 MB in the shipped unit. The
/// highest measured was 256 MB, in a debug build, for 10,000 requests over HTTP/2.
const MAX_MEMORY: u64 = 384 << 20;
const MANY: i64 = 10_000;

/// A text of control characters, each of which is six bytes in JSON.
fn control(length: usize) -> String {
    "\u{1}".repeat(length)
}

async fn todo_of_control_characters(actor: &Actor) -> Value {
    let body = json!({"title": format!("t{}", control(190)), "description": control(1000)});
    actor.post(&actor.todos(), body).await.expect(201)
}

fn ids(list: &Value) -> Vec<String> {
    let todos = list["todos"].as_array().expect("todos");
    todos.iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect()
}

/// All todos, page by page.
async fn paged(actor: &Actor, query: &str) -> Vec<Value> {
    let (mut todos, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{}?limit=500&{query}{cursor}", actor.todos());
        let page = actor.get(&path).await.expect(200);
        todos.extend(page["todos"].as_array().expect("todos").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return todos };
        cursor = format!("&cursor={next}");
    }
}

on_every_target! {
    /// Each todo that stays is listed once, while others are created, changed and deleted.
    async fn a_streamed_list_has_each_todo_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let first = todo_of_control_characters(&ann).await;
        clone_the_only_todo(app.database_url(), 1499).await;
        let staying = paged(&ann, "").await;
        assert_eq!((staying.len(), &staying[1499]), (1500, &first));
        let done = tokio::sync::watch::channel(false).0;
        let churn = async {
            let mut last = None;
            while !*done.borrow() {
                let todo = ann.todo("m").await;
                let path = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
                ann.patch(&path, json!({"title": "z", "priority": "high"})).await.expect(200);
                if let Some(last) = last.replace(path) {
                    ann.delete(&last).await.expect(200);
                }
            }
        };
        let read = async {
            for sort_by in ["created_at", "priority", "title"] {
                for order in ["asc", "desc"] {
                    let query = format!("sort_by={sort_by}&order={order}");
                    let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
                    let list = answer.expect(200);
                    let mut times = BTreeMap::new();
                    for id in ids(&list) {
                        *times.entry(id).or_insert(0) += 1;
                    }
                    assert!(times.values().all(|times| *times == 1), "{query}: one came twice");
                    for todo in &staying {
                        let id = todo["id"].as_str().expect("an id");
                        assert!(times.contains_key(id), "{query}: {id} is missing");
                    }
                    assert_eq!(list["next_cursor"], Value::Null);
                    assert_eq!(list["filters_applied"]["sort_by"], sort_by);
                }
            }
            done.send_replace(true);
        };
        tokio::join!(churn, read);
    }

    /// It has no length; HEAD and a 401 end at once.
    async fn a_streamed_list_has_the_same_head_as_any_other(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("one").await;
        clone_the_only_todo(app.database_url(), 499).await;
        let whole = ann.get(&ann.todos()).await;
        assert!(whole.headers.contains_key("content-length"), "500 todos are one piece");
        ann.todo("one more").await;
        let pieces = ann.get(&ann.todos()).await;
        assert!(!pieces.headers.contains_key("content-length"), "{:?}", pieces.headers);
        for (name, value) in &whole.headers {
            if !["content-length", "x-request-id", "date"].contains(&name.as_str()) {
                assert!(pieces.headers.get_all(name).iter().any(|own| own == value), "{name}");
            }
        }
        let members: Vec<usize> = ["\"todos\":", "\"total\":501", "\"filters_applied\":", "\"next_cursor\":null}"]
            .iter()
            .map(|member| {
                let text = std::str::from_utf8(&pieces.body).expect("JSON");
                text.rfind(member).unwrap_or_else(|| panic!("no {member}"))
            })
            .collect();
        assert!(members.is_sorted(), "{members:?}");
        let head = ann.send("HEAD", &ann.todos(), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(!head.headers.contains_key("content-length"), "{:?}", head.headers);
        ann.post("/api/auth/logout", json!({})).await.expect(200);
        ann.get(&ann.todos()).await.problem(401, "unauthorized");
    }
}

async fn the_longest_list(target: Target) {
    let app = App::start(target).await;
    let ann = app.signed_up().await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(app.database_url(), MANY - 1).await;
    let answer = ann.get(&ann.todos()).await;
    assert!(answer.body.len() > 70_000_000, "{} bytes", answer.body.len());
    let list = answer.expect(200);
    assert_eq!((&list["total"], &list["next_cursor"]), (&json!(MANY), &Value::Null));
    assert!(
        list["todos"].as_array() == Some(&paged(&ann, "").await),
        "the list differs from its pages"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn the_longest_list_equals_its_pages() {
    for target in Target::ALL {
        the_longest_list(target).await;
    }
}

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
        let idle = memory(&server);
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
        let (took, memory) = (began.elapsed(), memory(&self.server));
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
        let now = memory(&self.server);
        println!("idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        assert!(now < MAX_MEMORY, "idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        let most = self.idle + (32 << 20);
        let is_back = eventually(Duration::from_secs(30), async || memory(&self.server) < most);
        assert!(is_back.await, "{} MB are kept", memory(&self.server) >> 20);
        self.server.stop().await;
    }
}

/// The bytes held for bodies in flight, by the server's metrics.
async fn held(client: &Client) -> u64 {
    let text = String::from_utf8(client.get("/metrics").await.body).expect("text");
    let held = text.lines().find_map(|line| line.strip_prefix("body_memory_bytes "));
    held.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("no gauge in {text}"))
}

/// The resident memory of a process, in bytes.
fn memory(server: &Process) -> u64 {
    let id = server.child.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
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

/// An unread list takes one piece of memory, not its whole size; a user with too many of them gets
/// 503, while other users are served.
async fn unread_lists(program: &str) {
    let measured = Measured::start(program).await;
    let ann = Actor::sign_up_to(&measured.client()).await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(&measured.database_url(), MANY - 1).await;
    let addr = measured.server.addr;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        ann.todos(),
        ann.token()
    );
    let send = |count: usize| {
        let request = request.clone();
        async move {
            let requests = (0..count).map(|number| {
                start_request(
                    addr,
                    source(number),
                    request.clone().into_bytes(),
                    Duration::from_secs(10),
                )
            });
            futures_util::future::join_all(requests).await
        }
    };
    let forty = send(40).await;
    let statuses = count(forty.iter().map(|(_, status)| status));
    measured.assert_healthy("40 unread lists").await;
    assert_eq!(statuses, BTreeMap::from([("HTTP/1.1 200".into(), 40)]));
    let more = send(100).await;
    let statuses = count(more.iter().map(|(_, status)| status));
    println!("{program}: 100 more: {statuses:?}");
    measured.assert_healthy("140 unread lists").await;
    assert!(statuses.contains_key("HTTP/1.1 503"), "{statuses:?}");
    // Other users are not affected.
    let bob = Actor::sign_up_to(&measured.client()).await;
    for number in 0..30 {
        bob.todo(&format!("{number} {}", control(100))).await;
    }
    assert_eq!(bob.get(&bob.todos()).await.expect(200)["total"], 30);
    drop((forty, more));
    measured.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn unread_lists_take_little_memory() {
    for program in PROGRAMS {
        unread_lists(program).await;
    }
}

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
