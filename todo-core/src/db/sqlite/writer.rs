//! The one writer, on a thread of its own: it takes what waits, commits it together and answers when
//! the commit is on disk.

use std::{sync::Arc, thread, time::Duration};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{Access, File, checkpoints::Checkpoints, is_blocked, line::Line, primary_code, run};
use crate::db::{Fault, Rows, Statement, Waits};

/// Writes that may wait for the writer; more are refused by their deadline.
const QUEUE: usize = 1024;
/// Writes that one commit carries at most, so that the first does not wait for ever.
const GROUP: usize = 256;
/// Writes that one caller may have before the writer: as many as one commit carries.
pub(super) const SHARE: usize = GROUP;
/// How long a write waits for another process's lock, once one has waited in vain.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(20);

/// What a write left behind: whether its statement failed in a way that may have ended the whole
/// transaction, or for want of the lock, and whom to tell once the commit's outcome is known.
struct Ran {
    fatal: bool,
    blocked: bool,
    answer: Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>,
}

/// One write: exactly one statement, so that it is atomic by itself inside a shared transaction. With
/// a fault in place of the connection, it is not run and its caller is told.
type Job = Box<dyn FnOnce(Result<&Connection, Fault>) -> Option<Ran> + Send>;

/// What the writer is told.
enum Order {
    /// A write, and whose it is.
    Write(Option<Uuid>, Job),
    /// Finish what waits, then tell.
    Close(oneshot::Sender<()>),
}

/// The handle to the thread that writes.
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    /// Writes that wait for the writer to take them, which is when its last commit is on disk.
    pub(super) waits: Arc<Waits>,
}

impl Writer {
    /// A writer on `connection`, which it opens again from `file` if there may be half a transaction
    /// on it.
    pub(super) fn spawn(
        connection: Connection,
        file: Option<File>,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel(QUEUE);
        let checkpoints = file.clone().map(Checkpoints::spawn).transpose()?;
        let connection = Some(connection);
        let line = Line::default();
        let mut work =
            Work { connection, file, checkpoints, patience, queue, line, blocked: false };
        // It ends when the last handle is gone.
        thread::Builder::new().name("sqlite-writer".into()).spawn(move || work.run())?;
        Ok(Self { orders, waits: Arc::default() })
    }

    pub(super) async fn run<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        let (answer, answered) = oneshot::channel();
        let caller = statement.caller;
        let waiting = Waits::begin(Arc::clone(&self.waits));
        let job: Job = Box::new(move |connection| {
            drop(waiting);
            // Whoever waited has given up: a write that nobody hears of must not happen.
            if answer.is_closed() {
                return None;
            }
            let connection = match connection {
                Ok(connection) => connection,
                Err(fault) => {
                    let _ = answer.send(Err(fault));
                    return None;
                }
            };
            let outcome = run(connection, &statement, usize::MAX);
            let outcome = outcome.and_then(|rows| rows.ok_or(Fault::NoRow));
            let failed = |is: fn(&rusqlite::Error) -> bool| matches!(&outcome, Err(Fault::Sqlite(e)) if is(e));
            let (fatal, blocked) = (failed(|error| !is_statement_error(error)), failed(is_blocked));
            let tell = move |commit: Result<(), Arc<rusqlite::Error>>| {
                let _ = answer.send(match (outcome, commit) {
                    (Err(fault), _) => Err(fault),
                    (Ok(_), Err(error)) => Err(Fault::Commit(error)),
                    (Ok(rows), Ok(())) => Ok(rows),
                });
            };
            Some(Ran { fatal, blocked, answer: Box::new(tell) })
        });
        self.orders.send(Order::Write(caller, job)).await.map_err(|_| Fault::Closed)?;
        answered.await.map_err(|_| Fault::Closed)?
    }

    /// Finishes what is queued, then closes the file.
    pub(super) async fn close(&self) {
        let (closed, told) = oneshot::channel();
        if self.orders.send(Order::Close(closed)).await.is_ok() {
            let _ = told.await;
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

/// The thread that writes.
struct Work {
    connection: Option<Connection>,
    file: Option<File>,
    /// None in memory.
    checkpoints: Option<Checkpoints>,
    patience: Duration,
    queue: mpsc::Receiver<Order>,
    /// What was taken from the queue to be put in order: empty unless more waits than a commit carries.
    line: Line<Job>,
    blocked: bool,
}

impl Work {
    /// Takes what waits, until there is nobody left.
    fn run(&mut self) {
        let mut closing = Vec::new();
        loop {
            // In the line's order if there is one.
            let next = self.next(&mut closing);
            if !closing.is_empty() {
                // What is queued is still taken, and nobody is waited for.
                self.queue.close();
            }
            match next {
                Some(first) => self.write(first, &mut closing),
                None => match self.queue.blocking_recv() {
                    Some(Order::Write(_, first)) => self.write(first, &mut closing),
                    Some(Order::Close(closed)) => closing.push(closed),
                    None => break,
                },
            }
            if !closing.is_empty() {
                // What is queued is still taken.
                self.queue.close();
            }
        }
        // First: whoever closes the file last moves all of the log.
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.close();
        }
        if let Some(Err((_, error))) = self.connection.take().map(Connection::close) {
            tracing::warn!(%error, "the database file did not close cleanly");
        }
        for closed in closing {
            let _ = closed.send(());
        }
    }

    /// Runs a write and those that wait beside it. While another process holds the lock, only the
    /// first waits long for it: behind one writer, the patience of each would add up.
    fn write(&mut self, first: Job, closing: &mut Vec<oneshot::Sender<()>>) {
        let connection = match (self.connection.take(), &self.file) {
            (Some(connection), _) => connection,
            // A database in memory is gone with its connection.
            (None, None) => return,
            (None, Some(file)) => match file.open(Access::Write) {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::error!(%error, "cannot reopen the database file for writing");
                    first(Err(error.into()));
                    return;
                }
            },
        };
        let left = match self.next(closing) {
            // Nobody else waits: the statement commits itself, without BEGIN and COMMIT.
            None => write_one(&connection, first),
            Some(second) => self.write_group(&connection, [first, second], closing),
        };
        let was_blocked = std::mem::replace(&mut self.blocked, left == Left::Blocked);
        let is_sound = match (was_blocked, left) {
            // In memory there is nobody to share it with, and no second one.
            _ if self.file.is_none() => true,
            (_, Left::Unsound) => false,
            (false, Left::Blocked) => {
                tracing::warn!("another process holds the database file's lock");
                connection.busy_timeout(BLOCKED_PATIENCE).is_ok()
            }
            (true, Left::Sound) => connection.busy_timeout(self.patience).is_ok(),
            (true, Left::Blocked) | (false, Left::Sound) => true,
        };
        if let Some(checkpoints) = self.checkpoints.as_mut().filter(|_| is_sound) {
            checkpoints.after_commit(&connection);
        }
        self.connection = is_sound.then_some(connection);
    }

    /// The next write that waits already. If more wait than one commit carries, the callers take turns,
    /// so that a caller's first write is in the next commit, however many another caller has.
    fn next(&mut self, closing: &mut Vec<oneshot::Sender<()>>) -> Option<Job> {
        while self.line.len() < QUEUE && (!self.line.is_empty() || self.queue.len() > GROUP) {
            match self.queue.try_recv() {
                Ok(Order::Write(caller, job)) => self.line.push(caller, job),
                Ok(Order::Close(closed)) => closing.push(closed),
                Err(_) => break,
            }
        }
        if let Some(job) = self.line.pop() {
            return Some(job);
        }
        loop {
            match self.queue.try_recv().ok()? {
                Order::Write(_, job) => return Some(job),
                Order::Close(closed) => closing.push(closed),
            }
        }
    }

    /// Runs the given writes and whatever else waits by then in one transaction.
    fn write_group(
        &mut self,
        connection: &Connection,
        first: [Job; 2],
        closing: &mut Vec<oneshot::Sender<()>>,
    ) -> Left {
        let mut waiting = Vec::new();
        let mut outcome = execute(connection, "BEGIN IMMEDIATE");
        if matches!(&outcome, Err(error) if is_blocked(error)) {
            for job in first {
                job(Err(Fault::Locked));
            }
            return Left::Blocked;
        }
        let mut first = first.into_iter();
        // After a failure the rest waits for the next group. Those whose caller has left cost nothing
        // and do not count.
        while outcome.is_ok() && waiting.len() < GROUP {
            let Some(job) = first.next().or_else(|| self.next(closing)) else { break };
            if let Some(ran) = job(Ok(connection)) {
                if ran.fatal {
                    outcome = Err(rusqlite::Error::StatementChangedRows(0));
                }
                waiting.push(ran.answer);
            }
        }
        if outcome.is_ok() {
            outcome = execute(connection, "COMMIT");
        }
        let outcome = outcome.map_err(Arc::new);
        if let Err(error) = &outcome {
            // What was taken and has not run.
            for job in first {
                job(Err(Fault::Commit(Arc::clone(error))));
            }
        }
        let is_sound = outcome.is_ok() || execute(connection, "ROLLBACK").is_ok();
        for answer in waiting {
            answer(outcome.clone());
        }
        if is_sound { Left::Sound } else { Left::Unsound }
    }
}

/// Runs one write in a transaction of its own.
fn write_one(connection: &Connection, job: Job) -> Left {
    let Some(ran) = job(Ok(connection)) else { return Left::Sound };
    (ran.answer)(Ok(()));
    match ran {
        Ran { blocked: true, .. } => Left::Blocked,
        Ran { fatal: true, .. } => Left::Unsound,
        _ => Left::Sound,
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Whether an error undid its own statement only. Others (a full disk, an I/O error) may have
/// rolled back the whole transaction (SQLite, "Response To Errors Within A Transaction").
fn is_statement_error(error: &rusqlite::Error) -> bool {
    const CONSTRAINT: i32 = 19;
    primary_code(error) == Some(CONSTRAINT)
}
