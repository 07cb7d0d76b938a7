//! The migration of the log of changes and the trash: it keeps rows, goes back, refuses to lose
//! data, and survives its process. The triggers and views that it makes, by SQL.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use todo_tests::{STARTING, command, execute_sql, postgres::Cluster};
use tokio::time::{Instant, timeout};

use super::migrations::{EPOCH, down_to, migrate, rows, run, schema, url_in};

/// A file and a server, each without a schema.
struct Both {
    dir: tempfile::TempDir,
    cluster: Cluster,
}

impl Both {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, cluster: Cluster::dedicated(&[], &[]).await.expect("PostgreSQL") }
    }

    fn urls(&self) -> [String; 2] {
        [url_in(self.dir.path()), self.cluster.url()]
    }

    async fn stop(self) {
        self.cluster.stop().await.expect("it stops");
    }
}

/// Two users, and three todos of the first.
const FILL: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at) VALUES
        (@1, 'ann@example.com', 'Ann Other', 'x', @now), (@2, 'bob@example.com', 'Bob', 'x', @now);
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at, completed_at)
        VALUES (@4, @1, 'a', 'a', 1, FALSE, @now, @now, NULL);
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at, completed_at)
        VALUES (@5, @1, 'b', 'b', 1, FALSE, @now, @now, NULL);
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at, completed_at)
        VALUES (@6, @1, 'c', 'c', 2, TRUE, @now, @now, @now);";

/// Each user's log, as user, number, kind and todo; of ids the first digit.
async fn log(url: &str) -> Vec<String> {
    let digit = if url.starts_with("sqlite:") {
        ["substr(hex(user_id), 1, 1)", "substr(hex(todo_id), 1, 1)"]
    } else {
        ["left(CAST(user_id AS text), 1)", "left(CAST(todo_id AS text), 1)"]
    };
    let [user, todo] = digit;
    let sql = format!(
        "SELECT {user} || ': ' || seq || ' ' || kind || ' ' || {todo} FROM changes ORDER BY user_id, seq"
    );
    rows(url, &sql).await
}

/// Counters and numbers that differ from what rows and logs say.
async fn wrong_counters(url: &str) -> Vec<String> {
    let sql = "SELECT pending || ' ' || completed || ' ' || seq FROM todo_counts AS c \
        WHERE pending <> (SELECT count(*) FROM todos AS t WHERE t.user_id = c.user_id AND NOT t.completed) \
        OR completed <> (SELECT count(*) FROM todos AS t WHERE t.user_id = c.user_id AND t.completed) \
        OR (seq > 0 AND seq <> (SELECT max(seq) FROM changes AS l WHERE l.user_id = c.user_id)) \
        OR (SELECT count(*) FROM changes AS l WHERE l.user_id = c.user_id) \
           <> seq - coalesce((SELECT min(seq) - 1 FROM changes AS l WHERE l.user_id = c.user_id), 0)";
    rows(url, sql).await
}

async fn count(url: &str, table: &str) -> i64 {
    let sql = format!("SELECT CAST(count(*) AS text) FROM {table}");
    rows(url, &sql).await.concat().parse().expect("a number")
}

/// Reverts to the version before the log of changes.
async fn revert_to_before(url: &str) {
    for name in down_to("changes and trash") {
        let (ok, printed) = migrate(url, &["--revert", "--yes"]).await;
        assert!(ok && printed.contains(name), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_restores_the_schema_of_the_version_before_and_keeps_the_rows() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        let (up, epoch) = (schema(&url).await, rows(&url, EPOCH).await);
        assert_eq!(epoch.concat().len(), 16, "{epoch:?}");
        revert_to_before(&url).await;
        let before = schema(&url).await;
        // The version before, with rows, and without a revert.
        run(&url, FILL).await;
        assert!(migrate(&url, &[]).await.0);
        assert_eq!(schema(&url).await, up);
        assert_ne!(rows(&url, EPOCH).await, epoch, "a new log has a new epoch");
        assert_eq!(log(&url).await, Vec::<String>::new());
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
        run(&url, "UPDATE todos SET title = 'd' WHERE id = @4; DELETE FROM todos WHERE id = @5")
            .await;
        assert_eq!(log(&url).await, ["1: 1 1 4", "1: 2 2 5"]);
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
        revert_to_before(&url).await;
        assert_eq!(schema(&url).await, before, "down is the schema of the version before");
        assert_eq!(rows(&url, "SELECT title FROM todos ORDER BY title").await, ["c", "d"]);
        run(&url, "UPDATE todos SET completed = FALSE, completed_at = NULL WHERE id = @6").await;
        let counts = "SELECT pending || ' ' || completed FROM todo_counts ORDER BY pending";
        assert_eq!(rows(&url, counts).await, ["0 0", "2 0"], "counted again");
        assert!(migrate(&url, &[]).await.0);
        assert_eq!(schema(&url).await, up);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_names_what_it_certainly_loses() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        run(&url, FILL).await;
        for name in down_to("jobs") {
            assert!(migrate(&url, &["--revert", "--yes"]).await.1.contains(name));
        }
        let (ok, printed) = migrate(&url, &["--revert"]).await;
        assert!(!ok && printed.contains("3 todos: confirm with --yes"), "{printed}");
        run(
            &url,
            "INSERT INTO deletions (id, user_id, deleted_at) VALUES (@4, @1, @later);
             UPDATE todos SET tags = '[\"a\"]' WHERE id = @5;
             INSERT INTO idempotency (user_id, key, fingerprint, status, answer, made_at)
                 VALUES (@1, 'k', @1_bytes, 201, '{}', @now);",
        )
        .await;
        let up = schema(&url).await;
        let (ok, printed) = migrate(&url, &["--revert"]).await;
        for named in ["1 todos in the trash", "order of 1 todos", "1 answers", "--yes"] {
            assert!(!ok && printed.contains(named), "{named} in {printed}");
        }
        assert_eq!(schema(&url).await, up, "a rejected command changes nothing");
        assert_eq!(count(&url, "trash").await, 1);
        assert!(migrate(&url, &["--revert", "--yes"]).await.0);
        assert_eq!(count(&url, "todos").await, 2);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shown_column_is_logged_and_a_derived_one_is_not() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        run(&url, FILL).await;
        let columns = if url.starts_with("sqlite:") {
            ["todos", "trash"].map(|table| format!("SELECT name FROM pragma_table_info('{table}')"))
        } else {
            ["todos", "trash"].map(|table| {
                format!(
                    "SELECT CAST(column_name AS text) FROM information_schema.columns \
                     WHERE table_name = '{table}' ORDER BY ordinal_position"
                )
            })
        };
        let todos = rows(&url, &columns[0]).await;
        let trash = rows(&url, &columns[1]).await;
        assert_eq!(
            trash.split_last(),
            Some((&"deleted_at".to_owned(), &*todos)),
            "SELECT * moves rows"
        );
        for column in &todos {
            let before = count(&url, "changes").await;
            run(&url, &format!("UPDATE todos SET {column} = {column} WHERE id = @4")).await;
            let is_logged = count(&url, "changes").await > before;
            // A changed id or user is, by another trigger.
            let is_derived =
                ["id", "user_id", "search", "title_key", "position"].contains(&&**column);
            assert_ne!(is_logged, is_derived, "{column}");
        }
        let before = log(&url).await.len();
        run(
            &url,
            "UPDATE todos SET user_id = @2 WHERE id = @4; UPDATE todos SET id = @9 WHERE id = @5",
        )
        .await;
        let entries = log(&url).await;
        let number = before + 1;
        assert!(entries.contains(&format!("1: {number} 2 4")), "{entries:?}");
        assert!(entries.contains(&"2: 1 1 4".to_owned()), "{entries:?}");
        assert!(entries.contains(&format!("1: {} 2 5", number + 1)), "{entries:?}");
        assert!(entries.contains(&format!("1: {} 1 9", number + 2)), "{entries:?}");
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_ten_thousand_entries() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        run(&url, FILL).await;
        let many = if url.starts_with("sqlite:") {
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10200) \
             INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) \
             SELECT randomblob(16), @2, 't', 't', 1, 0, @now, @now FROM n"
        } else {
            "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) \
             SELECT gen_random_uuid(), @2, 't', 't', 1, FALSE, @now, @now FROM generate_series(1, 10200)"
        };
        run(&url, many).await;
        let sql =
            "SELECT min(seq) || ' ' || max(seq) || ' ' || count(*) FROM changes WHERE user_id = @2";
        // At 10,176, the last multiple of 64.
        assert_eq!(rows(&url, sql).await, ["177 10200 10024"]);
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
        assert_eq!(log(&url).await.iter().filter(|entry| entry.starts_with("1:")).count(), 3);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_thousand_todos_and_a_trash_is_deleted_with_everything() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        run(&url, FILL).await;
        let many = if url.starts_with("sqlite:") {
            "PRAGMA foreign_keys = ON; \
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) \
             SELECT randomblob(16), @1, 't', 't', 1, 0, @now, @now FROM n; \
             INSERT INTO deletions (id, user_id, deleted_at) SELECT id, user_id, @later FROM todos LIMIT 100; \
             INSERT INTO idempotency SELECT @1, 'k', x'', 201, '{}', NULL, NULL, @now; \
             DELETE FROM users WHERE id = @1"
        } else {
            "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) \
             SELECT gen_random_uuid(), @1, 't', 't', 1, FALSE, @now, @now FROM generate_series(1, 1000); \
             INSERT INTO deletions (id, user_id, deleted_at) SELECT id, user_id, @later FROM todos LIMIT 100; \
             INSERT INTO idempotency SELECT @1, 'k', '', 201, '{}', NULL, NULL, @now; \
             DELETE FROM users WHERE id = @1"
        };
        run(&url, many).await;
        for table in ["todos", "changes", "trash", "idempotency"] {
            assert_eq!(count(&url, table).await, 0, "{table} on {url}");
        }
        assert_eq!(count(&url, "todo_counts").await, 1, "another user's");
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_move_a_todo_to_the_trash_and_back_and_store_an_answer() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        run(&url, FILL).await;
        run(
            &url,
            "INSERT INTO deletions (id, user_id, guard, deleted_at) VALUES (@4, @1, @later, @later);
             INSERT INTO deletions (id, user_id, deleted_at) VALUES (@4, @2, @later);",
        )
        .await;
        assert_eq!(count(&url, "todos").await, 3, "another version, another user");
        run(
            &url,
            "INSERT INTO deletions (id, user_id, guard, deleted_at) VALUES (@4, @1, @now, @later);
             INSERT INTO deletions (id, user_id, deleted_at) VALUES (@5, @1, @later);
             INSERT INTO deletions (id, user_id, deleted_at) VALUES (@5, @1, @later);",
        )
        .await;
        assert_eq!(rows(&url, "SELECT title FROM trash ORDER BY title").await, ["a", "b"]);
        assert_eq!(rows(&url, "SELECT title FROM todos").await, ["c"]);
        assert_eq!(log(&url).await[3..], ["1: 4 2 4", "1: 5 2 5"]);
        run(
            &url,
            "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at)
                SELECT id, user_id, title, title_key, priority, completed, created_at, @later
                FROM trash WHERE id = @4",
        )
        .await;
        assert_eq!(rows(&url, "SELECT title FROM trash ORDER BY title").await, ["b"]);
        assert_eq!(log(&url).await[5..], ["1: 6 1 4"]);

        let keyed = |key: &str, id: &str, at: &str| {
            format!(
                "INSERT INTO keyed_todos (key, fingerprint, status, answer, id, user_id, title, title_key, \
                     priority, completed, created_at, updated_at) \
                 VALUES ('{key}', @1_bytes, 201, '{{}}', {id}, @2, 'k', 'k', 1, FALSE, {at}, {at})"
            )
        };
        run(&url, &keyed("one", "@7", "@now")).await;
        assert!(try_run(&url, &keyed("one", "@8", "@now")).await.is_err(), "a key that is taken");
        assert!(try_run(&url, &keyed("two", "@7", "@now")).await.is_err(), "an id that is taken");
        assert_eq!(rows(&url, "SELECT key FROM idempotency").await, ["one"], "both or none");
        run(&url, &keyed("one", "@8", "@later")).await;
        assert_eq!(rows(&url, "SELECT key FROM idempotency").await, ["one"], "free after a day");
        assert_eq!(count(&url, "todos").await, 4);
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
    }
    both.stop().await;
}

/// As [`run`], with its error.
async fn try_run(url: &str, sql: &str) -> sqlx::Result<()> {
    let sql = super::migrations::in_dialect(sql, url.starts_with("sqlite:"));
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await?;
        db.execute(AssertSqlSafe(sql)).await.map(drop)
    } else {
        let mut db = PgConnection::connect(url).await?;
        db.execute(AssertSqlSafe(sql)).await.map(drop)
    }
}

/// A deletion that waits for a patch moves what the patch has written, or nothing if its guard is
/// the version before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_that_commits_during_a_deletion_is_not_lost() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    assert!(migrate(&url, &[]).await.0);
    run(&url, FILL).await;
    for (id, guard, expected) in [("@4", "NULL", 1), ("@5", "updated_at", 0)] {
        let mut patch = PgConnection::connect(&url).await.expect("the server");
        let update = format!(
            "BEGIN; UPDATE todos SET title = 'patched', updated_at = @later WHERE id = {id}"
        );
        let update = super::migrations::in_dialect(&update, false);
        patch.execute(AssertSqlSafe(update)).await.expect("a patch");
        let mut deletion = PgConnection::connect(&url).await.expect("the server");
        let delete = format!(
            "INSERT INTO deletions (id, user_id, guard, deleted_at) \
             SELECT id, user_id, {guard}, @later FROM todos WHERE id = {id} RETURNING id"
        );
        let delete = super::migrations::in_dialect(&delete, false);
        let deleting = tokio::spawn(async move {
            let rows = sqlx::query(AssertSqlSafe(delete)).fetch_all(&mut deletion).await;
            rows.expect("a statement").len()
        });
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut patch).await.expect("it") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        patch.execute("COMMIT").await.expect("a commit");
        let deleted = timeout(STARTING, deleting).await.expect("in time").expect("no panic");
        assert_eq!(deleted, expected, "{guard}");
    }
    assert_eq!(rows(&url, "SELECT title FROM trash").await, ["patched"]);
    assert_eq!(rows(&url, "SELECT title FROM todos ORDER BY title").await, ["c", "patched"]);
    assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
    cluster.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_gets_a_new_epoch_by_a_command() {
    let both = Both::new().await;
    for url in both.urls() {
        let dir = tempfile::tempdir().expect("a directory");
        let new_epoch = async || {
            let mut command = command("todo-server", dir.path(), &[("DATABASE_URL", &url)]);
            let output = timeout(STARTING, command.arg("new-epoch").output()).await;
            let output = output.expect("an end in time").expect("the program runs");
            let printed = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(printed).expect("UTF-8"))
        };
        assert!(migrate(&url, &[]).await.0);
        revert_to_before(&url).await;
        let (ok, printed) = new_epoch().await;
        assert!(!ok && printed.contains("run `migrate`"), "{printed}");
        assert!(migrate(&url, &[]).await.0);
        let before = rows(&url, EPOCH).await;
        let (ok, printed) = new_epoch().await;
        let after = rows(&url, EPOCH).await;
        assert!(ok && printed.contains(&*after.concat()), "{printed}");
        assert!(after != before && after.concat().len() == 16, "{before:?} {after:?}");
    }
    both.stop().await;
}

/// Roles that write keep their rights when the migration runs under another role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_of_a_running_replica_goes_on_writing() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    assert!(migrate(&url, &[]).await.0);
    revert_to_before(&url).await;
    // The grants of the version before.
    execute_sql(
        &url,
        "CREATE ROLE app; GRANT SELECT, INSERT, UPDATE ON users, todo_counts TO app; \
         GRANT SELECT, INSERT, DELETE ON sessions TO app; \
         GRANT SELECT, INSERT, DELETE ON todos, rate_limits TO app; \
         GRANT UPDATE (title, title_key, updated_at) ON todos TO app",
    )
    .await;
    run(&url, FILL).await;
    assert!(migrate(&url, &[]).await.0);
    run(
        &url,
        "SET ROLE app;
         UPDATE todos SET title = 'x', title_key = 'x' WHERE id = @4;
         INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at)
            VALUES (@7, @1, 'new', 'new', 1, FALSE, @now, @now);
         DELETE FROM todos WHERE id = @5",
    )
    .await;
    assert_eq!(log(&url).await, ["1: 1 1 4", "1: 2 1 7", "1: 3 2 5"]);
    cluster.stop().await.expect("it stops");
}

/// The migration waits for a long transaction without holding up others for long, and gives up
/// with its cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_delays_the_migration_and_not_the_requests() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    assert!(migrate(&url, &[]).await.0);
    revert_to_before(&url).await;
    run(&url, FILL).await;
    let mut reader = PgConnection::connect(&url).await.expect("the server");
    reader.execute("BEGIN; SELECT count(*) FROM todos").await.expect("a long transaction");
    let migrating = tokio::spawn({
        let url = url.clone();
        async move { migrate(&url, &[]).await }
    });
    let mut slowest = Duration::ZERO;
    let mut writer = PgConnection::connect(&url).await.expect("the server");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let write = Instant::now();
        writer.execute("UPDATE todos SET title = title").await.expect("a write");
        slowest = slowest.max(write.elapsed());
    }
    println!("a write waited for {slowest:?} at most");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    reader.execute("COMMIT").await.expect("an end");
    let (ok, printed) = migrating.await.expect("no panic");
    assert!(ok && printed.contains("applied 6"), "{printed}");
    cluster.stop().await.expect("it stops");
}

/// A million todos of the version before.
async fn a_million(url: &str) {
    let is_sqlite = url.starts_with("sqlite:");
    let fill = if is_sqlite {
        "PRAGMA journal_mode = WAL; PRAGMA cache_size = -200000; BEGIN;
         INSERT INTO users (id, email, name, password_hash, created_at) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         SELECT randomblob(16), 'u' || i || '@example.com', 'User ' || i, 'x', i FROM n;
         INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
             updated_at, completed_at)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         SELECT randomblob(16), id, 'Write report ' || i, 'write report ' || i,
             iif(i % 2, 'the usual length of a description, ' || i, NULL), 1 + i % 3, i % 2, i, i, iif(i % 2, i, NULL)
         FROM users, n; COMMIT"
    } else {
        "INSERT INTO users SELECT gen_random_uuid(), 'u' || i || '@example.com', 'User ' || i, 'x', now()
         FROM generate_series(1, 1000) AS i;
         INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
             updated_at, completed_at)
         SELECT gen_random_uuid(), id, 'Write report ' || i, 'write report ' || i,
             CASE i % 2 WHEN 1 THEN 'the usual length of a description, ' || i END, 1 + i % 3, i % 2 = 1, now(),
             now(), CASE i % 2 WHEN 1 THEN now() END
         FROM users, generate_series(1, 1000) AS i"
    };
    execute_sql(url, fill).await;
}

/// Number and sums of the todos, which a migration must not change.
const SUMS: &str = "SELECT count(*) || ' ' || sum(length(title)) || ' ' || sum(length(description)) \
    || ' ' || sum(priority) || ' ' || count(completed_at) || ' ' || min(title_key) FROM todos";

fn spawn_migrate(dir: &Path, url: &str) -> tokio::process::Child {
    let mut command = command("todo-server", dir, &[("DATABASE_URL", url)]);
    let command = command.arg("migrate").stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program runs")
}

/// Kills `todo-server migrate` after a part of the time that it takes, five times. Returns how
/// often it was still running.
async fn kill_by_time(url: &str, takes: Duration, check: impl AsyncFn()) -> u32 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut killed = 0;
    for tenths in 1..=5 {
        let mut child = spawn_migrate(dir.path(), url);
        if timeout(takes * tenths / 10, child.wait()).await.is_ok() {
            revert_to_before(url).await;
            continue;
        }
        // SIGKILL.
        child.kill().await.expect("killed");
        killed += 1;
        check().await;
    }
    killed
}

/// Kills `todo-server migrate` in the middle of a statement, of each of five kinds.
async fn kill_by_statement(url: &str, check: impl AsyncFn()) -> u32 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut db = PgConnection::connect(url).await.expect("the server");
    let hold =
        "CREATE SCHEMA held; CREATE FUNCTION held.hold() RETURNS event_trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); END $$; SELECT pg_advisory_lock(42)";
    db.execute(hold).await.expect("a lock");
    let tags = ["ALTER TABLE", "CREATE TABLE", "CREATE FUNCTION", "CREATE TRIGGER", "CREATE VIEW"];
    for tag in tags {
        let hold = format!(
            "CREATE EVENT TRIGGER hold ON ddl_command_end WHEN TAG IN ('{tag}') \
             EXECUTE FUNCTION held.hold()"
        );
        db.execute(AssertSqlSafe(hold)).await.expect("a trap");
        let mut child = spawn_migrate(dir.path(), url);
        let waits =
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted";
        let pid = async {
            loop {
                let pid: Option<i32> =
                    sqlx::query_scalar(waits).fetch_optional(&mut db).await.expect("locks");
                match pid {
                    Some(pid) => return pid,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let pid = timeout(STARTING, pid).await.expect("it reaches the lock");
        child.kill().await.expect("killed");
        // Its server process still waits.
        let end = format!("SELECT pg_terminate_backend({pid}); DROP EVENT TRIGGER hold");
        db.execute(AssertSqlSafe(end)).await.expect("an end");
        check().await;
    }
    db.execute("DROP SCHEMA held CASCADE").await.expect("dropped");
    5
}

/// Bytes of the files in `dir`.
fn bytes_in(dir: &Path) -> u64 {
    let files = dir.read_dir().expect("a folder").filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Runs `migrate` with `arguments`; prints its time, and by how much the files in `dir` grow.
async fn timed(url: &str, arguments: &[&str], dir: &Path) -> Duration {
    let (before, begin) = (bytes_in(dir), Instant::now());
    let mut most = before;
    let mut migrating = std::pin::pin!(migrate(url, arguments));
    let (ok, printed) = loop {
        match timeout(Duration::from_millis(20), &mut migrating).await {
            Ok(outcome) => break outcome,
            Err(_) => most = most.max(bytes_in(dir)),
        }
    };
    assert!(ok, "{printed}");
    let took = begin.elapsed();
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{arguments:?}: {took:?}, {} MiB and {} more: {printed}",
        mib(before),
        mib(most - before)
    );
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn a_million_todos_are_migrated_and_a_killed_migration_changes_nothing() {
    let both = Both::new().await;
    for url in both.urls() {
        assert!(migrate(&url, &[]).await.0);
        revert_to_before(&url).await;
        let before = schema(&url).await;
        a_million(&url).await;
        let sums = rows(&url, SUMS).await;
        assert!(sums.concat().starts_with("1000000 "), "{sums:?}");
        let took = timed(&url, &[], both.dir.path()).await;
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
        let up = schema(&url).await;
        // The schemas by the first migration that is pending.
        let mut schemas = BTreeMap::new();
        let later = down_to("jobs");
        let last = 5 + later.len();
        for (number, name) in (6..=last).rev().zip(later) {
            assert!(migrate(&url, &["--revert", "--yes"]).await.1.contains(name));
            schemas.insert(number, schema(&url).await);
        }
        timed(&url, &["--revert", "--yes"], both.dir.path()).await;
        assert_eq!(schema(&url).await, before);
        schemas.insert(5, before);

        // Each migration is a transaction of its own.
        let check = async || {
            let (ok, printed) = migrate(&url, &["--status"]).await;
            let is_pending = |number: &usize| printed.contains(&format!("pending {number} "));
            let pending = (5..=last).find(is_pending).filter(|_| ok);
            let pending = pending.unwrap_or_else(|| panic!("nothing is pending: {printed}"));
            assert!(schema(&url).await == schemas[&pending], "{pending}: a part has an effect");
            assert_eq!(count(&url, "todos").await, 1_000_000);
            for _ in 5..pending {
                assert!(migrate(&url, &["--revert", "--yes"]).await.0);
            }
        };
        let killed = if url.starts_with("sqlite:") {
            kill_by_time(&url, took, check).await
        } else {
            kill_by_statement(&url, check).await
        };
        println!("killed {killed} times");
        assert!(killed >= 3, "killed {killed} times");
        assert!(migrate(&url, &[]).await.0);
        assert_eq!(schema(&url).await, up);
        assert_eq!(rows(&url, SUMS).await, sums);
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
        execute_sql(&url, "UPDATE todos SET title = 'changed' WHERE title = 'Write report 1'")
            .await;
        assert_eq!(count(&url, "changes").await, 1000);
        assert_eq!(wrong_counters(&url).await, Vec::<String>::new());
    }
    both.stop().await;
}
