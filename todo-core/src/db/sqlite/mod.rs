//! SQLite: readers, and one writer with group commit. Each write returns only after its commit is
//! on disk (`synchronous = FULL`); the writes of a group share one fsync.
//!
//! With one writer the process never waits for its own lock, and no deferred transaction fails as
//! busy when it upgrades from reading to writing.
//!
//! The driver is rusqlite, whose calls block. sqlx runs a thread for each connection, and the
//! handover to that thread and back took longer than the statement.

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
use uuid::Uuid;

use self::{batch::run_script, readers::Readers, writer::Writer};
use crate::{
    db::{
        DatabaseOptions, DbError, FromRows, OpenError, Row, Share, Statement,
        address::{Mode, SqliteAddress},
        batch::Script,
        schema::{Found, ups},
        statement::{MAX_PREPARED, Receive},
    },
    error::BoxError,
};

mod batch;
mod checkpoints;
mod codec;
mod fair_queue;
mod readers;
mod refold;
mod responses;
mod writer;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// Timeout of a migration, and of waiting for another process's migration.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
/// A migration that takes longer is logged.
const SLOW_MIGRATION: Duration = Duration::from_secs(2);
/// A migration among more todos is logged as a warning, before it starts.
const MANY_TODOS: i64 = 100_000;

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
        options: &DatabaseOptions,
    ) -> Result<Self, OpenError> {
        let timeout = options.timeout;
        let busy_timeout = busy_timeout(timeout);
        let Some(path) = address.file() else {
            let connection = in_memory().map_err(connect_error)?;
            let writer = Writer::spawn(connection, None, busy_timeout).map_err(connect_error)?;
            return Ok(Self { readers: None, writer: Arc::new(writer), timeout });
        };
        migrate(address, path).await?;

        let file = DatabaseFile { path: path.to_owned(), busy_timeout };
        let pool_max = options.max_connections;
        let (writer, readers) = blocking(move || {
            let connection = file.open(Access::Write)?;
            Ok((connection, Readers::open(file, pool_max)?))
        })
        .await
        .map_err(connect_error)?;
        let file = readers.file().clone();
        let writer = Writer::spawn(writer, Some(file), busy_timeout).map_err(connect_error)?;
        Ok(Self { readers: Some(Arc::new(readers)), writer: Arc::new(writer), timeout })
    }

    pub(crate) async fn fetch<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        let Some(readers) = &self.readers else { return self.execute(statement).await };
        if let Some(outcome) = readers.read_inline(&statement).await {
            return outcome;
        }
        let later = Box::pin(readers.read_blocking(statement));
        tokio::time::timeout(self.timeout, later).await.unwrap_or(Err(DbError::Timeout))
    }

    pub(crate) async fn execute<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        let written = self.writer.run(statement.caller, move |connection| {
            let mut rows = R::default();
            run_statement(connection, &statement, usize::MAX, &mut rows)?;
            Ok(rows)
        });
        tokio::time::timeout(self.timeout, written).await.unwrap_or(Err(DbError::Timeout))
    }

    pub(crate) async fn execute_script<S: Script>(
        &self,
        caller: Option<Uuid>,
        script: S,
    ) -> Result<S::Output, DbError> {
        let written = self.writer.run(caller, move |connection| run_script(connection, script));
        tokio::time::timeout(self.timeout, written).await.unwrap_or(Err(DbError::Timeout))
    }

    /// The writer skips a write whose future was dropped, unless it has started: then it commits.
    pub(crate) fn share(&self) -> Share {
        let reads = self.readers.as_ref().map_or(writer::SHARE, |readers| readers.share());
        Share { reads, writes: Some(writer::SHARE), drops_writes: true }
    }

    /// A database in memory has no pool: only the writer's waits are counted.
    #[cfg(feature = "http")]
    pub(crate) fn stats(&self) -> crate::db::PoolStats {
        let readers = self.readers.as_deref().map(Readers::stats).unwrap_or_default();
        let writer = self.writer.waits.stats(0, 0);
        crate::db::PoolStats {
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

/// The database file, and how long a statement on it waits for another process's lock.
#[derive(Clone)]
struct DatabaseFile {
    path: PathBuf,
    busy_timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl DatabaseFile {
    fn open(&self, access: Access) -> rusqlite::Result<Connection> {
        // Readers too open the file for writing: the first connection after a crash recovers the
        // log. No mutex: one thread at a time uses a connection.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
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

/// Caches a connection's prepared statements.
fn keep_prepared(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(MAX_PREPARED);
    refold::register(connection)?;
    // Otherwise the plan depends on the value of LIMIT, and each bind of it prepares a page again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Runs a statement, whose rows `receiver` receives; `false` if there are more than `max_rows`.
fn run_statement(
    connection: &Connection,
    statement: &Statement,
    max_rows: usize,
    receiver: &mut impl Receive,
) -> Result<bool, DbError> {
    let mut prepared = connection.prepare_cached(statement.sql.as_str())?;
    for at in 1..=prepared.parameter_count() {
        // SQLite numbers parameters by first occurrence; `$4` is the parameter's name.
        let number = prepared.parameter_name(at).and_then(|name| name.get(1..)?.parse().ok());
        let number: usize = number.ok_or(DbError::Bind)?;
        let value = number.checked_sub(1).and_then(|index| statement.binds.get(index));
        prepared.raw_bind_parameter(at, value.ok_or(DbError::Bind)?)?;
    }
    // Of a statement without rows; otherwise it is the number of the previous one.
    let returns_rows = prepared.column_count() > 0;
    let mut taken = 0;
    // Read to the end: a statement outside a transaction commits there, and fails there if it
    // cannot.
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        taken += 1;
        if taken > max_rows {
            return Ok(false);
        }
        receiver.push(&Row::Sqlite(row))?;
        if receiver.is_full() {
            break;
        }
    }
    drop(rows);
    receiver.set_affected(if returns_rows { taken as u64 } else { connection.changes() });
    Ok(true)
}

/// Runs a statement without parameters and rows.
fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Migrates the file's schema to the latest version, and creates the file if there is none.
async fn migrate(address: &SqliteAddress, path: &Path) -> Result<(), OpenError> {
    let connect = |e: sqlx::Error| OpenError::Connect(BoxError::new(e));
    let is_there = usable(address, path)?;
    let had_lock = lock_path(path).exists();
    let lock = lock_beside(path).await?;
    if is_there && let Err(error) = check_schema(path).await {
        // Leave no lock file beside another program's database.
        if !had_lock && matches!(error, OpenError::Foreign(_)) {
            let _ = std::fs::remove_file(lock_path(path));
        }
        return Err(error);
    }
    make_private(path);
    // The journal mode is stored in the file, for all connections.
    let options = connect_options(path).journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await.map_err(connect)?;
    announce(&mut connection).await.map_err(connect)?;
    let run = async {
        let mut run = std::pin::pin!(MIGRATIONS.run(&mut connection));
        if let Ok(outcome) = tokio::time::timeout(SLOW_MIGRATION, &mut run).await {
            return Ok(outcome);
        }
        tracing::info!("migrating the schema: a large file takes minutes");
        tokio::time::timeout(MIGRATION_TIMEOUT, run).await
    };
    run.await
        .map_err(|_| OpenError::Migrate(BoxError::new("timed out after 10 min")))?
        .map_err(|e| OpenError::Migrate(BoxError::new(e)))?;
    connection.close().await.map_err(connect)?;
    drop(lock);
    Ok(())
}

/// Checks that a file can be migrated, without changing it.
async fn check_schema(path: &Path) -> Result<(), OpenError> {
    let connect = |e: sqlx::Error| OpenError::Connect(BoxError::new(e));
    let mut connection = connect_options(path).connect().await.map_err(connect)?;
    let found = Found::in_sqlite(&mut connection).await.map_err(connect)?;
    connection.close().await.map_err(connect)?;
    found.applied(&MIGRATIONS).map(drop)
}

/// Logs how many todos the pending migrations are going to read.
async fn announce(connection: &mut sqlx::SqliteConnection) -> sqlx::Result<()> {
    let found = Found::in_sqlite(connection).await?;
    // Checked before, so that an error here is one of the moment, as of a lock.
    let Ok(applied) = found.applied(&MIGRATIONS) else { return Ok(()) };
    let is_pending = ups(&MIGRATIONS).any(|migration| !applied.contains(&migration.version));
    if applied.is_empty() || !is_pending {
        return Ok(());
    }
    let sql = "SELECT count(*) FROM todos";
    let todos: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    if todos > MANY_TODOS {
        tracing::warn!(
            todos,
            "migrating the schema: SQLite reads all todos, some 10 s for a million, and other \
             processes cannot write meanwhile"
        );
    } else {
        tracing::info!(todos, "migrating the schema");
    }
    Ok(())
}

/// Checks that the disk has `times` the size of the database file free, before all todos are
/// written again.
#[cfg(feature = "admin")]
pub(crate) fn check_space(path: &Path, times: u64) -> Result<(), OpenError> {
    let Ok(file) = path.metadata() else { return Ok(()) };
    let needed = file.len().saturating_mul(times);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match free_space(directory.unwrap_or(Path::new("."))) {
        Some(free) if free < needed => Err(OpenError::Migrate(BoxError::new(format!(
            "SQLite writes all todos again and needs {} MiB on the disk of {}, which has {} MiB \
             free: nothing was changed",
            needed.div_ceil(1 << 20),
            path.display(),
            free >> 20
        )))),
        _ => Ok(()),
    }
}

/// Free bytes on the disk of `directory`; `None` if unknown.
#[cfg(feature = "admin")]
fn free_space(directory: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return rustix::fs::statvfs(directory)
        .ok()
        .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    #[cfg(not(target_os = "linux"))]
    return None;
}

/// A database in memory with the latest schema. It needs no migration record: it ends with its
/// connection.
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
    OpenError::Connect(BoxError::new(error))
}

/// Runs blocking work on tokio's blocking threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    // Neither cancellation nor a panic is expected; in both cases the outcome is unknown.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DbError::Closed))
}

/// How long a statement waits for another process's lock: less than the call's timeout, so that
/// SQLite's error names the cause.
fn busy_timeout(call: Duration) -> Duration {
    call * 3 / 4
}

pub(super) fn is_unique_violation(error: &rusqlite::Error) -> bool {
    // UNIQUE and PRIMARYKEY
    matches!(extended_code(error), Some(2067 | 1555))
}

pub(super) fn is_foreign_key_violation(error: &rusqlite::Error) -> bool {
    extended_code(error) == Some(787)
}

/// The call may succeed on a retry: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
pub(super) fn is_transient(error: &rusqlite::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6 | 8 | 10 | 13 | 14))
}

/// Whether a statement did not begin because another process holds the lock.
fn is_blocked(error: &rusqlite::Error) -> bool {
    const BUSY: i32 = 5;
    primary_code(error) == Some(BUSY)
}

/// SQLite's primary result code, without the extension.
fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Options of sqlx for an existing file: sqlx migrates, copies and imports.
pub(crate) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).foreign_keys(true).disable_statement_logging()
}

/// Checks that the file of `address` can be written or created. Returns whether it exists.
///
/// # Errors
/// The address forbids writing or creating the file, or the path cannot be a file.
pub(crate) fn usable(address: &SqliteAddress, path: &Path) -> Result<bool, OpenError> {
    let refused = |why: &str| Err(connect_error(why));
    let is_there = path.exists();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match address.mode {
        Mode::Read => refused("mode=ro in its address forbids writing to it"),
        _ if path.is_dir() => refused("it is a directory"),
        Mode::Existing if !is_there => {
            refused("there is no such file, and mode=rw does not create one")
        }
        _ if directory.is_some_and(|directory| !directory.is_dir()) => {
            refused("its directory is not there")
        }
        _ => Ok(is_there),
    }
}

/// Checks that an existing file can be written now, as the server writes it. Nothing is changed.
#[cfg(feature = "admin")]
pub(crate) async fn try_to_write(path: &Path) -> Result<(), OpenError> {
    let file = DatabaseFile { path: path.to_owned(), busy_timeout: SLOW_MIGRATION };
    let tried = blocking(move || {
        let connection = file.open(Access::Write)?;
        Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?)
    });
    tried.await.map_err(connect_error)
}

/// Creates a new database file that only its owner can read: it will hold password hashes, and the
/// files that SQLite creates beside it take its mode. Errors are ignored: opening the file reports
/// them better.
pub(crate) fn make_private(database: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(database));
}

/// The path of the lock file beside the database.
fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Locks the lock file beside the database. Only its owner can open it: any process that can may
/// block a start. sqlx's own migration lock does nothing on SQLite; without this one, processes
/// that start together on a new file run the same migrations concurrently.
pub(crate) async fn lock_beside(database: &Path) -> Result<std::fs::File, OpenError> {
    let path = lock_path(database);
    let deadline = tokio::time::Instant::now() + MIGRATION_TIMEOUT;
    let fail = |e: std::io::Error, path: &Path| {
        OpenError::Connect(BoxError::new(format!("lock file {}: {e}", path.display())))
    };
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(|e| fail(e, &path))?;
    // For a file of an earlier release. On another user's file this fails, and its mode stays.
    #[cfg(unix)]
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let mut notice = Some(tokio::time::Instant::now() + SLOW_MIGRATION);
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
