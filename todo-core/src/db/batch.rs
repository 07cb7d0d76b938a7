//! The unit of work: statements that take effect together, or not at all.
//!
//! SQLite runs them under a savepoint in the writer's transaction, or in one of their own. On
//! PostgreSQL they are BEGIN, the statements and COMMIT on one connection.
#![cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "tested, and for operations of more than one statement")
)]

use super::{DbError, FromRows, Row, Statement};

/// A sequence of statements that write, each with the outcome that it must have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(super) steps: Vec<Step>,
}

/// A statement of a batch.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) statement: Statement,
    pub(super) expected: Expected,
}

/// The number of rows that a statement must affect; a statement with RETURNING affects those that
/// it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Any,
    Rows(u64),
}

/// A statement affected another number of rows than expected. The whole batch was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// The index of the statement, from 0.
    pub(crate) statement: usize,
    /// The number of rows that it affected.
    pub(crate) rows: u64,
}

/// The error of a batch. No statement of it took effect, unless the call timed out or lost its
/// connection during the commit: then all may have.
#[derive(Debug)]
pub(crate) enum BatchError {
    Unmet(Unmet),
    Db(DbError),
}

impl From<DbError> for BatchError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl Batch {
    /// Adds a statement.
    #[must_use]
    pub(crate) fn then(mut self, statement: Statement, expected: Expected) -> Self {
        self.steps.push(Step { statement, expected });
        self
    }

    /// Returns the statement that needs no transaction: the only one, with any outcome. With an
    /// expectation it must not commit before its rows are counted.
    pub(super) fn single(self) -> Result<Statement, Self> {
        match self.steps.as_slice() {
            [Step { expected: Expected::Any, .. }] => {
                self.steps.into_iter().next().map(|step| step.statement).ok_or_else(Self::default)
            }
            _ => Err(self),
        }
    }
}

impl Step {
    /// Checks the number of affected rows of the statement at `index`.
    pub(super) fn check(&self, index: usize, rows: u64) -> Result<(), Unmet> {
        match self.expected {
            Expected::Rows(expected) if expected != rows => Err(Unmet { statement: index, rows }),
            Expected::Rows(_) | Expected::Any => Ok(()),
        }
    }
}

/// The rows of a statement, and their number.
#[derive(Default)]
pub(super) struct Counted<R> {
    pub(super) rows: R,
    pub(super) count: u64,
}

impl<R: FromRows> FromRows for Counted<R> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.rows.push(row)
    }

    fn set_affected(&mut self, rows: u64) {
        self.count = rows;
        self.rows.set_affected(rows);
    }
}
