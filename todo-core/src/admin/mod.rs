//! Operator commands on a whole database, beside the server: migrations, copy, import, backup and
//! accounts. Each command opens its own connection and makes only the requested change: a read-only
//! command creates no file and no table.

use std::{io, path::Path};

use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

use crate::{
    OpenError,
    db::{
        address::{Address, Mode, SqliteAddress},
        postgres,
        schema::Found,
        sqlite as file,
    },
    error::BoxError,
};

pub use self::backup::{BackupReport, backup};
pub use self::copy::{CopyReport, Progress, copy};
pub use self::epoch::new_epoch;
pub use self::import::{ImportReport, InvalidRow, InvalidRows, import};
pub use self::migrations::{MigrateReport, Migration, RevertReport, migrate, migrations, revert};
pub use self::users::{Account, delete_user, find_user, reset_password, users};

mod backup;
mod codec;
mod copy;
mod epoch;
mod import;
mod migrations;
mod users;

/// Error of a command on a whole database. No text includes a database URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// A database cannot be opened or migrated.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A statement failed; its transaction is rolled back.
    #[error("the database rejected a statement")]
    Sql(#[source] BoxError),
    /// The command was rejected, with the reason.
    #[error("{0}")]
    Refused(String),
    /// Rows of the source break a rule; nothing was written.
    #[error("{} of the source's rows break a rule: nothing was written", .0.count)]
    Invalid(InvalidRows),
    /// Creating the runtime or accessing a file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error of a driver. Not `From`, which would be a part of the public API.
pub(crate) trait DriverError {
    fn into_admin_error(self) -> AdminError;
}

impl DriverError for sqlx::Error {
    fn into_admin_error(self) -> AdminError {
        AdminError::Sql(BoxError::new(self))
    }
}

impl DriverError for rusqlite::Error {
    fn into_admin_error(self) -> AdminError {
        AdminError::Sql(BoxError::new(self))
    }
}

impl DriverError for sqlx::migrate::MigrateError {
    fn into_admin_error(self) -> AdminError {
        AdminError::Open(OpenError::Migrate(BoxError::new(self)))
    }
}

/// Turns the error of a driver into an [`AdminError`].
pub(crate) trait DriverResult<T> {
    fn or_admin_error(self) -> Result<T, AdminError>;
}

impl<T, E: DriverError> DriverResult<T> for Result<T, E> {
    fn or_admin_error(self) -> Result<T, AdminError> {
        self.map_err(E::into_admin_error)
    }
}

/// Whether `url` names an in-memory database.
#[must_use]
pub fn is_in_memory(url: &str) -> bool {
    matches!(Address::parse(url), Ok(Address::Sqlite(address)) if address.file().is_none())
}

/// Checks that a server start could open the database at `url`, as far as possible without changing
/// anything: that an SQLite file can be written or created.
///
/// # Errors
/// [`AdminError`]: the error of a start.
pub async fn check(url: &str) -> Result<(), AdminError> {
    if let Address::Sqlite(address) = Address::read(url)?
        && let Some(path) = address.file()
        && file::usable(&address, path)?
    {
        file::try_to_write(path).await?;
    }
    Ok(())
}

/// One connection to a whole database.
pub(crate) enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Runs the same code on either driver's connection; its error becomes an [`AdminError`].
macro_rules! on {
    ($conn:expr, $c:ident => $work:expr) => {
        match $conn {
            $crate::admin::Conn::Sqlite($c) => $crate::admin::DriverResult::or_admin_error($work),
            $crate::admin::Conn::Postgres($c) => $crate::admin::DriverResult::or_admin_error($work),
        }
    };
}
pub(crate) use on;

/// Connects to the database at `url` without changing it; `None` if its file does not exist.
pub(crate) async fn open(url: &str) -> Result<Option<Conn>, AdminError> {
    let connect = |e: sqlx::Error| OpenError::Connect(BoxError::new(e));
    if let Address::Sqlite(address) = Address::read(url)? {
        let path = file_of(&address)?;
        if !path.exists() {
            return Ok(None);
        }
        let options = file::connect_options(path)
            .read_only(address.mode == Mode::Read)
            .busy_timeout(file::MIGRATION_TIMEOUT);
        return Ok(Some(Conn::Sqlite(options.connect().await.map_err(connect)?)));
    }
    let options = postgres::connect_options(url)?;
    let conn = tokio::time::timeout(postgres::MIGRATION_TIMEOUT, options.connect())
        .await
        .map_err(|_| OpenError::Connect(BoxError::new("timed out after 60 s")))?
        .map_err(connect)?;
    Ok(Some(Conn::Postgres(conn)))
}

fn file_of(address: &SqliteAddress) -> Result<&Path, AdminError> {
    address.file().ok_or_else(|| {
        AdminError::Refused("a database in memory ends with the command: name a file".into())
    })
}

/// Like [`open`], but a missing database is an error.
pub(crate) async fn open_existing(url: &str) -> Result<Conn, AdminError> {
    open(url).await?.ok_or_else(|| AdminError::Refused("there is no such database file".into()))
}

/// Rejects a source that is the target, as far as their URLs show. Otherwise the check for rows in
/// the target rejects it.
fn refuse_same(from: &str, to: &str) -> Result<(), AdminError> {
    let is_same = match (Address::read(from)?, Address::read(to)?) {
        (Address::Sqlite(from), Address::Sqlite(to)) => {
            let canonical = |address: &SqliteAddress| address.file()?.canonicalize().ok();
            canonical(&from).is_some_and(|from| Some(from) == canonical(&to))
        }
        (Address::Postgres(from), Address::Postgres(to)) => {
            let from = postgres::driver_options(&from)?;
            let to = postgres::driver_options(&to)?;
            (from.get_host(), from.get_socket(), from.get_port(), from.get_database())
                == (to.get_host(), to.get_socket(), to.get_port(), to.get_database())
        }
        _ => false,
    };
    if from == to || is_same {
        return Err(AdminError::Refused("the source and the target are the same".into()));
    }
    Ok(())
}

impl Conn {
    /// Begins a snapshot of the whole database: concurrent writes are not visible.
    pub(crate) async fn begin_snapshot(&mut self) -> Result<(), AdminError> {
        self.execute(match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })
        .await
    }

    pub(crate) async fn close(self) -> Result<(), AdminError> {
        match self {
            Self::Sqlite(conn) => conn.close().await,
            Self::Postgres(conn) => conn.close().await,
        }
        .or_admin_error()
    }

    /// Executes statements without results.
    pub(crate) async fn execute(&mut self, sql: &'static str) -> Result<(), AdminError> {
        on!(self, c => sqlx::raw_sql(sql).execute(c).await.map(drop))
    }

    /// Names of the objects in the database.
    pub(crate) async fn found(&mut self) -> Result<Found, AdminError> {
        match self {
            Self::Sqlite(conn) => Found::in_sqlite(conn).await,
            Self::Postgres(conn) => Found::in_postgres(conn).await,
        }
        .or_admin_error()
    }

    /// Whether a table of this name is visible.
    pub(crate) async fn has_table(&mut self, name: &str) -> Result<bool, AdminError> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = $1"
            }
            Self::Postgres(_) => "SELECT to_regclass(quote_ident($1)) IS NOT NULL",
        };
        on!(self, c => sqlx::query_scalar::<_, bool>(sql).bind(name).fetch_one(c).await)
    }

    /// Numbers of users, sessions and todos.
    pub(crate) async fn counts(&mut self) -> Result<[i64; 3], AdminError> {
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
                   (SELECT count(*) FROM todos)";
        let (users, sessions, todos) =
            on!(self, c => sqlx::query_as::<_, (i64, i64, i64)>(sql).fetch_one(c).await)?;
        Ok([users, sessions, todos])
    }
}
