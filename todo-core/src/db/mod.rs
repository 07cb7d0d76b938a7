//! The database: one enum over two native drivers that run the same [`Statement`]s. This module
//! handles connections, timeouts and errors, independent of any table.
//!
//! A statement's text and its binds are the same on both databases. The differences between the
//! dialects are in the drivers' codecs, in the migrations, and in a few texts: see [`Dialect`].

use std::time::Duration;

use uuid::Uuid;

use self::{
    address::Address,
    batch::{Batch, BatchError, BatchRun, Script},
};

pub(crate) use self::composed::{COMPOSED_CACHES, ComposedTexts, MAX_COMPOSED};
pub use self::database_url::{DatabaseUrl, DatabaseUrlError};
pub(crate) use self::error::DbError;
pub use self::error::OpenError;
#[cfg(feature = "postgres")]
pub(crate) use self::error::is_connectivity;
#[cfg(all(test, feature = "http"))]
pub(crate) use self::statement::MADE;
#[cfg(feature = "testing")]
pub(crate) use self::statement::MAX_FIXED;
pub(crate) use self::statement::{FromRow, FromRows, Row, RowsAffected, Statement};
#[cfg(feature = "http")]
pub(crate) use self::stats::PoolStats;
pub(crate) use self::stats::WaitStats;

pub(crate) mod address;
pub(crate) mod batch;
#[cfg(feature = "postgres")]
mod breaker;
mod composed;
#[cfg(feature = "postgres")]
mod connection_slots;
mod database_url;
mod error;
#[cfg(feature = "postgres")]
mod pool;
#[cfg(feature = "postgres")]
pub(crate) mod pooler_check;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "postgres")]
pub(crate) mod requirements;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod schema;
#[cfg(feature = "postgres")]
mod session;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statement;
mod stats;
pub(crate) mod value;

/// How long closing waits for borrowed connections.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A database handle. A cheap clone.
#[derive(Clone)]
pub(crate) enum Db {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
}

/// The SQL dialect, for a statement that one of the two databases would not run in index order, or
/// in which PostgreSQL locks rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "postgres")),
    allow(dead_code, reason = "a build with one driver has one of the two")
)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// One caller's limits of concurrent operations, which leave capacity for other callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Concurrent reads; if `writes` is `None`, concurrent operations of both kinds.
    pub(crate) reads: usize,
    /// Concurrent writes.
    pub(crate) writes: Option<usize>,
    /// Whether a write's future may be dropped at any time: a write that has not begun never
    /// begins, and a running one completes.
    pub(crate) drops_writes: bool,
}

/// The options of a [`Database`]'s connections.
///
/// ```
/// use std::time::Duration;
///
/// use todo_core::DatabaseOptions;
///
/// let options = DatabaseOptions::new().max_connections(5).timeout(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    pub(crate) min_connections: u32,
    pub(crate) max_connections: u32,
    pub(crate) timeout: Duration,
    pub(crate) migrations_url: Option<DatabaseUrl>,
}

impl DatabaseOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            min_connections: 5,
            max_connections: 20,
            timeout: Duration::from_millis(1800),
            migrations_url: None,
        }
    }

    /// Sets the minimum of open connections to PostgreSQL. Default: 5.
    #[must_use]
    pub fn min_connections(mut self, min: u32) -> Self {
        self.min_connections = min;
        self
    }

    /// Sets the maximum of open connections. Default: 20.
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = max;
        self
    }

    /// Sets the deadline of a database call, including the wait for a connection; beyond it,
    /// [`Error::Unavailable`](crate::Error::Unavailable). Default: 1.8 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the address for migrating a PostgreSQL schema, if it differs from the database's: a
    /// direct one where the database's is a pooler's, or one with a role that may change the
    /// schema. Default: none.
    #[must_use]
    pub fn migrations_url(mut self, url: impl Into<Option<DatabaseUrl>>) -> Self {
        self.migrations_url = url.into();
        self
    }
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An open database with the latest schema: the first half of [`CoreBuilder::open`], for a program
/// with work between the two, such as creating a secret. [`CoreBuilder::over`] is the second half.
///
/// [`CoreBuilder::open`]: crate::CoreBuilder::open
/// [`CoreBuilder::over`]: crate::CoreBuilder::over
pub struct Database(pub(crate) Db);

impl Database {
    /// Opens the database at `url` and migrates its schema to the latest version.
    ///
    /// # Errors
    /// [`OpenError`]. After one with [`OpenError::is_connectivity`] a retry may succeed.
    pub async fn open(url: impl AsRef<str>, options: &DatabaseOptions) -> Result<Self, OpenError> {
        Db::open(url.as_ref(), options).await.map(Self)
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the database at `url` and migrates its schema to the latest version.
    pub(crate) async fn open(url: &str, options: &DatabaseOptions) -> Result<Self, OpenError> {
        match Address::read(url)? {
            #[cfg(feature = "sqlite")]
            Address::Sqlite(address) => {
                Ok(Self::Sqlite(sqlite::Sqlite::open(&address, options).await?))
            }
            #[cfg(feature = "postgres")]
            Address::Postgres(address) => {
                Ok(Self::Postgres(postgres::Postgres::open(&address, options).await?))
            }
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Dialect::Postgres,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Dialect::Sqlite,
        }
    }

    /// Runs a statement that only reads, and returns its rows.
    pub(crate) async fn fetch<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.fetch(statement).await,
            #[cfg(feature = "postgres")]
            // Boxed: the future is large, and would enlarge the callers' futures on SQLite too.
            Self::Postgres(db) => Box::pin(db.fetch(statement)).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(DbError::Closed),
        }
    }

    /// [`Db::fetch`] for a statement that always returns a row.
    pub(crate) async fn fetch_one<T>(&self, statement: Statement) -> Result<T, DbError>
    where
        T: FromRow + Send + 'static,
    {
        self.fetch::<Option<T>>(statement).await?.ok_or(DbError::NoRow)
    }

    /// Checks that the database answers, and the role's grants on PostgreSQL.
    pub(crate) async fn ping(&self) -> Result<(), DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => {
                let (_one,): (i64,) =
                    self.fetch_one(Statement::new("SELECT CAST(1 AS bigint)")).await?;
                Ok(())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => Box::pin(db.ping()).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(DbError::Closed),
        }
    }

    /// Runs one statement that writes, and returns its rows. It is on disk when this returns.
    pub(crate) async fn execute<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.execute(statement).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => Box::pin(db.execute(statement)).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(DbError::Closed),
        }
    }

    /// Runs a script as a unit, in the turn of `caller`. What it commits is on disk when this
    /// returns; after an error it has no effect, unless the call timed out or lost its connection
    /// during the commit: then all may have.
    ///
    /// A future dropped before its end leaves all or nothing.
    #[cfg_attr(
        not(feature = "sqlite"),
        allow(unused_variables, reason = "PostgreSQL has no queue of writes")
    )]
    pub(crate) async fn execute_script<S: Script>(
        &self,
        caller: Option<Uuid>,
        script: S,
    ) -> Result<S::Output, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.execute_script(caller, script).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => Box::pin(db.execute_script(script)).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(DbError::Closed),
        }
    }

    /// Runs the statements of a batch as a unit, and returns the rows of the last. See
    /// [`Db::execute_script`].
    pub(crate) async fn execute_batch<R>(&self, batch: Batch) -> Result<R, BatchError>
    where
        R: FromRows + Clone + Sync,
    {
        let caller = batch.steps.first().and_then(|step| step.statement.caller);
        self.execute_script(caller, BatchRun::new(batch)).await?.map_err(BatchError::Unmet)
    }

    /// One caller's limits of concurrent operations.
    pub(crate) fn share(&self) -> Share {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.share(),
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => db.share(),
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Share { reads: 1, writes: None, drops_writes: false },
        }
    }

    /// The pool's part of the statistics.
    #[cfg(feature = "http")]
    pub(crate) fn stats(&self) -> PoolStats {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.stats(),
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => db.stats(),
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => PoolStats::default(),
        }
    }

    /// Finishes queued writes and closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => db.close().await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => {}
        }
    }
}
