//! Clients that disconnect during a request must not affect others: no acknowledged write is lost,
//! no other client gets an error, and throughput stays above half.
//!
//! The same trial runs against a control, whose handler awaits the database inline, the obvious
//! first design. It must fail there, or the trial proves nothing.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sqlx::{Executor, PgPool, Row, postgres::PgPoolOptions};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use todo_tests::{App, Client, Database, Server, Target, on_every_target};

use crate::ALONE;

const WRITERS: usize = 4;
const CUTTERS: usize = 6;
/// Quiet rounds and rounds with disconnects alternate, so that other load on the machine slows both
/// equally.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
/// Interval between the requests of a cutter, in both kinds of round: the load is the same.
const PACE: Duration = Duration::from_millis(10);

/// A user's client and the path of the user's list.
#[derive(Clone)]
struct Author {
    client: Client,
    list: String,
}

/// The result of a trial.
#[derive(Debug, Default)]
struct Finding {
    quiet: usize,
    while_cut: usize,
    cuts: usize,
    /// Acknowledged writes that are missing or differ.
    lost: usize,
    /// Responses to the writers other than 200 and 201, and broken connections.
    faults: Vec<String>,
}

impl Finding {
    fn passes(&self) -> bool {
        self.lost == 0 && self.faults.is_empty() && self.while_cut * 2 >= self.quiet
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { quiet, while_cut, cuts, lost, faults } = self;
        write!(f, "{quiet} quiet writes, {while_cut} during {cuts} cuts, {lost} lost, ")?;
        write!(f, "{} faults {:?}", faults.len(), faults.iter().take(3).collect::<Vec<_>>())
    }
}

/// Authors write through quiet rounds and rounds with disconnects; then every acknowledged write is
/// checked.
async fn trial(addr: SocketAddr, authors: Vec<Author>, cutter: Author, head: String) -> Finding {
    let mut finding = Finding::default();
    let written = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut writing = JoinSet::new();
    for author in authors {
        writing.spawn(write(author, over.clone(), written.clone()));
    }
    for _ in 0..ROUNDS {
        let before = written.load(Ordering::Relaxed);
        each_cutter(|_, until| send(cutter.clone(), until)).await;
        let between = written.load(Ordering::Relaxed);
        let cuts = each_cutter(|i, until| cut(addr, head.clone(), i as u64, until)).await;
        finding.quiet += between - before;
        finding.while_cut += written.load(Ordering::Relaxed) - between;
        finding.cuts += cuts;
    }
    over.store(true, Ordering::Relaxed);
    for (author, acknowledged, faults) in writing.join_all().await {
        finding.faults.extend(faults);
        finding.lost += missing(&author, acknowledged).await;
    }
    finding
}

async fn each_cutter<F>(round: impl Fn(usize, Instant) -> F) -> usize
where
    F: Future<Output = usize> + Send + 'static,
{
    let until = Instant::now() + ROUND;
    let cutters: JoinSet<usize> = (0..CUTTERS).map(|i| round(i, until)).collect();
    cutters.join_all().await.into_iter().sum()
}

/// Writes until the end; returns the acknowledged titles by id, and the faults.
async fn write(
    author: Author,
    over: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> (Author, BTreeMap<String, String>, Vec<String>) {
    const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
    let mut acknowledged = BTreeMap::new();
    let mut faults = Vec::new();
    for i in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut id: Option<String> = None;
        for edit in 0..3 {
            let title = format!("todo {i}, edit {edit}");
            let (method, path) = match &id {
                None => ("POST", author.list.clone()),
                Some(id) => ("PATCH", format!("{}/{id}", author.list)),
            };
            let body = json!({ "title": title }).to_string();
            match author.client.try_send(method, &path, &JSON, body).await {
                Ok(answer) if [200, 201].contains(&answer.status) => {
                    let made = answer.json()["id"].as_str().expect("an id").to_owned();
                    acknowledged.insert(made.clone(), title);
                    id = Some(made);
                    written.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    faults.push(answer.to_string());
                    break;
                }
                Err(error) => {
                    faults.push(error);
                    break;
                }
            }
        }
    }
    (author, acknowledged, faults)
}

/// The number of acknowledged writes that the list lacks or shows differently.
async fn missing(author: &Author, mut acknowledged: BTreeMap<String, String>) -> usize {
    let mut path = format!("{}?limit=500", author.list);
    loop {
        let Ok(answer) = author.client.try_send("GET", &path, &[], "").await else {
            return acknowledged.len();
        };
        if answer.status != 200 {
            return acknowledged.len();
        }
        let page = answer.json();
        for todo in page["todos"].as_array().expect("todos") {
            let id = todo["id"].as_str().expect("an id");
            if acknowledged.get(id).is_some_and(|title| todo["title"] == *title) {
                acknowledged.remove(id);
            }
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("{}?limit=500&cursor={cursor}", author.list),
            None => return acknowledged.len(),
        }
    }
}

/// A cutter in a quiet round: the same requests at the same rate, each awaited.
async fn send(cutter: Author, until: Instant) -> usize {
    let mut next = Instant::now();
    while Instant::now() < until {
        next += PACE;
        let body = json!({ "title": "never mind" });
        let headers = [("content-type", "application/json"), ("connection", "close")];
        let _ = cutter.client.try_send("POST", &cutter.list, &headers, body.to_string()).await;
        sleep_until(next).await;
        next = next.max(Instant::now());
    }
    0
}

/// A cutter: sends whole requests and disconnects 0 to 5 ms later, at random with or without a
/// reset. Returns the number of disconnects.
async fn cut(addr: SocketAddr, head: String, seed: u64, until: Instant) -> usize {
    let body = json!({ "title": "never mind" }).to_string();
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let (mut cuts, mut next) = (0, Instant::now());
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while Instant::now() < until {
        next += PACE;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            let _ = stream.set_nodelay(true);
            if stream.write_all(request.as_bytes()).await.is_ok() {
                // The square of a fraction: more often early, while the work is running.
                let fraction = (random >> 33) as f64 / f64::from(1_u32 << 31);
                sleep(Duration::from_millis(5).mul_f64(fraction * fraction)).await;
                if random >> 63 == 1 {
                    let _ = stream.set_zero_linger();
                }
                cuts += 1;
            }
        }
        sleep_until(next).await;
        next = next.max(Instant::now());
    }
    cuts
}

/// The head of a cutter's request, without `Content-Length`.
fn head(addr: SocketAddr, list: &str, token: &str) -> String {
    format!(
        "POST {list} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\n"
    )
}

on_every_target! {
    async fn clients_that_disconnect_do_not_affect_others(target) {
        let _alone = ALONE.lock().await;
        let app = App::start(target).await;
        let mut authors = Vec::new();
        for _ in 0..WRITERS {
            let actor = app.signed_up().await;
            authors.push(Author { client: actor.client.clone(), list: actor.todos() });
        }
        let gone = app.signed_up().await;
        let cutter = Author { client: gone.client.clone(), list: gone.todos() };
        let head = head(app.addr(), &gone.todos(), gone.token());
        let finding = trial(app.addr(), authors, cutter, head).await;
        eprintln!("{target:?}: {finding}");
        assert!(finding.cuts > 500, "too few cuts: {finding}");
        assert!(finding.passes(), "{finding}");

        let after = app.signed_up().await;
        after.todo("all is well").await;
        app.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trial_detects_a_handler_that_awaits_the_database_inline() {
    let _alone = ALONE.lock().await;
    let target = Target { server: Server::Hyper, database: Database::Postgres };
    // Started for its database only.
    let app = App::start(target).await;
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(Duration::from_secs(2))
        .connect(app.database_url())
        .await
        .expect("a pool");
    let notes = "CREATE TABLE notes (id uuid PRIMARY KEY, list text NOT NULL, title text NOT NULL)";
    let counts = "CREATE TABLE counts (list text PRIMARY KEY, n bigint NOT NULL)";
    for table in [notes, counts] {
        pool.execute(table).await.expect("a table");
    }
    let addr = control(pool.clone()).await;

    let client = Client::of(addr);
    let author = |i: usize| Author { client: client.clone(), list: format!("/{i}") };
    let authors = (0..WRITERS).map(author).collect();
    let finding = trial(addr, authors, author(WRITERS), head(addr, "/cut", "none")).await;
    eprintln!("control: {finding}");
    assert!(finding.cuts > 500, "too few cuts: {finding}");
    assert!(!finding.passes(), "the trial did not detect it: {finding}");
}

/// A server whose handlers run inline: hyper drops them when their client disconnects.
async fn control(pool: PgPool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let pool = pool.clone();
            let handler = service_fn(move |request| answer(pool.clone(), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), handler);
            tokio::spawn(connection);
        }
    });
    addr
}

async fn answer(
    pool: PgPool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match handle(pool, request).await {
        Ok(body) => (200, body),
        Err(error) => (500, json!(error.to_string())),
    };
    let response = Response::builder().status(status).body(Full::from(body.to_string()));
    Ok(response.expect("a response"))
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Lists and edits notes by one statement each; creates and counts a note in a transaction, as in
/// sqlx's documentation.
async fn handle(pool: PgPool, request: Request<Incoming>) -> Result<Value, Fault> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/').to_owned();
    if head.method == Method::GET {
        let query = sqlx::query("SELECT id, title FROM notes WHERE list = $1").bind(path);
        let todo = |row: &sqlx::postgres::PgRow| {
            let (id, title): (Uuid, String) = (row.get("id"), row.get("title"));
            json!({ "id": id, "title": title })
        };
        let todos: Vec<_> = query.fetch_all(&pool).await?.iter().map(todo).collect();
        return Ok(json!({ "todos": todos }));
    }
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    let title = body["title"].as_str();
    if let Some((_, id)) = path.split_once('/') {
        let id: Uuid = id.parse()?;
        let query = sqlx::query("UPDATE notes SET title = $1 WHERE id = $2").bind(title).bind(id);
        query.execute(&pool).await?;
        return Ok(json!({ "id": id }));
    }
    let id = Uuid::now_v7();
    let mut work = pool.begin().await?;
    let query = sqlx::query("INSERT INTO notes (id, list, title) VALUES ($1, $2, $3)");
    query.bind(id).bind(&path).bind(title).execute(&mut *work).await?;
    let query = sqlx::query(
        "INSERT INTO counts VALUES ($1, 1) ON CONFLICT (list) DO UPDATE SET n = counts.n + 1",
    );
    query.bind(&path).execute(&mut *work).await?;
    work.commit().await?;
    Ok(json!({ "id": id }))
}
