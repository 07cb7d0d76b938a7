//! Online backup of an SQLite file. SQLite copies the pages within one read transaction: with the
//! write-ahead log, writers continue and their writes do not restart the copy. The copy is verified
//! before it is moved to its final name.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{AdminError, DriverResult, Progress, file_of, open_existing};
use crate::{
    Clock, OpenError,
    clock::new_id,
    db::{address::Address, sqlite},
};

/// Pages copied between two checks for cancellation; usually 8 MiB.
const PAGES_PER_STEP: i32 = 2048;
/// Maximum wait for another process's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const COUNT_ROWS: &str = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
                          (SELECT count(*) FROM todos)";

/// Result of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Number of users, sessions and todos.
    pub rows: [i64; 3],
    /// Size of the backup file.
    pub bytes: u64,
}

/// Writes a copy of the SQLite database at `url` to the new file `to`, readable by its owner only.
/// The copy is a consistent snapshot, passes SQLite's integrity check and has as many rows as the
/// source. Other connections may read and write the source meanwhile; its write-ahead log grows
/// until the end. An error, or dropping the future, leaves no file. With `replace`, an existing
/// file is replaced.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] for PostgreSQL, which has `pg_dump`.
pub async fn backup(
    url: &str,
    to: &Path,
    replace: bool,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<BackupReport, AdminError> {
    let Address::Sqlite(address) = Address::read(url)? else {
        return refused(
            "PostgreSQL is backed up with its own tool: pg_dump --format=custom \
             --file=FILE, with the database address in libpq format",
        );
    };
    let from = file_of(&address)?.to_owned();
    let mut conn = open_existing(url).await?;
    let found = conn.found().await?;
    conn.close().await?;
    match found.applied(&sqlite::MIGRATIONS) {
        Ok(applied) if applied.is_empty() => return refused("the database is empty"),
        // A schema unknown to this release is copied like any other.
        Ok(_) | Err(OpenError::Newer(_) | OpenError::Migrate(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let cancelled = CancelOnDrop::default();
    let to = to.to_owned();
    let flag = Arc::clone(&cancelled.0);
    tokio::task::spawn_blocking(move || run_backup(&from, &to, replace, &flag, progress))
        .await
        .map_err(io::Error::other)?
}

fn refused<T>(why: impl Into<String>) -> Result<T, AdminError> {
    Err(AdminError::Refused(why.into()))
}

/// Cancels the backup thread on drop.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn run_backup(
    from: &Path,
    to: &Path,
    replace: bool,
    cancelled: &Arc<AtomicBool>,
    progress: impl FnMut(Progress),
) -> Result<BackupReport, AdminError> {
    refuse_target(from, to, replace)?;
    let draft = Draft::beside(to)?;
    let (rows, sizes_before) = copy_pages(from, &draft.path, cancelled, progress)?;
    let copy = open(&draft.path).or_admin_error()?;
    // A single file without a log beside it. A server switches it back to WAL at start.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).or_admin_error()?;
    let cancelled = Arc::clone(cancelled);
    copy.progress_handler(100_000, Some(move || cancelled.load(Ordering::Relaxed)))
        .or_admin_error()?;
    let verdict: String =
        copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).or_admin_error()?;
    if verdict != "ok" {
        return refused(format!("the copy fails SQLite's integrity check: {verdict}"));
    }
    if (counts(&copy).or_admin_error()?, sizes(&copy).or_admin_error()?) != (rows, sizes_before) {
        return refused(
            "the copy and the database differ in their numbers of rows: no file was written",
        );
    }
    copy.close().map_err(|(_, error)| error).or_admin_error()?;
    let bytes = draft.publish(to, replace)?;
    Ok(BackupReport { rows, bytes })
}

/// Copies the pages of one snapshot; returns its numbers of users, sessions and todos, and the
/// [`sizes`] of its tables.
fn copy_pages(
    from: &Path,
    to: &Path,
    cancelled: &AtomicBool,
    mut progress: impl FnMut(Progress),
) -> Result<([i64; 3], Sizes), AdminError> {
    let source = open(from).or_admin_error()?;
    let mut target = open(to).or_admin_error()?;
    // The open transaction fixes the snapshot: without it, every write by another process restarts
    // the copy.
    source.execute_batch("PRAGMA query_only = ON; BEGIN").or_admin_error()?;
    let rows = (counts(&source).or_admin_error()?, sizes(&source).or_admin_error()?);
    let backup = Backup::new(&source, &mut target).or_admin_error()?;
    let mut last = Instant::now();
    loop {
        let step = backup.step(PAGES_PER_STEP).or_admin_error()?;
        if cancelled.load(Ordering::Relaxed) {
            return refused("the backup was cancelled: no file was written");
        }
        let pages = backup.progress();
        let count = |pages| u64::try_from(pages).unwrap_or_default();
        let total = count(pages.pagecount);
        progress(Progress { done: total.saturating_sub(count(pages.remaining)), total });
        match step {
            StepResult::Done => break,
            StepResult::More => last = Instant::now(),
            _ if last.elapsed() > LOCK_TIMEOUT => {
                return refused("another process holds the database file's lock");
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    drop(backup);
    source.execute_batch("ROLLBACK").or_admin_error()?;
    Ok(rows)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    Ok(connection)
}

fn counts(connection: &Connection) -> rusqlite::Result<[i64; 3]> {
    connection.query_row(COUNT_ROWS, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
}

/// The number of rows of each table, by name.
type Sizes = Vec<(String, i64)>;

/// Counts the rows of all tables, whatever the release of the schema.
fn sizes(connection: &Connection) -> rusqlite::Result<Sizes> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let names: Vec<String> =
        connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let size = |name: String| {
        // Names of tables cannot be bound. In quotes, each name is one.
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        connection.query_row(&sql, [], |row| row.get(0)).map(|rows| (name, rows))
    };
    names.into_iter().map(size).collect()
}

/// Suffixes of the files that SQLite keeps beside a database.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Rejects a target that is the database or one of its side files, and an existing target unless
/// `replace`.
fn refuse_target(from: &Path, to: &Path, replace: bool) -> Result<(), AdminError> {
    if to.file_name().is_none() || to.is_dir() {
        return refused("the backup must be a file");
    }
    let canonical = |path: &Path| path.canonicalize().ok();
    if let Some(to) = canonical(to) {
        let database_files = SIDE_FILES.into_iter().chain(["", ".lock", ".secret"]);
        let mut database_files = database_files.map(|suffix| with_suffix(from, suffix));
        if database_files.any(|file| canonical(&file).as_ref() == Some(&to)) {
            return refused("the backup must not be one of the database's own files");
        }
    }
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    // SQLite would apply a leftover log to the backup.
    let mut logs = SIDE_FILES.iter().map(|suffix| with_suffix(to, suffix));
    if !replace && (exists(to) || logs.any(|log| exists(&log))) {
        return refused("the backup file, or a log beside it, already exists: --force replaces it");
    }
    Ok(())
}

/// The unfinished backup: a private file beside the target, removed on drop.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn beside(to: &Path) -> io::Result<Self> {
        let path = with_suffix(to, &format!(".{}.partial", new_id(Clock::system().now()).simple()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path)?;
        Ok(Self { path })
    }

    /// Syncs the file to disk and moves it to `to`; returns its size.
    fn publish(self, to: &Path, replace: bool) -> Result<u64, AdminError> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        if replace {
            for suffix in SIDE_FILES {
                let _ = fs::remove_file(with_suffix(to, suffix));
            }
            fs::rename(&self.path, to)?;
        } else {
            // `hard_link` fails if the target was created meanwhile; some file systems lack it.
            match fs::hard_link(&self.path, to) {
                Ok(()) => {}
                Err(_) if to.symlink_metadata().is_ok() => {
                    return refused("the backup file was created meanwhile: it was not replaced");
                }
                Err(_) => fs::rename(&self.path, to)?,
            }
        }
        let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty());
        // Syncs the new name as well. Some systems cannot open a directory as a file.
        if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
            let _ = directory.sync_all();
        }
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for suffix in SIDE_FILES.into_iter().chain([""]) {
            let _ = fs::remove_file(with_suffix(&self.path, suffix));
        }
    }
}
