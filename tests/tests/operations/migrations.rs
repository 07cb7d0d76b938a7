//! Migrations by the command line: up, down and up again gives the same schema, and down removes
//! everything.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, path::Path};

use sqlx::{Connection, PgConnection, Row, SqliteConnection};
use todo_tests::{
    App, Database, PROGRAMS, Process, STARTING, command, execute_sql, on_every_target,
    postgres::Cluster, startup_error,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

pub(super) async fn migrate(url: &str, arguments: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = command("todo-server", dir.path(), &[("DATABASE_URL", url)]);
    let output = timeout(STARTING, command.arg("migrate").args(arguments).output()).await;
    let output = output.expect("an end in time").expect("the program runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).expect("UTF-8"))
}

/// The migrations that the tests revert, the last one first.
const NAMES: [&str; 8] = [
    "quicker plans",
    "reminders",
    "planning",
    "identity",
    "accounts",
    "jobs",
    "changes and trash",
    "second line",
];

/// The names of the migrations down to this one, in the order in which they are reverted.
pub(super) fn down_to(name: &str) -> &'static [&'static str] {
    let last = NAMES.iter().position(|other| *other == name).expect("a name of a migration");
    &NAMES[..=last]
}

/// The whole schema, as text in a fixed order.
pub(super) async fn schema(url: &str) -> Vec<String> {
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        let rows = sqlx::query(
            "SELECT name || ': ' || coalesce(sql, '') FROM sqlite_master \
             WHERE tbl_name <> '_sqlx_migrations' ORDER BY 1",
        );
        let rows = rows.fetch_all(&mut db).await.expect("rows");
        return rows.iter().map(|row| row.get(0)).collect();
    }
    let mut db = PgConnection::connect(url).await.expect("the server");
    let rows = sqlx::query(
        "SELECT t FROM ( \
           SELECT concat_ws(' ', table_name, row_number() OVER ( \
                                PARTITION BY table_name ORDER BY ordinal_position), \
                            column_name, data_type, collation_name, is_nullable, \
                            column_default) AS t \
           FROM information_schema.columns WHERE table_schema = 'public' \
           UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
           UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) \
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
           UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc \
             WHERE pronamespace = 'public'::regnamespace \
           UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal \
         ) AS everything WHERE t NOT LIKE '%\\_sqlx\\_migrations%' ORDER BY 1",
    );
    let rows = rows.fetch_all(&mut db).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn up_down_up(url: &str) {
    let (ok, printed) = migrate(url, &["--status"]).await;
    assert!(ok && printed.contains("pending ") && !printed.contains("applied "), "{printed}");
    let (ok, printed) = migrate(url, &[]).await;
    assert!(ok && printed.contains("applied "), "{printed}");
    let up = schema(url).await;
    assert!(!up.is_empty());
    let (ok, printed) = migrate(url, &[]).await;
    assert!(ok && printed.contains("up to date"), "{printed}");
    let (ok, printed) = migrate(url, &["--status"]).await;
    assert!(ok && printed.contains("applied ") && !printed.contains("pending "), "{printed}");

    let steps = printed.lines().count();
    for _ in 0..steps {
        let (ok, printed) = migrate(url, &["--revert"]).await;
        assert!(ok && printed.contains("reverted "), "{printed}");
    }
    assert_eq!(schema(url).await, Vec::<String>::new(), "down removes everything");
    let (ok, printed) = migrate(url, &["--revert"]).await;
    assert!(ok && printed.contains("no migration is applied"), "{printed}");
    assert!(migrate(url, &[]).await.0);
    assert_eq!(schema(url).await, up, "up again gives the same schema");
}

pub(super) fn url_in(dir: &Path) -> String {
    format!("sqlite://{}", dir.join("todo.db").display())
}

#[tokio::test]
async fn up_down_and_up_again_on_sqlite() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url_in(dir.path());
    let (ok, _) = migrate(&url, &["--status"]).await;
    assert!(ok && dir.path().read_dir().expect("it").next().is_none(), "reading creates no file");
    up_down_up(&url).await;
}

#[tokio::test]
async fn up_down_and_up_again_on_postgres() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    up_down_up(&cluster.url()).await;
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn rows_are_deleted_only_with_an_explicit_option() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url_in(dir.path());
    assert!(migrate(&url, &[]).await.0);
    let mut db = SqliteConnection::connect(&url).await.expect("the file");
    let insert = "INSERT INTO users (id, email, name, password_hash, created_at) VALUES (zeroblob(16), 'a@b.c', 'Ada', 'x', 0)";
    sqlx::query(insert).execute(&mut db).await.expect("a row");
    db.close().await.expect("closed");

    let (ok, printed) = migrate(&url, &["--revert"]).await;
    assert!(!ok && printed.contains("1 users") && printed.contains("--yes"), "{printed}");
    assert!(!schema(&url).await.is_empty(), "a rejected command changes nothing");
    for _ in 0..migrations("sqlite").len() {
        let (ok, printed) = migrate(&url, &["--revert", "--yes"]).await;
        assert!(ok && printed.contains("1 users"), "{printed}");
    }
    assert_eq!(schema(&url).await, Vec::<String>::new());
}

/// All columns of the todos, as text.
async fn todos(url: &str) -> Vec<String> {
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let rows = sqlx::query_scalar(
        "SELECT concat_ws('|', hex(id), hex(user_id), title, title_key, quote(description), priority, \
            completed, created_at, updated_at, quote(completed_at)) FROM todos \
         UNION ALL SELECT concat_ws('|', hex(user_id), pending, completed) FROM todo_counts ORDER BY 1",
    );
    rows.fetch_all(&mut db).await.expect("rows")
}

#[tokio::test]
async fn a_recreated_table_keeps_its_rows_and_their_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url_in(dir.path());
    assert!(migrate(&url, &[]).await.0);
    let mut db = SqliteConnection::connect(&url).await.expect("the file");
    let fill = "
        INSERT INTO users (id, email, name, password_hash, created_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
        SELECT randomblob(16), 'u' || i || '@example.com', 'Zoë ' || i, 'x', i FROM n;
        INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
            updated_at, completed_at)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
        SELECT randomblob(16), id, 'Ä ' || i, 'ä ' || i, iif(i % 3, 'd' || i, NULL), 1 + i % 3, i % 2,
               i / 2, i, iif(i % 2, 5, NULL) FROM users, n;";
    sqlx::raw_sql(fill).execute(&mut db).await.expect("rows");
    db.close().await.expect("closed");
    let before = todos(&url).await;
    assert_eq!(before.len(), 9 * 99 + 9);
    for name in down_to("second line") {
        let (ok, printed) = migrate(&url, &["--revert", "--yes"]).await;
        assert!(ok && printed.contains(name), "{printed}");
        assert!(todos(&url).await == before, "down loses rows");
    }
    let (ok, printed) = migrate(&url, &["--revert", "--yes"]).await;
    assert!(ok && printed.contains("todos together"), "{printed}");
    assert!(todos(&url).await == before, "down loses rows");
    assert!(migrate(&url, &[]).await.0);
    assert!(todos(&url).await == before, "up loses rows");
    // The counting triggers are recreated.
    let mut db = SqliteConnection::connect(&url).await.expect("the file");
    sqlx::query("DELETE FROM todos").execute(&mut db).await.expect("gone");
    let counted = "SELECT sum(pending + completed) FROM todo_counts";
    assert_eq!(sqlx::query_scalar::<_, i64>(counted).fetch_one(&mut db).await.expect("it"), 0);
}

/// Every command that opens the database rejects it with `named` in its message.
async fn assert_all_reject(url: &str, named: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("DATABASE_URL", url)];
    let mut all = Vec::new();
    for program in PROGRAMS {
        all.push(startup_error(program, dir.path(), &settings).await);
    }
    for arguments in
        [&["migrate"][..], &["migrate", "--status"], &["migrate", "--revert"], &["doctor"]]
    {
        let mut command = command("todo-server", dir.path(), &settings);
        let output = timeout(STARTING, command.args(arguments).output()).await;
        let output = output.expect("an end in time").expect("the program runs");
        assert!(!output.status.success(), "{arguments:?}");
        let printed = [output.stdout, output.stderr].concat();
        all.push(String::from_utf8(printed).expect("UTF-8"));
    }
    for printed in all {
        assert!(named.iter().all(|named| printed.contains(named)), "{named:?} in {printed}");
        assert!(!printed.contains("up to date"), "{printed}");
    }
}

/// The migration of a newer release, as stored in the database, and its revert.
async fn an_older_release_on_a_newer_schema(url: &str) {
    assert!(migrate(url, &[]).await.0);
    let checksum = if url.starts_with("sqlite:") { "x'00'" } else { "'\\x00'" };
    let newer = format!(
        "CREATE TABLE tomorrow (id int); INSERT INTO _sqlx_migrations \
         (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'tomorrow', CURRENT_TIMESTAMP, TRUE, {checksum}, 1)"
    );
    execute_sql(url, &newer).await;
    assert_all_reject(url, &["newer release", "migration 9999", "migrate --revert"]).await;
    execute_sql(url, "DROP TABLE tomorrow; DELETE FROM _sqlx_migrations WHERE version = 9999")
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    for program in PROGRAMS {
        Process::start(program, dir.path(), &[("DATABASE_URL", url)]).await.stop().await;
    }

    // A different checksum, or half applied: the start and `doctor` fail.
    let changed = format!("UPDATE _sqlx_migrations SET checksum = {checksum} WHERE version = 2");
    execute_sql(url, &changed).await;
    assert_all_reject(url, &["migration 2", "a different text"]).await;
    execute_sql(url, "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 2").await;
    assert_all_reject(url, &["migration 2", "not finished"]).await;
}

#[tokio::test]
async fn an_older_release_on_a_newer_schema_explains_how_to_revert_on_sqlite() {
    let dir = tempfile::tempdir().expect("a directory");
    an_older_release_on_a_newer_schema(&url_in(dir.path())).await;
}

#[tokio::test]
async fn an_older_release_on_a_newer_schema_explains_how_to_revert_on_postgres() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    an_older_release_on_a_newer_schema(&cluster.url()).await;
    cluster.stop().await.expect("it stops");
}

/// The lock file is private: a user who can open it can block a start.
#[tokio::test]
async fn a_start_that_waits_for_the_lock_logs_it_and_the_lock_is_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("todo.db.lock");
    // Created by an earlier release.
    let lock = std::fs::File::create(&path).expect("a lock file");
    lock.set_permissions(std::fs::Permissions::from_mode(0o644)).expect("its mode");
    lock.lock().expect("held");
    let url = url_in(dir.path());
    for program in PROGRAMS {
        let mut command = command(program, dir.path(), &[("DATABASE_URL", &url)]);
        let mut child = command.spawn().expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let waiting = async {
            while let Some(line) = lines.next_line().await.expect("a line") {
                if line.contains("waiting for another process") && line.contains("todo.db.lock") {
                    return;
                }
            }
            panic!("{program} exits without a message");
        };
        timeout(STARTING, waiting).await.expect("it logs that it waits");
        child.kill().await.expect("it ends");
    }
    drop(lock);
    assert!(migrate(&url, &[]).await.0);
    let mode = std::fs::metadata(&path).expect("the lock file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The migration files of one database.
fn migrations(database: &str) -> BTreeSet<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(database);
    let names = dir.read_dir().expect("a folder").map(|file| file.expect("a file").file_name());
    names
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".up.sql"))
        .collect()
}

#[test]
fn both_databases_have_the_same_migrations() {
    assert!(!migrations("sqlite").is_empty());
    assert_eq!(migrations("sqlite"), migrations("postgres"));
}

/// Every column of every table, by name.
async fn columns(url: &str) -> Vec<String> {
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        let sql = "SELECT t.name || '.' || c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c \
                   WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1";
        return sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows");
    }
    let mut db = PgConnection::connect(url).await.expect("the server");
    let sql = "SELECT (table_name || '.' || column_name) COLLATE \"C\" FROM information_schema.columns \
               JOIN information_schema.tables USING (table_schema, table_name) \
               WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
}

/// A unit test of `copy` checks only SQLite's schema; this extends it to PostgreSQL.
#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let (file, server) = (url_in(dir.path()), cluster.url());
    assert!(migrate(&file, &[]).await.0 && migrate(&server, &[]).await.0);
    let all = columns(&file).await;
    assert!(all.contains(&"todos.title_key".to_owned()), "{all:?}");
    assert_eq!(all, columns(&server).await);
    cluster.stop().await.expect("it stops");
}

/// A migration is identified by the checksum of its bytes: a checkout must not change line endings.
#[test]
fn no_migration_has_a_carriage_return() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for database in ["sqlite", "postgres"] {
        let dir = root.join("migrations").join(database);
        for file in dir.read_dir().expect("a folder") {
            let path = file.expect("a file").path();
            let bytes = std::fs::read(&path).expect("a file");
            assert!(!bytes.contains(&b'\r'), "{}", path.display());
        }
    }
    let attributes = std::fs::read_to_string(root.join(".gitattributes")).expect("a file");
    assert!(attributes.lines().any(|line| line == "*.sql text eol=lf"), "{attributes}");
}

/// Rows that the library never writes, and that the schema rejects.
#[rustfmt::skip] // a table
const REJECTED: [&str; 39] = [
    "UPDATE users SET email = 'A@b.c'",
    "UPDATE users SET email = 'a'",
    "UPDATE users SET email = 'ada.example.com'",
    "UPDATE users SET email = '@b.co'",
    "UPDATE users SET email = 'ada@'",
    "INSERT INTO users (id, email, name, password_hash, created_at) SELECT todos.id, 'ada.example.com', name, password_hash, users.created_at FROM users, todos",
    "UPDATE users SET name = 'x'",
    "UPDATE users SET name = '   '",
    "INSERT INTO users (id, email, name, password_hash, created_at) SELECT todos.id, 'b@c.de', '  ', password_hash, users.created_at FROM users, todos",
    "UPDATE users SET password_hash = ''",
    "UPDATE sessions SET expires_at = created_at",
    "UPDATE todos SET title = ''",
    "UPDATE todos SET title = ' '",
    "UPDATE todos SET title = '\t\r\n\u{b}\u{c}'",
    "UPDATE todos SET title = '\u{85}\u{a0}\u{1680}\u{2000}\u{2009}\u{200a}'",
    "UPDATE todos SET title = '\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}'",
    "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) SELECT user_id, user_id, ' ', ' ', 1, FALSE, created_at, created_at FROM todos",
    "UPDATE todos SET title = '  ', completed = TRUE, completed_at = created_at",
    "UPDATE todos SET title_key = ''",
    "UPDATE todos SET priority = 4",
    "UPDATE todos SET completed = TRUE",
    "UPDATE todos SET completed_at = created_at",
    "UPDATE todos SET user_id = id",
    "UPDATE todos SET title = NULL",
    "UPDATE todo_counts SET pending = -1",
    "UPDATE todo_counts SET seq = -1",
    "UPDATE todos SET tags = '{}'",
    "UPDATE todos SET tags = NULL",
    "UPDATE todos SET due_minute = 1440",
    "UPDATE todos SET due_date = 1",
    "UPDATE todos SET undated = FALSE",
    "UPDATE todos SET due_minute = 1, due_zone = 'UTC'",
    "UPDATE todos SET due_minute = 1, due_zone = 'UTC', due_at = created_at",
    "UPDATE todos SET rule = 'FREQ=DAILY'",
    "UPDATE todos SET rule_from = 3",
    "INSERT INTO changes (user_id, seq, kind) SELECT user_id, 99, 1 FROM todos",
    "INSERT INTO rate_limits (action, client, slot, taken_at, settled) SELECT '', 'c', 0, created_at, TRUE FROM users",
    "UPDATE sessions SET kind = 'other'",
    "INSERT INTO mails (id, kind, email, created_at, expires_at) SELECT id, 'reset', email, created_at, created_at FROM users",
];

on_every_target! {
    async fn the_schema_rejects_rows_that_the_library_never_writes(target) {
        let app = App::start(target).await;
        let user = app.signed_up().await;
        user.todo("one").await;
        for sql in REJECTED {
            let result = match target.database {
                Database::Sqlite => {
                    let mut db = SqliteConnection::connect(app.database_url()).await.expect("it");
                    sqlx::query(sql).execute(&mut db).await.map(drop)
                }
                Database::Postgres => {
                    let mut db = PgConnection::connect(app.database_url()).await.expect("it");
                    sqlx::query(sql).execute(&mut db).await.map(drop)
                }
            };
            let error = result.expect_err(sql);
            let error = error.as_database_error().expect("a database error");
            assert!(
                error.is_check_violation()
                    // A trigger, in place of a CHECK, on SQLite.
                    || error.message().starts_with("CHECK constraint failed: ")
                    || error.is_foreign_key_violation()
                    || error.kind() == sqlx::error::ErrorKind::NotNullViolation,
                "{sql}: {error}"
            );
        }
    }
}

/// Rows written by the previous version's statements, and by a shell: a user and a todo that break
/// the rules, and on SQLite orphaned todos and an orphaned session.
const BEFORE: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at) VALUES
        (@1, 'ann@example.com', 'Ann Other', '$2b$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy', @now),
        (@2, 'no address', '  ', 'x', @now);
    INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES (@3, @1, @now, @later);
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at, completed_at) VALUES
        (@4, @1, 'Buy milk', 'buy milk', 1, FALSE, @now, @now, NULL),
        (@5, @1, '  ', '  ', 2, FALSE, @now, @now, NULL),
        (@6, @2, 'x', 'x', 3, TRUE, @now, @now, @now);
    INSERT INTO rate_limits (action, client, slot, taken_at, settled) VALUES ('login', '192.0.2.1', 0, @now, TRUE);";

/// Writes of a replica that still runs the previous version.
const BESIDE: &str = "
    INSERT INTO signups (id, email, name, password_hash, created_at, session_id, expires_at)
        VALUES (@7, 'bob@example.com', 'Bob', 'x', @now, @8, @later);
    INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES (@9, @7, @now, @later);
    INSERT INTO rate_limits (action, client, slot, taken_at, settled) VALUES ('login', '192.0.2.1', 1, @now, TRUE)
        ON CONFLICT (action, client, slot) DO UPDATE SET taken_at = excluded.taken_at;
    UPDATE todos SET completed = TRUE, completed_at = @now, updated_at = @later WHERE id = @5;
    UPDATE todos SET title = '  ', title_key = '  ', updated_at = @later WHERE id = @5;
    UPDATE todos SET user_id = @7, completed = FALSE, completed_at = NULL WHERE id = @6;
    UPDATE todos SET user_id = @7 WHERE id = @4;";

/// The statements with ids and times in the database's own format.
pub(super) fn in_dialect(sql: &str, is_sqlite: bool) -> String {
    let mut sql = sql.to_owned();
    for n in 1..=9 {
        let hex = format!("{n}").repeat(32);
        let id = if is_sqlite { format!("x'{hex}'") } else { format!("'{hex}'") };
        let bytes = if is_sqlite { id.clone() } else { format!("'\\x{hex}'") };
        sql = sql.replace(&format!("@{n}_bytes"), &bytes);
        sql = sql.replace(&format!("@{n}"), &id);
    }
    let [now, later] = if is_sqlite {
        ["1800000000000000", "1900000000000000"]
    } else {
        ["to_timestamp(1800000000)", "to_timestamp(1900000000)"]
    };
    sql.replace("@now", now).replace("@later", later)
}

pub(super) async fn run(url: &str, sql: &str) {
    execute_sql(url, &in_dialect(sql, url.starts_with("sqlite:"))).await;
}

/// Rows of text, from either database.
pub(super) async fn rows(url: &str, sql: &str) -> Vec<String> {
    let sql = sqlx::AssertSqlSafe(in_dialect(sql, url.starts_with("sqlite:")));
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        return sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows");
    }
    let mut db = PgConnection::connect(url).await.expect("the server");
    sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
}

const COUNTS: &str = "SELECT email || ' ' || pending || ' ' || completed FROM users \
                      JOIN todo_counts ON user_id = id ORDER BY email";
pub(super) const EPOCH: &str = "SELECT value FROM meta WHERE name = 'epoch'";
const TITLES: &str =
    "SELECT title || CASE WHEN completed THEN ' x' ELSE '' END FROM todos ORDER BY 1";

async fn upgrade_from_previous(url: &str) {
    assert!(migrate(url, &[]).await.0);
    for name in down_to("second line") {
        let (ok, printed) = migrate(url, &["--revert"]).await;
        assert!(ok && printed.contains(name), "{printed}");
    }
    run(url, BEFORE).await;
    if url.starts_with("sqlite:") {
        run(
            url,
            "PRAGMA foreign_keys = OFF;
             INSERT INTO users VALUES (@7, 'gone@example.com', 'Gone', 'x', @now);
             INSERT INTO sessions VALUES (@8, @7, @now, @later);
             INSERT INTO todos SELECT @9, @7, title, title_key, NULL, 1, 0, @now, @now, NULL FROM todos WHERE id = @4;
             DELETE FROM users WHERE id = @7;",
        )
        .await;
    }
    let (ok, printed) = migrate(url, &[]).await;
    assert!(ok && printed.contains("applied 6"), "{printed}");
    assert_eq!(rows(url, TITLES).await, ["  ", "Buy milk", "x x"], "no row is lost");
    assert_eq!(rows(url, COUNTS).await, ["ann@example.com 2 0", "no address 0 1"]);
    assert_eq!(rows(url, "SELECT CAST(count(*) AS text) FROM sessions").await, ["1"]);

    run(url, BESIDE).await;
    assert_eq!(rows(url, TITLES).await, ["   x", "Buy milk", "x"]);
    let counts = ["ann@example.com 0 1", "bob@example.com 2 0", "no address 0 0"];
    assert_eq!(rows(url, COUNTS).await, counts);
    for name in down_to("second line") {
        let (ok, printed) = migrate(url, &["--revert", "--yes"]).await;
        assert!(ok && printed.contains(name), "{printed}");
        assert_eq!(rows(url, TITLES).await, ["   x", "Buy milk", "x"], "down keeps them too");
    }
    assert!(migrate(url, &[]).await.0);
    assert_eq!(rows(url, COUNTS).await, counts);
}

#[tokio::test]
async fn a_database_of_the_previous_version_is_migrated_with_its_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    upgrade_from_previous(&url_in(dir.path())).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    upgrade_from_previous(&cluster.url()).await;

    // TRUNCATE fires no row triggers.
    let url = cluster.url();
    run(&url, "UPDATE todos SET title = 'changed'").await;
    run(&url, "TRUNCATE todo_counts").await;
    let counts = ["ann@example.com 0 1", "bob@example.com 2 0", "no address 0 0"];
    assert_eq!(rows(&url, COUNTS).await, counts, "counted again");
    let numbers = "SELECT CAST(seq AS text) FROM todo_counts ORDER BY seq";
    assert_eq!(rows(&url, numbers).await, ["0", "1", "2"], "no number is given out again");
    let epoch = rows(&url, EPOCH).await;
    run(&url, "TRUNCATE todos").await;
    let counts = ["ann@example.com 0 0", "bob@example.com 0 0", "no address 0 0"];
    assert_eq!(rows(&url, COUNTS).await, counts);
    assert_ne!(rows(&url, EPOCH).await, epoch, "the log misses it: its numbers end");
    run(&url, "TRUNCATE users CASCADE").await;
    assert_eq!(rows(&url, "SELECT CAST(count(*) AS text) FROM todo_counts").await, ["0"]);
    assert_eq!(rows(&url, "SELECT CAST(count(*) AS text) FROM changes").await, ["0"]);
    cluster.stop().await.expect("it stops");
}
