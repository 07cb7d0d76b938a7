//! The content of the databases and valid tokens for it: 10,000 users with 60 todos each, and user
//! 0 with 1,000,000. Ids contain sequence numbers, so that requests can address rows without a
//! lookup. `testbed` connects the servers to the databases.

use std::fmt::Write;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use todo_bench::Failure;
use todo_core::{Clock, Core, Secret, auth};

/// Secret of all servers.
pub(crate) const SECRET: &str = "a secret of more than 32 bytes to measure with";
/// Password of all users.
pub(crate) const PASSWORD: &str = "Correct1horse";
/// Todos of each user other than user 0.
pub(crate) const TODOS: usize = 60;
/// Users that send requests: every [`STEP`]th of the 10,000, from number 1.
pub(crate) const OWNERS: usize = 500;
pub(crate) const STEP: usize = 20;
/// Placeholder in an id for the number of a spare todo, to be deleted.
pub(crate) const SPARE: &str = "{spare}";
/// Description of every second todo.
pub(crate) const DESCRIPTION: &str =
    "Ask everybody beforehand, and bring the notes of the last one and enough coffee.";

const USERS: usize = 10_000;
const MILLION: usize = 1_000_000;
/// Lifetime of sessions and tokens in days.
const DAYS: i64 = 30;
const TEMPLATE: &str = "template@example.com";

/// A user with a session.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) number: u32,
    pub(crate) token: String,
}

pub(crate) fn user_id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

pub(crate) fn todo_id(user: u32, number: usize) -> String {
    format!("00000000-0000-7001-8000-{user:08}{number:04}")
}

pub(crate) fn spare_id() -> String {
    format!("00000000-0000-7003-8000-{SPARE}")
}

pub(crate) fn email(user: u32) -> String {
    format!("user{user}@example.com")
}

/// User 0 and the owners, with tokens as the servers sign them.
pub(crate) fn users() -> Result<Vec<User>, Failure> {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let now = Clock::system().now().timestamp();
    let numbers = std::iter::once(0).chain((0..OWNERS).map(|owner| 1 + owner * STEP));
    let user = |number| {
        let number = u32::try_from(number)?;
        let id = user_id(number);
        let claims = json!({
            "sub": id, "user_id": id, "jti": format!("00000000-0000-7002-8000-{number:012}"),
            "iat": now, "exp": now + DAYS * 86_400, "iss": "todo", "aud": "todo",
        });
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?;
        Ok(User { number, token })
    };
    numbers.map(user).collect()
}

/// Fills an empty database.
pub(crate) async fn seed(url: &str) -> Result<(), Failure> {
    // One signup creates the schema and a password hash for all users.
    let core = Core::builder(Secret::new(SECRET)?).open(url).await?;
    let form = auth::Signup::parse(TEMPLATE, PASSWORD, "Template")?;
    auth::signup(&core, auth::Client::Trusted, form).await?;
    core.close().await;
    run(url, &Dialect::of(url).seed_statements()).await
}

/// Adds spare todos with these numbers.
pub(crate) async fn add_spares(url: &str, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
    let dialect = Dialect::of(url);
    let range = format!(
        "WITH RECURSIVE n(n) AS (SELECT {} UNION ALL SELECT n + 1 FROM n WHERE n < {})",
        numbers.start,
        numbers.end - 1
    );
    let id = dialect.id("00000000-0000-7003-8000-", "n");
    let owner = dialect.id("00000000-0000-7000-8000-", &format!("(1 + n % {OWNERS} * {STEP})"));
    // Older than all others: no list page contains them.
    let spares = dialect.todos(&range, &id, &owner, "100000000");
    run(url, &[spares]).await
}

/// Runs statements on one connection of the driver for `url`.
pub(crate) async fn run(url: &str, statements: &[String]) -> Result<(), Failure> {
    match Dialect::of(url) {
        Dialect::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await?;
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement.as_str())).execute(&mut connection).await?;
            }
            Ok(connection.close().await?)
        }
        Dialect::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement.as_str())).execute(&mut connection).await?;
            }
            Ok(connection.close().await?)
        }
    }
}

/// The version that a database reports.
pub(crate) async fn version(url: &str) -> Result<String, Failure> {
    match Dialect::of(url) {
        Dialect::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await?;
            let query = sqlx::query_scalar("SELECT sqlite_version()");
            Ok(query.fetch_one(&mut connection).await?)
        }
        Dialect::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            let query = sqlx::query_scalar("SHOW server_version");
            Ok(query.fetch_one(&mut connection).await?)
        }
    }
}

/// SQL syntax of ids and times.
#[derive(Clone, Copy)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn of(url: &str) -> Self {
        if url.starts_with("sqlite:") { Self::Sqlite } else { Self::Postgres }
    }

    /// An id that ends with a number of 12 digits.
    fn id(self, prefix: &str, number: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("unhex('{}' || printf('%012d', {number}))", prefix.replace('-', ""))
            }
            Self::Postgres => format!("('{prefix}' || lpad(({number})::text, 12, '0'))::uuid"),
        }
    }

    /// The time so many seconds ago.
    fn ago(self, seconds: &str) -> String {
        match self {
            Self::Sqlite => format!("((unixepoch() - ({seconds})) * 1000000)"),
            Self::Postgres => format!("(now() - ({seconds}) * interval '1 second')"),
        }
    }

    fn seed_statements(self) -> Vec<String> {
        let (begin, end): (&[&str], &[&str]) = match self {
            // No durability is needed until the file is complete.
            Self::Sqlite => (
                &[
                    "PRAGMA journal_mode = OFF",
                    "PRAGMA synchronous = OFF",
                    "PRAGMA cache_size = -400000",
                ],
                &["ANALYZE", "PRAGMA journal_mode = WAL", "PRAGMA wal_checkpoint(TRUNCATE)"],
            ),
            Self::Postgres => (&[], &["VACUUM ANALYZE"]),
        };
        let numbers = |name: &str, from: usize, to: usize| {
            format!(
                "{name}({name}) AS (SELECT {from} UNION ALL SELECT {name} + 1 FROM {name} WHERE {name} < {to})"
            )
        };
        let users = format!("WITH RECURSIVE {}", numbers("n", 0, USERS));
        let user = self.id("00000000-0000-7000-8000-", "n");
        let session = self.id("00000000-0000-7002-8000-", "n");
        let mut all: Vec<String> = begin.iter().map(ToString::to_string).collect();
        all.push(format!(
            "{users} INSERT INTO users (id, email, name, password_hash, created_at) \
             SELECT {user}, 'user' || n || '@example.com', 'User ' || n, \
             (SELECT password_hash FROM users WHERE email = '{TEMPLATE}'), {} FROM n",
            self.ago("86400")
        ));
        all.push(format!("DELETE FROM users WHERE email = '{TEMPLATE}'"));
        all.push(format!(
            "{users} INSERT INTO sessions (id, user_id, created_at, expires_at) \
             SELECT {session}, {user}, {}, {} FROM n",
            self.ago("0"),
            self.ago(&format!("-{DAYS} * 86400"))
        ));
        let of_all = format!(
            "WITH RECURSIVE {}, {}, n(n, k, u) AS (SELECT u * 10000 + k, k, u FROM u CROSS JOIN k)",
            numbers("u", 1, USERS),
            numbers("k", 0, TODOS - 1)
        );
        let id = self.id("00000000-0000-7001-8000-", "n");
        let owner = self.id("00000000-0000-7000-8000-", "u");
        all.push(self.todos(&of_all, &id, &owner, "k * 40000 + u"));
        let of_one = format!("WITH RECURSIVE {}", numbers("n", 0, MILLION - 1));
        let id = self.id("00000000-0000-7001-8001-", "n");
        let owner = self.id("00000000-0000-7000-8000-", "0");
        all.push(self.todos(&of_one, &id, &owner, "n * 30"));
        all.extend(end.iter().map(ToString::to_string));
        all
    }

    /// Inserts a todo for each row of `n`; the column `n` varies titles (27 to 36 characters),
    /// descriptions and the other columns.
    fn todos(self, range: &str, id: &str, owner: &str, age: &str) -> String {
        let words = |number: &str, words: &[&str]| {
            let mut choice = format!("CASE {number} % {}", words.len());
            for (at, word) in words.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = write!(choice, " WHEN {at} THEN '{word}'");
            }
            choice + " END"
        };
        let what = words("n", &WHAT);
        let when = words("(n / 7)", &WHEN);
        let created = self.ago(age);
        format!(
            "{range} INSERT INTO todos (id, user_id, title, title_key, description, priority, \
             completed, created_at, updated_at, completed_at) \
             SELECT id, user_id, title, lower(title), \
             CASE WHEN n % 2 = 0 THEN '{DESCRIPTION}' END, 1 + n % 3, n % 4 = 0, \
             created_at, created_at, CASE WHEN n % 4 = 0 THEN created_at END \
             FROM (SELECT n, {id} AS id, {owner} AS user_id, {what} || {when} AS title, \
             {created} AS created_at FROM n) AS made"
        )
    }
}

const WHAT: [&str; 8] = [
    "Prepare notes",
    "Call the plumber",
    "Review the draft",
    "Book the tickets",
    "Order new parts",
    "Water the plants",
    "Send the invoice",
    "Clean the garage",
];
const WHEN: [&str; 6] = [
    " before Monday",
    " for the whole team",
    " with Ada and Grace",
    " as soon as possible",
    " at the old office",
    " after the holidays",
];
