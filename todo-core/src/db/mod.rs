//! The database: one enum over two native drivers that run the same [`Statement`]s. This module
//! knows connections, deadlines and failures; it knows no table.
//!
//! A statement's text and its binds are the same on both databases. What a dialect does differently
//! lives in [`columns`] and in the migrations, and in one query: see [`Dialect`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use self::address::Address;
use crate::error::Cause;

#[cfg(all(test, feature = "http"))]
pub(crate) use self::statement::MADE;
pub(crate) use self::statement::{Changed, FromRow, Row, Rows, Statement, Value};

pub(crate) mod address;
#[cfg(feature = "postgres")]
mod breaker;
pub(crate) mod columns;
#[cfg(feature = "postgres")]
pub(crate) mod fitness;
#[cfg(feature = "postgres")]
mod places;
#[cfg(feature = "postgres")]
mod pool;
#[cfg(feature = "postgres")]
pub(crate) mod pooler;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod schema;
#[cfg(feature = "postgres")]
mod session;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statement;

/// How long closing may wait for connections to come back.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the rows are. A cheap clone.
#[derive(Clone)]
pub(crate) enum Db {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
}

/// Whose SQL it is. For a statement that one of the two would not read in the order of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// How much of a database one caller may have at once, so that something is left for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Operations that read. Without a number for writes: all operations.
    pub(crate) reads: usize,
    /// Operations that write.
    pub(crate) writes: Option<usize>,
    /// Whether a write may be dropped at any time: one that has not begun never does, one that has
    /// runs to its end.
    pub(crate) drops_writes: bool,
}

/// How a database is to be used. See [`crate::Options`]. It has no `Debug`: an address may hold a
/// password.
#[derive(Clone)]
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

impl Db {
    /// Opens the database that `url` names and brings its schema up to date.
    pub(crate) async fn open(url: &str, options: &DbOptions) -> Result<Self, OpenError> {
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

    /// Runs a statement that only reads, and takes its rows.
    pub(crate) async fn read<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.read(statement).await,
            #[cfg(feature = "postgres")]
            // Boxed: it is large, and would make whatever awaits this as large on SQLite.
            Self::Postgres(db) => Box::pin(db.read(statement)).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(Fault::Closed),
        }
    }

    /// As [`Db::read`], of a statement that always has a row.
    pub(crate) async fn one<T>(&self, statement: Statement) -> Result<T, Fault>
    where
        T: FromRow + Send + 'static,
    {
        self.read::<Option<T>>(statement).await?.ok_or(Fault::NoRow)
    }

    /// Asks for what every request needs: an answer, and the grants on PostgreSQL.
    pub(crate) async fn ping(&self) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => {
                let (_one,): (i64,) = self.one(Statement::new("SELECT CAST(1 AS bigint)")).await?;
                Ok(())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => Box::pin(db.ping()).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(Fault::Closed),
        }
    }

    /// Runs one statement that writes, and takes its rows. It is on disk when this returns.
    pub(crate) async fn write<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.write(statement).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(db) => Box::pin(db.write(statement)).await,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => Err(Fault::Closed),
        }
    }

    /// How much of it one caller may have at once.
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

/// Calls that wait for a connection, or for their turn before that, and how long calls have waited
/// in all.
#[derive(Default)]
pub(crate) struct Waits {
    now: AtomicI64,
    micros: AtomicI64,
}

/// One call that waits; it may also give up.
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    since: tokio::time::Instant,
}

impl Waits {
    pub(crate) fn begin(this: Arc<Self>) -> Waiting {
        this.now.fetch_add(1, Ordering::Relaxed);
        Waiting { waits: this, since: tokio::time::Instant::now() }
    }

    /// How busy a pool is whose calls wait like this, with so many connections of which so many are
    /// not lent.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self, size: usize, idle: usize) -> crate::core::Load {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        crate::core::Load {
            idle: count(idle),
            used: count(size.saturating_sub(idle)),
            waiting: self.now.load(Ordering::Relaxed),
            waited_micros: self.micros.load(Ordering::Relaxed),
            ..crate::core::Load::default()
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let micros = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.waits.now.fetch_sub(1, Ordering::Relaxed);
        self.waits.micros.fetch_add(micros, Ordering::Relaxed);
    }
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
    /// The database or its role cannot do what requests need: its encoding, a default, a grant.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
    /// The database belongs to another program, or to the Python backend; which, and what to do about
    /// it. Nothing was written.
    #[error("the database is not of this program: {0}")]
    Foreign(String),
    /// The schema is that of a newer release: it has this migration, which is not known here.
    #[error(
        "the schema is of a newer release: migration {0} is not known here. Start that release, or \
         go back with that release's own `todo-server migrate --revert`, once for each of its newer \
         migrations"
    )]
    Newer(i64),
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
                Some(Fault::Postgres(error)) => Some(error),
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

/// What a call fails with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    #[cfg(feature = "sqlite")]
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction that carried this write failed; shared by all the writes it carried.
    #[cfg(feature = "sqlite")]
    #[error("the commit failed: {0}")]
    Commit(Arc<rusqlite::Error>),
    /// Another process holds the file's lock; nothing was begun.
    #[cfg(feature = "sqlite")]
    #[error("another process holds the database file's lock")]
    Locked,
    #[error("the database did not answer in time")]
    Deadline,
    #[error("the database was closed")]
    Closed,
    /// Nothing was asked: it is known not to answer.
    #[cfg(feature = "postgres")]
    #[error("the database is known to be away")]
    Away,
    /// The role may not do what requests need.
    #[cfg(feature = "postgres")]
    #[error("{0}")]
    Grants(String),
    #[error("a statement that always has a row had none")]
    NoRow,
    /// A statement names more binds than it was given.
    #[cfg(feature = "sqlite")]
    #[error("a statement lacks a bind")]
    Bind,
}

impl Fault {
    /// A unique index refused the row.
    pub(crate) fn is_unique_violation(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(e)) => e.is_unique_violation(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(e) => sqlite::is_unique_violation(e),
            _ => false,
        }
    }

    /// The row that this one belongs to is not there.
    pub(crate) fn is_foreign_key_violation(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(e)) => e.is_foreign_key_violation(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(e) => sqlite::is_foreign_key_violation(e),
            _ => false,
        }
    }

    /// No database answered, as far as this call can tell.
    #[cfg(feature = "postgres")]
    fn is_connectivity(&self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Postgres(error) => is_connectivity(error),
            _ => false,
        }
    }

    /// It may work a moment later: the database is away, full, read-only or overloaded.
    fn is_passing(&self) -> bool {
        match self {
            Self::Deadline | Self::Closed => true,
            #[cfg(feature = "sqlite")]
            Self::Locked => true,
            #[cfg(feature = "postgres")]
            Self::Away | Self::Grants(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => is_passing(error),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => sqlite::is_passing(error),
            #[cfg(feature = "sqlite")]
            Self::Commit(error) => sqlite::is_passing(error),
            _ => false,
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
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

#[cfg(feature = "postgres")]
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        // SQLSTATE (PostgreSQL, appendix A): connection, login, no such database, resources,
        // operator intervention, system error, read-only, serialisation, deadlock
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "28", "3D", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                || ["25006", "40001", "40P01", "55P03"].contains(&code.as_ref())
        }),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}
