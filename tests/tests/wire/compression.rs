//! Compressed responses of `todo-server`: a complete body is compressed as a whole, and sent with
//! its length and without delay. `Accept-Encoding` is honoured (RFC 9110, section 12.5.3).

use std::{io::Read, net::SocketAddr, time::Duration};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use todo_tests::{
    Actor, App, Client, Database, PROGRAMS, Process, Server, Target, TestResponse, at_once,
};
use tokio::{net::TcpStream, time::Instant};

const SERVER: &str = PROGRAMS[0];
const GZIP: (&str, &str) = ("accept-encoding", "gzip");
/// A delayed acknowledgement takes 40 ms.
const PROMPT: Duration = Duration::from_millis(20);

/// A user with 100 todos, some 45 KB of JSON.
async fn with_100_todos(client: &Client) -> Actor {
    let account = json!({
        "email": todo_tests::unique_email(), "password": "Correct1horse", "name": "Ada Lovelace",
    });
    let auth = client.post("/api/auth/signup", account).await.expect(201);
    let actor = Actor::of(client, &auth, "Correct1horse");
    at_once(10, |i| {
        let actor = actor.clone();
        async move {
            for j in 0..10 {
                let description = format!("{i} and {j} of a hundred, ").repeat(10);
                let todo = json!({"title": format!("todo {i}{j}"), "description": description});
                actor.post(&actor.todos(), todo).await.expect(201);
            }
        }
    })
    .await;
    actor
}

fn unpacked(answer: &TestResponse) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).expect("gzip");
    plain
}

fn length(answer: &TestResponse) -> Option<usize> {
    answer.header("content-length").map(|length| length.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_responses_are_compressed_whole() {
    for database in [Database::Sqlite, Database::Postgres] {
        let app = App::start(Target { server: Server::Salvo, database }).await;
        let ann = with_100_todos(&app.anonymous()).await;
        // Above and below 16 KiB.
        for (path, least) in [
            (format!("{}?limit=100", ann.todos()), 16 << 10),
            (format!("{}?limit=20", ann.todos()), 2048),
            ("/openapi.json".to_owned(), 16 << 10),
        ] {
            let plain = ann.get(&path).await;
            assert!(plain.body.len() > least, "{path}: {}", plain.body.len());
            assert_eq!(length(&plain), Some(plain.body.len()), "{path}");
            assert_eq!(plain.header("content-encoding"), None, "{path}");
            let packed = ann.send("GET", &path, &[GZIP], "").await;
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
            assert_eq!(length(&packed), Some(packed.body.len()), "{path}: {packed}");
            assert_eq!(packed.header("transfer-encoding"), None, "{path}");
            assert!(packed.body.len() < plain.body.len() / 2, "{path}: {}", packed.body.len());
            assert_eq!(unpacked(&packed), plain.body, "{path}");
            for answer in [&plain, &packed] {
                let vary = answer.headers.get_all("vary").iter();
                let mut vary = vary.filter_map(|value| value.to_str().ok());
                assert!(vary.any(|value| value.contains("accept-encoding")), "{path}: {answer}");
            }
            let head = ann.send("HEAD", &path, &[GZIP], "").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            assert!(length(&head).is_none_or(|length| length == packed.body.len()), "{path}");
        }
    }
}

#[tokio::test]
async fn only_compressible_and_permitted_responses_are_compressed() {
    let app = App::start(Target { server: Server::Salvo, database: Database::Sqlite }).await;
    let ann = with_100_todos(&app.anonymous()).await;
    let list = format!("{}?limit=100", ann.todos());
    let encoding = async |path: &str, asked: &str| {
        let answer = ann.send("GET", path, &[("accept-encoding", asked)], "").await;
        assert_eq!(length(&answer), Some(answer.body.len()), "{path}: {answer}");
        answer.header("content-encoding").map(ToOwned::to_owned)
    };
    for (asked, expected) in [
        ("gzip", Some("gzip")),
        ("gzip, deflate, br, zstd", Some("gzip")),
        ("gzip;q=0.5, br;q=1", Some("br")),
        ("zstd", Some("zstd")),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *;q=0", None),
        ("", None),
    ] {
        assert_eq!(encoding(&list, asked).await.as_deref(), expected, "{asked:?}");
    }
    for path in ["/health", "/api/auth/me", "/"] {
        assert_eq!(encoding(path, "gzip").await, None, "{path}");
    }
    // A token beside client-controlled text: the compressed length would leak it (BREACH).
    let account = json!({
        "email": todo_tests::unique_email(), "password": "Correct1horse", "name": "A".repeat(100),
    });
    let headers = [("content-type", "application/json"), GZIP];
    for path in ["/api/auth/signup", "/api/auth/login"] {
        let answer = app.anonymous().send("POST", path, &headers, account.to_string()).await;
        assert!([200, 201].contains(&answer.status), "{answer}");
        assert_eq!(answer.header("content-encoding"), None, "{path}");
    }
    // Compressed at build time, and not again.
    let script = ann.send("GET", "/docs/swagger-ui-bundle.js", &[GZIP], "").await;
    assert_eq!(script.header("content-encoding"), Some("gzip"));
    assert_eq!(length(&script), Some(script.body.len()));
    assert!(unpacked(&script).len() > script.body.len());
    let etag = script.header("etag").expect("an ETag").to_owned();
    let known = [GZIP, ("if-none-match", etag.as_str())];
    let same = ann.send("GET", "/docs/swagger-ui-bundle.js", &known, "").await;
    assert_eq!((same.status, same.body.len()), (304, 0), "{same}");
    assert!(etag.starts_with("W/"), "{etag}");
    // A response without content has no coding.
    let todo = ann.todo("a").await;
    let path = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
    let options = ann.send("OPTIONS", &path, &[GZIP], "").await;
    assert_eq!((options.status, options.header("content-encoding")), (204, None), "{options}");
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// The median time of 25 sequential requests on one connection.
async fn median(addr: SocketAddr, http2: bool, path: &str, token: &str) -> Duration {
    let io = TokioIo::new(TcpStream::connect(addr).await.expect("it listens"));
    let mut sender = if http2 {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Sender::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Sender::One(sender)
    };
    let mut times = Vec::new();
    for _ in 0..25 {
        let request = Request::builder()
            .header("authorization", format!("Bearer {token}"))
            .header("accept-encoding", "gzip");
        let start = Instant::now();
        let answer = match &mut sender {
            Sender::One(sender) => {
                sender.ready().await.expect("it is kept");
                let request = request.uri(path).header("host", "localhost");
                sender.send_request(request.body(Empty::new()).expect("a request")).await
            }
            Sender::Two(sender) => {
                let request = request.uri(format!("http://localhost{path}"));
                let request = request.version(Version::HTTP_2).body(Empty::new());
                sender.send_request(request.expect("a request")).await
            }
        };
        let answer = answer.expect("a response");
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        times.push(start.elapsed());
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        let list: Value = serde_json::from_slice(&plain).expect("JSON");
        assert_eq!(list["todos"].as_array().map(Vec::len), Some(100));
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// The best of six medians, since this is a debug build on a possibly busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "compares times: run by .ci/run"]
async fn a_compressed_list_does_not_wait_for_an_acknowledgement() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Process::start(SERVER, dir.path(), &[]).await;
    let ann = with_100_todos(&Client::of(server.addr)).await;
    for http2 in [false, true] {
        for path in [ann.todos(), format!("{}?limit=100", ann.todos())] {
            let mut medians = Vec::new();
            while medians.len() < 6 && medians.iter().all(|median| *median > PROMPT) {
                medians.push(median(server.addr, http2, &path, ann.token()).await);
            }
            println!("HTTP/2 {http2}, {path}: {medians:?}");
            assert!(medians.iter().any(|median| *median <= PROMPT), "{http2}: {medians:?}");
        }
    }
    server.stop().await;
}
