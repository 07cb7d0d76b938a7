//! Work on many todos of one user: a tag is renamed or deleted, a list is deleted, files are
//! imported. It is done in pieces, so that the reads of other users keep their times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use todo_tests::{Actor, App, on_every_target};
use tokio::time::{Instant, sleep};

use crate::ALONE;

const TODOS: usize = 30_000;
/// Todos of a file, at most.
const FILE: usize = 5_000;
/// A 99th percentile below this always passes: in a debug build, whose server and client share the
/// cores of one machine.
const FLOOR: Duration = Duration::from_millis(25);
/// The same beside an import, which reads files besides.
const FLOOR_OF_IMPORTS: Duration = Duration::from_millis(60);
/// The least number of reads beside a work.
const READS: usize = 100;

/// The times of reads of one todo and of a page, until `over`.
async fn reads(actor: Actor, todo: String, over: Arc<AtomicBool>) -> Vec<Duration> {
    let page = format!("{}?limit=50", actor.todos());
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for path in [&todo, &page] {
            let began = Instant::now();
            actor.get(path).await.expect(200);
            times.push(began.elapsed());
        }
        sleep(Duration::from_millis(4)).await;
    }
    times
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Imports files of `FILE` todos, each with this line.
async fn import(ann: &Actor, line: &str, files: usize) {
    let path = format!("/api/users/{}/import?format=todotxt", ann.id());
    let file = format!("{line}\n").repeat(FILE);
    for _ in 0..files {
        let headers = [("content-type", "text/plain")];
        let report = ann.send("POST", &path, &headers, file.as_str()).await.expect(200);
        assert_eq!(report["created"], FILE);
    }
}

/// Another user, who reads.
struct Reader {
    actor: Actor,
    todo: String,
}

impl Reader {
    async fn start(app: &App) -> Reader {
        let actor = app.signed_up().await;
        let todo = actor.todo("Buy milk").await;
        for _ in 0..50 {
            actor.todo("Pay rent").await;
        }
        let todo = format!("{}/{}", actor.todos(), todo["id"].as_str().expect("an id"));
        Reader { actor, todo }
    }

    /// The times of reads beside a work, and its result.
    async fn beside<T>(&self, work: impl Future<Output = T>) -> (Vec<Duration>, T) {
        let over = Arc::new(AtomicBool::new(false));
        let reading = tokio::spawn(reads(self.actor.clone(), self.todo.clone(), over.clone()));
        let result = work.await;
        over.store(true, Ordering::Relaxed);
        (reading.await.expect("all responses"), result)
    }

    /// Asserts that reads beside a work take at most 3 times as long as in a quiet round before it.
    async fn keeps_its_time<T>(
        &self,
        what: &str,
        floor: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let (mut quiet, ()) = self.beside(sleep(Duration::from_secs(2))).await;
        let began = Instant::now();
        let (mut beside, result) = self.beside(work).await;
        let took = began.elapsed();
        let count = beside.len();
        let [quiet, meanwhile] = [p99(&mut quiet), p99(&mut beside)];
        let most = beside[count - 1];
        println!(
            "{what}: {took:?}, {count} reads: p99 {meanwhile:?}, most {most:?}; quiet {quiet:?}"
        );
        assert!(count >= READS, "{what}: {count} reads");
        assert!(meanwhile <= floor.max(3 * quiet), "{what}: {meanwhile:?}, quiet {quiet:?}");
        result
    }
}

on_every_target! {
    #[ignore = "slow: run by .ci/run"]
    async fn work_on_many_todos_does_not_slow_the_reads_of_others(target) {
        let _alone = ALONE.lock().await;
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let reader = Reader::start(&app).await;
        let file = format!("a {} @old list:l note:{}", "title ".repeat(8).trim(), "n".repeat(250));
        let what = format!("{target:?}: import");
        reader.keeps_its_time(&what, FLOOR_OF_IMPORTS, import(&ann, &file, TODOS / FILE)).await;

        let tags = format!("/api/users/{}/tags", ann.id());
        let rename = async {
            let body = json!({"from": "old", "to": "new"});
            ann.post(&format!("{tags}/rename"), body).await.expect(200)
        };
        let what = format!("{target:?}: rename a tag");
        let renamed = reader.keeps_its_time(&what, FLOOR, rename).await;
        assert_eq!(renamed["changed_count"], TODOS);
        let what = format!("{target:?}: delete a tag");
        let delete = async { ann.delete(&format!("{tags}?name=new")).await.expect(200) };
        let deleted = reader.keeps_its_time(&what, FLOOR, delete).await;
        assert_eq!(deleted["changed_count"], TODOS);
        assert_eq!(ann.get(&tags).await.expect(200)["tags"], json!([]));

        let lists = format!("/api/users/{}/lists", ann.id());
        let list = ann.get(&lists).await.expect(200)["lists"][0]["id"].clone();
        let path = format!("{lists}/{}", list.as_str().expect("an id"));
        let what = format!("{target:?}: delete a list");
        let delete = async { ann.delete(&path).await.expect(200) };
        let deleted = reader.keeps_its_time(&what, FLOOR, delete).await;
        assert_eq!(deleted["deleted_count"], TODOS);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
        app.stop().await.expect("a clean stop");
    }
}
