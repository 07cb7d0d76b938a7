//! Checkpoints of the write-ahead log, on a thread beside the writer, so that no write waits while
//! thousands of pages are written and synced.
//!
//! SQLite restarts the log only after a complete checkpoint, and a busy writer keeps appending. So
//! the thread checkpoints and syncs all but the last pages, and the writer finishes between two
//! commits: in some 2 ms, where a whole checkpoint took 30.

use std::{
    cell::Cell,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use super::{Access, DatabaseFile};

/// Log length that starts a checkpoint: 16 MiB. A checkpoint writes each page once, however often
/// it is in the log, so this writes far less than SQLite's default of 1000 pages.
const CHECKPOINT_LOG_PAGES: i32 = 4096;
/// Log length from which the writer checkpoints the log itself, if the thread does not keep up.
const CHECKPOINT_MAX_PAGES: i32 = 4 * CHECKPOINT_LOG_PAGES;
/// Retry an incomplete checkpoint after the log grows by this many pages.
const CHECKPOINT_RETRY_PAGES: i32 = 512;
/// The writer finishes a checkpoint once the log grew by at most this many pages during a pass.
const CHECKPOINT_FINISH_PAGES: i32 = 256;
/// Passes of the thread before the writer finishes anyway.
const MAX_PASSES: usize = 5;

thread_local! {
    /// Length of the log in pages after this thread's last commit.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// Records the length of the log after each commit, in place of SQLite's automatic checkpoints.
pub(super) fn measure_log(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        WAL_PAGES.set(pages);
        Ok(())
    }));
}

/// The checkpoint state of the writer.
pub(super) struct Checkpoints {
    thread: Option<(mpsc::SyncSender<()>, JoinHandle<()>)>,
    is_requested: bool,
    /// Set by the thread when its part of the checkpoint is done.
    is_thread_done: Arc<AtomicBool>,
    /// Log length of the next checkpoint.
    next: i32,
    /// Log length after the previous commit.
    before: i32,
}

impl Checkpoints {
    /// Starts the checkpoint thread of `file`.
    pub(super) fn spawn(file: DatabaseFile) -> io::Result<Self> {
        let (request, requests) = mpsc::sync_channel(1);
        let is_thread_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_thread_done);
        let work = move || {
            // Opened at the first checkpoint: an idle server never needs it.
            let mut connection = None;
            while requests.recv().is_ok() {
                if let Err(error) = checkpoint_most(&file, &mut connection) {
                    warn(&error);
                    connection = None;
                }
                done.store(true, Ordering::Release);
            }
        };
        let thread = thread::Builder::new().name("sqlite-log".into()).spawn(work)?;
        let thread = Some((request, thread));
        Ok(Self {
            thread,
            is_requested: false,
            is_thread_done,
            next: CHECKPOINT_LOG_PAGES,
            before: 0,
        })
    }

    /// Starts or finishes a checkpoint if one is due. Call it after each commit, on the writer's
    /// thread.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = WAL_PAGES.get();
        if pages < self.before {
            // SQLite restarted the log.
            self.next = CHECKPOINT_LOG_PAGES;
        }
        self.before = pages;
        if self.is_requested && self.is_thread_done.swap(false, Ordering::Acquire) {
            self.is_requested = false;
            self.next = pages + CHECKPOINT_RETRY_PAGES;
            finish(connection);
        } else if pages >= self.next {
            if !self.is_requested {
                let thread = self.thread.as_ref();
                self.is_requested = thread.is_some_and(|(request, _)| request.try_send(()).is_ok());
            }
            if pages >= CHECKPOINT_MAX_PAGES {
                self.next = pages + CHECKPOINT_LOG_PAGES;
                finish(connection);
            }
        }
    }

    /// Ends the thread.
    pub(super) fn close(&mut self) {
        if let Some((request, thread)) = self.thread.take() {
            drop(request);
            if thread.join().is_err() {
                tracing::warn!("the checkpoint thread panicked");
            }
        }
    }
}

fn checkpoint_most(file: &DatabaseFile, kept: &mut Option<Connection>) -> rusqlite::Result<()> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(file.open(Access::Write)?),
    };
    let mut before = 0;
    for _ in 0..MAX_PASSES {
        let moved = checkpoint(connection)?;
        sync(&file.path);
        if moved - before <= CHECKPOINT_FINISH_PAGES {
            break;
        }
        before = moved;
    }
    Ok(())
}

fn finish(connection: &Connection) {
    if let Err(error) = checkpoint(connection) {
        warn(&error);
    }
}

fn warn(error: &rusqlite::Error) {
    tracing::warn!(%error, "the checkpoint of the write-ahead log failed");
}

/// Checkpoints the pages that no reader needs, without waiting. Returns the checkpointed pages so
/// far.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i32> {
    let mut passive = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    passive.query_row([], |row| row.get(2))
}

/// Syncs the database file. SQLite syncs it only before it restarts the log, on the writer's
/// thread: the writer would wait for all of it. An error here recurs there and is reported there.
#[cfg(unix)]
fn sync(database: &Path) {
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt,
        sync::{Mutex, PoisonError},
    };

    /// Open files by device and inode, kept until the process ends: closing any descriptor of a
    /// file releases all locks of the process on it, SQLite's too ("How To Corrupt An SQLite
    /// Database File", section 2.2).
    static FILES: Mutex<Vec<(u64, u64, Arc<File>)>> = Mutex::new(Vec::new());

    let synced = || {
        let id = fs::metadata(database)?;
        let device = id.dev();
        let inode = id.ino();
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.iter().find(|known| (known.0, known.1) == (device, inode));
        let file = if let Some((.., file)) = known {
            Arc::clone(file)
        } else {
            let file = Arc::new(File::open(database)?);
            files.push((device, inode, Arc::clone(&file)));
            file
        };
        drop(files);
        file.sync_data()
    };
    if let Err(error) = synced() {
        tracing::debug!(%error, "the early sync of the database file failed");
    }
}

#[cfg(not(unix))]
fn sync(_database: &Path) {}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        time::{Duration, Instant},
    };

    use super::*;

    /// Pages that one write of these tests adds to the log.
    const WRITE: i32 = 64;

    struct Written {
        _dir: tempfile::TempDir,
        log: PathBuf,
        connection: Connection,
        checkpoints: Checkpoints,
        max_bytes: u64,
    }

    impl Written {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("todo.db");
            Connection::open(&path)
                .unwrap()
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
                .unwrap();
            let file = DatabaseFile { path, busy_timeout: Duration::from_secs(1) };
            let connection = file.open(Access::Write).unwrap();
            connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
            let log = dir.path().join("todo.db-wal");
            let checkpoints = Checkpoints::spawn(file).unwrap();
            Self { _dir: dir, log, connection, checkpoints, max_bytes: 0 }
        }

        /// Writes `pages` pages.
        fn write(&mut self, pages: i32) {
            let sql = format!("INSERT INTO t VALUES (zeroblob({}))", (WRITE - 2) * 4096);
            for _ in 0..pages / WRITE {
                self.connection.execute(&sql, []).unwrap();
                self.checkpoints.after_commit(&self.connection);
                self.max_bytes = self.max_bytes.max(fs::metadata(&self.log).unwrap().len());
            }
        }
    }

    fn bytes(pages: i32) -> u64 {
        u64::try_from(pages).unwrap() * (4096 + 24)
    }

    #[test]
    fn a_long_log_is_checkpointed_by_the_thread_and_restarted() {
        let mut written = Written::new();
        while !written.checkpoints.is_requested {
            written.write(WRITE);
            assert!(
                WAL_PAGES.get() <= CHECKPOINT_LOG_PAGES + WRITE,
                "{} pages, and no checkpoint was requested",
                WAL_PAGES.get()
            );
        }
        let began = Instant::now();
        while !written.checkpoints.is_thread_done.load(Ordering::Acquire) {
            assert!(began.elapsed() < Duration::from_secs(30), "no checkpoint after 30 s");
            thread::sleep(Duration::from_millis(5));
        }
        let database = fs::metadata(written.log.with_file_name("todo.db")).unwrap();
        assert!(database.len() > bytes(CHECKPOINT_LOG_PAGES / 2), "{} bytes", database.len());
        written.write(2 * WRITE);
        assert!(WAL_PAGES.get() <= 2 * WRITE, "{} pages", WAL_PAGES.get());
    }

    #[test]
    fn a_log_stays_bounded_without_the_thread() {
        let mut written = Written::new();
        written.checkpoints.close();
        written.write(3 * CHECKPOINT_MAX_PAGES);
        assert!(
            written.max_bytes >= bytes(CHECKPOINT_MAX_PAGES - WRITE),
            "{} bytes",
            written.max_bytes
        );
        assert!(
            written.max_bytes <= bytes(CHECKPOINT_MAX_PAGES + 2 * WRITE),
            "{} bytes",
            written.max_bytes
        );
    }

    #[test]
    fn a_log_in_use_by_a_reader_is_checkpointed_after_the_reader_ends() {
        let mut written = Written::new();
        let reader = Connection::open(written.log.with_file_name("todo.db")).unwrap();
        written.write(WRITE);
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        written.write(CHECKPOINT_MAX_PAGES + CHECKPOINT_LOG_PAGES);
        assert!(WAL_PAGES.get() > CHECKPOINT_MAX_PAGES, "{} pages, with a reader", WAL_PAGES.get());
        reader.execute_batch("COMMIT").unwrap();
        let began = Instant::now();
        while WAL_PAGES.get() > CHECKPOINT_MAX_PAGES {
            assert!(began.elapsed() < Duration::from_secs(30), "{} pages", WAL_PAGES.get());
            written.write(WRITE);
        }
    }
}
