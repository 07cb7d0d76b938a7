//! What an operator does to a whole database, beside the server: migrations shown and taken back,
//! and rows moved between databases. It opens one connection of its own and leaves nothing behind
//! that a command did not ask for: looking makes no file and no table.

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
    error::Cause,
};

pub use self::backup::{BackedUp, backup};
pub use self::copy::{Copied, Progress, copy};
pub use self::import::{BadRow, BadRows, Imported, import};
pub use self::migrations::{Change, Migration, Revert, migrate, migrations, revert};
pub use self::users::{Account, delete_user, find_user, reset_password, users};

mod backup;
mod copy;
mod import;
mod migrations;
mod users;

/// Why a command on a whole database failed. No text repeats an address: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A database cannot be opened or migrated.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A statement failed; what it was part of is undone.
    #[error("the database refused: {0}")]
    Sql(#[source] Cause),
    /// What was asked is refused, and why.
    #[error("{0}")]
    Refused(String),
    /// Rows of the source break a rule; nothing was written.
    #[error("{} of the source's rows break a rule: nothing was written", .0.count)]
    Invalid(BadRows),
    /// There is no runtime, or no file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<sqlx::Error> for TransferError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(Cause::new(error))
    }
}

impl From<sqlx::migrate::MigrateError> for TransferError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Open(OpenError::Migrate(Cause::new(error)))
    }
}

/// Whether `url` names a database that ends with its process.
#[must_use]
pub fn is_in_memory(url: &str) -> bool {
    matches!(Address::parse(url), Ok(Address::Sqlite(address)) if address.file().is_none())
}

/// Finds out whether a start would open the database at `url`, as far as that can be seen without
/// changing anything: an SQLite file can be written, or made.
///
/// # Errors
/// [`TransferError`]: what a start would end with.
pub async fn check(url: &str) -> Result<(), TransferError> {
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

/// The same statements on either driver.
macro_rules! on {
    ($conn:expr, $c:ident => $work:expr) => {
        match $conn {
            $crate::transfer::Conn::Sqlite($c) => $work,
            $crate::transfer::Conn::Postgres($c) => $work,
        }
    };
}
pub(crate) use on;

/// Opens the database that `url` names as it is; none if it is a file that is not there.
pub(crate) async fn open(url: &str) -> Result<Option<Conn>, TransferError> {
    let connect = |e: sqlx::Error| OpenError::Connect(Cause::new(e));
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
        .map_err(|_| OpenError::Connect(Cause::new("timed out after 60 s")))?
        .map_err(connect)?;
    Ok(Some(Conn::Postgres(conn)))
}

fn file_of(address: &SqliteAddress) -> Result<&Path, TransferError> {
    address.file().ok_or_else(|| {
        TransferError::Refused("a database in memory is gone with the command: name a file".into())
    })
}

/// As [`open`], of a database that must be there.
pub(crate) async fn open_existing(url: &str) -> Result<Conn, TransferError> {
    open(url).await?.ok_or_else(|| TransferError::Refused("there is no such database file".into()))
}

/// Refuses a source that is the target, as far as the addresses tell. What they do not tell, the
/// rows in the target do.
fn refuse_same(from: &str, to: &str) -> Result<(), TransferError> {
    let is_same = match (Address::read(from)?, Address::read(to)?) {
        (Address::Sqlite(from), Address::Sqlite(to)) => {
            let place = |address: &SqliteAddress| address.file()?.canonicalize().ok();
            place(&from).is_some_and(|from| Some(from) == place(&to))
        }
        (Address::Postgres(from), Address::Postgres(to)) => {
            let (from, to) = (postgres::driver_options(&from)?, postgres::driver_options(&to)?);
            (from.get_host(), from.get_socket(), from.get_port(), from.get_database())
                == (to.get_host(), to.get_socket(), to.get_port(), to.get_database())
        }
        _ => false,
    };
    if from == to || is_same {
        return Err(TransferError::Refused("the source and the target are the same".into()));
    }
    Ok(())
}

impl Conn {
    /// Begins one look at the whole database: what others write meanwhile is not seen.
    pub(crate) async fn begin_snapshot(&mut self) -> Result<(), TransferError> {
        self.run(match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })
        .await
    }

    pub(crate) async fn close(self) -> Result<(), TransferError> {
        match self {
            Self::Sqlite(conn) => conn.close().await?,
            Self::Postgres(conn) => conn.close().await?,
        }
        Ok(())
    }

    /// Runs statements whose results nobody reads.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), TransferError> {
        on!(self, c => sqlx::raw_sql(sql).execute(c).await.map(drop))?;
        Ok(())
    }

    /// What is in the database, by name.
    pub(crate) async fn found(&mut self) -> Result<Found, TransferError> {
        Ok(match self {
            Self::Sqlite(conn) => Found::in_sqlite(conn).await?,
            Self::Postgres(conn) => Found::in_postgres(conn).await?,
        })
    }

    /// Whether a table of this name can be seen.
    pub(crate) async fn has_table(&mut self, name: &str) -> Result<bool, TransferError> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = $1"
            }
            Self::Postgres(_) => "SELECT to_regclass(quote_ident($1)) IS NOT NULL",
        };
        Ok(on!(self, c => sqlx::query_scalar::<_, bool>(sql).bind(name).fetch_one(c).await)?)
    }

    /// How many users, sessions and todos there are.
    pub(crate) async fn counts(&mut self) -> Result<[i64; 3], TransferError> {
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
                   (SELECT count(*) FROM todos)";
        let (users, sessions, todos) =
            on!(self, c => sqlx::query_as::<_, (i64, i64, i64)>(sql).fetch_one(c).await)?;
        Ok([users, sessions, todos])
    }
}
