//! An export of as many todos as a user may have, and its import into another account.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use todo_tests::{Actor, Client, PROGRAMS, Process, empty_dir, eventually, postgres::Cluster};
use tokio::time::Instant;

use super::{JSON, export, import_path};
use crate::leaving::{MEMORY, started};

const TODOS: usize = 50_000;
/// Maximum size of a part in bytes: fewer than 5,000 todos, each of which is 250 bytes or more.
const PART: usize = 1 << 20;
/// Maximum number of todos of a file.
const FILE: usize = 5_000;

/// A todo with all that a file can have; few reminders are to come, since a user has a quota.
fn planned(number: usize) -> Value {
    let second = format!("{:02}:{:02}", number / 60 % 60, number % 60);
    let completed = number % 3 == 1;
    let date = if number.is_multiple_of(100) { "2999-12-01" } else { "2021-12-01" };
    let tags: Vec<_> = (0..number % 4).map(|tag| format!("tag {}", (number + tag) % 400)).collect();
    let reminders: Vec<_> = (number.is_multiple_of(5))
        .then(|| json!({"minutes_before": number % 60}))
        .into_iter()
        .collect();
    json!({
        "title": format!("Todo {number} \u{1f600}"),
        "description": (number.is_multiple_of(2)).then(|| format!("a, \"b\"\n=c {number}")),
        "priority": (["low", "medium", "high"][number % 3]),
        "tags": tags,
        "due": match number % 5 {
            0 => json!({"date": date}),
            1 => json!({"date": date, "time": "09:30", "time_zone": "Europe/Berlin"}),
            _ => json!(null),
        },
        "recurrence": (number % 10 == 1)
            .then(|| json!({"rule": "FREQ=WEEKLY;BYDAY=MO", "from": "completion"})),
        "reminders": reminders,
        "list": (!number.is_multiple_of(4)).then(|| format!("List {}", number % 150)),
        "completed": completed,
        "created_at": format!("2020-06-01T{:02}:{second}.000001Z", number / 3600),
        // In another order than that of the creation.
        "updated_at": format!("2020-06-03T{:02}:{second}.{:06}Z", 23 - number / 3600, number % 7),
        "completed_at": completed.then(|| format!("2020-06-02T{:02}:{second}Z", number / 3600)),
        "position": (number.is_multiple_of(8)).then(|| format!("{:06x}80", number)),
        "ical": (number.is_multiple_of(16)).then(|| format!("X-NUMBER:{number}")),
    })
}

/// The todos of a file of JSON in parts, by lines as in docs/import.md.
fn parts_of_json(file: &str) -> Vec<String> {
    let (begin, rest) = file.split_once('\n').expect("a first line");
    let rest = rest.strip_suffix("\n]}\n").expect("the end of the file");
    let mut parts: Vec<String> = Vec::new();
    for line in rest.split('\n') {
        match parts.last_mut().filter(|part| part.len() + line.len() < PART) {
            Some(part) => part.extend(["\n", line]),
            None => parts.push(format!("{begin}\n{line}")),
        }
    }
    let closed = |part: String| format!("{}\n]}}\n", part.trim_end_matches(','));
    parts.into_iter().map(closed).collect()
}

/// The rows of a table in parts, each with the header.
fn parts_of_csv(file: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file.as_bytes());
    let mut rows = reader.records().map(|row| {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&row.expect("a row")).expect("a row in memory");
        String::from_utf8(writer.into_inner().expect("all is written")).expect("text")
    });
    let header = rows.next().expect("a header");
    let rows: Vec<String> = rows.collect();
    // A row may have fewer bytes than a line of JSON.
    rows.chunks(FILE).map(|rows| format!("{header}{}", rows.concat())).collect()
}

async fn import(actor: &Actor, format: &str, media_type: &str, parts: &[String]) -> usize {
    let mut created = 0;
    for part in parts {
        let headers = [("content-type", media_type)];
        let answer = actor.send("POST", &import_path(actor, format), &headers, part.as_str()).await;
        created += answer.expect(200)["created"].as_u64().expect("a number");
    }
    usize::try_from(created).expect("small")
}

/// All todos, without what belongs to an account.
async fn listed(actor: &Actor) -> Vec<Value> {
    let (mut todos, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{}?limit=500&order=asc{cursor}", actor.todos());
        let mut page = actor.get(&path).await.expect(200);
        for todo in page["todos"].as_array_mut().expect("todos") {
            for name in ["id", "user_id", "list_id"] {
                todo[name].take();
            }
            todos.push(todo.take());
        }
        let Some(next) = page["next_cursor"].as_str() else { return todos };
        cursor = format!("&cursor={next}");
    }
}

async fn rows(actor: &Actor, what: &str) -> Value {
    let mut rows = actor.get(&format!("/api/users/{}/{what}", actor.id())).await.expect(200);
    for row in rows[what].as_array_mut().expect("rows") {
        for name in ["id", "created_at", "updated_at", "color"] {
            if row.get(name).is_some() {
                row[name].take();
            }
        }
    }
    rows
}

/// Asserts that the server took at most [`MEMORY`] more than when idle since the last call.
fn assert_memory(server: &Process, idle: u64, what: &str, began: Instant) {
    let above = server.peak_memory().saturating_sub(idle);
    println!("  {what}: {} KiB above idle, {:?}", above >> 10, began.elapsed());
    assert!(above <= MEMORY, "{what}: {above} bytes above idle");
}

async fn move_all(program: &str, dir: &Path, url: &str) {
    println!("{program}, {}", url.split(':').next().unwrap_or_default());
    let server = started(program, dir, url).await;
    let client = Client::of(server.addr);
    let [ann, bob, carl] = [
        Actor::sign_up_to(&client).await,
        Actor::sign_up_to(&client).await,
        Actor::sign_up_to(&client).await,
    ];
    let began = Instant::now();
    let todos: Vec<_> = (0..TODOS).map(|number| planned(number).to_string()).collect();
    let lists = json!([{"name": "Empty", "color": "#ff8800"}]);
    let file = format!("{{\"lists\":{lists},\"todos\":[\n{}\n]}}\n", todos.join(",\n"));
    assert_eq!(import(&ann, "json", JSON, &parts_of_json(&file)).await, TODOS);
    drop((todos, file));
    println!("  the first todos: {:?}", began.elapsed());
    // Its buffers exist from now on.
    ann.get(&format!("{}?limit=500", ann.todos())).await.expect(200);
    let mut idle = server.memory();
    let is_settled = eventually(Duration::from_secs(10), async || {
        let before = std::mem::replace(&mut idle, server.memory());
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.memory() == before
    });
    is_settled.await;
    println!("  idle: {} MB", idle >> 20);
    server.peak_memory();

    let began = Instant::now();
    let file = export(&ann, "json").await.text();
    assert_memory(&server, idle, "export of JSON", began);
    println!("  {} MB", file.len() >> 20);
    let began = Instant::now();
    assert_eq!(import(&bob, "json", JSON, &parts_of_json(&file)).await, TODOS);
    assert_memory(&server, idle, "import of JSON", began);
    assert!(export(&bob, "json").await.text() == file, "the export of the import differs");
    drop(file);

    let began = Instant::now();
    let table = export(&ann, "csv").await.text();
    assert_memory(&server, idle, "export of CSV", began);
    let began = Instant::now();
    assert_eq!(import(&carl, "csv", "text/csv", &parts_of_csv(&table)).await, TODOS);
    assert_memory(&server, idle, "import of CSV", began);
    assert!(export(&carl, "csv").await.text() == table, "the table of the import differs");

    let began = Instant::now();
    let anns = listed(&ann).await;
    assert_eq!(anns.len(), TODOS);
    assert!(anns == listed(&bob).await, "the list of the import of JSON differs");
    assert!(anns == listed(&carl).await, "the list of the import of CSV differs");
    println!("  three lists: {:?}", began.elapsed());
    let tags = rows(&ann, "tags").await;
    assert_eq!(tags["tags"].as_array().map(Vec::len), Some(400));
    let lists = rows(&ann, "lists").await;
    for other in [&bob, &carl] {
        assert_eq!(rows(other, "tags").await, tags);
    }
    assert_eq!(rows(&bob, "lists").await, lists);
    server.stop().await;
}

async fn on_sqlite(program: &str) {
    let dir = empty_dir();
    let file = format!("sqlite://{}", dir.path().join("todo.db").display());
    move_all(program, dir.path(), &file).await;
}

async fn on_postgres(program: &str) {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    move_all(program, empty_dir().path(), &cluster.url()).await;
    cluster.stop().await.expect("PostgreSQL stops");
}

// Each database and each server once: a file takes a minute, and both are in one library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn fifty_thousand_todos_move_in_little_memory_on_sqlite_by_todo_hyper_min() {
    on_sqlite(PROGRAMS[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn fifty_thousand_todos_move_in_little_memory_on_postgres_by_todo_server() {
    on_postgres(PROGRAMS[0]).await;
}
