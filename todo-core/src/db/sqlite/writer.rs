//! The single writer thread: it commits the queued writes as a group and responds to each when the
//! commit is on disk.

use std::{sync::Arc, thread, time::Duration};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    Access, DatabaseFile,
    checkpoints::Checkpoints,
    execute,
    fair_queue::FairQueue,
    is_blocked, primary_code,
    responses::{Respond, Responses},
};
use crate::db::{DbError, WaitStats};

/// Capacity of the writer's queue; a write that gets no room fails at its timeout.
const QUEUE_LENGTH: usize = 1024;
/// Maximum number of writes in one commit, which bounds the wait of the first.
const MAX_GROUP: usize = 256;
/// Maximum number of queued writes of one caller: as many as one commit carries.
pub(super) const SHARE: usize = MAX_GROUP;
/// Busy timeout while another process holds the lock, after a first full wait for it.
const BLOCKED_BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// The outcome of a write's statement, before the commit.
struct WriteOutcome {
    /// The error may have rolled back the whole transaction.
    is_fatal: bool,
    /// Another process holds the lock.
    is_blocked: bool,
    respond: Respond,
}

/// One write: a statement, or a batch under a savepoint, so that it is atomic inside a shared
/// transaction. Called with an error in place of the connection, it does not run and returns that
/// error to its caller.
type Write = Box<dyn FnOnce(Result<&Connection, DbError>) -> Option<WriteOutcome> + Send>;

/// A command to the writer thread.
enum Command {
    /// A write and its caller.
    Write(Option<Uuid>, Write),
    /// Finish the queued writes, then respond.
    Close(oneshot::Sender<()>),
}

/// The handle to the writer thread.
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
    /// Writes not yet taken by the writer; it takes them once its last commit is on disk.
    pub(super) waits: Arc<WaitStats>,
}

impl Writer {
    /// Starts a writer on `connection`, which it reopens from `file` if a transaction may be left
    /// open on it.
    pub(super) fn spawn(
        connection: Connection,
        file: Option<DatabaseFile>,
        busy_timeout: Duration,
    ) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE_LENGTH);
        let checkpoints = file.clone().map(Checkpoints::spawn).transpose()?;
        let connection = Some(connection);
        let waiting_writes = FairQueue::default();
        let mut writer = WriterThread {
            connection,
            file,
            checkpoints,
            busy_timeout,
            queue,
            responses: Responses::new(),
            waiting_writes,
            is_blocked: false,
        };
        // The thread ends when the last handle is dropped.
        thread::Builder::new().name("sqlite-writer".into()).spawn(move || writer.run())?;
        Ok(Self { commands, waits: Arc::default() })
    }

    /// Runs `work` on the writer's thread, and returns its outcome when the commit is on disk.
    /// After an error `work` must have changed nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        caller: Option<Uuid>,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (answer, answered) = oneshot::channel();
        let waiting = WaitStats::begin(Arc::clone(&self.waits));
        let write: Write = Box::new(move |connection| {
            drop(waiting);
            // The caller timed out before this write started: skip it.
            if answer.is_closed() {
                return None;
            }
            let connection = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    let _ = answer.send(Err(error));
                    return None;
                }
            };
            let outcome = work(connection);
            let failed = |is: fn(&rusqlite::Error) -> bool| matches!(&outcome, Err(DbError::Sqlite(e)) if is(e));
            let is_fatal = failed(|error| !is_statement_error(error));
            let is_blocked = failed(is_blocked);
            let respond = move |commit: Result<(), Arc<rusqlite::Error>>| {
                let _ = answer.send(match (outcome, commit) {
                    (Err(error), _) => Err(error),
                    (Ok(_), Err(error)) => Err(DbError::Commit(error)),
                    (Ok(rows), Ok(())) => Ok(rows),
                });
            };
            Some(WriteOutcome { is_fatal, is_blocked, respond: Box::new(respond) })
        });
        self.commands.send(Command::Write(caller, write)).await.map_err(|_| DbError::Closed)?;
        answered.await.map_err(|_| DbError::Closed)?
    }

    /// Finishes the queued writes, then closes the file.
    pub(super) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.commands.send(Command::Close(closed)).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// The state of the connection after a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Usable,
    /// Another process holds the lock; no transaction began.
    Blocked,
    /// A transaction may be left open: the connection must be closed.
    Broken,
}

/// The writer thread.
struct WriterThread {
    connection: Option<Connection>,
    file: Option<DatabaseFile>,
    /// `None` in memory.
    checkpoints: Option<Checkpoints>,
    busy_timeout: Duration,
    queue: mpsc::Receiver<Command>,
    responses: Responses,
    /// Writes taken from the queue, in fair order: empty unless more wait than one commit carries.
    waiting_writes: FairQueue<Write>,
    is_blocked: bool,
}

impl WriterThread {
    /// Runs the queued writes until every handle is dropped or closed.
    fn run(&mut self) {
        let mut closing = Vec::new();
        loop {
            // In fair order if more writes wait than one commit carries.
            let next = self.next(&mut closing);
            if !closing.is_empty() {
                // Accept no more commands; the queued ones are still received.
                self.queue.close();
            }
            match next {
                Some(first) => self.write(first, &mut closing),
                None => match self.queue.blocking_recv() {
                    Some(Command::Write(_, first)) => self.write(first, &mut closing),
                    Some(Command::Close(closed)) => closing.push(closed),
                    None => break,
                },
            }
            if !closing.is_empty() {
                // As above.
                self.queue.close();
            }
        }
        // Closed first: the last connection that closes checkpoints the whole log.
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

    /// Runs a write and the other waiting ones. While another process holds the lock, only the
    /// first write waits the full busy timeout: with one writer, the waits of all would add up.
    fn write(&mut self, first: Write, closing: &mut Vec<oneshot::Sender<()>>) {
        let connection = match (self.connection.take(), &self.file) {
            (Some(connection), _) => connection,
            // A database in memory is lost with its connection.
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
        let state = match self.next(closing) {
            // No other write waits: the statement commits itself, without BEGIN and COMMIT.
            None => write_one(&connection, first),
            Some(second) => self.write_group(&connection, [first, second], closing),
        };
        let was_blocked =
            std::mem::replace(&mut self.is_blocked, state == ConnectionState::Blocked);
        let is_usable = match (was_blocked, state) {
            // A database in memory has one connection: it has to be kept.
            _ if self.file.is_none() => true,
            (_, ConnectionState::Broken) => false,
            (false, ConnectionState::Blocked) => {
                tracing::warn!("another process holds the database file's lock");
                connection.busy_timeout(BLOCKED_BUSY_TIMEOUT).is_ok()
            }
            (true, ConnectionState::Usable) => connection.busy_timeout(self.busy_timeout).is_ok(),
            (true, ConnectionState::Blocked) | (false, ConnectionState::Usable) => true,
        };
        if let Some(checkpoints) = self.checkpoints.as_mut().filter(|_| is_usable) {
            checkpoints.after_commit(&connection);
        }
        self.connection = is_usable.then_some(connection);
    }

    /// The next waiting write, if there is one. If more wait than one commit carries, the order is
    /// round robin over the callers: a caller's first write is in the next commit, however many
    /// another caller has.
    fn next(&mut self, closing: &mut Vec<oneshot::Sender<()>>) -> Option<Write> {
        while self.waiting_writes.len() < QUEUE_LENGTH
            && (!self.waiting_writes.is_empty() || self.queue.len() > MAX_GROUP)
        {
            match self.queue.try_recv() {
                Ok(Command::Write(caller, write)) => self.waiting_writes.push(caller, write),
                Ok(Command::Close(closed)) => closing.push(closed),
                Err(_) => break,
            }
        }
        if let Some(write) = self.waiting_writes.pop() {
            return Some(write);
        }
        loop {
            match self.queue.try_recv().ok()? {
                Command::Write(_, write) => return Some(write),
                Command::Close(closed) => closing.push(closed),
            }
        }
    }

    /// Runs the given writes and all others that wait in one transaction.
    fn write_group(
        &mut self,
        connection: &Connection,
        first: [Write; 2],
        closing: &mut Vec<oneshot::Sender<()>>,
    ) -> ConnectionState {
        let mut waiting = Vec::new();
        let mut outcome = execute(connection, "BEGIN IMMEDIATE");
        if matches!(&outcome, Err(error) if is_blocked(error)) {
            for write in first {
                write(Err(DbError::Locked));
            }
            return ConnectionState::Blocked;
        }
        let mut first = first.into_iter();
        // After a failure the remaining writes wait for the next group. Writes whose caller timed
        // out are skipped and do not count.
        while outcome.is_ok() && waiting.len() < MAX_GROUP {
            let Some(write) = first.next().or_else(|| self.next(closing)) else { break };
            if let Some(done) = write(Ok(connection)) {
                if done.is_fatal {
                    outcome = Err(rusqlite::Error::StatementChangedRows(0));
                }
                waiting.push(done.respond);
            }
        }
        if outcome.is_ok() {
            outcome = execute(connection, "COMMIT");
        }
        let outcome = outcome.map_err(Arc::new);
        if let Err(error) = &outcome {
            // Writes that were taken and did not run.
            for write in first {
                write(Err(DbError::Commit(Arc::clone(error))));
            }
        }
        let is_usable = outcome.is_ok() || execute(connection, "ROLLBACK").is_ok();
        self.responses.send(outcome, waiting);
        if is_usable { ConnectionState::Usable } else { ConnectionState::Broken }
    }
}

/// Runs one write in its own transaction.
fn write_one(connection: &Connection, write: Write) -> ConnectionState {
    let Some(done) = write(Ok(connection)) else { return ConnectionState::Usable };
    (done.respond)(Ok(()));
    match done {
        WriteOutcome { is_blocked: true, .. } => ConnectionState::Blocked,
        WriteOutcome { is_fatal: true, .. } => ConnectionState::Broken,
        _ => ConnectionState::Usable,
    }
}

/// Whether an error rolled back only its statement. Others (a full disk, an I/O error) may have
/// rolled back the whole transaction (SQLite, "Response To Errors Within A Transaction").
pub(super) fn is_statement_error(error: &rusqlite::Error) -> bool {
    const CONSTRAINT: i32 = 19;
    primary_code(error) == Some(CONSTRAINT)
}
