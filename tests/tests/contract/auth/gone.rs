//! Orphaned rows: an account deleted by hand, in a shell with foreign keys off. These tests query
//! the database directly.

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use todo_tests::{Actor, App, Database, on_every_target};

use super::{PASSWORD, log_in};

/// Runs statements as an operator would, without foreign keys.
async fn by_hand(app: &App, sql: &str) {
    match app.target().database {
        Database::Sqlite => {
            let mut db = SqliteConnection::connect(app.database_url()).await.expect("the file");
            let sql = format!("PRAGMA foreign_keys = OFF; {sql}");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await.expect("done");
        }
        Database::Postgres => {
            let mut db = PgConnection::connect(app.database_url()).await.expect("the server");
            let sql = format!("SET session_replication_role = replica; {sql}");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await.expect("done");
        }
    }
}

async fn count(app: &App, sql: &'static str) -> i64 {
    match app.target().database {
        Database::Sqlite => {
            let mut db = SqliteConnection::connect(app.database_url()).await.expect("the file");
            sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a number")
        }
        Database::Postgres => {
            let mut db = PgConnection::connect(app.database_url()).await.expect("the server");
            sqlx::query_scalar(sql).fetch_one(&mut db).await.expect("a number")
        }
    }
}

/// Every request that needs a token is rejected.
async fn is_rejected_everywhere(actor: &Actor, todo: &str) {
    let (todos, title) = (actor.todos(), json!({ "title": "late" }));
    let whole = json!({ "title": "late", "priority": "low" });
    let done = json!({ "completed": true });
    for answer in [
        actor.get("/api/auth/me").await,
        actor.get(&todos).await,
        actor.get(&format!("{todos}?status=completed&limit=1")).await,
        actor.get(todo).await,
        actor.post(&todos, title.clone()).await,
        actor.put(todo, whole).await,
        actor.patch(todo, title).await,
        actor.patch(&format!("{todo}/complete"), done).await,
        actor.delete(todo).await,
        actor.send("POST", "/api/auth/logout", &[], "").await,
    ] {
        answer.problem(401, "unauthorized");
    }
}

on_every_target! {
    async fn the_rows_of_a_deleted_account_are_gone_even_without_foreign_keys(target) {
        let app = App::start(target).await;
        let (gone, bystander) = (app.signed_up().await, app.signed_up().await);
        let todo = gone.todo("left behind").await;
        let path = format!("{}/{}", gone.todos(), todo["id"].as_str().expect("an id"));
        bystander.todo("stays").await;
        gone.get(&path).await.expect(200);
        by_hand(&app, &format!("DELETE FROM users WHERE email = '{}'", gone.email())).await;
        is_rejected_everywhere(&gone, &path).await;
        log_in(&app.anonymous(), gone.email(), PASSWORD).await.problem(401, "invalid_credentials");
        for table in [
            "SELECT count(*) FROM todos",
            "SELECT count(*) FROM sessions",
            "SELECT count(*) FROM todo_counts",
            "SELECT count(*) FROM changes",
        ] {
            assert_eq!(count(&app, table).await, 1, "{table}");
        }
        assert_eq!(bystander.get(&bystander.todos()).await.expect(200)["total"], 1);
        // Without WHERE: SQLite could then use its truncate optimization, which skips triggers.
        by_hand(&app, "DELETE FROM users").await;
        bystander.get("/api/auth/me").await.problem(401, "unauthorized");
        assert_eq!(count(&app, "SELECT count(*) FROM todos").await, 0);
    }

    async fn a_user_has_at_most_a_hundred_sessions(target) {
        let app = App::start(target).await;
        let (actor, bystander) = (app.signed_up().await, app.signed_up().await);
        // Older sessions, and as many that seem newer, as after the clock was set back.
        let fill = match target.database {
            Database::Sqlite => format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) \
                 INSERT INTO sessions (id, user_id, created_at, expires_at) SELECT randomblob(16), users.id, \
                 users.created_at + iif(i % 2, 86400000000, -86400000000) + i, \
                 users.created_at + 604800000000 FROM users, n WHERE email = '{}'",
                actor.email()
            ),
            Database::Postgres => format!(
                "SET session_replication_role = origin; \
                 INSERT INTO sessions (id, user_id, created_at, expires_at) SELECT gen_random_uuid(), users.id, users.created_at + \
                 CASE i % 2 WHEN 1 THEN interval '1 day' ELSE interval '-1 day' END, \
                 users.created_at + interval '7 days' FROM users, generate_series(1, 120) AS i \
                 WHERE email = '{}'",
                actor.email()
            ),
        };
        by_hand(&app, &fill).await;
        assert_eq!(count(&app, "SELECT count(*) FROM sessions").await, 101, "and another user's");
        actor.get("/api/auth/me").await.expect(200);
        let mut last = None;
        for _ in 0..3 {
            let auth = log_in(&app.anonymous(), actor.email(), PASSWORD).await.expect(200);
            let session = Actor::of(&app.anonymous(), &auth, PASSWORD);
            session.get("/api/auth/me").await.expect(200);
            last = Some(session);
        }
        last.expect("a session").get("/api/auth/me").await.expect(200);
        assert_eq!(count(&app, "SELECT count(*) FROM sessions").await, 101);
        let oldest = "SELECT count(*) FROM sessions JOIN users ON users.id = user_id \
                      WHERE sessions.created_at < users.created_at";
        assert_eq!(count(&app, oldest).await, 36, "the oldest are deleted");
        bystander.get("/api/auth/me").await.expect(200);
    }
}
