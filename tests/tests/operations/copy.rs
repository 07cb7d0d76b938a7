//! Copying a whole database: a round trip is lossless, a copy is all or nothing, and sessions
//! survive it.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio};

use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_core::{Core, Secret, auth::delete_left_rows};
use todo_tests::{
    Process, STARTING, built, command, count_rows, execute_sql, postgres::Cluster, raw,
};
use tokio::time::timeout;

async fn run(settings: &[(&str, &str)], arguments: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = command("todo-server", dir.path(), settings);
    let output = timeout(STARTING, command.args(arguments).output()).await;
    let output = output.expect("an end in time").expect("the program runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).expect("UTF-8"))
}

async fn copy(from: &str, to: &str) -> (bool, String) {
    run(&[], &["copy", "--from", from, "--to", to]).await
}

fn file(dir: &Path, name: &str) -> String {
    format!("sqlite://{}", dir.join(name).display())
}

/// A database of 20 users with a session and 100 todos each.
async fn filled(url: &str) {
    filled_with(url, "100").await;
}

/// As [`filled`], with `todos` todos each.
async fn filled_with(url: &str, todos: &str) {
    assert!(run(&[("DATABASE_URL", url)], &["migrate"]).await.0);
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let fill = "
        INSERT INTO users (id, email, name, password_hash, created_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
        SELECT randomblob(16), 'u' || i || '@example.com', 'Zoë ' || i, '$argon2id$x', 1700000000000000 + i
        FROM n;
        INSERT INTO sessions (id, user_id, created_at, expires_at) SELECT randomblob(16), id, 1700000000000001, 4000000000000000 FROM users;
        INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
            updated_at, completed_at)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @TODOS@)
        SELECT randomblob(16), id, 'Ärger ' || i, 'ärger ' || i, iif(i % 3, 'd' || i, NULL), 1 + i % 3,
               i % 2, 1700000000000000 + i, 1700000000000007 + i, iif(i % 2, 1700000000000005, NULL)
        FROM users, n;
        UPDATE todos SET search = title_key, tags = '[\"a\",\"b\"]', list_id = user_id, parent_id = id,
            position = 'a0', due_date = 20000, due_minute = 61, due_zone = 'Europe/Berlin',
            due_at = 1728000000000000, undated = 0, due_key = 28800061, rule = 'FREQ=DAILY', rule_from = 2,
            series_id = id, occurrence = 20000, reminders = '[5,60]', ical = 'X-A:1'
        WHERE title = 'Ärger 7';
        INSERT INTO lists SELECT id, id, 'Liste ' || email, '#a0b1c2', created_at, created_at + 1,
            iif(email < 'u2', created_at + 2, NULL) FROM users;
        INSERT INTO trash SELECT todos.*, 1800000000000000 FROM todos
        WHERE title IN ('Ärger 3', 'Ärger 7');
        INSERT INTO idempotency SELECT id, 'key ' || email, x'00ff', 201, '{}', '/todos/1', NULL, 1800000000000000
        FROM users;
        UPDATE users SET time_zone = 'Europe/Berlin', reminder_mail = 1 WHERE email = 'u7@example.com';
        INSERT INTO identities SELECT id, 'https://issuer.example', email, id, email, 1, name, created_at,
            iif(email < 'u2', 1750000000000000, NULL) FROM users;
        INSERT INTO revoked_tokens SELECT id, 4000000000000000 FROM users;
        UPDATE sessions SET kind = 'external', identity_id = user_id;
        INSERT INTO reminders SELECT id, id, id, 5, NULL, 1728000000000000, 1727999700000000,
            1727000000000000, iif(email < 'u2', 1727999700000001, NULL), email < 'u2' FROM users;
        INSERT INTO reminders SELECT randomblob(16), id, id, 5, 20000, NULL, NULL, NULL, NULL, 0
            FROM users;
        INSERT INTO webhooks SELECT id, 'https://hooks.example.com/' || email, randomblob(32), created_at, created_at + 1,
            created_at + 2, 'status 500', created_at + 2, 3, iif(email < 'u2', created_at + 4, NULL),
            created_at + 3, NULL, NULL FROM users;
        INSERT INTO webhook_deliveries SELECT id, id, created_at, 2, created_at + 9 FROM users;
        INSERT INTO idempotency SELECT id, 'other', x'', 200, '[]', NULL, '1-x', 1800000000000001 FROM users;";
    let fill = sqlx::AssertSqlSafe(fill.replace("@TODOS@", todos));
    sqlx::raw_sql(fill).execute(&mut db).await.expect("rows");
    db.close().await.expect("closed");
}

/// The rows of [`filled`] that are not todos: of 20 users, each with a session, an identity, a
/// revoked token, two deleted todos, two idempotency keys, counts, two tags, two tagged todos, a
/// list and its counts, two reminders, a webhook and a delivery.
const OTHER_ROWS: usize = 20 * (1 + 1 + 1 + 1 + 2 + 2 + 1 + 2 + 2 + 1 + 1 + 2 + 1 + 1);

/// All rows of all tables except the rate limits, as text.
async fn rows(url: &str) -> Vec<String> {
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let sql = "
        SELECT concat_ws('|', hex(id), email, name, password_hash, created_at, quote(time_zone), reminder_mail) FROM users
        UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), created_at, expires_at, kind, quote(identity_id)) FROM sessions
        UNION ALL SELECT concat_ws('|', hex(id), issuer, subject, hex(user_id), email, email_verified, name,
            created_at, quote(not_before)) FROM identities
        UNION ALL SELECT concat_ws('|', hex(id), expires_at) FROM revoked_tokens
        UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), title, title_key, quote(description),
            priority, completed, created_at, updated_at, quote(completed_at), quote(search), tags,
            quote(list_id), quote(parent_id), quote(position), quote(due_date), quote(due_minute),
            quote(due_zone), quote(due_at), undated, due_key, quote(rule), quote(rule_from),
            quote(series_id), quote(occurrence), reminders, quote(ical)) FROM todos
        UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), title, title_key, quote(description),
            priority, completed, created_at, updated_at, quote(completed_at), quote(search), tags,
            quote(list_id), quote(parent_id), quote(position), quote(due_date), quote(due_minute),
            quote(due_zone), quote(due_at), undated, due_key, quote(rule), quote(rule_from),
            quote(series_id), quote(occurrence), reminders, quote(ical), deleted_at) FROM trash
        UNION ALL SELECT concat_ws('|', hex(user_id), key, hex(fingerprint), status, answer,
            quote(location), quote(etag), made_at) FROM idempotency
        UNION ALL SELECT concat_ws('|', hex(user_id), pending, completed) FROM todo_counts
        UNION ALL SELECT concat_ws('|', hex(user_id), tag, pending, completed) FROM tags
        UNION ALL SELECT concat_ws('|', hex(user_id), tag, completed, created_at, hex(todo_id)) FROM todo_tags
        UNION ALL SELECT concat_ws('|', hex(list_id), hex(user_id), pending, completed) FROM list_counts
        UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), name, quote(color), created_at, updated_at,
            quote(deleted_at)) FROM lists
        UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), hex(todo_id), minutes_before, quote(due_date),
            quote(due_at), quote(fire_at), quote(written_at), quote(fired_at), is_late) FROM reminders
        UNION ALL SELECT concat_ws('|', hex(user_id), url, hex(secret), created_at, quote(last_success_at),
            quote(last_failure_at), quote(last_failure), quote(failing_since), failures, quote(off_at),
            quote(paused_until)) FROM webhooks
        UNION ALL SELECT concat_ws('|', hex(reminder_id), hex(user_id), created_at, attempts, next_attempt_at)
            FROM webhook_deliveries
        ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
}

async fn epoch(url: &str) -> String {
    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let sql = "SELECT value FROM meta WHERE name = 'epoch'";
    sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("an epoch")
}

#[tokio::test]
async fn a_round_trip_is_lossless_and_the_target_must_be_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let (here, there, back) = (file(dir.path(), "a.db"), cluster.url(), file(dir.path(), "b.db"));
    filled(&here).await;

    let (ok, out) = copy(&here, &there).await;
    assert!(ok && out.contains("copied 20 users, 20 sessions and 2000 todos"), "{out}");
    // PostgreSQL's triggers were off during the copy.
    let mut db = PgConnection::connect(&there).await.expect("the server");
    let wrong = "SELECT count(*) FROM todo_counts AS c WHERE (pending, completed) <> \
         (SELECT count(*) FILTER (WHERE NOT completed), count(*) FILTER (WHERE completed) \
         FROM todos WHERE user_id = c.user_id)";
    assert_eq!(sqlx::query_scalar::<_, i64>(wrong).fetch_one(&mut db).await.expect("it"), 0);
    let again = "BEGIN; INSERT INTO todos (id, user_id, title, title_key, priority, completed, \
         created_at, updated_at) SELECT gen_random_uuid(), user_id, 'new', 'new', 1, FALSE, now(), \
         now() FROM todo_counts";
    sqlx::raw_sql(again).execute(&mut db).await.expect("rows");
    assert_eq!(sqlx::query_scalar::<_, i64>(wrong).fetch_one(&mut db).await.expect("it"), 0);
    let logged = "SELECT count(*) FROM changes JOIN todo_counts USING (user_id, seq)";
    assert_eq!(sqlx::query_scalar::<_, i64>(logged).fetch_one(&mut db).await.expect("it"), 20);
    sqlx::raw_sql("ROLLBACK").execute(&mut db).await.expect("an end");
    let (ok, same) = copy(&there, &back).await;
    assert!(ok, "{same}");
    assert_eq!(out, same, "count and checksum");
    let before = rows(&here).await;
    assert_eq!(before.len(), 2000 + OTHER_ROWS);
    assert_eq!(rows(&back).await, before);
    // A position in the log of one is none in the log of another.
    let epochs: BTreeSet<_> = [epoch(&here).await, epoch(&back).await].into();
    assert_eq!(epochs.len(), 2);
    // The target's own log is whole.
    let mut db = SqliteConnection::connect(&back).await.expect("the file");
    let whole =
        "SELECT sum(seq) = (SELECT count(*) FROM changes) AND min(seq) = 103 FROM todo_counts";
    assert!(sqlx::query_scalar::<_, bool>(whole).fetch_one(&mut db).await.expect("it"));

    for (from, to) in [(&here, &there), (&there, &back), (&here, &here)] {
        let (ok, printed) = copy(from, to).await;
        assert!(!ok && printed.lines().count() == 1, "{printed}");
        assert!(printed.contains("not empty") || printed.contains("the same"), "{printed}");
    }
    assert_eq!(rows(&back).await, before, "a rejected copy changes nothing");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_failure_half_way_leaves_the_target_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let (here, cluster) = filled_and_migrated(dir.path()).await;
    let there = cluster.url();
    let mut db = PgConnection::connect(&there).await.expect("the server");
    let trap = "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF (SELECT count(*) FROM todos) > 1000 THEN RAISE EXCEPTION 'full'; END IF;
                    RETURN NULL; END $$;
                CREATE TRIGGER trap AFTER INSERT ON todos EXECUTE FUNCTION trap();";
    sqlx::raw_sql(trap).execute(&mut db).await.expect("a trap");
    let (ok, printed) = copy(&here, &there).await;
    assert!(!ok && printed.starts_with("error: "), "{printed}");
    assert_eq!(left(&there).await, 0);
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn sessions_and_keys_survive_the_copy() {
    const SECRET: (&str, &str) = ("SECRET_KEY", "0123456789abcdef-0123456789abcdef-0123456789");
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let (here, there) = (file(dir.path(), "a.db"), cluster.url());

    let old = Process::start("todo-server", dir.path(), &[SECRET, ("DATABASE_URL", &here)]).await;
    let body = r#"{"email":"ada@example.com","password":"Correct1horse","name":"Ada"}"#;
    let request = format!(
        "POST /api/auth/signup HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = String::from_utf8(raw(old.addr, request.as_bytes()).await).expect("UTF-8");
    let (_, rest) = answer.split_once("\"eyJ").unwrap_or_else(|| panic!("no token: {answer}"));
    let token = format!("eyJ{}", rest.split('"').next().unwrap_or_default());
    let body =
        r#"{"name":"n","scopes":["account:read"],"expires_in_days":1,"password":"Correct1horse"}"#;
    let request = format!(
        "POST /api/auth/keys HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = String::from_utf8(raw(old.addr, request.as_bytes()).await).expect("UTF-8");
    let (_, rest) = answer.split_once("\"todo_").unwrap_or_else(|| panic!("no key: {answer}"));
    let key = format!("todo_{}", rest.split('"').next().unwrap_or_default());
    old.stop().await;

    let (ok, printed) = copy(&here, &there).await;
    assert!(ok, "{printed}");
    let new = Process::start("todo-server", dir.path(), &[SECRET, ("DATABASE_URL", &there)]).await;
    for credential in [&token, &key] {
        let request = format!(
            "GET /api/auth/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {credential}\r\n\r\n"
        );
        let answer = String::from_utf8(raw(new.addr, request.as_bytes()).await).expect("UTF-8");
        let is_known = answer.starts_with("HTTP/1.1 200") && answer.contains("ada@example.com");
        assert!(is_known, "{answer}");
    }
    new.stop().await;
    cluster.stop().await.expect("it stops");
}

/// Progress is for people, not for logs.
#[tokio::test]
async fn progress_is_shown_only_on_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (file(dir.path(), "a.db"), file(dir.path(), "b.db"));
    filled(&from).await;
    let line = format!("{} copy --from {from} --to {to}", built("todo-server").display());
    let mut terminal = tokio::process::Command::new("script");
    let terminal = terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let seen = timeout(STARTING, terminal.output()).await.expect("an end").expect("script runs");
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("/2260") && seen.contains("2000 todos"), "{seen}");
    fs::remove_file(dir.path().join("b.db")).expect("the copy");
    let (ok, printed) = copy(&from, &to).await;
    assert!(ok && !printed.contains("/2180") && printed.contains("2000 todos"), "{printed}");
}

/// A filled SQLite database in `dir`, and a PostgreSQL server with the empty schema.
async fn filled_and_migrated(dir: &Path) -> (String, Cluster) {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let here = file(dir, "a.db");
    filled(&here).await;
    assert!(run(&[("DATABASE_URL", &cluster.url())], &["migrate"]).await.0);
    (here, cluster)
}

/// The number of users and todos in the PostgreSQL database at `url`.
async fn left(url: &str) -> i64 {
    let mut db = PgConnection::connect(url).await.expect("the server");
    let sql = "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM todos)";
    sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn a_hundred_thousand_todos_come_back_equal_in_bounded_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let (here, there, back) = (file(dir.path(), "a.db"), cluster.url(), file(dir.path(), "b.db"));
    filled_with(&here, "5000").await;
    for (from, to) in [(&here, &there), (&there, &back)] {
        let mut child = command("todo-server", dir.path(), &[])
            .args(["copy", "--from", from, "--to", to])
            .spawn()
            .expect("the program runs");
        let status = format!("/proc/{}/status", child.id().expect("it runs"));
        let mut most_kib = 0;
        let ended = timeout(5 * STARTING, async {
            loop {
                // The high-water mark only rises; the last value read is from near the end.
                let mark = fs::read_to_string(&status).unwrap_or_default();
                let mark = mark.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib = mark.and_then(|mark| mark.split_whitespace().next()?.parse().ok());
                most_kib = most_kib.max(kib.unwrap_or(0));
                if let Some(ended) = child.try_wait().expect("a child") {
                    break ended;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        assert!(ended.await.expect("an end in time").success());
        println!("{most_kib} KiB at most");
        assert!((1..100 << 10).contains(&most_kib), "{most_kib} KiB");
    }
    let before = rows(&here).await;
    assert_eq!(before.len(), 100_000 + OTHER_ROWS);
    assert!(rows(&back).await == before, "the rows differ");
    cluster.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_killed_half_way_leaves_the_target_without_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let (here, cluster) = filled_and_migrated(dir.path()).await;
    let there = cluster.url();
    // This lock holds it half-way: after the users, before the todos.
    let mut db = PgConnection::connect(&there).await.expect("the server");
    let slow = "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF (SELECT count(*) FROM todos) >= 1000 THEN
                        PERFORM pg_advisory_xact_lock(42);
                    END IF;
                    RETURN NULL; END $$;
                CREATE TRIGGER stay AFTER INSERT ON todos EXECUTE FUNCTION stay();
                SELECT pg_advisory_lock(42);";
    sqlx::raw_sql(slow).execute(&mut db).await.expect("a lock");
    for signal in ["INT", "TERM", "KILL"] {
        let mut child = command("todo-server", dir.path(), &[])
            .args(["copy", "--from", &here, "--to", &there])
            .spawn()
            .expect("the program runs");
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        let half_way = async {
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut db).await.expect("it") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        timeout(STARTING, half_way).await.expect("it reaches the lock");
        let id = child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("kill runs").success());
        let ended = timeout(STARTING, child.wait()).await.expect("an end in time");
        assert!(!ended.expect("a status").success());
        assert_eq!(left(&there).await, 0, "after {signal}");
        // The program's server process is still waiting.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
                   WHERE locktype = 'advisory' AND NOT granted";
        sqlx::raw_sql(end).execute(&mut db).await.expect("it");
    }
    sqlx::raw_sql("DROP TRIGGER stay ON todos").execute(&mut db).await.expect("it");
    let (ok, printed) = copy(&here, &there).await;
    assert!(ok, "a later copy succeeds: {printed}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_copy_that_differs_is_not_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (here, cluster) = filled_and_migrated(dir.path()).await;
    let there = cluster.url();
    let mut db = PgConnection::connect(&there).await.expect("the server");
    let alter = "CREATE FUNCTION alter_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.email = 'u7@example.com' THEN NEW.name := 'Other'; END IF;
                     RETURN NEW; END $$;
                 CREATE TRIGGER alter_one BEFORE INSERT ON users
                     FOR EACH ROW EXECUTE FUNCTION alter_one();";
    sqlx::raw_sql(alter).execute(&mut db).await.expect("a trigger");
    let (ok, printed) = copy(&here, &there).await;
    assert!(!ok && printed.contains("differs"), "{printed}");
    assert_eq!(left(&there).await, 0);
    cluster.stop().await.expect("it stops");
}

/// Its rows are deleted in the target, as they would be in the source.
#[tokio::test]
async fn an_account_whose_rows_are_being_deleted_is_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let from = file(dir.path(), "from.db");
    filled(&from).await;
    let mark = "UPDATE users SET deleted_at = 1800000000000000, name = 'deleted', password_hash = '!',
            email = lower(hex(id)) || '@users.invalid' WHERE email = 'u1@example.com';
        DELETE FROM todo_counts WHERE user_id IN (SELECT id FROM users WHERE deleted_at > 0);
        DELETE FROM todos WHERE user_id IN (SELECT id FROM users WHERE deleted_at > 0) AND completed;";
    execute_sql(&from, mark).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    for to in [file(dir.path(), "to.db"), cluster.url()] {
        let (is_copied, printed) = copy(&from, &to).await;
        assert!(is_copied, "{printed}");
        assert_eq!(count_rows(&to, "SELECT count(*) FROM todos").await, 19 * 100 + 50);
        let secret = Secret::new(todo_tests::SECRET).expect("a secret");
        let core = Core::builder(secret).open(&to).await.expect("it opens");
        assert!(delete_left_rows(&core).await.expect("the rows are deleted"));
        core.close().await;
        assert_eq!(count_rows(&to, "SELECT count(*) FROM users").await, 19);
        for table in ["todos", "todo_counts"] {
            let sql = format!("SELECT count(*) FROM {table}");
            let expected = if table == "todos" { 1900 } else { 19 };
            assert_eq!(count_rows(&to, &sql).await, expected, "{table}");
        }
    }
    cluster.stop().await.expect("PostgreSQL stops");
}
