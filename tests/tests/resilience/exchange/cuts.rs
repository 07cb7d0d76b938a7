//! Connections that end in the middle of an export or an import.

use std::time::Duration;

use serde_json::json;
use todo_tests::{Actor, App, TestResponse, clone_the_only_todo, eventually, on_every_target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::{export, import_path, total};

/// Todos of an import: three pieces.
const TODOS: u64 = 1_200;
/// The last but one loses the answer, and the last one a part of its body.
const CUTS: u64 = 5;

/// The bytes that an export or an import holds in the server.
async fn held(actor: &Actor) -> u64 {
    let metrics = actor.get("/metrics").await.text();
    let held = metrics.lines().find_map(|line| line.strip_prefix("body_memory_bytes "));
    held.and_then(|bytes| bytes.parse().ok()).expect("a gauge")
}

/// The file, the whole request and the key of an import.
fn request(actor: &Actor, key: &str) -> (String, String) {
    let file = "a @x list:l\n".repeat(usize::try_from(TODOS).expect("small"));
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {key}\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{file}",
        import_path(actor, "todotxt"),
        actor.token(),
        file.len(),
    );
    (file, request)
}

async fn import_once(actor: &Actor, key: &str, file: &str) -> TestResponse {
    let headers = [("content-type", "text/plain"), ("idempotency-key", key)];
    actor.send("POST", &import_path(actor, "todotxt"), &headers, file).await
}

on_every_target! {
    /// It has no end, holds nothing afterwards, and another export is whole.
    async fn an_export_that_is_cut_frees_what_it_held(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = json!({"title": "t", "description": "\u{1d11e}".repeat(1_000)});
        ann.post(&ann.todos(), todo).await.expect(201);
        clone_the_only_todo(app.database_url(), 1_999).await;
        let path = format!("/api/users/{}/export", ann.id());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.token()
        );
        for _ in 0..8 {
            let mut stream = TcpStream::connect(app.addr()).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("the request");
            let mut begin = vec![0; 1 << 20];
            stream.read_exact(&mut begin).await.expect("the begin of a file of 8 MB");
            let text = String::from_utf8_lossy(&begin);
            assert!(text.starts_with("HTTP/1.1 200") && !text.contains("]}\n"), "it has an end");
        }
        let is_free = eventually(Duration::from_secs(10), async || held(&ann).await < 64 << 10);
        assert!(is_free.await, "{} bytes are held", held(&ann).await);
        let file = export(&ann, "json").await;
        assert_eq!(file.expect(200)["todos"].as_array().map(Vec::len), Some(2_000));
        app.stop().await.expect("a clean stop");
    }

    /// The same request with its key creates the pieces that are missing, once.
    async fn an_import_that_is_cut_is_completed_by_its_repetition(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut unfinished = 0;
        for cut in 0..CUTS {
            let key = format!("k{cut}");
            let (file, request) = request(&ann, &key);
            let before = total(&ann).await;
            let mut stream = TcpStream::connect(app.addr()).await.expect("a connection");
            let length = if cut + 1 == CUTS { request.len() / 2 } else { request.len() };
            stream.write_all(&request.as_bytes()[..length]).await.expect("the request");
            sleep(Duration::from_millis(cut * cut * 20)).await;
            if cut + 2 == CUTS {
                let all = before + TODOS;
                let is_done = async || total(&ann).await == all;
                let is_done = eventually(Duration::from_secs(30), is_done).await;
                assert!(is_done, "an import without a reader is not completed");
            }
            if cut % 2 == 0 {
                stream.set_zero_linger().expect("an option");
            }
            drop(stream);
            if cut + 1 == CUTS {
                sleep(Duration::from_millis(200)).await;
                assert_eq!(total(&ann).await, before, "half of a file was imported");
            }
            // The first one may still run: then the other waits, or is a 409.
            let mut answer = import_once(&ann, &key, &file).await;
            while answer.status == 409 {
                sleep(Duration::from_millis(50)).await;
                answer = import_once(&ann, &key, &file).await;
            }
            let is_replay = answer.header("idempotency-replayed").is_some();
            assert!(is_replay || cut + 2 != CUTS, "{answer}");
            unfinished += u64::from(!is_replay);
            assert_eq!(answer.expect(200)["created"], TODOS);
            let again = import_once(&ann, &key, &file).await;
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(total(&ann).await, (cut + 1) * TODOS);
        }
        println!("{target:?}: {unfinished} of {CUTS} were not complete when they were repeated");
        let tags = ann.get(&format!("/api/users/{}/tags", ann.id())).await.expect(200);
        let all = json!([{"name": "x", "pending": CUTS * TODOS, "completed": 0}]);
        assert_eq!(tags["tags"], all);
        let lists = ann.get(&format!("/api/users/{}/lists", ann.id())).await.expect(200);
        assert_eq!(lists["lists"].as_array().map(Vec::len), Some(1));
        assert_eq!(lists["lists"][0]["pending"], CUTS * TODOS);
        app.stop().await.expect("a clean stop");
    }
}
