//! Password hashes as they are stored: Argon2id for all, and bcrypt ones of the Python backend
//! until their users log in. It looks into the database.

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use todo_tests::{App, Database, at_once, fresh_email, on_every_cell};

use crate::{hashed, log_in};

const ARGON2ID: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// Of "Brown2fox", by crypt(3).
pub(crate) const BCRYPT: [&str; 3] = [
    "$2a$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2b$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2y$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
];
/// Of "Aa1" and 97 times "x", by crypt(3), which reads the first 72 bytes.
const BCRYPT_LONG: &str = "$2b$10$abcdefghijklmnopqrstuuuiF.mIscjSLzKGf3iXXUUpmC9UO0wva";

/// Of "Brown2fox", by argon2 of the reference implementation with a fifth of today's work.
const WEAK: &str = "$argon2id$v=19$m=4096,t=2,p=1$cuUdAafQnD027k5DVwSvyw$ZihpINu3nQtINZ0UpSBNHuXAPq4bhAeIlbzFQ1PIK4c";

/// A user as the Python backend left it.
pub(crate) async fn insert(app: &App, email: &str, hash: &str) {
    const SQL: &str = "INSERT INTO users (id, email, name, password_hash, created_at) \
                       VALUES ($1, $2, 'Left Over', $3, $4)";
    let (id, now) = (Uuid::now_v7(), chrono::Utc::now());
    match app.cell().database {
        Database::Sqlite => {
            let mut db = SqliteConnection::connect(app.database_url()).await.expect("the file");
            let query = sqlx::query(SQL).bind(id).bind(email).bind(hash);
            query.bind(now.timestamp_micros()).execute(&mut db).await.expect("a row");
        }
        Database::Postgres => {
            let mut db = PgConnection::connect(app.database_url()).await.expect("the server");
            let query = sqlx::query(SQL).bind(id).bind(email).bind(hash).bind(now);
            query.execute(&mut db).await.expect("a row");
        }
    }
}

async fn stored_hash(app: &App, email: &str) -> String {
    const SQL: &str = "SELECT password_hash FROM users WHERE email = $1";
    match app.cell().database {
        Database::Sqlite => {
            let mut db = SqliteConnection::connect(app.database_url()).await.expect("the file");
            sqlx::query_scalar(SQL).bind(email).fetch_one(&mut db).await.expect("a row")
        }
        Database::Postgres => {
            let mut db = PgConnection::connect(app.database_url()).await.expect("the server");
            sqlx::query_scalar(SQL).bind(email).fetch_one(&mut db).await.expect("a row")
        }
    }
}

on_every_cell! {
    async fn a_password_is_kept_as_argon2id_with_a_salt_of_its_own(cell) {
        let app = App::start(cell).await;
        let mut hashes = Vec::new();
        for actor in [app.signed_up().await, app.signed_up().await] {
            let hash = stored_hash(&app, actor.email()).await;
            assert!(hash.starts_with(ARGON2ID), "{hash}");
            log_in(&app.anonymous(), actor.email(), actor.password()).await.expect(200);
            assert_eq!(stored_hash(&app, actor.email()).await, hash, "a good hash stays");
            hashes.push(hash);
        }
        assert_ne!(hashes[0], hashes[1]);
    }

    async fn a_bcrypt_hash_logs_in_and_is_argon2id_from_then_on(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        for hash in BCRYPT {
            let email = fresh_email();
            insert(&app, &email, hash).await;
            log_in(&client, &email, "Brown2fix").await.problem(401, "invalid_credentials");
            assert_eq!(stored_hash(&app, &email).await, hash, "a wrong password changes nothing");

            let auth = log_in(&client, &email, "Brown2fox").await.expect(200);
            assert_eq!(auth["user"]["email"], json!(email));
            let new = stored_hash(&app, &email).await;
            assert!(new.starts_with(ARGON2ID), "{new}");
            log_in(&client, &email, "Brown2fox").await.expect(200);
            log_in(&client, &email, "Brown2fix").await.problem(401, "invalid_credentials");
        }
    }

    /// bcrypt has read 72 bytes of it, and nobody knows the rest: so it logs in whatever that is, as it
    /// always did, and what was typed is not stored in its place.
    async fn a_bcrypt_hash_of_a_long_password_still_logs_in(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        let (email, password) = (fresh_email(), format!("Aa1{}", "x".repeat(97)));
        insert(&app, &email, BCRYPT_LONG).await;
        let wrong_end = format!("{}y", &password[..99]);
        let longer = format!("{password}{}", "x".repeat(500));
        for _ in 0..2 {
            for typed in [&wrong_end, &password[..72], &longer, &password] {
                log_in(&client, &email, typed).await.expect(200);
                assert_eq!(stored_hash(&app, &email).await, BCRYPT_LONG, "{}", typed.len());
            }
            let short = log_in(&client, &email, &password[..71]).await;
            short.problem(401, "invalid_credentials");
        }
    }

    async fn a_hash_of_no_known_kind_or_of_any_cost_logs_nobody_in(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
        let dear = format!("$argon2id$v=19$m=2097152,t=4,p=1${tail}");
        let bcrypt = BCRYPT[1].replace("$10$", "$31$");
        let bad = ["plain", "Brown2fox", "$1$salt$x", "$argon2id$", "$2b$10$short", "$2b$", "!"];
        let without = ["$argon2id$v=19$m=19456,t=2,p=1", "$2b$99$", &dear, &bcrypt];
        for hash in bad.into_iter().chain(without) {
            let email = fresh_email();
            insert(&app, &email, hash).await;
            for password in ["Brown2fox", hash, ""] {
                let before = hashed(&client).await;
                let answer = log_in(&client, &email, password).await;
                for secret in ["argon2", "bcrypt", "hash"] {
                    assert!(!answer.text().contains(secret), "{answer}");
                }
                answer.problem(401, "invalid_credentials");
                assert_eq!(hashed(&client).await - before, 1, "{hash}: as for nobody");
            }
        }
    }

    /// Counted, not timed: that it is as much work is for the unit tests of `passwords`.
    async fn every_refusal_costs_as_much_while_there_is_a_bcrypt_hash(cell) {
        let app = App::start(cell).await;
        let modern = app.signed_up().await.email().to_owned();
        let old = fresh_email();
        insert(&app, &old, BCRYPT[1]).await;
        // One that is started now knows of it from the start.
        let app = app.replica().await;
        let client = app.anonymous();
        let mut costs = Vec::new();
        for email in [&fresh_email(), &modern, &old] {
            let before = hashed(&client).await;
            log_in(&client, email, "Wrong1password").await.problem(401, "invalid_credentials");
            costs.push(hashed(&client).await - before);
        }
        assert_eq!(costs, [2, 2, 2], "for nobody, for Argon2id and for bcrypt");
        log_in(&client, &old, "Brown2fox").await.expect(200);
        assert!(stored_hash(&app, &old).await.starts_with(ARGON2ID));
        let app = app.replica().await;
        let client = app.anonymous();
        let before = hashed(&client).await;
        log_in(&client, &old, "Wrong1password").await.problem(401, "invalid_credentials");
        assert_eq!(hashed(&client).await - before, 1, "there is none left");
    }

    async fn a_weaker_argon2id_hash_is_replaced_at_login(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        let email = fresh_email();
        insert(&app, &email, WEAK).await;
        log_in(&client, &email, "Wrong1password").await.problem(401, "invalid_credentials");
        assert_eq!(stored_hash(&app, &email).await, WEAK);
        log_in(&client, &email, "Brown2fox").await.expect(200);
        assert!(stored_hash(&app, &email).await.starts_with(ARGON2ID));
        log_in(&client, &email, "Brown2fox").await.expect(200);
    }

    /// All of them find the old hash, and only one replaces it.
    async fn many_first_logins_at_once_all_get_in(cell) {
        let app = App::start(cell).await;
        let email = fresh_email();
        insert(&app, &email, BCRYPT[1]).await;
        let answers = at_once(6, |_| {
            let (client, email) = (app.anonymous(), email.clone());
            async move { log_in(&client, &email, "Brown2fox").await }
        })
        .await;
        for answer in answers {
            answer.expect(200);
        }
    }
}
