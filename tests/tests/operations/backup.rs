//! Backups of an SQLite file in use: complete, consistent, verified, private, and finished in time
//! under constant writes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use todo_tests::{Actor, Client, Process, STARTING, command};
use tokio::time::timeout;

/// A copy of 20 MB takes less than a second; one that restarts at each write never ends.
const IN_TIME: Duration = Duration::from_secs(30);

async fn run(dir: &Path, url: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = command("todo-server", dir, &[("DATABASE_URL", url)]);
    let output = timeout(STARTING, command.args(arguments).output()).await;
    let output = output.expect("an end in time").expect("the program runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).expect("UTF-8"))
}

fn names(dir: &Path) -> Vec<String> {
    let names = dir.read_dir().expect("a folder").map(|file| file.expect("a file").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

async fn one<T>(url: &str, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let value = sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a value");
    db.close().await.expect("closed");
    value
}

/// Makes the file some 20 MB large.
async fn fill(url: &str) {
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let sql = "
        INSERT INTO users (id, email, name, password_hash, created_at) VALUES (zeroblob(16), 'bulk@example.com', 'Bulk', 'x', 0);
        INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
            updated_at, completed_at)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        SELECT randomblob(16), zeroblob(16), 't' || i, 't' || i, hex(randomblob(400)), 1, 0, i, i, NULL
        FROM n;";
    sqlx::raw_sql(sql).execute(&mut db).await.expect("rows");
    db.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_during_writes_is_complete_and_can_be_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}", dir.path().join("todo.db").display());
    assert!(run(dir.path(), &url, &["migrate"]).await.0);
    fill(&url).await;
    let secret = ("SECRET_KEY", "0123456789abcdef-0123456789abcdef-0123456789");
    let settings = [("DATABASE_URL", &*url), secret, ("RATE_LIMIT_PER_MINUTE", "0")];
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let actor = Actor::sign_up(&Client::of(server.addr)).await;

    let (written, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (actor, written, ends) = (actor.clone(), written.clone(), ends.clone());
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !ends.load(Ordering::Relaxed) {
                ticks.tick().await;
                actor.todo("meanwhile").await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    while written.load(Ordering::Relaxed) < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = written.load(Ordering::Relaxed);
    let backup = run(dir.path(), &url, &["backup", "kept.db"]);
    let (ok, printed) = timeout(IN_TIME, backup).await.expect("the backup ends during writes");
    assert!(ok, "{printed}");
    let after = written.load(Ordering::Relaxed) + 1;
    ends.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    server.stop().await;

    let copy = format!("sqlite://{}?mode=ro", dir.path().join("kept.db").display());
    assert_eq!(one::<String>(&copy, "PRAGMA integrity_check").await, "ok");
    assert_eq!(one::<String>(&copy, "PRAGMA journal_mode").await, "delete", "a single file");
    let todos = one::<i64>(&copy, "SELECT count(*) FROM todos").await;
    let counted = "SELECT sum(pending + completed) FROM todo_counts";
    assert_eq!(one::<i64>(&copy, counted).await, todos, "a consistent snapshot");
    let range = before + 20_000..=after + 20_000;
    assert!(range.contains(&u64::try_from(todos).expect("some")), "{todos} not in {range:?}");
    assert!(printed.contains(&format!("2 users, 1 sessions and {todos} todos")), "{printed}");
    let mode = fs::metadata(dir.path().join("kept.db")).expect("the backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["kept.db", "todo.db", "todo.db.lock"]);

    // After the restore, the user is still logged in and the todos are there.
    fs::copy(dir.path().join("kept.db"), dir.path().join("todo.db")).expect("restored");
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr).bearing(actor.token());
    let list = client.get(&format!("{}?limit=1", actor.todos())).await.expect(200);
    assert_eq!(list["total"].as_i64(), Some(todos - 20_000));
    client.post(&actor.todos(), json!({"title": "after"})).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn files_are_replaced_only_with_force_and_a_failure_leaves_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let url = format!("sqlite://{}", path.join("todo.db").display());
    let (ok, printed) = run(path, &url, &["backup", "kept.db"]).await;
    assert!(!ok && printed.contains("no such database file"), "{printed}");
    assert!(run(path, &url, &["migrate"]).await.0);
    assert!(run(path, &url, &["backup", "kept.db"]).await.0);
    let first = fs::read(path.join("kept.db")).expect("a backup");
    fill(&url).await;

    let all = ["kept.db", "todo.db", "todo.db.lock"];
    let (ok, printed) = run(path, &url, &["backup", "kept.db"]).await;
    assert!(!ok && printed.contains("--force"), "{printed}");
    assert_eq!(fs::read(path.join("kept.db")).expect("a backup"), first);
    fs::write(path.join("new.db-wal"), "of another file").expect("a file");
    let (ok, printed) = run(path, &url, &["backup", "new.db"]).await;
    assert!(!ok && printed.contains("a log beside it"), "{printed}");
    fs::remove_file(path.join("new.db-wal")).expect("gone");
    for own in ["todo.db", "./todo.db", "todo.db.lock", "."] {
        let (ok, printed) = run(path, &url, &["backup", "--force", own]).await;
        assert!(!ok && printed.contains("the backup must"), "{own}: {printed}");
    }
    let (ok, printed) = run(path, &url, &["backup", "nowhere/kept.db"]).await;
    assert!(!ok && printed.lines().count() == 1, "{printed}");
    assert_eq!(names(path), all);

    let (ok, printed) = run(path, &url, &["backup", "--force", "kept.db"]).await;
    assert!(ok && printed.contains("20000 todos"), "{printed}");
    assert_eq!(names(path), all);

    // A corrupt page: the copy is verified before it is kept.
    let mut bytes = fs::read(path.join("todo.db")).expect("the file");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(path.join("todo.db"), bytes).expect("damaged");
    let (ok, printed) = run(path, &url, &["backup", "damaged.db"]).await;
    assert!(!ok, "{printed}");
    assert_eq!(names(path), all);

    let elsewhere = "postgres://ada:hush@127.0.0.1:1/todo";
    let (ok, printed) = run(path, elsewhere, &["backup", "kept2.db"]).await;
    assert!(!ok && printed.contains("pg_dump") && !printed.contains("hush"), "{printed}");
    let (ok, printed) = run(path, "sqlite::memory:", &["backup", "kept2.db"]).await;
    assert!(!ok && printed.contains("in memory"), "{printed}");
    assert_eq!(names(path), all);
}
