//! A backup of an SQLite file that is in use. SQLite copies its pages while one read transaction
//! holds them together: in the write-ahead log writers go on, and the copy does not begin again
//! whenever they write. The copy is checked before it gets its name.

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

use super::{Progress, TransferError, file_of, open_existing};
use crate::{
    Clock, OpenError,
    clock::new_id,
    db::{address::Address, sqlite},
    error::Cause,
};

/// Pages between two looks at whether somebody still waits; usually 8 MiB.
const PAGES: i32 = 2048;
/// How long another process's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const COUNTS: &str = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), \
                      (SELECT count(*) FROM todos)";

/// What was backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// How many users, sessions and todos.
    pub rows: [i64; 3],
    /// The size of the backup.
    pub bytes: u64,
}

/// Writes a copy of the SQLite database at `url` to the new file `to`, which only its owner can read.
/// The copy is of one moment, passes SQLite's integrity check and has as many rows as the source.
/// Others may read and write the source meanwhile; its write-ahead log grows until the end. Whatever
/// fails, and whoever drops this, leaves no file. `replace` takes the place of a file that is there.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Refused`] for PostgreSQL, which has `pg_dump`.
pub async fn backup(
    url: &str,
    to: &Path,
    replace: bool,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<BackedUp, TransferError> {
    let Address::Sqlite(address) = Address::read(url)? else {
        return refused(
            "a backup of PostgreSQL is made by its own program: pg_dump --format=custom \
             --file=FILE, with the address of the database as libpq reads it",
        );
    };
    let from = file_of(&address)?.to_owned();
    let mut conn = open_existing(url).await?;
    let found = conn.found().await?;
    conn.close().await?;
    match found.applied(&sqlite::MIGRATIONS) {
        Ok(applied) if applied.is_empty() => return refused("the database is empty"),
        // A schema that is only unknown here is copied like any other.
        Ok(_) | Err(OpenError::Newer(_) | OpenError::Migrate(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let cancelled = Cancel::default();
    let (to, work) = (to.to_owned(), Arc::clone(&cancelled.0));
    tokio::task::spawn_blocking(move || run(&from, &to, replace, &work, progress))
        .await
        .map_err(io::Error::other)?
}

fn refused<T>(why: impl Into<String>) -> Result<T, TransferError> {
    Err(TransferError::Refused(why.into()))
}

/// Ends the work when it is dropped.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl From<rusqlite::Error> for TransferError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(Cause::new(error))
    }
}

fn run(
    from: &Path,
    to: &Path,
    replace: bool,
    cancelled: &Arc<AtomicBool>,
    progress: impl FnMut(Progress),
) -> Result<BackedUp, TransferError> {
    refuse_target(from, to, replace)?;
    let draft = Draft::beside(to)?;
    let rows = copy_pages(from, &draft.path, cancelled, progress)?;
    let copy = open(&draft.path)?;
    // A single file that needs no log beside it. A server turns it back.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let watched = Arc::clone(cancelled);
    copy.progress_handler(100_000, Some(move || watched.load(Ordering::Relaxed)))?;
    let verdict: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return refused(format!("the copy fails SQLite's integrity check: {verdict}"));
    }
    if counts(&copy)? != rows {
        return refused("the copy has not as many rows as the database: nothing is kept");
    }
    copy.close().map_err(|(_, error)| error)?;
    let bytes = draft.place(to, replace)?;
    Ok(BackedUp { rows, bytes })
}

/// Copies the pages of one moment; how many users, sessions and todos there are in them.
fn copy_pages(
    from: &Path,
    to: &Path,
    cancelled: &AtomicBool,
    mut progress: impl FnMut(Progress),
) -> Result<[i64; 3], TransferError> {
    let (source, mut target) = (open(from)?, open(to)?);
    // Its snapshot is that of the pages: without it, each write of another process begins them anew.
    source.execute_batch("PRAGMA query_only = ON; BEGIN")?;
    let rows = counts(&source)?;
    let backup = Backup::new(&source, &mut target)?;
    let mut last = Instant::now();
    loop {
        let step = backup.step(PAGES)?;
        if cancelled.load(Ordering::Relaxed) {
            return refused("it was ended: nothing is kept");
        }
        let pages = backup.progress();
        let count = |pages| u64::try_from(pages).unwrap_or_default();
        let total = count(pages.pagecount);
        progress(Progress { done: total.saturating_sub(count(pages.remaining)), total });
        match step {
            StepResult::Done => break,
            StepResult::More => last = Instant::now(),
            _ if last.elapsed() > PATIENCE => {
                return refused("another process holds the database file's lock");
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    drop(backup);
    source.execute_batch("ROLLBACK")?;
    Ok(rows)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

fn counts(connection: &Connection) -> rusqlite::Result<[i64; 3]> {
    connection.query_row(COUNTS, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
}

/// Files that SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Refuses a target that is the database itself or belongs to it, and one that is there, unless it is
/// to be replaced.
fn refuse_target(from: &Path, to: &Path, replace: bool) -> Result<(), TransferError> {
    if to.file_name().is_none() || to.is_dir() {
        return refused("the backup must be a file");
    }
    let place = |path: &Path| path.canonicalize().ok();
    if let Some(to) = place(to) {
        let of_the_database = BESIDE.into_iter().chain(["", ".lock", ".secret"]);
        if of_the_database.map(|end| beside(from, end)).any(|own| place(&own).as_ref() == Some(&to))
        {
            return refused("the backup must not be one of the database's own files");
        }
    }
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    // A log that is left there would be read into the backup.
    if !replace && (is_there(to) || BESIDE.iter().any(|end| is_there(&beside(to, end)))) {
        return refused("the backup, or a log beside it, is there already: --force replaces it");
    }
    Ok(())
}

/// The backup until it is whole: a private file beside its place, gone when this is dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn beside(to: &Path) -> io::Result<Self> {
        let path = beside(to, &format!(".{}.partial", new_id(Clock::system().now()).simple()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path)?;
        Ok(Self { path })
    }

    /// Puts it on disk and in its place; its size.
    fn place(self, to: &Path, replace: bool) -> Result<u64, TransferError> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        if replace {
            for end in BESIDE {
                let _ = fs::remove_file(beside(to, end));
            }
            fs::rename(&self.path, to)?;
        } else {
            // A link fails where a file has come meanwhile; not every file system has links.
            match fs::hard_link(&self.path, to) {
                Ok(()) => {}
                Err(_) if to.symlink_metadata().is_ok() => {
                    return refused("the backup is there by now: nothing is replaced");
                }
                Err(_) => fs::rename(&self.path, to)?,
            }
        }
        let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty());
        // The name is on disk too. Where a directory is no file, that is done elsewhere.
        if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
            let _ = directory.sync_all();
        }
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in BESIDE.into_iter().chain([""]) {
            let _ = fs::remove_file(beside(&self.path, end));
        }
    }
}
