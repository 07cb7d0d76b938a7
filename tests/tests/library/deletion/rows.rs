//! The rows of a user, table by table.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_tests::{Actor, App, Database, clone_the_only_todo, count_rows, execute_sql};

use super::start;

/// The tables with rows of a user.
pub(super) const TABLES: [&str; 14] = [
    "sessions",
    "todos",
    "todo_counts",
    "changes",
    "trash",
    "idempotency",
    "mails",
    "lists",
    "list_counts",
    "tags",
    "todo_tags",
    "reminders",
    "webhooks",
    "webhook_deliveries",
];
/// Tables with rows of a user, of which [`with_rows`] makes none.
const OTHERS: [&str; 2] = ["identities", "oauth_codes"];

/// The user's id as a literal of SQL.
pub(super) fn literal(app: &App, user: &str) -> String {
    match app.target().database {
        Database::Sqlite => format!("x'{}'", user.replace('-', "")),
        Database::Postgres => format!("'{user}'"),
    }
}

/// The number of rows of a user in `users`, and in each table. A deletion may run meanwhile: the
/// account is counted first, since its row is deleted last.
pub(super) async fn rows(app: &App, user: &str) -> Vec<(&'static str, i64)> {
    let id = literal(app, user);
    let sql = format!("SELECT count(*) FROM users WHERE id = {id}");
    let mut rows = vec![("users", count_rows(app.database_url(), &sql).await)];
    for table in TABLES {
        let sql = format!("SELECT count(*) FROM {table} WHERE user_id = {id}");
        rows.push((table, count_rows(app.database_url(), &sql).await));
    }
    let sql = format!("SELECT count(*) FROM rate_limits WHERE client = '{user}'");
    rows.push(("rate_limits", count_rows(app.database_url(), &sql).await));
    rows
}

pub(super) fn nothing() -> Vec<(&'static str, i64)> {
    let tables = ["users"].into_iter().chain(TABLES).chain(["rate_limits"]);
    tables.map(|table| (table, 0)).collect()
}

/// A user with rows in all tables, and `count` todos.
pub(super) async fn with_rows(app: &App, count: i64) -> Actor {
    let ann = app.signed_up().await;
    ann.todo("t").await;
    clone_the_only_todo(app.database_url(), count - 1).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    ann.send("POST", &ann.todos(), &headers, json!({"title": "keyed"}).to_string())
        .await
        .expect(201);
    for _ in 0..3 {
        let todo = ann.todo("to delete").await;
        let path = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
        ann.delete(&path).await.expect(200);
    }
    let lists = format!("/api/users/{}/lists", ann.id());
    let list = ann.post(&lists, json!({"name": "l"})).await.expect(201);
    let planned = json!({
        "title": "planned", "tags": ["x", "y"], "list_id": list["id"],
        "due": {"date": "2999-12-01", "time": "09:30", "time_zone": "UTC"},
        "reminders": [{"minutes_before": 5}],
    });
    ann.post(&ann.todos(), planned).await.expect(201);
    let webhook = format!("/api/users/{}/webhook", ann.id());
    ann.put(&webhook, json!({"url": "https://example.com/"})).await.expect(200);
    // As if it had fired; it is not sent before the year 2999.
    let queued = "INSERT INTO webhook_deliveries \
        (reminder_id, user_id, created_at, next_attempt_at) \
        SELECT id, user_id, fire_at, fire_at FROM reminders";
    execute_sql(app.database_url(), queued).await;
    ann.get("/api/auth/export").await.expect(200);
    let filled: Vec<_> = rows(app, ann.id()).await;
    let filled = filled.iter().filter(|(table, rows)| *rows > 0 || *table == "mails");
    assert_eq!(filled.count(), TABLES.len() + 2);
    ann
}

/// The names that a query returns.
async fn names(app: &App, sql: &'static str) -> BTreeSet<String> {
    let url = app.database_url();
    let rows: Vec<(String,)> = match app.target().database {
        Database::Sqlite => {
            let mut db = SqliteConnection::connect(url).await.expect("the database file");
            sqlx::query_as(sql).fetch_all(&mut db).await.expect("names")
        }
        Database::Postgres => {
            let mut db = PgConnection::connect(url).await.expect("the database server");
            sqlx::query_as(sql).fetch_all(&mut db).await.expect("names")
        }
    };
    rows.into_iter().map(|(name,)| name).collect()
}

on_both_databases! {
    // A new table with rows of users is added to the tests of the deletion.
    async fn every_table_with_rows_of_users_is_known(database) {
        let app = start(database).await;
        let sql = match database {
            Database::Sqlite => {
                "SELECT t.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c \
                 WHERE t.type = 'table' AND c.name = 'user_id'"
            }
            Database::Postgres => {
                "SELECT CAST(c.table_name AS text) FROM information_schema.columns AS c \
                 JOIN information_schema.tables AS t USING (table_schema, table_name) \
                 WHERE table_type = 'BASE TABLE' AND column_name = 'user_id' \
                 AND table_schema = current_schema()"
            }
        };
        let known: BTreeSet<_> = TABLES.into_iter().chain(OTHERS).map(str::to_owned).collect();
        assert_eq!(names(&app, sql).await, known);
    }
}
