//! Importing the Python backend's database: users log in with their old passwords, invalid rows are
//! reported, and the import is all or nothing.

mod foreign_databases;
mod invalid_rows;
mod valid_databases;

use std::path::Path;

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_tests::{Client, Process, STARTING, command};
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
