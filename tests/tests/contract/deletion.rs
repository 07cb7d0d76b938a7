//! The deletion of an account: it takes effect at once, everywhere.

use std::time::Duration;

use serde_json::{Value, json};
use todo_tests::{
    Actor, App, Database, EventStream, TestResponse, at_once, execute_sql, on_every_target,
};
use tokio::time::Instant;

use crate::text;

const ME: &str = "/api/auth/me";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn delete(actor: &Actor, password: &str) -> TestResponse {
    actor.send("DELETE", ME, &[JSON], json!({ "password": password }).to_string()).await
}

/// Takes the password from the account, as one has that was created by a sign-in elsewhere.
async fn without_password(app: &App) -> Actor {
    let user = app.signed_up().await;
    let id = literal(app, &user);
    let sql = format!("UPDATE users SET password_hash = '!' WHERE id = {id}");
    execute_sql(app.database_url(), &sql).await;
    user
}

/// Makes the user's sessions this many seconds older.
async fn age_sessions(app: &App, user: &Actor, seconds: u32) {
    let age = match app.target().database {
        Database::Sqlite => format!("{seconds}000000"),
        Database::Postgres => format!("interval '{seconds} seconds'"),
    };
    let id = literal(app, user);
    let sql = format!("UPDATE sessions SET created_at = created_at - {age} WHERE user_id = {id}");
    execute_sql(app.database_url(), &sql).await;
}

/// The user's id as a literal of SQL.
fn literal(app: &App, user: &Actor) -> String {
    match app.target().database {
        Database::Sqlite => format!("x'{}'", user.id().replace('-', "")),
        Database::Postgres => format!("'{}'", user.id()),
    }
}

/// Logs in again.
async fn another_session(app: &App, actor: &Actor) -> Actor {
    let body = json!({"email": actor.email(), "password": actor.password()});
    let auth = app.anonymous().post("/api/auth/login", body).await.expect(200);
    Actor::of(&app.anonymous(), &auth, actor.password())
}

on_every_target! {
    async fn an_account_is_deleted_at_once(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let again = another_session(&app, &ann).await;
        let todo = ann.todo("ann's").await;
        let path = format!("{}/{}", ann.todos(), text(&todo, "id"));
        let kept = bob.todo("bob's").await;
        let mut here = EventStream::open(&ann, "", &[]).await;
        let mut elsewhere = EventStream::open(&again.at(&replica.anonymous()), "", &[]).await;
        let mut other = EventStream::open(&bob, "", &[]).await;
        // The position of the beginning.
        here.next().await;
        elsewhere.next().await;

        let deleted = delete(&ann, ann.password()).await;
        assert_eq!(deleted.header("cache-control"), Some("no-store"));
        assert_eq!(deleted.expect(200), json!({"message": "Account deleted successfully"}));
        let answered = Instant::now();
        here.expect_end("session_ended").await;
        // Without the poll, which takes up to a second.
        assert!(answered.elapsed() < Duration::from_millis(250), "{:?}", answered.elapsed());
        elsewhere.expect_end("session_ended").await;
        for server in [&app.anonymous(), &replica.anonymous()] {
            for session in [&ann, &again] {
                let gone = session.at(server);
                gone.get(ME).await.problem(401, "unauthorized");
                gone.get("/api/auth/sessions").await.problem(401, "unauthorized");
                gone.get("/api/auth/export").await.problem(401, "unauthorized");
                gone.get(&gone.todos()).await.problem(401, "unauthorized");
                gone.get(&path).await.problem(401, "unauthorized");
                let new = json!({"title": "new"});
                gone.post(&gone.todos(), new).await.problem(401, "unauthorized");
                gone.delete(&path).await.problem(401, "unauthorized");
                delete(&gone, ann.password()).await.problem(401, "unauthorized");
            }
            let login = json!({"email": ann.email(), "password": ann.password()});
            let refused = server.post("/api/auth/login", login).await;
            refused.problem(401, "invalid_credentials");
        }

        // The address is free, and the new account has nothing of the old one.
        let form = json!({"email": ann.email(), "password": "Other2battery", "name": "Ann"});
        let auth = app.anonymous().post("/api/auth/signup", form).await.expect(201);
        let new = Actor::of(&app.anonymous(), &auth, "Other2battery");
        assert_ne!(new.id(), ann.id());
        assert_eq!(new.get(&new.todos()).await.expect(200)["total"], 0);
        let trash = new.get(&new.todos().replace("/todos", "/trash")).await.expect(200);
        assert_eq!(trash["total"], 0);
        new.get(&ann.todos()).await.problem(403, "forbidden");
        new.get(&path.replace(ann.id(), new.id())).await.problem(403, "forbidden");
        ann.get(ME).await.problem(401, "unauthorized");
        // Nobody else is affected.
        assert_eq!(bob.get(&bob.todos()).await.expect(200)["todos"], json!([kept]));
        bob.todo("another").await;
        while other.next().await.event.is_none() {}
        replica.stop().await.expect("a clean stop");
    }

    async fn a_deletion_requires_the_password(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        delete(&ann, "Wrong1password").await.problem(401, "invalid_credentials");
        for (headers, body, status, code) in [
            (&[JSON][..], "{}", 422, "malformed_body"),
            (&[JSON], r#"{"password": 7}"#, 422, "malformed_body"),
            (&[JSON], "", 422, "malformed_body"),
            (&[JSON], r#"{"password": "\u0000"}"#, 400, "validation_error"),
            (&[], r#"{"password": "Correct1horse"}"#, 415, "unsupported_media_type"),
            (&[], "", 415, "unsupported_media_type"),
        ] {
            ann.send("DELETE", ME, headers, body).await.problem(status, code);
        }
        let long = json!({"password": "x".repeat(9000)}).to_string();
        ann.send("DELETE", ME, &[JSON], long).await.problem(413, "content_too_large");
        let body = json!({"password": ann.password()}).to_string();
        app.anonymous().send("DELETE", ME, &[JSON], body).await.problem(401, "unauthorized");
        ann.get(ME).await.expect(200);
        ann.todo("still there").await;
    }

    async fn a_page_may_delete_an_account(target) {
        let origin = ("origin", "http://localhost:3000");
        let app = App::start(target).await;
        let asks = [
            origin,
            ("access-control-request-method", "DELETE"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let preflight = app.anonymous().send("OPTIONS", ME, &asks, "").await;
        let allows = |name: &str, value: &str| {
            let allowed = preflight.header(name).unwrap_or_default().to_ascii_lowercase();
            assert!(allowed.split(',').any(|one| one.trim() == value), "{preflight}");
        };
        allows("access-control-allow-methods", "delete");
        allows("access-control-allow-headers", "content-type");
        let ann = app.signed_up().await;
        let body = json!({"password": ann.password()}).to_string();
        ann.send("DELETE", ME, &[origin, JSON], body).await.expect(200);
        let allow = app.anonymous().send("OPTIONS", ME, &[], "").await;
        assert_eq!(allow.header("allow"), Some("GET, HEAD, PATCH, DELETE, OPTIONS"), "{allow}");
    }

    async fn wrong_passwords_are_limited(target) {
        let app = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "3")]).await;
        let ann = app.signed_up().await;
        let policy = Some("\"login\";q=3;w=60");
        for _ in 0..3 {
            let wrong = delete(&ann, "Wrong1password").await;
            assert_eq!(wrong.header("ratelimit-policy"), policy);
            wrong.problem(401, "invalid_credentials");
        }
        let refused = delete(&ann, ann.password()).await;
        assert_eq!(refused.header("ratelimit-policy"), policy);
        refused.problem(429, "rate_limited");
        ann.get(ME).await.expect(200);
    }

    async fn of_concurrent_deletions_one_takes_effect(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let statuses = at_once(6, |_| {
            let ann = ann.clone();
            async move { delete(&ann, ann.password()).await.status }
        })
        .await;
        let done = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(done, 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 401].contains(status)), "{statuses:?}");
        ann.post("/api/auth/logout", Value::Null).await.problem(401, "unauthorized");
    }

    async fn without_a_password_a_recent_session_is_enough(target) {
        let app = App::start(target).await;
        let ann = without_password(&app).await;
        ann.todo("ann's").await;
        let mut events = EventStream::open(&ann, "", &[]).await;
        events.next().await;
        age_sessions(&app, &ann, 590).await;
        // There is none to compare with.
        delete(&ann, ann.password()).await.problem(401, "invalid_credentials");
        delete(&ann, "!").await.problem(401, "invalid_credentials");
        let deleted = ann.send("DELETE", ME, &[JSON], "{}").await;
        assert_eq!(deleted.header("cache-control"), Some("no-store"));
        assert_eq!(deleted.expect(200), json!({"message": "Account deleted successfully"}));
        events.expect_end("session_ended").await;
        ann.get(ME).await.problem(401, "unauthorized");
        ann.get(&ann.todos()).await.problem(401, "unauthorized");
        ann.send("DELETE", ME, &[JSON], "{}").await.problem(401, "unauthorized");
    }

    async fn without_a_password_an_older_session_is_not_enough(target) {
        let app = App::start(target).await;
        let bob = app.signed_up().await;
        let ann = without_password(&app).await;
        let cut = without_password(&app).await;
        age_sessions(&app, &ann, 600).await;
        ann.send("DELETE", ME, &[JSON], "{}").await.problem(403, "reauthentication_required");
        ann.send("DELETE", ME, &[JSON], "").await.problem(422, "malformed_body");
        let null = r#"{"password": null}"#;
        ann.send("DELETE", ME, &[JSON], null).await.problem(422, "malformed_body");
        ann.todo("still there").await;
        // A session that has ended comes first, and that of another user does not count.
        cut.post("/api/auth/logout", Value::Null).await.expect(200);
        cut.send("DELETE", ME, &[JSON], "{}").await.problem(401, "unauthorized");
        app.anonymous().send("DELETE", ME, &[JSON], "{}").await.problem(401, "unauthorized");
        bob.get(ME).await.expect(200);
    }

    async fn a_recent_session_is_not_enough_with_a_password(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let refused = ann.send("DELETE", ME, &[JSON], "{}").await.problem(422, "malformed_body");
        let expected = json!([{
            "field": "password", "pointer": "/password", "code": "missing",
            "message": "Password is required.",
        }]);
        assert_eq!(refused["details"], expected);
        ann.get(ME).await.expect(200);
    }
}
