//! Checkpoints: what the write-ahead log holds is moved into the database file on a thread beside the
//! writer, so that no write waits while thousands of pages are written and synced.
//!
//! Only a log that is moved to its end can be begun anew, and beside a busy writer its end runs away.
//! So the thread moves and syncs all but the last pages, and the writer those, between two of its
//! commits: some 2 ms, where all of it took 30.

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

use super::{Access, File};

/// Pages of the log from which on it is moved: 16 MiB. A checkpoint writes each page once, however
/// often it was written to the log: here it is far less than at SQLite's own 1000 pages.
const LONG: i32 = 4096;
/// Pages of the log from which on the writer moves all of it, if the thread does not keep up.
const TOO_LONG: i32 = 4 * LONG;
/// Pages by which a log has grown that could not be moved to its end, until it is tried again.
const AGAIN: i32 = 512;
/// A log that grew by no more pages while it was moved is the writer's to finish, and how often the
/// thread tries to come that far.
const FEW: i32 = 256;
const TRIES: usize = 5;

thread_local! {
    /// Pages in the log after the last commit of this thread.
    static LOGGED: Cell<i32> = const { Cell::new(0) };
}

/// Has SQLite tell how long the log is, instead of moving it at some length by itself.
pub(super) fn measure_log(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        LOGGED.set(pages);
        Ok(())
    }));
}

/// The writer's side of it.
pub(super) struct Checkpoints {
    thread: Option<(mpsc::SyncSender<()>, JoinHandle<()>)>,
    is_asked: bool,
    /// Whether the thread has done its part.
    is_moved: Arc<AtomicBool>,
    /// The length at which the log is looked after next, and its length when it last was looked at.
    next: i32,
    before: i32,
}

impl Checkpoints {
    /// A thread that moves the log of `file` when it is long.
    pub(super) fn spawn(file: File) -> io::Result<Self> {
        let (ask, asked) = mpsc::sync_channel(1);
        let is_moved = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&is_moved);
        let work = move || {
            // Opened when it is first wanted: a quiet server never does.
            let mut connection = None;
            while asked.recv().is_ok() {
                if let Err(error) = move_most(&file, &mut connection) {
                    warn(&error);
                    connection = None;
                }
                tell.store(true, Ordering::Release);
            }
        };
        let thread = thread::Builder::new().name("sqlite-log".into()).spawn(work)?;
        let thread = Some((ask, thread));
        Ok(Self { thread, is_asked: false, is_moved, next: LONG, before: 0 })
    }

    /// Sees to the log after a commit of this thread.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = LOGGED.get();
        if pages < self.before {
            // It was begun anew.
            self.next = LONG;
        }
        self.before = pages;
        if self.is_asked && self.is_moved.swap(false, Ordering::Acquire) {
            self.is_asked = false;
            self.next = pages + AGAIN;
            finish(connection);
        } else if pages >= self.next {
            if !self.is_asked {
                let thread = self.thread.as_ref();
                self.is_asked = thread.is_some_and(|(ask, _)| ask.try_send(()).is_ok());
            }
            if pages >= TOO_LONG {
                self.next = pages + LONG;
                finish(connection);
            }
        }
    }

    /// Ends the thread.
    pub(super) fn close(&mut self) {
        if let Some((ask, thread)) = self.thread.take() {
            drop(ask);
            if thread.join().is_err() {
                tracing::warn!("the thread that moves the write-ahead log panicked");
            }
        }
    }
}

fn move_most(file: &File, kept: &mut Option<Connection>) -> rusqlite::Result<()> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(file.open(Access::Write)?),
    };
    let mut before = 0;
    for _ in 0..TRIES {
        let moved = checkpoint(connection)?;
        sync(&file.path);
        if moved - before <= FEW {
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
    tracing::warn!(%error, "the write-ahead log was not moved into the database");
}

/// Moves what no reader needs in the log, waiting for nobody. How many of its pages are moved by now.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i32> {
    let mut passive = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    passive.query_row([], |row| row.get(2))
}

/// Syncs the database file. SQLite does so itself before it begins the log anew, but only then: it
/// would be the writer that waits for all of it. What fails here fails there again, and is told there.
#[cfg(unix)]
fn sync(database: &Path) {
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt,
        sync::{Mutex, PoisonError},
    };

    /// The files by device and inode, each until the process ends: the first descriptor of a file that
    /// a process closes takes all its locks on that file with it, SQLite's too ("How To Corrupt An
    /// SQLite Database File", section 2.2).
    static FILES: Mutex<Vec<(u64, u64, Arc<File>)>> = Mutex::new(Vec::new());

    let synced = || {
        let id = fs::metadata(database)?;
        let (device, inode) = (id.dev(), id.ino());
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
        tracing::debug!(%error, "the database file was not synced ahead");
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

    /// Pages of a write of the tests: what it takes of the log.
    const WRITE: i32 = 64;

    struct Written {
        _dir: tempfile::TempDir,
        log: PathBuf,
        connection: Connection,
        checkpoints: Checkpoints,
        most: u64,
    }

    impl Written {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("todo.db");
            Connection::open(&path)
                .unwrap()
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
                .unwrap();
            let file = File { path, patience: Duration::from_secs(1) };
            let connection = file.open(Access::Write).unwrap();
            connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
            let log = dir.path().join("todo.db-wal");
            let checkpoints = Checkpoints::spawn(file).unwrap();
            Self { _dir: dir, log, connection, checkpoints, most: 0 }
        }

        /// Writes until the log would have so many pages.
        fn write(&mut self, pages: i32) {
            let sql = format!("INSERT INTO t VALUES (zeroblob({}))", (WRITE - 2) * 4096);
            for _ in 0..pages / WRITE {
                self.connection.execute(&sql, []).unwrap();
                self.checkpoints.after_commit(&self.connection);
                self.most = self.most.max(fs::metadata(&self.log).unwrap().len());
            }
        }
    }

    fn bytes(pages: i32) -> u64 {
        u64::try_from(pages).unwrap() * (4096 + 24)
    }

    #[test]
    fn a_long_log_is_moved_beside_the_writer_and_begun_anew() {
        let mut written = Written::new();
        while !written.checkpoints.is_asked {
            written.write(WRITE);
            assert!(LOGGED.get() <= LONG + WRITE, "{} pages, and nobody is asked", LOGGED.get());
        }
        let began = Instant::now();
        while !written.checkpoints.is_moved.load(Ordering::Acquire) {
            assert!(began.elapsed() < Duration::from_secs(30), "nobody moved it");
            thread::sleep(Duration::from_millis(5));
        }
        let database = fs::metadata(written.log.with_file_name("todo.db")).unwrap();
        assert!(database.len() > bytes(LONG / 2), "{} bytes", database.len());
        written.write(2 * WRITE);
        assert!(LOGGED.get() <= 2 * WRITE, "{} pages", LOGGED.get());
    }

    #[test]
    fn a_log_does_not_grow_for_ever_if_the_thread_is_gone() {
        let mut written = Written::new();
        written.checkpoints.close();
        written.write(3 * TOO_LONG);
        assert!(written.most >= bytes(TOO_LONG - WRITE), "{} bytes", written.most);
        assert!(written.most <= bytes(TOO_LONG + 2 * WRITE), "{} bytes", written.most);
    }

    #[test]
    fn a_log_that_somebody_reads_is_moved_once_he_is_done() {
        let mut written = Written::new();
        let reader = Connection::open(written.log.with_file_name("todo.db")).unwrap();
        written.write(WRITE);
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        written.write(TOO_LONG + LONG);
        assert!(LOGGED.get() > TOO_LONG, "{} pages: it was read", LOGGED.get());
        reader.execute_batch("COMMIT").unwrap();
        let began = Instant::now();
        while LOGGED.get() > TOO_LONG {
            assert!(began.elapsed() < Duration::from_secs(30), "{} pages", LOGGED.get());
            written.write(WRITE);
        }
    }
}
