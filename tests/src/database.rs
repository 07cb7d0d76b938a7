//! A database for one test, dropped when the test ends.

use std::thread;

use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Database, client::causes, lease};

/// Clones the only todo of the database at `url` `count` times, each with a number appended to its
/// title and created a microsecond after the previous one. A server may run on the database.
///
/// # Panics
/// When a statement fails, or the database has more than one todo.
pub async fn clone_the_only_todo(url: &str, count: i64) {
    let inserted = if url.starts_with("sqlite:") {
        let mut conn = SqliteConnection::connect(url).await.expect("the database file");
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
            INSERT INTO todos (id, user_id, title, title_key, description, priority, completed,
                created_at, updated_at)
            SELECT randomblob(16), user_id, title || i, title_key || i, description, 2, 0,
                created_at + i, created_at + i
            FROM n CROSS JOIN todos";
        let done = sqlx::query(sql).bind(count).execute(&mut conn).await;
        done.expect("rows inserted by SQL").rows_affected()
    } else {
        let mut conn = PgConnection::connect(url).await.expect("the database server");
        let sql = "INSERT INTO todos (id, user_id, title, title_key, description, priority,
                completed, created_at, updated_at)
            SELECT gen_random_uuid(), user_id, title || i, title_key || i, description, 2, false,
                created_at + i * interval '1 microsecond',
                created_at + i * interval '1 microsecond'
            FROM todos CROSS JOIN generate_series(1, $1) AS i";
        let done = sqlx::query(sql).bind(count).execute(&mut conn).await;
        done.expect("rows inserted by SQL").rows_affected()
    };
    assert_eq!(i64::try_from(inserted), Ok(count));
}

/// An empty database, deleted on drop. The server under test migrates it, as any other.
#[derive(Debug)]
pub(crate) enum TestDatabase {
    /// A file in a private temporary directory.
    Sqlite { url: String, _dir: TempDir },
    /// A database in the PostgreSQL that this process leases.
    Postgres { url: String, admin: String, name: String },
}

impl TestDatabase {
    pub(crate) async fn create(database: Database) -> TestDatabase {
        match database {
            Database::Sqlite => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let url = format!("sqlite://{}", dir.path().join("todo.db").display());
                TestDatabase::Sqlite { url, _dir: dir }
            }
            Database::Postgres => {
                let leased = tokio::task::spawn_blocking(lease::postgres);
                let admin = leased.await.expect("PostgreSQL for the tests").url.clone();
                let name = format!("todo_test_{}", Uuid::now_v7().simple());
                create(&admin, &name).await.expect("a database for the test");
                let mut url = url::Url::parse(&admin).expect("PostgreSQL has a URL");
                url.set_path(&name);
                TestDatabase::Postgres { url: url.into(), admin, name }
            }
        }
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            TestDatabase::Sqlite { url, .. } | TestDatabase::Postgres { url, .. } => url,
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let TestDatabase::Postgres { admin, name, .. } = self else {
            return;
        };
        let (admin, name) = (admin.clone(), name.clone());
        // A thread, since this may run inside a runtime, where blocking on another one panics.
        let dropping = thread::spawn(move || -> Result<(), String> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(causes)?.block_on(async {
                let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                execute(&admin, statement).await.map_err(causes)
            })
        });
        if let Ok(Err(reason)) = dropping.join() {
            eprintln!("a test database was left behind: {reason}");
        }
    }
}

/// Creates a database with a linguistic default collation where the server supports it: an
/// `ORDER BY` without an explicit collation then sorts differently from SQLite.
async fn create(admin: &str, name: &str) -> Result<(), sqlx::Error> {
    let linguistic = format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' \
         LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'"
    );
    match execute(admin, linguistic).await {
        Err(sqlx::Error::Database(_)) => execute(admin, format!("CREATE DATABASE {name}")).await,
        done => done,
    }
}

async fn execute(admin: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(admin).await?;
    connection.execute(sqlx::AssertSqlSafe(statement)).await?;
    connection.close().await
}

/// Runs SQL without binds on the database at `url`.
///
/// # Panics
/// When it fails.
pub async fn execute_sql(url: &str, sql: &str) {
    let safe = sqlx::AssertSqlSafe(sql.to_owned());
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        sqlx::raw_sql(safe).execute(&mut db).await.expect(sql);
        db.close().await.expect("closed");
    } else {
        let mut db = PgConnection::connect(url).await.expect("the server");
        sqlx::raw_sql(safe).execute(&mut db).await.expect(sql);
        db.close().await.expect("closed");
    }
}

/// The number that a query of the database at `url` returns.
///
/// # Panics
/// When the query fails.
pub async fn count_rows(url: &str, sql: &str) -> i64 {
    let safe = sqlx::AssertSqlSafe(sql.to_owned());
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        sqlx::query_scalar(safe).fetch_one(&mut db).await.expect(sql)
    } else {
        let mut db = PgConnection::connect(url).await.expect("the server");
        sqlx::query_scalar(safe).fetch_one(&mut db).await.expect(sql)
    }
}
