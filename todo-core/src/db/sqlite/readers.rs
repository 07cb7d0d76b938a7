//! Readers of the file. In its write-ahead log a reader waits for nobody, and a page of todos takes
//! less than handing the work to another thread: so it is read where the request is.
//!
//! All but one of the runtime's workers may read at once: a disk that hangs must not hold the last of
//! them, on which `/health` is answered. Others wait a moment for their turn. What does not get one,
//! and what turns out to be long, is read on threads for what blocks instead; so is everything on a
//! runtime of one worker.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::Connection;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{Access, File, blocking, is_blocked, run};
use crate::db::{CLOSE_TIMEOUT, Fault, Rows, Statement, Waits};

/// Rows that are read where the request is; more are read again elsewhere.
const SHORT: usize = 501;
/// How long a read waits for its turn among those that read where their requests are. Usual reads take
/// some ten microseconds.
const TURN: Duration = Duration::from_millis(5);
/// Connections at most, each with a cache of 4 MiB.
const MAX_READERS: usize = 8;

pub(super) struct Readers {
    file: File,
    /// Connections that nobody uses, and that wait for no other process: that is done on threads.
    /// There are no more than may read at once.
    idle: Mutex<Vec<Connection>>,
    /// None if the runtime has a single worker.
    workers: Option<Semaphore>,
    threads: Arc<Semaphore>,
    waits: Arc<Waits>,
    most: usize,
}

impl Readers {
    /// Opens the first of at most `pool_max` connections, of two for each core, and of eight.
    pub(super) fn open(file: File, pool_max: u32) -> Result<Self, Fault> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pool_max = usize::try_from(pool_max).unwrap_or(MAX_READERS);
        let most = pool_max.min(2 * cores).clamp(1, MAX_READERS);
        let workers = Handle::current().metrics().num_workers().saturating_sub(1).min(most);
        let first = file.open(Access::Read)?;
        first.busy_timeout(Duration::ZERO)?;
        let idle = Mutex::new(vec![first]);
        let threads = Arc::new(Semaphore::new(most));
        Ok(Self {
            file,
            idle,
            workers: (workers > 0).then(|| Semaphore::new(workers)),
            threads,
            waits: Arc::default(),
            most,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// How many reads one caller may have under way: some that run, and some that wait, since handing on
    /// a turn costs more than a usual read. Another caller's waits for these few, about a millisecond.
    pub(super) fn share(&self) -> usize {
        2 * self.most
    }

    /// Reads where the request is, if there is a turn for it soon and it is not long.
    pub(super) async fn read_here<R: Rows>(
        &self,
        statement: &Statement,
    ) -> Option<Result<R, Fault>> {
        let workers = self.workers.as_ref()?;
        let _worker = match workers.try_acquire() {
            Ok(worker) => worker,
            // Handing the work to a thread and back costs more than the wait for a turn does.
            Err(_) => tokio::time::timeout(TURN, workers.acquire()).await.ok()?.ok()?,
        };
        // Without one there is, the next reads elsewhere, and opens it there.
        let connection = self.idle().pop()?;
        let outcome = run(&connection, statement, SHORT);
        self.give_back(connection, &outcome);
        match outcome {
            Ok(rows) => rows.map(Ok),
            // Somebody recovers the file or has it for himself: that is to be waited for.
            Err(Fault::Sqlite(error)) if is_blocked(&error) => None,
            Err(fault) => Some(Err(fault)),
        }
    }

    /// Reads on a thread for what blocks, when there is one to be had.
    pub(super) async fn read_later<R: Rows>(
        self: &Arc<Self>,
        statement: Statement,
    ) -> Result<R, Fault> {
        let permit = {
            let _waiting = Waits::begin(Arc::clone(&self.waits));
            Arc::clone(&self.threads).acquire_owned().await.map_err(|_| Fault::Closed)?
        };
        let readers = Arc::clone(self);
        blocking(move || {
            let _permit = permit;
            let idle = readers.idle().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => readers.file.open(Access::Read)?,
            };
            connection.busy_timeout(readers.file.patience)?;
            let outcome = run(&connection, &statement, usize::MAX);
            connection.busy_timeout(Duration::ZERO)?;
            readers.give_back(connection, &outcome);
            outcome?.ok_or(Fault::NoRow)
        })
        .await
    }

    /// Keeps a connection for the next, unless it may be what is broken.
    fn give_back<R>(&self, connection: Connection, outcome: &Result<R, Fault>) {
        let is_sound = outcome.is_ok() || matches!(outcome, Err(Fault::Sqlite(e)) if is_blocked(e));
        if is_sound {
            let mut idle = self.idle();
            if idle.len() < self.most && !self.threads.is_closed() {
                idle.push(connection);
            }
        }
    }

    /// Waits for those that read, then closes every connection.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.threads.acquire_many(all)).await.is_err() {
            tracing::warn!("the readers did not end in time");
        }
        self.threads.close();
        if let Some(workers) = &self.workers {
            workers.close();
        }
        self.idle().clear();
    }

    #[cfg(feature = "http")]
    pub(super) fn load(&self) -> crate::core::Load {
        let idle = self.idle().len();
        let reading = self.most - self.threads.available_permits();
        self.waits.load(idle + reading, idle)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
