//! Deleted accounts: what is left of them is deleted in pieces, by any number of processes, also
//! after an interruption, and nothing brings it back.

mod rows;

use std::{
    sync::Arc,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use todo_core::{
    Clock, Core, DatabaseOptions, Error, Secret,
    auth::{self, Caller, Client, ExportPart, Password, UserId},
    jobs,
    todos::{self, NewTodo, Title},
};
use todo_tests::{
    Actor, App, Database, Server, Target, clone_the_only_todo, count_rows, eventually, execute_sql,
};
use tokio::time::timeout;

use self::rows::{literal, nothing, rows, with_rows};

async fn start(database: Database) -> App {
    App::start(Target { server: Server::Hyper, database }).await
}

/// Time limit of a statement: longer than a test holds a lock.
const WAIT: Duration = Duration::from_secs(20);

/// A core on the app's database, whose jobs run in the present: they do not run again for a minute.
async fn core(app: &App) -> Core {
    let secret = Secret::new(app.secret()).expect("a secret");
    let core = Core::builder(secret).database(DatabaseOptions::new().timeout(WAIT));
    core.open(app.database_url()).await.expect("the database opens")
}

async fn delete(actor: &Actor) {
    let headers = [("content-type", "application/json")];
    let body = json!({"password": actor.password()}).to_string();
    actor.send("DELETE", "/api/auth/me", &headers, body).await.expect(200);
}

fn trusted(actor: &Actor) -> Caller {
    let id: UserId = actor.id().parse().expect("an id");
    Caller::trusted(id)
}

fn new_todo() -> NewTodo {
    NewTodo::new(Title::parse("t").expect("a title"))
}

on_both_databases! {
    async fn nothing_of_a_deleted_account_is_left(database) {
        let app = start(database).await;
        let ann = with_rows(&app, 1200).await;
        let bob = app.signed_up().await;
        let todo = bob.todo("bob's").await;
        let before = rows(&app, bob.id()).await;
        delete(&ann).await;
        let marked = rows(&app, ann.id()).await;
        assert!(marked.contains(&("users", 1)) && marked.contains(&("todos", 1202)), "{marked:?}");
        assert!(marked.contains(&("sessions", 0)), "{marked:?}");
        let core = core(&app).await;
        assert!(auth::delete_left_rows(&core).await.expect("the rows are deleted"));
        assert_eq!(rows(&app, ann.id()).await, nothing());
        assert_eq!(rows(&app, bob.id()).await, before);
        assert_eq!(bob.get(&bob.todos()).await.expect(200)["todos"], json!([todo]));
        core.close().await;
    }

    // The jobs do it.
    async fn a_job_deletes_the_rows(database) {
        let mut app = start(database).await;
        let ann = with_rows(&app, 10).await;
        delete(&ann).await;
        app.stop_server().await.expect("a clean stop");
        let begin: DateTime<Utc> = Clock::system().now() + TimeDelta::hours(2);
        let secret = Secret::new(app.secret()).expect("a secret");
        let core = Core::builder(secret).clock(Clock::from_fn(move || begin));
        let core = core.open(app.database_url()).await.expect("the database opens");
        assert_eq!(jobs::run_due(&core).await.expect("the queue").failed, 0);
        assert_eq!(rows(&app, ann.id()).await, nothing());
        core.close().await;
    }

    async fn an_interrupted_deletion_goes_on(database) {
        let app = start(database).await;
        let ann = with_rows(&app, 3000).await;
        delete(&ann).await;
        let core = core(&app).await;
        let mut interrupted = 0;
        for millis in (1..).map(|n: u64| 3 + n % 20) {
            if timeout(Duration::from_millis(millis), auth::delete_left_rows(&core)).await.is_ok() {
                break;
            }
            interrupted += 1;
            let left = rows(&app, ann.id()).await;
            let rest: i64 = left.iter().filter(|(table, _)| *table != "users").map(|(_, n)| n).sum();
            assert!(rest == 0 || left.contains(&("users", 1)), "rows without an account: {left:?}");
            assert!(interrupted < 2000, "{left:?}");
        }
        assert!(interrupted > 1, "it was not interrupted");
        auth::delete_left_rows(&core).await.expect("the rows are deleted");
        assert_eq!(rows(&app, ann.id()).await, nothing());
        core.close().await;
    }

    async fn two_processes_delete_together(database) {
        let app = start(database).await;
        let ann = with_rows(&app, 3000).await;
        delete(&ann).await;
        let cores = [core(&app).await, core(&app).await];
        let (one, other) =
            tokio::join!(auth::delete_left_rows(&cores[0]), auth::delete_left_rows(&cores[1]));
        // On PostgreSQL one may be the victim of a deadlock: its next attempt goes on.
        assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
        auth::delete_left_rows(&cores[0]).await.expect("the rows are deleted");
        assert_eq!(rows(&app, ann.id()).await, nothing());
        for core in cores {
            core.close().await;
        }
    }

    // Its host program has authenticated the user.
    async fn a_trusted_caller_needs_no_recent_session(database) {
        let app = start(database).await;
        let ann = app.signed_up().await;
        let caller = trusted(&ann);
        let core = core(&app).await;
        let delete =
            async || auth::delete_account_without_password(&core, &caller, Client::Trusted).await;
        let refused = delete().await;
        let Err(Error::Invalid(errors)) = refused else { panic!("{refused:?}") };
        let errors: Vec<_> = errors.iter().map(|error| (&*error.field, error.code)).collect();
        assert_eq!(errors, [("password", "missing")]);
        let id = literal(&app, ann.id());
        let sql = format!("UPDATE users SET password_hash = '!' WHERE id = {id}");
        execute_sql(app.database_url(), &sql).await;
        delete().await.expect("deleted");
        let again = delete().await;
        assert!(matches!(again, Err(Error::Unauthenticated)), "{again:?}");
        ann.get("/api/auth/me").await.problem(401, "unauthorized");
        core.close().await;
    }

    async fn a_trusted_caller_does_not_bring_a_deleted_account_back(database) {
        let app = start(database).await;
        let ann = app.signed_up().await;
        let caller = trusted(&ann);
        let core = core(&app).await;
        todos::create(&core, &caller, new_todo()).await.expect("a todo");
        let wrong = Password::unchecked("Wrong1password").expect("a password");
        let refused = auth::delete_account(&core, &caller, Client::Trusted, wrong).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)), "{refused:?}");
        let right = Password::unchecked(ann.password()).expect("a password");
        auth::delete_account(&core, &caller, Client::Trusted, right.clone()).await.expect("deleted");
        let again = auth::delete_account(&core, &caller, Client::Trusted, right).await;
        assert!(matches!(again, Err(Error::Unauthenticated)), "{again:?}");
        let user = auth::current_user(&core, &caller).await;
        assert!(matches!(user, Err(Error::Unauthenticated)), "{user:?}");
        let export = auth::export(&core, &caller).await;
        assert!(matches!(export, Err(Error::Unauthenticated)), "{export:?}");
        // Until its rows are deleted, it may have another todo, which goes with them.
        let _ = todos::create(&core, &caller, new_todo()).await;
        auth::delete_left_rows(&core).await.expect("the rows are deleted");
        assert_eq!(rows(&app, ann.id()).await, nothing());
        let late = todos::create(&core, &caller, new_todo()).await;
        assert!(matches!(late, Err(Error::Unauthenticated)), "{late:?}");
        assert_eq!(rows(&app, ann.id()).await, nothing());
        core.close().await;
    }

    // The clean-up of the rate limits leaves the slots of exports.
    async fn exports_count_for_an_hour(database) {
        let mut app = start(database).await;
        let ann = app.signed_up().await;
        ann.todo("one").await;
        let seconds: Arc<AtomicI64> = Arc::default();
        let now = Arc::clone(&seconds);
        app.stop_server().await.expect("a clean stop");
        let begin: DateTime<Utc> = Clock::system().now() + TimeDelta::days(1);
        let clock = Clock::from_fn(move || begin + TimeDelta::seconds(now.load(Ordering::Relaxed)));
        let secret = Secret::new(app.secret()).expect("a secret");
        let core = Core::builder(secret).clock(clock).open(app.database_url()).await;
        let core = core.expect("the database opens");
        let caller = auth::authenticate(&core, ann.token()).await.expect("a session");
        let mut export = auth::export(&core, &caller).await.expect("the first");
        let mut titles = Vec::new();
        while let Some(part) = export.next().await.expect("a part") {
            if let ExportPart::Todos(todos) = part {
                titles.extend(todos.into_iter().map(|todo| todo.title.as_str().to_owned()));
            }
        }
        assert_eq!(titles, ["one"]);
        seconds.fetch_add(600, Ordering::Relaxed);
        auth::export(&core, &caller).await.expect("the second");
        for wait in [2400, 590] {
            seconds.fetch_add(wait, Ordering::Relaxed);
            auth::delete_expired(&core).await.expect("the clean-up");
            let third = auth::export(&core, &caller).await;
            assert!(matches!(third, Err(Error::RateLimited { .. })), "{third:?}");
        }
        seconds.fetch_add(10, Ordering::Relaxed);
        auth::export(&core, &caller).await.expect("the first one no longer counts");
        let fourth = auth::export(&core, &caller).await;
        assert!(matches!(fourth, Err(Error::RateLimited { .. })), "{fourth:?}");
        auth::export(&core, &Caller::trusted(caller.user_id())).await.expect("no limit");
        seconds.fetch_add(3601, Ordering::Relaxed);
        auth::delete_expired(&core).await.expect("the clean-up");
        let slots = "SELECT count(*) FROM rate_limits WHERE action = 'export'";
        assert_eq!(count_rows(app.database_url(), slots).await, 0);
        core.close().await;
    }
}

/// The number of sessions of PostgreSQL in this database that wait for a lock.
async fn waiting(url: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND wait_event_type = 'Lock'";
    count_rows(url, sql).await
}

async fn wait_for(url: &str, sessions: i64) {
    let limit = Duration::from_secs(20);
    let is_so = eventually(limit, async || waiting(url).await == sessions).await;
    assert!(is_so, "{} wait, not {sessions}", waiting(url).await);
}

async fn log_in(actor: &Actor) -> u16 {
    let body = json!({"email": actor.email(), "password": actor.password()});
    actor.client.post("/api/auth/login", body).await.status
}

async fn delete_status(actor: &Actor) -> u16 {
    let headers = [("content-type", "application/json")];
    let body = json!({"password": actor.password()}).to_string();
    actor.send("DELETE", "/api/auth/me", &headers, body).await.status
}

/// A login that has checked the password when the account is deleted leaves no session, in either
/// order of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_of_a_login_under_way_is_left_on_postgres() {
    let app = start(Database::Postgres).await;
    let url = app.database_url();
    for login_first in [true, false] {
        let ann = app.signed_up().await;
        let mut holder = hold(url, &format!("users WHERE id = {}", literal(&app, ann.id()))).await;
        let spawn = |is_login: bool| {
            let ann = ann.clone();
            tokio::spawn(async move {
                if is_login { log_in(&ann).await } else { delete_status(&ann).await }
            })
        };
        let first = spawn(login_first);
        wait_for(url, 1).await;
        let second = spawn(!login_first);
        wait_for(url, 2).await;
        holder.execute("COMMIT").await.expect("the end");
        let (first, second) = (first.await.expect("it ran"), second.await.expect("it ran"));
        let expected = if login_first { (200, 200) } else { (200, 401) };
        assert_eq!((first, second), expected);
        let sessions = rows(&app, ann.id()).await;
        assert!(sessions.contains(&("sessions", 0)), "{sessions:?}");
    }
}

/// Locks a row until the connection's transaction ends.
async fn hold(url: &str, row: &str) -> PgConnection {
    let mut holder = PgConnection::connect(url).await.expect("a connection");
    holder.execute("BEGIN").await.expect("a transaction");
    let lock = format!("SELECT 1 FROM {row} FOR UPDATE");
    holder.execute(sqlx::AssertSqlSafe(lock)).await.expect("the lock");
    holder
}

/// A creation that has checked its session when the account is deleted is deleted with it, in
/// either order of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_todo_of_a_creation_under_way_is_left_on_postgres() {
    let app = start(Database::Postgres).await;
    let url = app.database_url();
    let core = core(&app).await;
    for creation_first in [true, false] {
        let ann = app.signed_up().await;
        ann.todo("before").await;
        let mut holder = hold(url, &format!("users WHERE id = {}", literal(&app, ann.id()))).await;
        let spawn = |is_creation: bool| {
            let ann = ann.clone();
            tokio::spawn(async move {
                match is_creation {
                    true => ann.post(&ann.todos(), json!({"title": "under way"})).await.status,
                    false => delete_status(&ann).await,
                }
            })
        };
        let first = spawn(creation_first);
        wait_for(url, 1).await;
        let second = spawn(!creation_first);
        wait_for(url, 2).await;
        holder.execute("COMMIT").await.expect("the end");
        let (first, second) = (first.await.expect("it ran"), second.await.expect("it ran"));
        // The account of a creation that waits behind the deletion is there until it is swept.
        let expected = if creation_first { (201, 200) } else { (200, 201) };
        assert_eq!((first, second), expected);
        ann.post(&ann.todos(), json!({"title": "late"})).await.problem(401, "unauthorized");
        let marked = rows(&app, ann.id()).await;
        assert!(marked.contains(&("todos", 2)), "{marked:?}");
        auth::delete_left_rows(&core).await.expect("the rows are deleted");
        assert_eq!(rows(&app, ann.id()).await, nothing());
    }
    core.close().await;
}

/// A creation for a trusted caller while the rows are deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_todo_that_is_created_during_the_sweep_is_left_on_postgres() {
    let app = start(Database::Postgres).await;
    let url = app.database_url();
    let core = core(&app).await;
    let ann = app.signed_up().await;
    ann.todo("before").await;
    assert_eq!(delete_status(&ann).await, 200);
    let counter = format!("todo_counts WHERE user_id = {}", literal(&app, ann.id()));
    let mut holder = hold(url, &counter).await;
    let creation = {
        let (core, caller) = (core.clone(), trusted(&ann));
        tokio::spawn(async move { todos::create(&core, &caller, new_todo()).await.is_ok() })
    };
    wait_for(url, 1).await;
    let sweep = {
        let core = core.clone();
        tokio::spawn(async move { auth::delete_left_rows(&core).await })
    };
    wait_for(url, 2).await;
    holder.execute("COMMIT").await.expect("the end");
    assert!(creation.await.expect("it ran"), "it was to be created");
    let _ = sweep.await.expect("it ran");
    auth::delete_left_rows(&core).await.expect("the rows are deleted");
    assert_eq!(rows(&app, ann.id()).await, nothing());
    core.close().await;
}

/// A process that finds the rows of a piece deleted by another one leaves the account, and does not
/// delete all that is left with it, by one statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_with_rows_is_not_deleted_on_postgres() {
    let app = start(Database::Postgres).await;
    let url = app.database_url();
    let core = core(&app).await;
    let ann = app.signed_up().await;
    ann.todo("t").await;
    clone_the_only_todo(url, 999).await;
    assert_eq!(delete_status(&ann).await, 200);
    let mut other = PgConnection::connect(url).await.expect("a connection");
    other.execute("DELETE FROM todo_counts").await.expect("no counter");
    other.execute("BEGIN").await.expect("a transaction");
    let piece = "DELETE FROM todos WHERE id IN \
                 (SELECT id FROM todos ORDER BY completed, created_at, id LIMIT 200)";
    other.execute(piece).await.expect("a piece");
    let sweep = {
        let core = core.clone();
        tokio::spawn(async move { auth::delete_left_rows(&core).await })
    };
    wait_for(url, 1).await;
    other.execute("COMMIT").await.expect("the end");
    assert!(!sweep.await.expect("it ran").expect("the rows are deleted"), "some are left");
    let left = rows(&app, ann.id()).await;
    assert!(left.contains(&("todos", 800)) && left.contains(&("users", 1)), "{left:?}");
    assert!(auth::delete_left_rows(&core).await.expect("the rows are deleted"));
    assert_eq!(rows(&app, ann.id()).await, nothing());
    core.close().await;
}
