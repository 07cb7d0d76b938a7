//! Readers of the file. In WAL mode a reader waits for no lock, and reading a page of todos takes
//! less time than handing it to another thread: so short reads run inline, on the request's worker.
//!
//! All but one of the runtime's workers may read at once: a disk that hangs must not block the last
//! one, which serves `/health`. Further reads wait up to 5 ms for a permit. Reads without a permit
//! and long reads run on blocking threads, as do all reads on a runtime of one worker. A read is
//! long if it has many rows, or if it searches or counts many: it ends after 2 ms, and runs again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{Access, DatabaseFile, blocking, is_blocked, run_statement};
use crate::db::{CLOSE_TIMEOUT, DbError, FromRows, Statement, WaitStats};

/// Maximum rows of an inline read; a longer read runs again on a blocking thread.
const MAX_INLINE_ROWS: usize = 501;
/// Maximum wait for the permit of an inline read. A usual read takes some ten microseconds.
const MAX_INLINE_WAIT: Duration = Duration::from_millis(5);
/// Maximum time of an inline read; a longer one runs again on a blocking thread.
const MAX_INLINE_TIME: Duration = Duration::from_millis(2);
/// The instructions of SQLite's virtual machine after which the time is read. A search has some ten
/// for a todo and a term.
const INSTRUCTIONS: i32 = 1000;
/// Maximum number of connections, each with a cache of 4 MiB.
const MAX_READERS: usize = 8;
/// Connections that blocking threads leave to inline reads: long reads of one caller, as searches,
/// must not delay short ones of others.
const SPARE: usize = 1;

pub(super) struct Readers {
    file: DatabaseFile,
    /// Idle connections, at most `limit`. Their busy timeout is zero: only blocking threads
    /// wait for another process's lock.
    idle: Mutex<Vec<Connection>>,
    /// Permits of inline reads; `None` if the runtime has a single worker.
    workers: Option<Semaphore>,
    threads: Arc<Semaphore>,
    /// Number of permits of `threads`.
    max_threads: usize,
    waits: Arc<WaitStats>,
    limit: usize,
}

impl Readers {
    /// Opens the first connection. The maximum is the least of `pool_max`, two for each core, and
    /// eight.
    pub(super) fn open(file: DatabaseFile, pool_max: u32) -> Result<Self, DbError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pool_max = usize::try_from(pool_max).unwrap_or(MAX_READERS);
        let limit = pool_max.min(2 * cores).clamp(1, MAX_READERS);
        let workers = Handle::current().metrics().num_workers().saturating_sub(1).min(limit);
        let first = file.open(Access::Read)?;
        first.busy_timeout(Duration::ZERO)?;
        let idle = Mutex::new(vec![first]);
        let max_threads = if workers > 0 { (limit - SPARE).max(1) } else { limit };
        let threads = Arc::new(Semaphore::new(max_threads));
        Ok(Self {
            file,
            idle,
            workers: (workers > 0).then(|| Semaphore::new(workers)),
            threads,
            max_threads,
            waits: Arc::default(),
            limit,
        })
    }

    pub(super) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Concurrent reads of one caller: as many wait as run, since passing on a permit costs more
    /// than a usual read. Another caller's read waits for these few, about a millisecond.
    pub(super) fn share(&self) -> usize {
        2 * self.limit
    }

    /// Runs a short read on the current worker if a permit is free within 5 ms.
    pub(super) async fn read_inline<R: FromRows>(
        &self,
        statement: &Statement,
    ) -> Option<Result<R, DbError>> {
        let workers = self.workers.as_ref()?;
        let _worker = match workers.try_acquire() {
            Ok(worker) => worker,
            // Handing the read to a thread and back costs more than the wait for a permit.
            Err(_) => tokio::time::timeout(MAX_INLINE_WAIT, workers.acquire()).await.ok()?.ok()?,
        };
        // If none is idle, `read_blocking` opens one.
        let connection = self.idle().pop()?;
        let mut rows = R::default();
        let began = Instant::now();
        let is_over = move || began.elapsed() > MAX_INLINE_TIME;
        connection.progress_handler(INSTRUCTIONS, Some(is_over)).ok()?;
        let outcome = run_statement(&connection, statement, MAX_INLINE_ROWS, &mut rows);
        connection.progress_handler(0, None::<fn() -> bool>).ok()?;
        self.give_back(connection, &outcome);
        match outcome {
            Ok(is_complete) => is_complete.then_some(Ok(rows)),
            Err(DbError::Sqlite(error)) if is_interrupted(&error) => None,
            // Another process recovers or locks the file: `read_blocking` waits for it.
            Err(DbError::Sqlite(error)) if is_blocked(&error) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads on a blocking thread, when one is free.
    pub(super) async fn read_blocking<R: FromRows>(
        self: &Arc<Self>,
        statement: Statement,
    ) -> Result<R, DbError> {
        let permit = {
            let _waiting = WaitStats::begin(Arc::clone(&self.waits));
            Arc::clone(&self.threads).acquire_owned().await.map_err(|_| DbError::Closed)?
        };
        let readers = Arc::clone(self);
        blocking(move || {
            let _permit = permit;
            let idle = readers.idle().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => readers.file.open(Access::Read)?,
            };
            readers.open_spare();
            connection.busy_timeout(readers.file.busy_timeout)?;
            let mut rows = R::default();
            let outcome = run_statement(&connection, &statement, usize::MAX, &mut rows);
            connection.busy_timeout(Duration::ZERO)?;
            readers.give_back(connection, &outcome);
            outcome.map(|_all| rows)
        })
        .await
    }

    /// Opens a connection if none is idle, for inline reads meanwhile. Without it they are slower,
    /// so an error is ignored.
    fn open_spare(&self) {
        if self.max_threads < self.limit
            && self.idle().is_empty()
            && let Ok(spare) = self.file.open(Access::Read)
            && spare.busy_timeout(Duration::ZERO).is_ok()
        {
            self.keep(spare);
        }
    }

    /// Keeps a connection for the next read, unless the error may be the connection's fault.
    fn give_back<R>(&self, connection: Connection, outcome: &Result<R, DbError>) {
        let is_usable = match outcome {
            Err(DbError::Sqlite(error)) => is_blocked(error) || is_interrupted(error),
            outcome => outcome.is_ok(),
        };
        if is_usable {
            self.keep(connection);
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < self.limit && !self.threads.is_closed() {
            idle.push(connection);
        }
    }

    /// Waits for running reads, then closes every connection.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.max_threads).unwrap_or(u32::MAX);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.threads.acquire_many(all)).await.is_err() {
            tracing::warn!("the reads did not end in time");
        }
        self.threads.close();
        if let Some(workers) = &self.workers {
            workers.close();
        }
        self.idle().clear();
    }

    #[cfg(feature = "http")]
    pub(super) fn stats(&self) -> crate::db::PoolStats {
        let idle = self.idle().len();
        let reading = self.max_threads - self.threads.available_permits();
        self.waits.stats(idle + reading, idle)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the statement took longer than [`MAX_INLINE_TIME`].
fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{DatabaseOptions, Db};

    struct Opened {
        _dir: tempfile::TempDir,
        db: Db,
        readers: Arc<Readers>,
    }

    impl Opened {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("todo.db");
            let url = format!("sqlite://{}", path.display());
            let db = Db::open(&url, &DatabaseOptions::new()).await.unwrap();
            let file = DatabaseFile { path, busy_timeout: Duration::from_secs(1) };
            let readers = Arc::new(Readers::open(file, 4).unwrap());
            Self { _dir: dir, db, readers }
        }

        async fn close(self) {
            self.readers.close().await;
            self.db.close().await;
        }
    }

    /// A statement that counts to a number.
    fn count(numbers: i64) -> Statement {
        let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1) \
                   SELECT count(*) FROM n";
        Statement::new(sql).bind(numbers)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_that_takes_long_does_not_run_on_a_worker() {
        let opened = Opened::new().await;
        let readers = &opened.readers;
        for _ in 0..3 {
            let began = Instant::now();
            let long = readers.read_inline::<Option<(i64,)>>(&count(20_000_000)).await;
            assert!(long.is_none());
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
            assert_eq!(readers.idle().len(), 1, "the connection is kept");
        }
        let long = readers.read_blocking::<Option<(i64,)>>(count(300_000)).await.unwrap();
        assert_eq!(long, Some((300_000,)));
        // Neither has the next read on the connection an end.
        let short = readers.read_inline::<Option<(i64,)>>(&count(10)).await;
        assert_eq!(short.unwrap().unwrap(), Some((10,)));
        opened.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn long_reads_leave_a_connection_to_short_ones() {
        let opened = Opened::new().await;
        let readers = &opened.readers;
        let long: Vec<_> = (0..2 * readers.limit)
            .map(|_| {
                let readers = Arc::clone(readers);
                tokio::spawn(async move {
                    readers.read_blocking::<Option<(i64,)>>(count(2_000_000)).await.unwrap()
                })
            })
            .collect();
        // Each thread has a connection, and the spare one is open.
        while readers.threads.available_permits() > 0 || readers.idle().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..10 {
            let short = readers.read_inline::<Option<(i64,)>>(&count(10)).await;
            assert_eq!(short.expect("an idle connection").unwrap(), Some((10,)));
        }
        assert!(!long.iter().all(tokio::task::JoinHandle::is_finished));
        for read in long {
            assert_eq!(read.await.unwrap(), Some((2_000_000,)));
        }
        let (limit, idle) = (readers.limit, readers.idle().len());
        assert!(idle <= limit, "{idle} connections");
        opened.close().await;
    }
}
