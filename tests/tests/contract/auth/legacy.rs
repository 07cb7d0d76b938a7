//! Stored password hashes: Argon2id, and the Python backend's bcrypt hashes until their users log
//! in. These tests query the database directly.

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use todo_tests::{App, Database, at_once, on_every_target, unique_email};

use super::{hashed, log_in};

const ARGON2ID: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// "Brown2fox", hashed by crypt(3).
pub(crate) const BCRYPT: [&str; 3] = [
    "$2a$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2b$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2y$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
];
/// "Aa1" and 97 times "x", hashed by crypt(3), which reads the first 72 bytes.
const BCRYPT_LONG: &str = "$2b$10$abcdefghijklmnopqrstuuuiF.mIscjSLzKGf3iXXUUpmC9UO0wva";

/// "Brown2fox", hashed by Argon2's reference implementation at a fifth of today's cost.
const WEAK: &str = "$argon2id$v=19$m=4096,t=2,p=1$cuUdAafQnD027k5DVwSvyw$ZihpINu3nQtINZ0UpSBNHuXAPq4bhAeIlbzFQ1PIK4c";

/// Inserts a user as the Python backend stored it.
pub(crate) async fn insert(app: &App, email: &str, hash: &str) {
    const SQL: &str = "INSERT INTO users (id, email, name, password_hash, created_at) \
                       VALUES ($1, $2, 'Left Over', $3, $4)";
    let (id, now) = (Uuid::now_v7(), chrono::Utc::now());
    match app.target().database {
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
    match app.target().database {
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

on_every_target! {
    async fn a_password_is_stored_as_argon2id_with_a_unique_salt(target) {
        let app = App::start(target).await;
        let mut hashes = Vec::new();
        for actor in [app.signed_up().await, app.signed_up().await] {
            let hash = stored_hash(&app, actor.email()).await;
            assert!(hash.starts_with(ARGON2ID), "{hash}");
            log_in(&app.anonymous(), actor.email(), actor.password()).await.expect(200);
            assert_eq!(stored_hash(&app, actor.email()).await, hash, "a current hash is kept");
            hashes.push(hash);
        }
        assert_ne!(hashes[0], hashes[1]);
    }

    async fn a_bcrypt_hash_logs_in_and_is_argon2id_from_then_on(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for hash in BCRYPT {
            let email = unique_email();
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

    /// bcrypt reads 72 bytes, so any password with this prefix logs in, as before. It is not
    /// rehashed: the rest of the original is unknown.
    async fn a_bcrypt_hash_of_a_long_password_still_logs_in(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let (email, password) = (unique_email(), format!("Aa1{}", "x".repeat(97)));
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

    async fn a_hash_of_unknown_kind_or_excessive_cost_never_logs_in(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
        let dear = format!("$argon2id$v=19$m=2097152,t=4,p=1${tail}");
        let bcrypt = BCRYPT[1].replace("$10$", "$31$");
        let bad = ["plain", "Brown2fox", "$1$salt$x", "$argon2id$", "$2b$10$short", "$2b$", "!"];
        let without = ["$argon2id$v=19$m=19456,t=2,p=1", "$2b$99$", &dear, &bcrypt];
        for hash in bad.into_iter().chain(without) {
            let email = unique_email();
            insert(&app, &email, hash).await;
            for password in ["Brown2fox", hash, ""] {
                let before = hashed(&client).await;
                let answer = log_in(&client, &email, password).await;
                for secret in ["argon2", "bcrypt", "hash"] {
                    assert!(!answer.text().contains(secret), "{answer}");
                }
                answer.problem(401, "invalid_credentials");
                assert_eq!(hashed(&client).await - before, 1, "{hash}: as for an unknown user");
            }
        }
    }

    /// Counts hashes; unit tests of the hashing code check that their cost is the same.
    async fn every_failed_login_costs_the_same_while_a_bcrypt_hash_exists(target) {
        let app = App::start(target).await;
        let modern = app.signed_up().await.email().to_owned();
        let old = unique_email();
        insert(&app, &old, BCRYPT[1]).await;
        // A server started now loads it at the start.
        let app = app.replica().await;
        let client = app.anonymous();
        let mut costs = Vec::new();
        for email in [&unique_email(), &modern, &old] {
            let before = hashed(&client).await;
            log_in(&client, email, "Wrong1password").await.problem(401, "invalid_credentials");
            costs.push(hashed(&client).await - before);
        }
        assert_eq!(costs, [2, 2, 2], "for an unknown user, for Argon2id and for bcrypt");
        log_in(&client, &old, "Brown2fox").await.expect(200);
        assert!(stored_hash(&app, &old).await.starts_with(ARGON2ID));
        let app = app.replica().await;
        let client = app.anonymous();
        let before = hashed(&client).await;
        log_in(&client, &old, "Wrong1password").await.problem(401, "invalid_credentials");
        assert_eq!(hashed(&client).await - before, 1, "no bcrypt hash is left");
    }

    async fn a_weaker_argon2id_hash_is_replaced_at_login(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let email = unique_email();
        insert(&app, &email, WEAK).await;
        log_in(&client, &email, "Wrong1password").await.problem(401, "invalid_credentials");
        assert_eq!(stored_hash(&app, &email).await, WEAK);
        log_in(&client, &email, "Brown2fox").await.expect(200);
        assert!(stored_hash(&app, &email).await.starts_with(ARGON2ID));
        log_in(&client, &email, "Brown2fox").await.expect(200);
    }

    /// All logins read the old hash; only one replaces it.
    async fn many_concurrent_first_logins_all_succeed(target) {
        let app = App::start(target).await;
        let email = unique_email();
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
