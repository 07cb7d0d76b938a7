//! Errors of opening a database and of calls, and the transient ones among them. The codes are
//! SQLSTATE's (PostgreSQL, appendix A).

use super::DatabaseUrlError;
use crate::error::BoxError;

/// An error of opening a database. It displays its own level; [`ErrorChain`](crate::ErrorChain)
/// displays the causes too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is invalid. The text does not repeat it: it may contain a password.
    #[error("bad database address: {0}")]
    Url(DatabaseUrlError),
    /// The database did not answer, or refused the connection.
    #[error("cannot open the database")]
    Connect(#[source] BoxError),
    /// A migration failed.
    #[error("cannot migrate the database")]
    Migrate(#[source] BoxError),
    /// The database or its role does not meet the requirements: its encoding, a default, a grant.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
    /// The database belongs to another program, or to the Python backend; the text says which, and
    /// the remedy. Nothing was written.
    #[error("the database is not of this program: {0}")]
    Foreign(String),
    /// The schema is a newer release's: it has this migration, which this release does not have.
    #[error(
        "the schema is of a newer release: migration {0} is unknown here. Start that release, or \
         go back with that release's own `todo-server migrate --revert`, once for each of its newer \
         migrations"
    )]
    Newer(i64),
    /// The connection pooler mixes up the prepared statements of its clients: a user would get
    /// another user's rows.
    #[error(
        "the connection pooler mixes up prepared statements: use PgBouncer 1.21 or later with \
         max_prepared_statements above 0, its session mode, or a direct address"
    )]
    Pooler(#[source] BoxError),
}

impl OpenError {
    /// Whether the database could not be reached, so that a retry may succeed. A wrong password, a
    /// missing database or a failed migration is permanent.
    #[must_use]
    pub fn is_connectivity(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Self::Connect(cause) = self {
            let sql = match cause.get::<DbError>() {
                Some(DbError::Postgres(error)) => Some(error),
                Some(error) => return error.is_connectivity(),
                None => cause.get::<sqlx::Error>(),
            };
            // An untrusted certificate stays untrusted. A handshake reports it as invalid data.
            return sql.is_some_and(|error| match error {
                sqlx::Error::Tls(_) => false,
                sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => false,
                error => is_connectivity(error),
            });
        }
        false
    }
}

/// The error of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    #[cfg(feature = "sqlite")]
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction of this write failed; shared by all the writes in it.
    #[cfg(feature = "sqlite")]
    #[error("the commit failed: {0}")]
    Commit(std::sync::Arc<rusqlite::Error>),
    /// Another process holds the file's lock; no transaction began.
    #[cfg(feature = "sqlite")]
    #[error("another process holds the database file's lock")]
    Locked,
    #[error("the database call timed out")]
    Timeout,
    #[error("the database was closed")]
    Closed,
    /// The circuit breaker is open: nothing was sent.
    #[cfg(feature = "postgres")]
    #[error("the circuit breaker is open: the database does not answer")]
    CircuitOpen,
    /// The role lacks grants that requests need.
    #[cfg(feature = "postgres")]
    #[error("{0}")]
    Grants(String),
    #[error("a statement that always returns a row returned none")]
    NoRow,
    /// A value of this column has no meaning: an earlier or later release wrote it.
    #[error("the column {0} has an unknown value")]
    Value(&'static str),
    /// A statement has more parameters than binds.
    #[cfg(feature = "sqlite")]
    #[error("a statement has no bind for a parameter")]
    Bind,
}

impl DbError {
    /// A unique index rejected the row.
    pub(crate) fn is_unique_violation(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(e)) => e.is_unique_violation(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(e) => super::sqlite::is_unique_violation(e),
            _ => false,
        }
    }

    /// The referenced row does not exist.
    pub(crate) fn is_foreign_key_violation(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(e)) => e.is_foreign_key_violation(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(e) => super::sqlite::is_foreign_key_violation(e),
            _ => false,
        }
    }

    /// Another transaction held a lock for as long as the statement may take.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        match self {
            // lock_not_available, query_canceled (PostgreSQL, appendix A)
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| ["55P03", "57014"].contains(&code.as_ref()))
            }
            _ => false,
        }
    }

    /// The database could not be reached, or did not answer.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_connectivity(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Postgres(error) => is_connectivity(error),
            _ => false,
        }
    }

    /// The call may succeed on a retry: the database is unreachable, full, read-only or overloaded.
    fn is_transient(&self) -> bool {
        match self {
            Self::Timeout | Self::Closed => true,
            #[cfg(feature = "sqlite")]
            Self::Locked => true,
            #[cfg(feature = "postgres")]
            Self::CircuitOpen | Self::Grants(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => is_transient(error),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => super::sqlite::is_transient(error),
            #[cfg(feature = "sqlite")]
            Self::Commit(error) => super::sqlite::is_transient(error),
            _ => false,
        }
    }
}

impl From<DbError> for crate::Error {
    fn from(error: DbError) -> Self {
        if error.is_transient() {
            Self::Unavailable(BoxError::new(error))
        } else {
            Self::Internal(BoxError::new(error))
        }
    }
}

/// The connection is lost or could not be made; the error is not the statement's.
#[cfg(feature = "postgres")]
pub(crate) fn is_connectivity(error: &sqlx::Error) -> bool {
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
fn is_transient(error: &sqlx::Error) -> bool {
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
