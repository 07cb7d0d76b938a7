//! SQLite: a pool of readers, and one writer that commits the writes that wait together. Each write
//! is answered only after the commit that carries it is on disk (`synchronous = FULL`), and many
//! answers share one fsync.
//!
//! With one writer there is no lock to wait for inside the process, and no deferred transaction that
//! finds the file busy when it turns from reading to writing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Sqlite as Driver, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    db::{DbOptions, Fault, OpenError, Pool},
    error::Cause,
};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long a start may wait for another process to finish migrating.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// Writes that may wait for the writer; more are refused by their deadline.
const QUEUE: usize = 1024;
/// Writes that one commit carries at most, so that the first does not wait for ever.
const GROUP: usize = 256;
/// How long a write waits for another process's lock, once one has waited in vain.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(20);
/// Each reader is a thread of the driver's; more of them than this only take turns.
const MAX_READERS: u32 = 8;

#[derive(Clone)]
pub(crate) struct Sqlite {
    /// `None` in memory: there, a second connection would see another database.
    readers: Option<Pool<Driver>>,
    writer: Arc<Writer>,
    timeout: Duration,
}

impl Sqlite {
    pub(crate) async fn open(url: &str, options: &DbOptions) -> Result<Self, OpenError> {
        let connect: SqliteConnectOptions = url
            .parse()
            .map_err(|e: sqlx::Error| OpenError::Url(format!("not a SQLite address: {e}")))?;
        let in_memory = is_in_memory(url);
        if !in_memory && file_of(url).is_none() {
            return Err(OpenError::Url("sqlite:// wants a file, or :memory:".into()));
        }
        let connect = connect
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(patience(options.timeout))
            .disable_statement_logging();

        let lock = if in_memory {
            None
        } else {
            let lock = lock_beside(connect.get_filename()).await?;
            make_private(connect.get_filename());
            Some(lock)
        };
        let mut writer = connect.connect().await.map_err(|e| OpenError::Connect(Cause::new(e)))?;
        tokio::time::timeout(MIGRATION_TIMEOUT, MIGRATIONS.run(&mut writer))
            .await
            .map_err(|_| OpenError::Migrate(Cause::new("timed out after 60 s")))?
            .map_err(|e| OpenError::Migrate(Cause::new(e)))?;
        drop(lock);

        let readers = (!in_memory).then(|| {
            let pool = SqlitePoolOptions::new()
                .min_connections(1)
                .max_connections(options.pool_max.clamp(1, MAX_READERS))
                .acquire_timeout(options.timeout)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(
                    connect.clone().create_if_missing(false).pragma("query_only", "on"),
                );
            Pool::new(pool)
        });
        let writer = Arc::new(Writer::spawn(writer, connect, patience(options.timeout)));
        Ok(Self { readers, writer, timeout: options.timeout })
    }

    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        let Some(readers) = &self.readers else { return self.write(work).await };
        let call = async { work(&mut *readers.acquire().await?).await };
        tokio::time::timeout(self.timeout, call)
            .await
            .map_err(|_| Fault::Deadline)?
            .map_err(Fault::Sql)
    }

    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        tokio::time::timeout(self.timeout, self.writer.run(work))
            .await
            .unwrap_or(Err(Fault::Deadline))
    }

    /// In memory there is no pool, and nothing to tell of one.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> crate::core::Load {
        self.readers.as_ref().map(Pool::load).unwrap_or_default()
    }

    pub(crate) async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}

/// How long a statement waits for another process's lock: less than its caller does, so that it is
/// SQLite that says why.
fn patience(call: Duration) -> Duration {
    call * 3 / 4
}

/// What a write left behind: whether its statement failed in a way that may have ended the whole
/// transaction, or for want of the lock, and whom to tell once the commit's outcome is known.
struct Ran {
    fatal: bool,
    blocked: bool,
    answer: Box<dyn FnOnce(Result<(), Arc<sqlx::Error>>) + Send>,
}

/// One write: exactly one statement, so that it is atomic by itself inside a shared transaction.
type Job = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Option<Ran>> + Send>;

/// The handle to the one task that writes.
struct Writer {
    jobs: mpsc::Sender<Job>,
    closing: Arc<Notify>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    fn spawn(conn: SqliteConnection, connect: SqliteConnectOptions, patience: Duration) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(write_loop(conn, connect, patience, queue, Arc::clone(&closing)));
        Self { jobs, closing, task: tokio::sync::Mutex::new(Some(task)) }
    }

    async fn run<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            Box::pin(async move {
                // Whoever waited has given up: a write that nobody hears of must not happen.
                if answer.is_closed() {
                    return None;
                }
                let result = work(conn).await;
                let fatal = matches!(&result, Err(error) if !is_statement_error(error));
                let blocked = matches!(&result, Err(error) if is_blocked(error));
                let tell = move |commit: Result<(), Arc<sqlx::Error>>| {
                    let _ = answer.send(match (result, commit) {
                        (Err(error), _) => Err(Fault::Sql(error)),
                        (Ok(_), Err(error)) => Err(Fault::Commit(error)),
                        (Ok(value), Ok(())) => Ok(value),
                    });
                };
                Some(Ran { fatal, blocked, answer: Box::new(tell) })
            })
        });
        let gone = || Fault::Sql(sqlx::Error::PoolClosed);
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Finishes what is queued, then closes the file.
    async fn close(&self) {
        self.closing.notify_one();
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

/// What a write left of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Sound,
    /// Another process holds the lock; nothing was begun.
    Blocked,
    /// There may be half a transaction on it: it is not to be used again.
    Unsound,
}

/// Takes what waits, until there is nobody left. While another process holds the lock, only the
/// first write waits long for it: behind one writer, the patience of each would add up.
async fn write_loop(
    conn: SqliteConnection,
    connect: SqliteConnectOptions,
    patience: Duration,
    mut queue: mpsc::Receiver<Job>,
    closing: Arc<Notify>,
) {
    let mut sound = Some(conn);
    let mut blocked = false;
    loop {
        let first = tokio::select! {
            job = queue.recv() => job,
            () = closing.notified() => {
                queue.close();
                continue;
            }
        };
        let Some(first) = first else { break };
        let mut conn = match sound.take() {
            Some(conn) => conn,
            None => match connect.connect().await {
                Ok(conn) => conn,
                Err(error) => {
                    // Dropping the job tells its caller; nothing of it has run.
                    tracing::error!(%error, "cannot reopen the database file for writing");
                    continue;
                }
            },
        };
        let left = match queue.try_recv() {
            // Nobody else waits: the statement commits itself, two round trips fewer.
            Err(_) => write_one(&mut conn, first).await,
            Ok(second) => write_group(&mut conn, [first, second], &mut queue).await,
        };
        let was_blocked = std::mem::replace(&mut blocked, left == Left::Blocked);
        let is_sound = match (was_blocked, left) {
            (_, Left::Unsound) => false,
            (false, Left::Blocked) => {
                tracing::warn!("another process holds the database file's lock");
                set_patience(&mut conn, BLOCKED_PATIENCE).await
            }
            (true, Left::Sound) => set_patience(&mut conn, patience).await,
            (true, Left::Blocked) | (false, Left::Sound) => true,
        };
        sound = is_sound.then_some(conn);
    }
    if let Some(conn) = sound
        && let Err(error) = conn.close().await
    {
        tracing::warn!(%error, "the database file did not close cleanly");
    }
}

/// Has the connection wait so long for another process's lock. Whether it will.
async fn set_patience(conn: &mut SqliteConnection, patience: Duration) -> bool {
    // A number of ours, no input.
    let pragma = AssertSqlSafe(format!("PRAGMA busy_timeout = {}", patience.as_millis()));
    sqlx::raw_sql(pragma).execute(conn).await.is_ok()
}

/// Runs one write in a transaction of its own.
async fn write_one(conn: &mut SqliteConnection, job: Job) -> Left {
    let Some(ran) = job(conn).await else { return Left::Sound };
    (ran.answer)(Ok(()));
    match ran {
        Ran { blocked: true, .. } => Left::Blocked,
        Ran { fatal: true, .. } => Left::Unsound,
        _ => Left::Sound,
    }
}

/// Runs the given writes and whatever else waits by then in one transaction.
async fn write_group(
    conn: &mut SqliteConnection,
    first: [Job; 2],
    queue: &mut mpsc::Receiver<Job>,
) -> Left {
    let mut waiting = Vec::new();
    let mut outcome = sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await.map(drop);
    if matches!(&outcome, Err(error) if is_blocked(error)) {
        // What was taken is told by its drop.
        return Left::Blocked;
    }
    let mut next = first.into_iter();
    for _ in 0..GROUP {
        // After a failure the rest waits for the next group; what was taken is told by its drop.
        if outcome.is_err() {
            break;
        }
        let Some(job) = next.next().or_else(|| queue.try_recv().ok()) else { break };
        if let Some(ran) = job(conn).await {
            if ran.fatal {
                outcome = Err(sqlx::Error::WorkerCrashed);
            }
            waiting.push(ran.answer);
        }
    }
    if outcome.is_ok() {
        outcome = sqlx::query("COMMIT").execute(&mut *conn).await.map(drop);
    }
    let outcome = outcome.map_err(Arc::new);
    let sound = outcome.is_ok() || sqlx::query("ROLLBACK").execute(&mut *conn).await.is_ok();
    for answer in waiting {
        answer(outcome.clone());
    }
    if sound { Left::Sound } else { Left::Unsound }
}

/// Whether a statement had no chance to begin: another process holds the lock.
fn is_blocked(error: &sqlx::Error) -> bool {
    const BUSY: u32 = 5;
    primary_code(error) == Some(BUSY)
}

/// Whether an error undid its own statement only. Others (a full disk, an I/O error) may have
/// rolled back the whole transaction (SQLite, "Response To Errors Within A Transaction").
fn is_statement_error(error: &sqlx::Error) -> bool {
    const CONSTRAINT: u32 = 19;
    matches!(error, sqlx::Error::RowNotFound) || primary_code(error) == Some(CONSTRAINT)
}

/// SQLite's result code without what extends it.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// The file that `url` names, decoded as the driver does; none in memory, or if it names none.
pub(crate) fn file_of(url: &str) -> Option<PathBuf> {
    let options: SqliteConnectOptions = url.parse().ok()?;
    let file = options.get_filename();
    (!is_in_memory(url) && !file.as_os_str().is_empty()).then(|| file.to_owned())
}

pub(crate) fn is_in_memory(url: &str) -> bool {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    rest == ":memory:" || rest.starts_with(":memory:?") || rest.contains("mode=memory")
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

/// Takes the lock file beside the database. sqlx's own migration lock does nothing on SQLite, so
/// without this one, processes that start together on a new file run each other's migrations.
pub(crate) async fn lock_beside(database: &Path) -> Result<std::fs::File, OpenError> {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let deadline = tokio::time::Instant::now() + MIGRATION_TIMEOUT;
    let fail = |e: std::io::Error, path: &Path| {
        OpenError::Connect(Cause::new(format!("lock file {}: {e}", path.display())))
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| fail(e, &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(fail(error.into(), &path)),
        }
    }
}
