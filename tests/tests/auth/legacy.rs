//! Password hashes as they are stored: Argon2id for all, and bcrypt ones of the Python backend
//! until their users log in. The only suite that looks into the database.

use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use todo_tests::{App, Database, fresh_email, on_every_cell};

use crate::log_in;

const ARGON2ID: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// Of "Brown2fox", by crypt(3).
const BCRYPT: [&str; 3] = [
    "$2a$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2b$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
    "$2y$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy",
];
/// Of "Aa1" and 97 times "x", by crypt(3), which reads the first 72 bytes.
const BCRYPT_LONG: &str = "$2b$10$abcdefghijklmnopqrstuuuiF.mIscjSLzKGf3iXXUUpmC9UO0wva";

/// A user as the Python backend left it.
async fn insert(app: &App, email: &str, hash: &str) {
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

    async fn a_bcrypt_hash_of_a_long_password_still_logs_in(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        let (email, password) = (fresh_email(), format!("Aa1{}", "x".repeat(97)));
        insert(&app, &email, BCRYPT_LONG).await;
        log_in(&client, &email, &password).await.expect(200);
        // Argon2id now: the whole of it counts.
        let cut = &password[..72];
        log_in(&client, &email, cut).await.problem(401, "invalid_credentials");
        log_in(&client, &email, &password).await.expect(200);
    }

    /// Whether that is told as a wrong password or as a fault of ours is not for the client to rely
    /// on: it gets nothing, and learns nothing of what is stored.
    async fn a_hash_of_no_known_kind_logs_nobody_in(cell) {
        let app = App::start(cell).await;
        let client = app.anonymous();
        for hash in ["plain", "Brown2fox", "$1$salt$x", "$argon2id$", "$2b$10$short", "$2b$", "!"] {
            let email = fresh_email();
            insert(&app, &email, hash).await;
            for password in ["Brown2fox", hash, ""] {
                let answer = log_in(&client, &email, password).await;
                for secret in ["argon2", "bcrypt", "hash"] {
                    assert!(!answer.text().contains(secret), "{answer}");
                }
                match answer.status {
                    401 => answer.problem(401, "invalid_credentials"),
                    _ => answer.problem(500, "internal"),
                };
            }
        }
    }
}
