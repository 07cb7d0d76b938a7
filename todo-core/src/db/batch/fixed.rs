//! A unit of work whose statements are known beforehand.
#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the tests read what was not met"))]

use super::{Next, Script};
use crate::db::{DbError, FromRows, Row, Statement};

/// A sequence of statements that write, each with the outcome that it must have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(in crate::db) steps: Vec<Step>,
}

/// A statement of a batch.
#[derive(Clone, Debug)]
pub(in crate::db) struct Step {
    pub(in crate::db) statement: Statement,
    pub(in crate::db) expected: Expected,
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
}

impl Step {
    /// Checks the number of affected rows of the statement at `index`.
    fn check(&self, index: usize, rows: u64) -> Result<(), Unmet> {
        match self.expected {
            Expected::Rows(expected) if expected != rows => Err(Unmet { statement: index, rows }),
            Expected::Rows(_) | Expected::Any => Ok(()),
        }
    }
}

/// The run of a batch, which returns the rows of its last statement.
#[derive(Clone)]
pub(crate) struct BatchRun<R> {
    batch: Batch,
    /// The number of statements that were run.
    done: usize,
    rows: R,
}

impl<R: FromRows> BatchRun<R> {
    pub(in crate::db) fn new(batch: Batch) -> Self {
        Self { batch, done: 0, rows: R::default() }
    }
}

impl<R: FromRows + Clone + Sync> Script for BatchRun<R> {
    type Output = Result<R, Unmet>;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.rows.push(row)
    }

    fn next(&mut self, rows: u64) -> Result<Next<Self::Output>, DbError> {
        if let Some(index) = self.done.checked_sub(1) {
            self.rows.set_affected(rows);
            let step = self.batch.steps.get(index);
            if let Some(Err(unmet)) = step.map(|step| step.check(index, rows)) {
                return Ok(Next::RollBack(Err(unmet)));
            }
        }
        let Some(step) = self.batch.steps.get(self.done) else {
            return Ok(Next::Commit(Ok(std::mem::take(&mut self.rows))));
        };
        self.done += 1;
        self.rows = R::default();
        Ok(Next::Run(step.statement.clone()))
    }
}
