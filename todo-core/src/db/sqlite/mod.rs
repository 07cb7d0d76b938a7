//! SQLite: readers, and one writer that commits the writes that wait together. Each write is answered
//! only after the commit that carries it is on disk (`synchronous = FULL`), and many answers share one
//! fsync.
//!
//! With one writer there is no lock to wait for inside the process, and no deferred transaction that
//! finds the file busy when it turns from reading to writing.
//!
//! The driver is rusqlite, whose calls block: sqlx keeps a thread for each connection, and handing
//! every statement over to it and back took longer than the statement.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use sqlx::{
    ConnectOptions, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use self::{readers::Readers, writer::Writer};
use crate::{
    db::{
        DbOptions, Fault, OpenError, Row, Rows, Share, Statement,
        address::{Mode, SqliteAddress},
        schema::Found,
    },
    error::Cause,
};

mod checkpoints;
mod line;
mod readers;
mod writer;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long a migration may take, and a start may wait for another process's.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
/// A migration that takes longer is told.
const MIGRATION_PAUSE: Duration = Duration::from_secs(2);
/// Prepared statements that a connection keeps: all that there are.
const PREPARED: usize = 80;

#[derive(Clone)]
pub(crate) struct Sqlite {
    /// `None` in memory: there, a second connection would see another database.
    readers: Option<Arc<Readers>>,
    writer: Arc<Writer>,
    timeout: Duration,
}

impl Sqlite {
    pub(crate) async fn open(
        address: &SqliteAddress,
        options: &DbOptions,
    ) -> Result<Self, OpenError> {
        let (timeout, patience) = (options.timeout, patience(options.timeout));
        let Some(path) = address.file() else {
            let connection = in_memory().map_err(connect_error)?;
            let writer = Writer::spawn(connection, None, patience).map_err(connect_error)?;
            return Ok(Self { readers: None, writer: Arc::new(writer), timeout });
        };
        migrate(address, path).await?;

        let file = File { path: path.to_owned(), patience };
        let pool_max = options.pool_max;
        let (writer, readers) = blocking(move || {
            let connection = file.open(Access::Write)?;
            Ok((connection, Readers::open(file, pool_max)?))
        })
        .await
        .map_err(connect_error)?;
        let file = readers.file().clone();
        let writer = Writer::spawn(writer, Some(file), patience).map_err(connect_error)?;
        Ok(Self { readers: Some(Arc::new(readers)), writer: Arc::new(writer), timeout })
    }

    pub(crate) async fn read<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        let Some(readers) = &self.readers else { return self.write(statement).await };
        if let Some(outcome) = readers.read_here(&statement).await {
            return outcome;
        }
        let later = Box::pin(readers.read_later(statement));
        tokio::time::timeout(self.timeout, later).await.unwrap_or(Err(Fault::Deadline))
    }

    pub(crate) async fn write<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        tokio::time::timeout(self.timeout, self.writer.run(statement))
            .await
            .unwrap_or(Err(Fault::Deadline))
    }

    /// A write that is dropped is left out by the writer, unless it was taken: then it is committed.
    pub(crate) fn share(&self) -> Share {
        let reads = self.readers.as_ref().map_or(writer::SHARE, |readers| readers.share());
        Share { reads, writes: Some(writer::SHARE), drops_writes: true }
    }

    /// In memory there is no pool, and nothing to tell of one but the writer.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> crate::core::Load {
        let readers = self.readers.as_deref().map(Readers::load).unwrap_or_default();
        let writer = self.writer.waits.load(0, 0);
        crate::core::Load {
            waiting: readers.waiting + writer.waiting,
            waited_micros: readers.waited_micros + writer.waited_micros,
            ..readers
        }
    }

    pub(crate) async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}

/// Where the database is, and how long a statement waits there for another process's lock.
#[derive(Clone)]
struct File {
    path: PathBuf,
    patience: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl File {
    fn open(&self, access: Access) -> rusqlite::Result<Connection> {
        // A reader opens the file for writing too: it may be the first to come after a crash, and
        // recover the log. No mutex: a connection is used by one thread at a time.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.patience)?;
        connection.execute_batch(match access {
            Access::Read => "PRAGMA query_only = ON; PRAGMA cache_size = -4096",
            Access::Write => {
                "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; \
                 PRAGMA journal_size_limit = 33554432"
            }
        })?;
        if access == Access::Write {
            checkpoints::measure_log(&connection);
        }
        keep_prepared(&connection)?;
        Ok(connection)
    }
}

/// Has a connection prepare each statement once.
fn keep_prepared(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // Otherwise it looks at what is bound to LIMIT, and prepares a page anew whenever that is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Runs a statement and takes its rows; `None` if there are more than `most`.
fn run<R: Rows>(
    connection: &Connection,
    statement: &Statement,
    most: usize,
) -> Result<Option<R>, Fault> {
    let mut prepared = connection.prepare_cached(statement.sql)?;
    for at in 1..=prepared.parameter_count() {
        // SQLite numbers `$4` by where it first stands, and knows it by this name.
        let number = prepared.parameter_name(at).and_then(|name| name.get(1..)?.parse().ok());
        let number: usize = number.ok_or(Fault::Bind)?;
        let value = number.checked_sub(1).and_then(|index| statement.binds.get(index));
        prepared.raw_bind_parameter(at, value.ok_or(Fault::Bind)?)?;
    }
    let mut outcome = R::default();
    let mut taken = 0;
    // To the end, which is where a statement of its own commits and says whether it could.
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        taken += 1;
        if taken > most {
            return Ok(None);
        }
        outcome.push(&Row::Sqlite(row))?;
        if outcome.is_full() {
            break;
        }
    }
    drop(rows);
    outcome.changed(connection.changes());
    Ok(Some(outcome))
}

/// Brings the file's schema up to date, and makes the file if there is none.
async fn migrate(address: &SqliteAddress, path: &Path) -> Result<(), OpenError> {
    let connect = |e: sqlx::Error| OpenError::Connect(Cause::new(e));
    let is_there = usable(address, path)?;
    let had_lock = lock_of(path).exists();
    let lock = lock_beside(path).await?;
    if is_there && let Err(error) = look(path).await {
        // Nothing is left beside what is not ours.
        if !had_lock && matches!(error, OpenError::Foreign(_)) {
            let _ = std::fs::remove_file(lock_of(path));
        }
        return Err(error);
    }
    make_private(path);
    // Kept by the file, for all its connections.
    let options = connect_options(path).journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await.map_err(connect)?;
    let run = async {
        let mut run = std::pin::pin!(MIGRATIONS.run(&mut connection));
        if let Ok(outcome) = tokio::time::timeout(MIGRATION_PAUSE, &mut run).await {
            return Ok(outcome);
        }
        tracing::info!("bringing the schema up to date: a large file takes minutes");
        tokio::time::timeout(MIGRATION_TIMEOUT, run).await
    };
    run.await
        .map_err(|_| OpenError::Migrate(Cause::new("timed out after 10 min")))?
        .map_err(|e| OpenError::Migrate(Cause::new(e)))?;
    connection.close().await.map_err(connect)?;
    drop(lock);
    Ok(())
}

/// Finds out whether a file can be migrated, by a connection that changes nothing.
async fn look(path: &Path) -> Result<(), OpenError> {
    let connect = |e: sqlx::Error| OpenError::Connect(Cause::new(e));
    let mut connection = connect_options(path).connect().await.map_err(connect)?;
    let found = Found::in_sqlite(&mut connection).await.map_err(connect)?;
    connection.close().await.map_err(connect)?;
    found.applied(&MIGRATIONS).map(drop)
}

/// A database in memory with today's schema. Nobody will migrate it: it ends with its connection.
fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA foreign_keys = ON")?;
    for migration in MIGRATIONS.iter().filter(|m| m.migration_type.is_up_migration()) {
        connection.execute_batch(migration.sql.as_str())?;
    }
    keep_prepared(&connection)?;
    Ok(connection)
}

fn connect_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Connect(Cause::new(error))
}

/// Runs what blocks on a thread where that does no harm.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    // It is not cancelled, and panics are not expected: whichever it was, nothing is known.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Fault::Closed))
}

/// How long a statement waits for another process's lock: less than its caller does, so that it is
/// SQLite that says why.
fn patience(call: Duration) -> Duration {
    call * 3 / 4
}

pub(super) fn is_unique_violation(error: &rusqlite::Error) -> bool {
    // UNIQUE and PRIMARYKEY
    matches!(extended_code(error), Some(2067 | 1555))
}

pub(super) fn is_foreign_key_violation(error: &rusqlite::Error) -> bool {
    extended_code(error) == Some(787)
}

/// It may work a moment later: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
pub(super) fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6 | 8 | 10 | 13 | 14))
}

/// Whether a statement had no chance to begin: another process holds the lock.
fn is_blocked(error: &rusqlite::Error) -> bool {
    const BUSY: i32 = 5;
    primary_code(error) == Some(BUSY)
}

/// SQLite's result code without what extends it.
fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// How sqlx opens a file that is there: it migrates, copies and imports.
pub(crate) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).foreign_keys(true).disable_statement_logging()
}

/// Whether the file of an address that is to be written is there already.
///
/// # Errors
/// The address forbids to write the file, or to make it; or no file can be there.
pub(crate) fn usable(address: &SqliteAddress, path: &Path) -> Result<bool, OpenError> {
    let refused = |why: &str| Err(connect_error(why));
    let is_there = path.exists();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match address.mode {
        Mode::Read => refused("mode=ro in its address forbids to write it"),
        _ if path.is_dir() => refused("it is a directory"),
        Mode::Existing if !is_there => refused("there is no such file, and mode=rw makes none"),
        _ if directory.is_some_and(|directory| !directory.is_dir()) => {
            refused("its directory is not there")
        }
        _ => Ok(is_there),
    }
}

/// Whether a file that is there can be written now, as the server writes it. Nothing is changed.
#[cfg(all(feature = "server", feature = "postgres"))]
pub(crate) async fn try_to_write(path: &Path) -> Result<(), OpenError> {
    let file = File { path: path.to_owned(), patience: MIGRATION_PAUSE };
    let tried = blocking(move || {
        let connection = file.open(Access::Write)?;
        Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?)
    });
    tried.await.map_err(connect_error)
}

/// Makes a new database file that only its owner can read: it will hold password hashes, and the
/// files that SQLite puts beside it take its mode. Whatever keeps that from working is told, better,
/// by opening it.
pub(crate) fn make_private(database: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(database));
}

/// The lock file beside the database.
fn lock_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Takes the lock file beside the database, which only its owner can open: whoever can, can hold a
/// start up. sqlx's own migration lock does nothing on SQLite, so
/// without this one, processes that start together on a new file run each other's migrations.
pub(crate) async fn lock_beside(database: &Path) -> Result<std::fs::File, OpenError> {
    let path = lock_of(database);
    let deadline = tokio::time::Instant::now() + MIGRATION_TIMEOUT;
    let fail = |e: std::io::Error, path: &Path| {
        OpenError::Connect(Cause::new(format!("lock file {}: {e}", path.display())))
    };
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(|e| fail(e, &path))?;
    // One that an earlier release made. That of another user stays as it is.
    #[cfg(unix)]
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let mut notice = Some(tokio::time::Instant::now() + MIGRATION_PAUSE);
    loop {
        if notice.is_some_and(|at| tokio::time::Instant::now() > at) {
            notice = None;
            tracing::warn!(
                lock = %path.display(),
                "waiting for another process that holds the lock of the database's migrations"
            );
        }
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(fail(error.into(), &path)),
        }
    }
}
