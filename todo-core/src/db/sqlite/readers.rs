//! Readers of the file. In WAL mode a reader waits for no lock, and reading a page of todos takes
//! less time than handing it to another thread: so short reads run inline, on the request's worker.
//!
//! All but one of the runtime's workers may read at once: a disk that hangs must not block the last
//! one, which serves `/health`. Further reads wait up to 5 ms for a permit. Reads without a permit
//! and long reads run on blocking threads, as do all reads on a runtime of one worker.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::Connection;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{Access, DatabaseFile, blocking, is_blocked, run_statement};
use crate::db::{CLOSE_TIMEOUT, DbError, FromRows, Statement, WaitStats};

/// Maximum rows of an inline read; a longer read runs again on a blocking thread.
const MAX_INLINE_ROWS: usize = 501;
/// Maximum wait for the permit of an inline read. A usual read takes some ten microseconds.
const MAX_INLINE_WAIT: Duration = Duration::from_millis(5);
/// Maximum number of connections, each with a cache of 4 MiB.
const MAX_READERS: usize = 8;

pub(super) struct Readers {
    file: DatabaseFile,
    /// Idle connections, at most `limit`. Their busy timeout is zero: only blocking threads
    /// wait for another process's lock.
    idle: Mutex<Vec<Connection>>,
    /// Permits of inline reads; `None` if the runtime has a single worker.
    workers: Option<Semaphore>,
    threads: Arc<Semaphore>,
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
        let threads = Arc::new(Semaphore::new(limit));
        Ok(Self {
            file,
            idle,
            workers: (workers > 0).then(|| Semaphore::new(workers)),
            threads,
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
        let outcome = run_statement(&connection, statement, MAX_INLINE_ROWS, &mut rows);
        self.give_back(connection, &outcome);
        match outcome {
            Ok(is_complete) => is_complete.then_some(Ok(rows)),
            // Another process recovers or locks the file: `read_blocking` waits for it.
            Err(DbError::Sqlite(error)) if is_blocked(&error) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads on a blocking thread, when one of `limit` is free.
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
            connection.busy_timeout(readers.file.busy_timeout)?;
            let mut rows = R::default();
            let outcome = run_statement(&connection, &statement, usize::MAX, &mut rows);
            connection.busy_timeout(Duration::ZERO)?;
            readers.give_back(connection, &outcome);
            outcome.map(|_all| rows)
        })
        .await
    }

    /// Keeps a connection for the next read, unless the error may be the connection's fault.
    fn give_back<R>(&self, connection: Connection, outcome: &Result<R, DbError>) {
        let is_usable =
            outcome.is_ok() || matches!(outcome, Err(DbError::Sqlite(e)) if is_blocked(e));
        if is_usable {
            let mut idle = self.idle();
            if idle.len() < self.limit && !self.threads.is_closed() {
                idle.push(connection);
            }
        }
    }

    /// Waits for running reads, then closes every connection.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
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
        let reading = self.limit - self.threads.available_permits();
        self.waits.stats(idle + reading, idle)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
