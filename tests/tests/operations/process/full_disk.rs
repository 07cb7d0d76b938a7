//! A server whose disk is full loses no acknowledged write.

use std::path::Path;

use serde_json::{Value, json};
use todo_tests::{PROGRAMS, Process, built, command, empty_dir};
use tokio::process::Command;

use super::{call, sign_up};

/// Runs a program with a file size limit of `blocks` KiB, which acts like a full disk.
fn on_a_small_disk(program: &str, dir: &Path, blocks: u32) -> Command {
    let mut command = command("bash", dir, &[]);
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\"");
    command.args(["-c", &script]).arg(built(program));
    command
}

/// A single write has its own commit, concurrent writes share a group commit: if either fails on a
/// full disk, the client must not receive a success.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::spawned(on_a_small_disk(program, dir.path(), 1000), program).await;
        let addr = process.addr;
        let token = sign_up(addr, "full@example.com").await;
        let me = call(addr, "GET", "/api/auth/me", &token, Value::Null).await.1;
        let todos = format!("/api/users/{}/todos", me["id"].as_str().expect("an id"));
        let write = async || {
            let todo = json!({"title": "t", "description": "d".repeat(1000)});
            let (status, todo) = call(addr, "POST", &todos, &token, todo).await;
            assert!([201, 503].contains(&status), "{status} {todo}");
            (status == 201).then(|| todo["id"].as_str().expect("an id").to_owned())
        };
        let (mut written, mut refused) = (Vec::new(), 0);
        while refused < 5 {
            assert!(written.len() < 5000, "the disk never filled up");
            match write().await {
                Some(id) => written.push(id),
                None => refused += 1,
            }
        }
        for id in run_concurrently(16, write).await {
            match id {
                Some(id) => written.push(id),
                None => refused += 1,
            }
        }
        assert!(written.len() > 10, "{} were written", written.len());
        // Reads still succeed, and with a larger disk everything is there.
        let seen = async |addr| {
            let (status, list) = call(addr, "GET", &todos, &token, Value::Null).await;
            assert_eq!(status, 200, "{list}");
            let list = list["todos"].as_array().expect("todos").clone();
            list.iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect()
        };
        let before: Vec<String> = seen(addr).await;
        process.stop().await;
        let process = Process::start(program, dir.path(), &[]).await;
        let after: Vec<String> = seen(process.addr).await;
        for id in &written {
            assert!(before.contains(id) && after.contains(id), "{program} lost {id}");
        }
        assert!(
            after.len() <= written.len() + refused,
            "{program} created more todos than requested"
        );
        process.stop().await;
    }
}

/// Runs `n` futures concurrently on this task.
async fn run_concurrently<T>(n: usize, make: impl AsyncFn() -> T) -> Vec<T> {
    futures_util::future::join_all((0..n).map(|_| make())).await
}
