//! What clients can make a server hold: answers that they do not read, bodies and heads that they do
//! not end. Long lists are sent in pieces, and the bodies in flight share one budget.

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
    Actor, App, Cell, Client, PROGRAMS, Process, clone_the_only_todo, comes_true, on_every_cell,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

/// The most memory that a server may take in any of this: three quarters of the 512 MB that the unit
/// that is shipped allows. The most was 256 MB, of a build for tests, for 10,000 requests over HTTP/2.
const MOST: u64 = 384 << 20;
const MANY: i64 = 10_000;

/// A text of one control character, which as JSON is six times as long.
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

on_every_cell! {
    /// Every todo that stays comes once, and none twice, while others come, change and go.
    async fn a_list_in_pieces_has_each_todo_once(cell) {
        let app = App::start(cell).await;
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

    /// It has no length, and is not longer than it seems: HEAD ends at once, and so does a 401.
    async fn a_list_in_pieces_has_the_head_of_any_other(cell) {
        let app = App::start(cell).await;
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

async fn the_longest_list(cell: Cell) {
    let app = App::start(cell).await;
    let ann = app.signed_up().await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(app.database_url(), MANY - 1).await;
    let answer = ann.get(&ann.todos()).await;
    assert!(answer.body.len() > 70_000_000, "{} bytes", answer.body.len());
    let list = answer.expect(200);
    assert_eq!((&list["total"], &list["next_cursor"]), (&json!(MANY), &Value::Null));
    assert!(list["todos"].as_array() == Some(&paged(&ann, "").await), "not its pages");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn the_longest_list_is_its_pages() {
    for cell in Cell::ALL {
        the_longest_list(cell).await;
    }
}

/// A program of its own, whose memory can be looked at.
struct Watched {
    dir: TempDir,
    server: Process,
    idle: u64,
    /// Whether its allocator gives memory back: that of todo-hyper-min, the C library's, does not.
    is_given_back: bool,
}

impl Watched {
    async fn start(program: &str) -> Watched {
        // Each test holds thousands of sockets.
        rlimit::increase_nofile_limit(16_384).expect("descriptors");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = [("RATE_LIMIT_PER_MINUTE", "0")];
        let server = Process::start(program, dir.path(), &settings).await;
        let idle = memory(&server);
        Watched { dir, server, idle, is_given_back: program == PROGRAMS[0] }
    }

    fn database_url(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("todo.db").display())
    }

    fn client(&self) -> Client {
        Client::of(self.server.addr)
    }

    /// Whether it is well, in spite of it all.
    async fn is_well(&self, what: &str) {
        let began = Instant::now();
        self.client().get("/health").await.expect(200);
        let (took, memory) = (began.elapsed(), memory(&self.server));
        println!("{what}: {} MB, /health in {took:?}", memory >> 20);
        assert!(memory < MOST, "{what}: {} MB", memory >> 20);
        assert!(took < Duration::from_secs(8), "{what}: /health took {took:?}");
    }

    /// Once all is over, nothing is held: all of the budget is there for others.
    async fn recovers(self) {
        let client = self.client();
        // The answer that says so has a few KiB itself.
        let is_free = comes_true(Duration::from_secs(20), async || held(&client).await < 64 << 10);
        assert!(is_free.await, "{} bytes are held", held(&client).await);
        let now = memory(&self.server);
        println!("idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        assert!(now < MOST, "idle {} MB, afterwards {} MB", self.idle >> 20, now >> 20);
        if self.is_given_back {
            let most = self.idle + (64 << 20);
            let is_back = comes_true(Duration::from_secs(30), async || memory(&self.server) < most);
            assert!(is_back.await, "{} MB are kept", memory(&self.server) >> 20);
        }
        self.server.stop().await;
    }
}

/// How many bytes a server holds for bodies in flight, by its metrics.
async fn held(client: &Client) -> u64 {
    let text = String::from_utf8(client.get("/metrics").await.body).expect("text");
    let held = text.lines().find_map(|line| line.strip_prefix("body_memory_bytes "));
    held.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("no gauge in {text}"))
}

/// What a process has in memory now, in bytes.
fn memory(server: &Process) -> u64 {
    let id = server.child.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// One of some addresses of this machine: no address may have all connections.
fn source(number: usize) -> IpAddr {
    let last = u8::try_from(number % 16).expect("small");
    Ipv4Addr::new(127, 0, 1, last + 1).into()
}

async fn connect(addr: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(addr).await
}

/// Sends `bytes` and then nothing more; how the answer begins, if one comes in time.
async fn begun(
    addr: SocketAddr,
    from: IpAddr,
    bytes: Vec<u8>,
    wait: Duration,
) -> (Option<TcpStream>, Option<String>) {
    let Ok(mut stream) = connect(addr, from).await else { return (None, None) };
    // It may be answered, and closed, before all is sent.
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

/// Long lists that nobody reads take a piece each, not all of it; and one user who leaves many of them
/// is refused more, while others have theirs.
async fn lists_that_nobody_reads(program: &str) {
    let watched = Watched::start(program).await;
    let ann = Actor::sign_up_to(&watched.client()).await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(&watched.database_url(), MANY - 1).await;
    let addr = watched.server.addr;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        ann.todos(),
        ann.token()
    );
    let asked = |count: usize| {
        let request = request.clone();
        async move {
            let asking = (0..count).map(|number| {
                begun(addr, source(number), request.clone().into_bytes(), Duration::from_secs(10))
            });
            futures_util::future::join_all(asking).await
        }
    };
    let forty = asked(40).await;
    let statuses = count(forty.iter().map(|(_, status)| status));
    watched.is_well("40 lists that nobody reads").await;
    assert_eq!(statuses, BTreeMap::from([("HTTP/1.1 200".into(), 40)]));
    let more = asked(100).await;
    let statuses = count(more.iter().map(|(_, status)| status));
    println!("{program}: 100 more: {statuses:?}");
    watched.is_well("140 lists that nobody reads").await;
    assert!(statuses.contains_key("HTTP/1.1 503"), "{statuses:?}");
    // Of other users nothing is taken.
    let bob = Actor::sign_up_to(&watched.client()).await;
    for number in 0..30 {
        bob.todo(&format!("{number} {}", control(100))).await;
    }
    assert_eq!(bob.get(&bob.todos()).await.expect(200)["total"], 30);
    drop((forty, more));
    watched.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn lists_that_nobody_reads_take_little() {
    for program in PROGRAMS {
        lists_that_nobody_reads(program).await;
    }
}

/// Bodies that never end, over HTTP/1.1: without a token, and with one.
async fn bodies_that_never_end(program: &str) {
    let watched = Watched::start(program).await;
    let ann = Actor::sign_up_to(&watched.client()).await;
    let addr = watched.server.addr;
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
        let mut asking = JoinSet::new();
        for number in 0..connections {
            let request = request.clone();
            asking.spawn(begun(addr, source(number), request, Duration::from_secs(6)));
        }
        let all = asking.join_all().await;
        let statuses = count(all.iter().map(|(_, status)| status));
        println!("{program}: {path}: {statuses:?}");
        watched.is_well(&format!("{connections} bodies of {sent} bytes")).await;
        assert!(statuses.get("none").is_some_and(|waiting| *waiting > 100), "{statuses:?}");
        // Of a user's own a quarter of the budget is there.
        assert_eq!(statuses.contains_key("HTTP/1.1 503"), !header.is_empty(), "{statuses:?}");
        drop(all);
    }
    watched.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn bodies_that_never_end_take_little_over_http1() {
    for program in PROGRAMS {
        bodies_that_never_end(program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn bodies_that_never_end_take_little_over_http2() {
    const CONNECTIONS: usize = 100;
    const STREAMS: usize = 100;
    let watched = Watched::start(PROGRAMS[0]).await;
    let ann = Actor::sign_up_to(&watched.client()).await;
    let addr = watched.server.addr;
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
                    .expect("it speaks HTTP/2");
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
                    answers.into_iter().map(|answer| timeout(Duration::from_secs(6), answer)),
                );
                let refused = answered
                    .await
                    .into_iter()
                    .filter(|answer| matches!(answer, Ok(Ok(answer)) if answer.status() == 503));
                (refused.count(), connection, sender)
            });
        }
        let open = connections.join_all().await;
        let refused: usize = open.iter().map(|(refused, ..)| refused).sum();
        println!("{path}: {refused} of {} refused", CONNECTIONS * STREAMS);
        watched.is_well(&format!("{path}: 10,000 bodies of {sent} bytes")).await;
        if sent > 8192 {
            assert!(refused > 0, "nobody was refused");
        }
        for (_, connection, _) in open {
            connection.abort();
        }
    }
    watched.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn heads_that_never_end_take_little() {
    for program in PROGRAMS {
        let watched = Watched::start(program).await;
        let addr = watched.server.addr;
        let mut head = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
        head.resize(60_000, b'x');
        let mut asking = JoinSet::new();
        for number in 0..3000 {
            asking.spawn(begun(addr, source(number), head.clone(), Duration::from_secs(5)));
        }
        let all = asking.join_all().await;
        let statuses = count(all.iter().map(|(_, status)| status));
        println!("{program}: {statuses:?}");
        watched.is_well("3,000 heads of 60,000 bytes").await;
        assert!(statuses.contains_key("HTTP/1.1 503"), "{statuses:?}");
        drop(all);
        watched.recovers().await;
    }
}

/// Beyond the budget a body is refused at once, the connection is not used again, and what was given
/// back is there for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_budget_is_a_503_and_the_last_of_its_connection() {
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // A quarter for each is 1 MiB: 16 bodies of 64 KiB.
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
            comes_true(Duration::from_secs(10), async || held(&client).await >= 16 * 65_535);
        assert!(is_full.await, "{program}: {} bytes are held", held(&client).await);
        // As much as goes out at once: one that is closed while it sends may miss its answer.
        let from = Ipv4Addr::LOCALHOST.into();
        let wait = Duration::from_secs(10);
        let (stream, status) = begun(server.addr, from, request(8000), wait).await;
        assert_eq!(status.as_deref(), Some("HTTP/1.1 503"), "{program}");
        let mut rest = Vec::new();
        let mut stream = stream.expect("a connection");
        timeout(wait, stream.read_to_end(&mut rest)).await.expect("it is closed").expect("its end");
        let rest = String::from_utf8_lossy(&rest).to_ascii_lowercase();
        assert!(rest.contains("\r\nretry-after: 1\r\n"), "{rest}");
        assert!(rest.contains("\r\nconnection: close\r\n"), "{rest}");
        assert!(rest.contains("\"code\":\"unavailable\""), "{rest}");
        // Small ones are free, and other users have a share of their own.
        ann.todo("small").await;
        let bob = Actor::sign_up_to(&Client::of(server.addr)).await;
        let mut body = json!({"title": "t"}).to_string();
        body.push_str(&" ".repeat(60_000));
        let headers = [("content-type", "application/json")];
        bob.send("POST", &bob.todos(), &headers, body.clone()).await.expect(201);
        drop(open);
        let is_free = comes_true(Duration::from_secs(10), async || {
            ann.send("POST", &ann.todos(), &headers, body.clone()).await.status == 201
        });
        assert!(is_free.await, "{program}: nothing is given back");
        server.stop().await;
    }
}
