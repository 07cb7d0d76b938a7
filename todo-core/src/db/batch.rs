//! The unit of work: statements that take effect together, or not at all.
//!
//! SQLite runs them under a savepoint in the writer's transaction, or in one of their own. On
//! PostgreSQL they are BEGIN, the statements and COMMIT on one connection. The statements of a
//! [`Batch`] are known beforehand; those of a [`Script`] depend on the rows of the ones before.

#[cfg_attr(
    not(feature = "testing"),
    allow(unused_imports, reason = "the tests read what was not met")
)]
pub(crate) use self::fixed::{Batch, BatchError, BatchRun, Expected, Unmet};
use super::{DbError, Row, Statement, statement::Receive};

mod fixed;

/// A unit of work whose statements depend on the rows of those before them.
///
/// It begins anew, as a clone, if its connection turns out to be unusable. SQLite runs it on the
/// writer's thread: it must not wait.
pub(crate) trait Script: Clone + Send + Sync + 'static {
    type Output: Send + 'static;

    /// Receives a row of the statement that runs.
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError>;

    /// Decides what follows the last statement, which affected `rows` rows. The first call is
    /// before any statement. After an error the unit has no effect.
    fn next(&mut self, rows: u64) -> Result<Next<Self::Output>, DbError>;
}

/// What follows a statement of a [`Script`].
pub(crate) enum Next<T> {
    Run(Statement),
    Commit(T),
    RollBack(T),
}

/// The receiver of the rows of a script's statement, and their number.
pub(super) struct Running<'a, S> {
    pub(super) script: &'a mut S,
    pub(super) rows: u64,
}

impl<S: Script> Receive for Running<'_, S> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.script.push(row)
    }

    fn set_affected(&mut self, rows: u64) {
        self.rows = rows;
    }
}
