//! The limits of the types and those of the tables are the same, on both databases: a text that the
//! parsers accept is stored, and one that they reject is rejected by the schema too.

use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_core::{
    auth::{Email, Name},
    todos::{Description, Priority, Title},
};
use todo_tests::{App, Database, Server, Target};

enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A value of a column.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(i16),
}

impl Conn {
    /// Whether a rule of the table rejects the value. It fails on any other error.
    async fn rejects(&mut self, update: &'static str, value: Value) -> bool {
        macro_rules! execute {
            ($conn:expr) => {{
                let query = sqlx::query(update);
                let query = match &value {
                    Value::Text(text) => query.bind(text.clone()),
                    Value::Number(number) => query.bind(*number),
                };
                query.execute($conn).await.map(|done| done.rows_affected())
            }};
        }
        let outcome = match self {
            Self::Sqlite(conn) => execute!(conn),
            Self::Postgres(conn) => execute!(conn),
        };
        match outcome {
            Ok(rows) => {
                assert_eq!(rows, 1, "{update}");
                false
            }
            Err(error) => {
                let database = error.as_database_error().expect("an error of the database");
                let is_rule = database.is_check_violation()
                    // A trigger, in place of a CHECK, on SQLite.
                    || database.message().starts_with("CHECK constraint failed: ");
                assert!(is_rule, "{update}: {error}");
                true
            }
        }
    }
}

/// A text of this many characters, more of which are more bytes. Its form is that of an e-mail
/// address if it is long enough.
fn text(chars: usize) -> Value {
    Value::Text(match chars {
        0..3 => "é".repeat(chars),
        _ => format!("é@{}", "é".repeat(chars - 2)),
    })
}

async fn the_tables_have_the_limits_of_the_types(database: Database) {
    let app = App::start(Target { server: Server::Hyper, database }).await;
    app.signed_up().await.todo("the only one").await;
    let mut conn = match database {
        Database::Sqlite => Conn::Sqlite(
            SqliteConnection::connect(app.database_url()).await.expect("the database file"),
        ),
        Database::Postgres => {
            Conn::Postgres(PgConnection::connect(app.database_url()).await.expect("the server"))
        }
    };
    for (update, min, max) in [
        ("UPDATE users SET email = $1", 3, Email::MAX_CHARS),
        ("UPDATE users SET name = $1", Name::MIN_CHARS, Name::MAX_CHARS),
        ("UPDATE todos SET title = $1", 1, Title::MAX_CHARS),
        ("UPDATE todos SET description = $1", 0, Description::MAX_CHARS),
    ] {
        for stored in [min, max] {
            assert!(!conn.rejects(update, text(stored)).await, "{update}: {stored} characters");
        }
        assert!(conn.rejects(update, text(max + 1)).await, "{update}: at most {max}");
        if let Some(short) = min.checked_sub(1) {
            assert!(conn.rejects(update, text(short)).await, "{update}: at least {min}");
        }
    }
    let update = "UPDATE todos SET priority = $1";
    let lowest = Priority::Low as i16;
    let highest = Priority::High as i16;
    for rank in lowest..=highest {
        assert!(!conn.rejects(update, Value::Number(rank)).await, "{update}: {rank}");
    }
    for rank in [lowest - 1, highest + 1] {
        assert!(conn.rejects(update, Value::Number(rank)).await, "{update}: {rank}");
    }
}

#[tokio::test]
async fn the_tables_have_the_limits_of_the_types_on_sqlite() {
    the_tables_have_the_limits_of_the_types(Database::Sqlite).await;
}

#[tokio::test]
async fn the_tables_have_the_limits_of_the_types_on_postgres() {
    the_tables_have_the_limits_of_the_types(Database::Postgres).await;
}
