//! Importing the Python backend's database: users log in with their old passwords, invalid rows are
//! reported, and the import is all or nothing.

use std::path::Path;

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_tests::{Client, PROGRAMS, Process, STARTING, command, postgres::Cluster, startup_error};
use tokio::time::timeout;

/// Passwords with their bcrypt hashes, at the Python backend's cost.
const ADA: [&str; 2] = ["Passw0rd", "$2b$12$Qp1zK8vT3mYw5rXc7dLe9uSOMNj7dESdYle5bHiouqg7ZqN2ClcTC"];
const ZOE: [&str; 2] =
    ["Grüße-2024", "$2b$12$nB4hJ6sF2gUa9kZx1oVi3emmp4v0kh0CaJP6zeWdHbZWWzYbBdI82"];

/// The schema of SQLAlchemy with `Uuid`, `DateTime` and `String`, and `password_hash`.
const WITHOUT_ZONE: &str = "
    CREATE TABLE users (id uuid PRIMARY KEY, email varchar(255) NOT NULL UNIQUE, name varchar(100),
        password_hash varchar(255) NOT NULL, created_at timestamp NOT NULL, updated_at timestamp);
    CREATE TABLE todos (id uuid PRIMARY KEY, user_id uuid NOT NULL, title varchar(500),
        description text, priority varchar(10), completed boolean, created_at timestamp NOT NULL,
        updated_at timestamp);
    CREATE TABLE alembic_version (version_num varchar(32));";

/// The schema of SQLAlchemy with `String(36)`, `DateTime(timezone=True)` and `Enum`, and
/// `hashed_password`.
const WITH_ZONE: &str = "
    CREATE TYPE priority AS ENUM ('LOW', 'MEDIUM', 'HIGH');
    CREATE TABLE users (id varchar(36) PRIMARY KEY, email varchar(255) NOT NULL UNIQUE,
        name varchar(100), hashed_password varchar(255) NOT NULL, created_at timestamptz NOT NULL);
    CREATE TABLE todos (id varchar(36) PRIMARY KEY, user_id varchar(36) NOT NULL, title varchar(500),
        description text, priority priority, completed boolean, created_at timestamptz NOT NULL,
        updated_at timestamptz, completed_at timestamptz);
    ALTER ROLE CURRENT_USER SET TIME ZONE 'Asia/Kathmandu';";

/// The schema of SQLAlchemy in an SQLite file.
const SQLITE: &str = "
    CREATE TABLE users (id CHAR(32) PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE,
        name VARCHAR(100), password_hash VARCHAR(255) NOT NULL, created_at DATETIME NOT NULL);
    CREATE TABLE todos (id CHAR(32) PRIMARY KEY, user_id CHAR(32) NOT NULL, title VARCHAR(500),
        description TEXT, priority VARCHAR(6), completed BOOLEAN, created_at DATETIME NOT NULL,
        updated_at DATETIME);";

const ADA_ID: &str = "0a0a0a0a-0000-4000-8000-000000000001";
const ZOE_ID: &str = "0a0a0a0a-0000-4000-8000-000000000002";

/// Two users and 1,201 todos, three of which are compared in detail. `zone` is the suffix of times.
fn valid_rows(hash: &str, zone: &str, priorities: [&str; 2]) -> String {
    let [low, high] = priorities;
    let mut sql = format!(
        "INSERT INTO users (id, email, name, {hash}, created_at) VALUES
         ('{ADA_ID}', 'Ada@Example.COM', ' Ada ', '{}', '2024-05-06 07:08:09.123456{zone}'),
         ('{ZOE_ID}', 'zoe@example.com', 'Zoë', '{}', '2024-05-07 00:00:00{zone}');
         INSERT INTO todos (id, user_id, title, description, priority, completed, created_at, updated_at)
         VALUES
         ('0b0b0b0b-0000-4000-8000-000000000001', '{ADA_ID}', ' Ärger ', NULL, '{low}', false,
          '2024-05-08 01:02:03.000004{zone}', NULL),
         ('0b0b0b0b-0000-4000-8000-000000000002', '{ADA_ID}', 'Buy milk', ' oats ', '{high}', true,
          '2024-05-08 01:02:04{zone}', '2024-05-09 01:02:04{zone}'),
         ('0b0b0b0b-0000-4000-8000-000000000003', '{ADA_ID}', 'x', '', '{high}', true,
          '2024-05-08 01:02:05.000002{zone}', '2024-05-08 01:02:05.000001{zone}')",
        ADA[1], ZOE[1]
    );
    for n in 0..1198 {
        sql += &format!(
            ",('0c0c0c0c-0000-4000-8000-{n:012}', '{ZOE_ID}', 'todo {n}', NULL, '{low}', false, \
             '2024-05-08 02:00:00{zone}', '2024-05-08 02:00:00{zone}')"
        );
    }
    sql + ";"
}

/// Rows that each break one rule, and the import's report of each.
const INVALID: [(&str, &str); 12] = [
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000001', 'no address', 'Bob', '$2b$12$nB4hJ6sF2gUa9kZx1oVi3emmp4v0kh0CaJP6zeWdHbZWWzYbBdI82', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000001: email: Invalid email format.",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000002', 'ZOE@example.com', 'Bob', '$2b$12$nB4hJ6sF2gUa9kZx1oVi3emmp4v0kh0CaJP6zeWdHbZWWzYbBdI82', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000002: email: Email must not be that of another",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000003', 'c@example.com', 'B', 'pbkdf2:sha256:hush', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000003: name: Name must be at least 2 characters. password_hash: Password hash must be a hash",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000004', 'd@example.com', NULL, '$2b$12$hush', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000004: name: Name cannot be null. password_hash: Password hash must be a hash",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000001', '0a0a0a0a-0000-4000-8000-000000000001', '  ', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000001: title: Title cannot be empty.",
    ),
    (
        "INSERT INTO todos SELECT '0e0e0e0e-0000-4000-8000-000000000002', '0a0a0a0a-0000-4000-8000-000000000001', repeat('é', 201), NULL, 'low', false, '2024-06-01', NULL",
        "todos 0e0e0e0e-0000-4000-8000-000000000002: title: Title must be at most 200",
    ),
    (
        "INSERT INTO todos SELECT '0e0e0e0e-0000-4000-8000-000000000003', '0a0a0a0a-0000-4000-8000-000000000001', 'x', repeat('x', 1001), 'low', false, '2024-06-01', NULL",
        "todos 0e0e0e0e-0000-4000-8000-000000000003: description: Description must be at most 1000",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000004', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'urgent', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000004: priority: Priority must be high",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000005', '0f0f0f0f-0000-4000-8000-000000000001', 'x', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000005: user_id: User id must be that of an existing user",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000006', '0d0d0d0d-0000-4000-8000-000000000001', 'x', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000006: user_id: User id must be that of an existing user",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000007', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'low', NULL, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000007: completed: Completed cannot be null.",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000008', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'low', false, 'infinity', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000008: created_at: Created at must be a date and time",
    ),
];

async fn run_program(settings: &[(&str, &str)], arguments: &[&str]) -> (bool, String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = command("todo-server", dir.path(), settings);
    let output = timeout(STARTING, command.args(arguments).output()).await;
    let output = output.expect("an exit in time").expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn import(from: &str, to: &str, more: &[&str]) -> (bool, String, String) {
    // One URL by the environment, one by the option.
    run_program(&[("DATABASE_URL", to), ("IMPORT_FROM", from)], &[&["import"], more].concat()).await
}

fn file(dir: &Path, name: &str) -> String {
    format!("sqlite://{}", dir.join(name).display())
}

/// The URL of a database with this name on the same server.
fn beside(url: &str, name: &str) -> String {
    let mut url = url::Url::parse(url).expect("an address");
    url.set_path(name);
    url.into()
}

/// A new database on the server at `url`, filled by these statements.
async fn database(url: &str, name: &'static str, sql: &str) -> String {
    let mut db = PgConnection::connect(url).await.expect("the server");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut db).await.expect("a database");
    let url = beside(url, name);
    run(&url, sql).await;
    url
}

async fn run(url: &str, sql: &str) {
    let mut db = PgConnection::connect(url).await.expect("the database");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await.expect(sql);
    db.close().await.expect("closed");
}

/// Logs both users in over HTTP, checks their todos, then their new hashes.
async fn check_imported(to: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(hashes(to).await.iter().all(|hash| hash.starts_with("$2b$12$")));
    // A statement may be slow on a machine that runs other tests.
    let settings = [("DATABASE_URL", to), ("DATABASE_TIMEOUT_MS", "20000")];
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr);
    for ([password, _], email, id) in
        [(ADA, "ada@EXAMPLE.com", ADA_ID), (ZOE, "zoe@example.com", ZOE_ID)]
    {
        let wrong = json!({ "email": email, "password": format!("{password}x") });
        client.post("/api/auth/login", wrong).await.problem(401, "invalid_credentials");
        let login = json!({ "email": email, "password": password });
        let session = client.post("/api/auth/login", login).await.expect(200);
        assert_eq!(session["user"]["id"], id);
        let client = client.bearing(session["token"].as_str().expect("a token"));
        let path = format!("/api/users/{id}/todos?sort_by=created_at&order=asc");
        let list = client.get(&path).await.expect(200);
        if id == ZOE_ID {
            assert_eq!(list["total"], 1198);
            continue;
        }
        assert_eq!(session["user"]["email"], "ada@example.com");
        assert_eq!(session["user"]["name"], "Ada");
        assert_eq!(session["user"]["created_at"], "2024-05-06T07:08:09.123456Z");
        let expected = [
            json!({ "title": "Ärger", "description": null, "priority": "low", "completed": false,
                "created_at": "2024-05-08T01:02:03.000004Z",
                "updated_at": "2024-05-08T01:02:03.000004Z", "completed_at": null }),
            json!({ "title": "Buy milk", "description": " oats ", "priority": "high",
                "completed": true, "created_at": "2024-05-08T01:02:04Z",
                "updated_at": "2024-05-09T01:02:04Z",
                "completed_at": "2024-05-09T01:02:04Z" }),
            json!({ "title": "x", "description": "", "priority": "high", "completed": true,
                "created_at": "2024-05-08T01:02:05.000002Z",
                "updated_at": "2024-05-08T01:02:05.000002Z",
                "completed_at": "2024-05-08T01:02:05.000002Z" }),
        ];
        assert_eq!(list["total"], expected.len());
        for (todo, expected) in list["todos"].as_array().expect("todos").iter().zip(&expected) {
            for (name, value) in expected.as_object().expect("an object") {
                assert_eq!(&todo[name], value, "{name} of {todo}");
            }
        }
    }
    server.stop().await;
    assert!(hashes(to).await.iter().all(|hash| hash.starts_with("$argon2id$")), "upgraded");
}

async fn hashes(url: &str) -> Vec<String> {
    let sql = "SELECT password_hash FROM users";
    let hashes: Vec<String> = if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
    } else {
        let mut db = PgConnection::connect(url).await.expect("the database");
        sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
    };
    assert_eq!(hashes.len(), 2);
    hashes
}

#[tokio::test]
async fn users_log_in_with_their_old_passwords_and_are_on_argon2id_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let plain = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    let zoned = WITH_ZONE.to_owned() + &valid_rows("hashed_password", "+00", ["LOW", "HIGH"]);
    let plain = database(&admin, "plain", &plain).await;
    let zoned = database(&admin, "zoned", &zoned).await;
    let targets = [
        (&plain, file(dir.path(), "a.db")),
        (&zoned, file(dir.path(), "b.db")),
        (&plain, database(&admin, "a", "SELECT 1").await),
        (&zoned, database(&admin, "b", "SELECT 1").await),
    ];
    for (from, to) in &targets {
        let (ok, out, err) = import(from, to, &[]).await;
        assert!(ok, "{err}");
        assert_eq!(out, "imported 2 users and 1201 todos\n");
        check_imported(to).await;
        let (ok, _, err) = import(from, to, &[]).await;
        assert!(!ok && err.contains("the target is not empty"), "{err}");
    }
    // The source under another URL is not a valid target either.
    for to in [&plain, &plain.replace("postgres://", "postgresql+asyncpg://")] {
        let (ok, _, err) = import(&plain, to, &[]).await;
        assert!(!ok && err.contains("are the same"), "{err}");
    }
    let (ok, _, err) = import(&plain, &zoned, &[]).await;
    assert!(!ok && err.contains("not of this program"), "{err}");
    let (ok, _, err) = import(&admin, &file(dir.path(), "c.db"), &[]).await;
    assert!(!ok && err.contains("no table users"), "{err}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_file_of_the_python_backend_is_imported_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (file(dir.path(), "old.db"), file(dir.path(), "new.db"));
    let simple = |sql: String| {
        let ids = sql.split('\'').map(|part| match uuid::Uuid::try_parse(part) {
            Ok(id) => id.simple().to_string(),
            Err(_) => part.to_owned(),
        });
        ids.collect::<Vec<_>>().join("'")
    };
    let sql = SQLITE.to_owned() + &simple(valid_rows("password_hash", "", ["LOW", "high"]));
    let mut db = SqliteConnection::connect(&format!("{from}?mode=rwc")).await.expect("a file");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.expect("rows");
    let (ok, _, err) = run_program(&[("DATABASE_URL", &to)], &["import", "--from", &from]).await;
    assert!(ok, "{err}");
    check_imported(&to).await;

    let nul = simple(format!(
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000001', '{ADA_ID}', \
         'a' || char(0), NULL, 'low', 0, '2024-06-01 00:00:00', NULL)"
    ));
    sqlx::raw_sql(sqlx::AssertSqlSafe(nul)).execute(&mut db).await.expect("a row");
    let other = file(dir.path(), "other.db");
    let (ok, _, err) = import(&from, &other, &[]).await;
    assert!(
        !ok && err.contains("title: Title cannot contain the null character (U+0000)."),
        "{err}"
    );
    // Two spellings of one id are two keys in a text column.
    let twice = "UPDATE todos SET id = '0b0b0b0b-0000-4000-8000-000000000001', title = 'twice' \
                 WHERE created_at LIKE '2024-06-01%'";
    sqlx::raw_sql(twice).execute(&mut db).await.expect("a row");
    let (ok, _, err) = import(&from, &other, &[]).await;
    assert!(!ok && err.contains("id: Id must not be that of another todo"), "{err}");
    let (ok, out, err) = import(&from, &other, &["--skip-invalid"]).await;
    assert!(ok && out.contains("skipped 1 rows"), "{out}{err}");
    let (ok, _, err) = import(&from, &format!("{from}?mode=rw"), &[]).await;
    assert!(!ok && err.contains("are the same"), "{err}");
}

/// Hashes with excessive cost parameters, and internationalised addresses.
#[tokio::test]
async fn costly_hashes_are_reported_and_international_addresses_are_imported() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (file(dir.path(), "old.db"), file(dir.path(), "new.db"));
    let mut db = SqliteConnection::connect(&format!("{from}?mode=rwc")).await.expect("a file");
    let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
    let users = [
        ("1", "Jörg@EXÄMPLE.com", ADA[1].to_owned()),
        ("2", "jo\u{308}rg@xn--exmple-cua.com", ADA[1].to_owned()),
        ("3", "用户@例え.テスト", format!("$argon2id$v=19$m=65536,t=3,p=4${tail}")),
        ("4", "d@example.com", ADA[1].replace("$12$", "$31$")),
        ("5", "e@example.com", ADA[1].replace("$12$", "$16$")),
        ("6", "f@example.com", format!("$argon2id$v=19$m=2097152,t=1,p=1${tail}")),
        ("7", "g@example.com", format!("$argon2id$v=19$m=65536,t=11,p=1${tail}")),
        ("8", "h@example.com", "$argon2id$v=19$m=19456,t=2,p=1".to_owned()),
    ];
    let mut sql = SQLITE.to_owned();
    for (id, email, hash) in &users {
        let id = id.repeat(32);
        sql += &format!(
            "INSERT INTO users VALUES ('{id}', '{email}', 'Some Body', '{hash}', \
             '2024-06-01 00:00:0{}');",
            &id[..1]
        );
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.expect("rows");
    let (ok, _, err) = import(&from, &to, &[]).await;
    assert!(!ok);
    let named: Vec<_> = err.lines().filter(|line| line.starts_with("users ")).collect();
    assert_eq!(named.len(), 6, "{err}");
    assert!(named[0].contains(&"2".repeat(32)) && named[0].contains("email: "), "{err}");
    for (line, id) in named[1..].iter().zip(["4", "5", "6", "7", "8"]) {
        assert!(line.contains(&id.repeat(32)) && line.contains("password_hash: "), "{line}");
        assert!(!line.contains("$2b$") && !line.contains("$argon2"), "{line}");
    }
    let (ok, out, err) = import(&from, &to, &["--skip-invalid"]).await;
    assert!(ok && out.contains("2 users"), "{out}{err}");
    let mut db = SqliteConnection::connect(&to).await.expect("the file");
    let emails: Vec<String> = sqlx::query_scalar("SELECT email FROM users ORDER BY created_at")
        .fetch_all(&mut db)
        .await
        .expect("rows");
    assert_eq!(emails, ["jörg@exämple.com", "用户@例え.テスト"]);
}

#[tokio::test]
async fn invalid_rows_are_reported_and_stop_the_import_before_any_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let mut sql = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    for (row, _) in INVALID {
        sql += row;
        sql += ";";
    }
    let from = database(&admin, "source", &sql).await;
    let path = dir.path().join("a.db");
    let to = file(dir.path(), "a.db");

    let (ok, out, err) = import(&from, &to, &[]).await;
    assert!(!ok && out.is_empty());
    for (_, named) in INVALID {
        assert_eq!(err.matches(named).count(), 1, "{named} in {err}");
    }
    assert_eq!(err.lines().count(), INVALID.len() + 1, "{err}");
    assert!(err.ends_with("12 of the source's rows break a rule: nothing was written\n"), "{err}");
    assert!(!err.contains("hush") && !err.contains("$2b$"), "a hash is printed: {err}");
    assert!(!path.exists(), "no file is created");

    let (ok, out, err) = import(&from, &to, &["--skip-invalid"]).await;
    assert!(ok, "{err}");
    assert_eq!(out, "imported 2 users and 1201 todos\nskipped 12 rows\n");
    assert_eq!(err.lines().count(), INVALID.len(), "{err}");
    check_imported(&to).await;

    // The report is truncated, with the number of the rest.
    let many = "INSERT INTO todos SELECT gen_random_uuid(), gen_random_uuid(), 'x', NULL, 'low', false, \
                '2024-06-01', NULL FROM generate_series(1, 1500)";
    run(&from, many).await;
    let (ok, _, err) = import(&from, &file(dir.path(), "b.db"), &[]).await;
    assert!(!ok);
    assert_eq!(err.lines().count(), 102, "{err}");
    assert!(err.contains("and 1412 more") && err.contains("1512 of the source's rows"), "{err}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_failure_half_way_leaves_the_target_without_rows() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let sql = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    let from = database(&admin, "source", &sql).await;
    let to = database(&admin, "target", "SELECT 1").await;
    assert!(run_program(&[("DATABASE_URL", &to)], &["migrate"]).await.0);
    run(
        &to,
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT count(*) FROM todos) > 600 THEN RAISE EXCEPTION 'full'; END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER trap AFTER INSERT ON todos EXECUTE FUNCTION trap();",
    )
    .await;
    let (ok, _, err) = import(&from, &to, &[]).await;
    assert!(!ok && err.lines().count() == 1 && err.contains("full"), "{err}");
    let mut db = PgConnection::connect(&to).await.expect("the database");
    let left: i64 =
        sqlx::query_scalar("SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM todos)")
            .fetch_one(&mut db)
            .await
            .expect("a number");
    assert_eq!(left, 0);
    cluster.stop().await.expect("it stops");
}

/// Every command that opens the database at `url` rejects it with `named` in its message.
async fn assert_all_reject(url: &str, named: &str) {
    let settings = [("DATABASE_URL", url)];
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a directory");
        let printed = startup_error(program, dir.path(), &settings).await;
        assert!(printed.contains(named), "{program}: {printed}");
        assert_eq!(dir.path().read_dir().expect("it").count(), 0, "{program} leaves a file");
    }
    for arguments in [
        &["migrate"][..],
        &["migrate", "--status"],
        &["migrate", "--revert", "--yes"],
        &["doctor"],
        &["copy", "--from", url, "--to", "sqlite://copy.db"],
        &["import", "--from", "sqlite://nowhere.db"],
    ] {
        let (ok, out, err) = run_program(&settings, arguments).await;
        assert!(!ok, "{arguments:?}: {out}{err}");
        if arguments[0] != "import" {
            assert!(format!("{out}{err}").contains(named), "{arguments:?}: {out}{err}");
        }
    }
}

const PYTHON: &str = "todo-server import --from";

#[tokio::test]
async fn a_file_of_another_program_is_rejected_and_left_unchanged() {
    for (sql, named) in [
        (SQLITE, PYTHON),
        ("CREATE TABLE users (id INTEGER)", "another program (users)"),
        ("CREATE TABLE notes (id INTEGER); CREATE VIEW old AS SELECT * FROM notes", "(notes, old)"),
        (
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                installed_on TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
                execution_time BIGINT NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (1, 'other', NULL, TRUE, x'00', 1)",
            "another program",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let url = file(dir.path(), "old.db");
        let mut db = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.expect("a file");
        sqlx::raw_sql(sql).execute(&mut db).await.expect("tables");
        db.close().await.expect("closed");
        let before = std::fs::read(dir.path().join("old.db")).expect("a file");
        assert_all_reject(&url, named).await;
        assert!(std::fs::read(dir.path().join("old.db")).expect("a file") == before, "{named}");
        assert_eq!(dir.path().read_dir().expect("it").count(), 1, "{named}: a file is left");
    }
}

/// The names of all tables.
async fn tables(url: &str) -> Vec<String> {
    let mut db = PgConnection::connect(url).await.expect("the database");
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' \
               AND relnamespace = 'public'::regnamespace ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
}

#[tokio::test]
async fn a_postgres_database_of_another_program_is_rejected_and_left_unchanged() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    // An earlier release left its own table when it failed there.
    let left =
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
        installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
        checksum bytea NOT NULL, execution_time bigint NOT NULL);";
    for (name, sql, named) in [
        ("plain", WITHOUT_ZONE.to_owned(), PYTHON),
        ("zoned", WITH_ZONE.to_owned(), PYTHON),
        ("failed", format!("{WITHOUT_ZONE}{left}"), PYTHON),
        ("other", "CREATE TABLE sessions (id int)".to_owned(), "another program (sessions)"),
    ] {
        let url = database(&admin, name, &sql).await;
        let before = tables(&url).await;
        assert_all_reject(&url, named).await;
        assert_eq!(tables(&url).await, before, "{name}");
    }
    // Another schema of that database is empty; the leftover table alone is not foreign.
    let left = database(&admin, "left_alone", left).await;
    let shared =
        database(&admin, "shared", "CREATE TABLE notes (id int); CREATE SCHEMA todo").await;
    for url in [left, format!("{shared}?options=-c%20search_path%3Dtodo")] {
        let (ok, out, err) = run_program(&[("DATABASE_URL", &url)], &["migrate"]).await;
        assert!(ok && out.contains("applied 1"), "{out}{err}");
    }
    cluster.stop().await.expect("it stops");
}
