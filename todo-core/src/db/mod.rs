//! The database: one enum over two native drivers, and a macro that writes a statement once for
//! both. This module knows connections, deadlines and failures; it knows no table.
//!
//! A statement's text and its binds are the same on both databases (`$1` works on both); each arm
//! of [`read!`] and [`write!`] type-checks it against the driver it is for. What a dialect does
//! differently lives in [`columns`] and in the migrations, never in a query.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::pool::PoolConnection;

use crate::error::Cause;

#[cfg(feature = "postgres")]
mod breaker;
pub(crate) mod columns;
#[cfg(feature = "postgres")]
pub(crate) mod pooler;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// How long closing may wait for connections to come back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the rows are. A cheap clone.
#[derive(Clone)]
pub(crate) enum Db {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
}

/// How a database is to be used. See [`crate::Options`].
#[derive(Clone, Debug)]
pub(crate) struct DbOptions {
    /// Where the schema is brought up to date, if not at the database's own address.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "SQLite has one address"))]
    pub(crate) migrations_url: Option<String>,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "SQLite keeps one reader"))]
    pub(crate) pool_min: u32,
    pub(crate) pool_max: u32,
    /// The longest one call may take, the wait for a connection included.
    pub(crate) timeout: Duration,
}

/// Runs a statement that only reads: `read!(db, conn => query.fetch_one(conn))`.
macro_rules! read {
    ($db:expr, $conn:ident => $query:expr) => {
        $crate::db::on!($db, read, $conn => $query)
    };
}

/// Runs one statement that writes. It is on disk when this returns. What it returns is read with
/// `fetch_all`: of SQLite, `fetch_optional` stops at the first row and resets the statement, which is
/// where a statement of its own commits, and the driver drops what the reset says.
macro_rules! write {
    ($db:expr, $conn:ident => $query:expr) => {
        $crate::db::on!($db, write, $conn => $query)
    };
}

macro_rules! on {
    ($db:expr, $via:ident, $conn:ident => $query:expr) => {
        match &$db {
            #[cfg(feature = "sqlite")]
            $crate::db::Db::Sqlite(db) => {
                db.$via(move |$conn| ::std::boxed::Box::pin(async move { $query.await })).await
            }
            #[cfg(feature = "postgres")]
            $crate::db::Db::Postgres(db) => {
                db.$via(move |$conn| ::std::boxed::Box::pin(async move { $query.await })).await
            }
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => $crate::db::no_database(),
        }
    };
}

pub(crate) use {on, read, write};

impl Db {
    /// Opens the database that `url` names and brings its schema up to date.
    pub(crate) async fn open(url: &str, options: &DbOptions) -> Result<Self, OpenError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            #[cfg(feature = "sqlite")]
            Some("sqlite") => Ok(Self::Sqlite(sqlite::Sqlite::open(url, options).await?)),
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql" | "postgresql+asyncpg" | "postgresql+psycopg2") => {
                Ok(Self::Postgres(postgres::Postgres::open(url, options).await?))
            }
            _ => Err(OpenError::Url("the scheme must be sqlite, postgres or postgresql".into())),
        }
    }

    /// The pool's part of how busy it is.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> crate::core::Load {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.load(),
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => db.load(),
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => crate::core::Load::default(),
        }
    }

    /// The file of an embedded database, if `url` names one.
    #[cfg(feature = "server")]
    pub(crate) fn file_of(url: &str) -> Option<std::path::PathBuf> {
        #[cfg(feature = "sqlite")]
        if url.starts_with("sqlite:") {
            return sqlite::file_of(url);
        }
        let _ = url;
        None
    }

    /// Finishes what is queued and closes every connection.
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

/// A pool of connections that knows who waits for one.
pub(crate) struct Pool<D: sqlx::Database> {
    pool: sqlx::Pool<D>,
    waits: Arc<Waits>,
}

/// Calls that wait for a connection, and how long calls have waited in all.
#[derive(Default)]
struct Waits {
    now: AtomicI64,
    micros: AtomicI64,
}

impl<D: sqlx::Database> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), waits: Arc::clone(&self.waits) }
    }
}

impl<D: sqlx::Database> Pool<D> {
    pub(crate) fn new(pool: sqlx::Pool<D>) -> Self {
        Self { pool, waits: Arc::default() }
    }

    /// Borrows a connection.
    pub(crate) async fn acquire(&self) -> sqlx::Result<PoolConnection<D>> {
        let _waiting = Waiting::begin(&self.waits);
        self.pool.acquire().await
    }

    /// Whether every connection there may be is lent.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.pool.num_idle() == 0 && self.pool.size() >= self.pool.options().get_max_connections()
    }

    /// A connection that nobody uses right now.
    #[cfg(feature = "postgres")]
    pub(crate) fn try_acquire(&self) -> Option<PoolConnection<D>> {
        self.pool.try_acquire()
    }

    /// Closes the pool, or gives up on a connection that does not end.
    pub(crate) async fn close(&self) {
        if tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await.is_err() {
            tracing::warn!("the pool did not close in time");
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> crate::core::Load {
        let idle = i64::try_from(self.pool.num_idle()).unwrap_or(i64::MAX);
        crate::core::Load {
            idle,
            used: (i64::from(self.pool.size()) - idle).max(0),
            waiting: self.waits.now.load(Ordering::Relaxed),
            waited_micros: self.waits.micros.load(Ordering::Relaxed),
            ..crate::core::Load::default()
        }
    }
}

/// One call that waits; it may also give up.
struct Waiting<'w> {
    waits: &'w Waits,
    since: tokio::time::Instant,
}

impl<'w> Waiting<'w> {
    fn begin(waits: &'w Waits) -> Self {
        waits.now.fetch_add(1, Ordering::Relaxed);
        Self { waits, since: tokio::time::Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let micros = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.waits.now.fetch_sub(1, Ordering::Relaxed);
        self.waits.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// What a call comes to without a database feature: there is no `Db` to make it on. The result's
/// type is then known from the caller alone, which is why callers spell it out.
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
pub(crate) fn no_database<T>() -> Result<T, Fault> {
    unreachable!("no Db can be opened without a database feature")
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address makes no sense. The text does not repeat it: it may hold a password.
    #[error("bad database address: {0}")]
    Url(String),
    /// The database did not answer, or refused.
    #[error("cannot open the database: {0}")]
    Connect(#[source] Cause),
    /// The schema could not be brought up to date.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[source] Cause),
    /// What stands between here and PostgreSQL mixes up the statements of its clients: rows would go
    /// to whom they do not belong.
    #[error(
        "the connection pooler mixes up prepared statements ({0}): use PgBouncer 1.21 or later with \
         max_prepared_statements above 0, its session mode, or a direct address"
    )]
    Pooler(#[source] Cause),
}

impl OpenError {
    /// Whether the database could not be reached, so that a later attempt may find it. A wrong
    /// password, a database that does not exist or a failed migration stays what it is.
    #[cfg(feature = "server")]
    #[cfg_attr(
        not(feature = "postgres"),
        expect(clippy::unused_self, reason = "a file is there or not")
    )]
    pub(crate) fn is_connectivity(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Self::Connect(cause) = self {
            let sql = match cause.get::<Fault>() {
                Some(Fault::Sql(error)) => Some(error),
                Some(fault) => return fault.is_connectivity(),
                None => cause.get::<sqlx::Error>(),
            };
            // A certificate that is not trusted will not be a moment later. A handshake tells it as
            // data that makes no sense.
            return sql.is_some_and(|error| match error {
                sqlx::Error::Tls(_) => false,
                sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => false,
                error => is_connectivity(error),
            });
        }
        false
    }
}

/// What a call of [`read!`] or [`write!`] fails with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("the database did not answer in time")]
    Deadline,
    /// Nothing was asked: it is known not to answer.
    #[cfg(feature = "postgres")]
    #[error("the database is known to be away")]
    Away,
    /// The transaction that carried this write failed; shared by all the writes it carried.
    #[cfg(feature = "sqlite")]
    #[error("the commit failed: {0}")]
    Commit(Arc<sqlx::Error>),
}

impl Fault {
    /// A unique index refused the row.
    pub(crate) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// The row that this one belongs to is not there.
    pub(crate) fn is_foreign_key_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_foreign_key_violation())
    }

    /// No database answered, as far as this call can tell.
    #[cfg(feature = "postgres")]
    fn is_connectivity(&self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Sql(error) => is_connectivity(error),
            Self::Away => false,
            #[cfg(feature = "sqlite")]
            Self::Commit(_) => false,
        }
    }

    /// It may work a moment later: the database is away, full, read-only or overloaded.
    fn is_passing(&self) -> bool {
        match self {
            Self::Deadline => true,
            #[cfg(feature = "postgres")]
            Self::Away => true,
            Self::Sql(error) => is_passing(error),
            #[cfg(feature = "sqlite")]
            Self::Commit(error) => is_passing(error),
        }
    }
}

impl From<Fault> for crate::Error {
    fn from(fault: Fault) -> Self {
        if fault.is_passing() {
            Self::Unavailable(Cause::new(fault))
        } else {
            Self::Internal(Cause::new(fault))
        }
    }
}

/// The connection is lost or was not to be had, rather than a statement refused.
#[cfg(feature = "postgres")]
fn is_connectivity(error: &sqlx::Error) -> bool {
    match error {
        // connection exceptions, too many connections, shutting down, crashed, starting up
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08")
                || ["53300", "57P01", "57P02", "57P03", "57P05"].contains(&code.as_ref())
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // SQLite primary result codes: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN
            Some(code) if code.len() < 5 => {
                matches!(code.parse::<u32>().map(|c| c & 0xff), Ok(5 | 6 | 8 | 10 | 13 | 14))
            }
            // SQLSTATE (PostgreSQL, appendix A): connection, login, no such database, resources,
            // operator intervention, system error, read-only, serialisation, deadlock
            Some(code) => {
                ["08", "28", "3D", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                    || ["25006", "40001", "40P01", "55P03"].contains(&code)
            }
            None => false,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
