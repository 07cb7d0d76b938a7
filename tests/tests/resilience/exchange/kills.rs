//! A server that is killed in the middle of an import or an export.

use std::{path::Path, time::Duration};

use todo_tests::{Actor, Client, PROGRAMS, count_rows, execute_sql};
use tokio::time::sleep;

use super::{import_path, total};
use crate::leaving::{on_both, started};

const TODOS: usize = 5_000;
/// Todos of a piece.
const PIECE: i64 = 500;

async fn kill_midway(program: &str, dir: &Path, url: &str) {
    let file = "a @x @y list:l\n".repeat(TODOS);
    let mut server = started(program, dir, url).await;
    let ann = Actor::sign_up_to(&Client::of(server.addr)).await;
    let headers = [("content-type", "text/plain"), ("idempotency-key", "k")];
    let path = import_path(&ann, "todotxt");
    let count = async || count_rows(url, "SELECT count(*) FROM todos").await;
    // Each time after some more pieces.
    for least in [1, 3, 6] {
        let running = {
            let (ann, path, file) = (ann.at(&Client::of(server.addr)), path.clone(), file.clone());
            tokio::spawn(async move { ann.try_send("POST", &path, &headers, file).await })
        };
        while count().await < least * PIECE && !running.is_finished() {
            sleep(Duration::from_millis(2)).await;
        }
        server.child.kill().await.expect("killed");
        assert!(running.await.expect("no panic").is_err(), "it was answered before the kill");
        let stored = count().await;
        println!("{program}: killed with {stored} of {TODOS}");
        assert!(stored % PIECE == 0 && stored < 5_000, "{stored}");
        let pieces = "SELECT count(*) FROM idempotency WHERE key LIKE 'k %'";
        assert_eq!(count_rows(url, pieces).await * PIECE, stored);
        // As their leases have ended.
        execute_sql(url, "UPDATE jobs SET lease = NULL, leased_until = NULL").await;
        server = started(program, dir, url).await;
    }
    let ann = ann.at(&Client::of(server.addr));
    let answer = ann.send("POST", &path, &headers, file.as_str()).await.expect(200);
    assert_eq!(answer["created"], TODOS);
    let again = ann.send("POST", &path, &headers, file.as_str()).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(total(&ann).await, 5_000);
    let tags = ann.get(&format!("/api/users/{}/tags", ann.id())).await.expect(200);
    let counts = tags["tags"].as_array().expect("tags").iter();
    let counts: Vec<_> = counts.map(|tag| tag["pending"].as_u64()).collect();
    assert_eq!(counts, [Some(5_000), Some(5_000)]);
    let lists = ann.get(&format!("/api/users/{}/lists", ann.id())).await.expect(200);
    assert_eq!(lists["lists"].as_array().map(Vec::len), Some(1));
    assert_eq!(lists["lists"][0]["pending"], 5_000);

    // An export whose server is killed has no end, so that a client does not take it for whole.
    let running = {
        let (ann, path) = (ann.clone(), format!("/api/users/{}/export", ann.id()));
        tokio::spawn(async move { ann.try_send("GET", &path, &[], "").await })
    };
    sleep(Duration::from_millis(60)).await;
    server.child.kill().await.expect("killed");
    if let Ok(answer) = running.await.expect("no panic") {
        assert_eq!(answer.expect(200)["todos"].as_array().map(Vec::len), Some(TODOS));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn an_import_goes_on_after_its_server_was_killed() {
    for program in PROGRAMS {
        on_both(program, kill_midway).await;
    }
}
