//! A batch on the writer's connection.

use rusqlite::Connection;

use super::{execute, run_statement, writer::is_statement_error};
use crate::db::{
    DbError, FromRows,
    batch::{Batch, Counted, Unmet},
};

/// Runs the statements of a batch, and returns the rows of the last. After a failure none of them
/// has an effect, and the writes before them in the same transaction keep theirs.
pub(super) fn run_batch<R: FromRows>(
    connection: &Connection,
    batch: &Batch,
) -> Result<Result<R, Unmet>, DbError> {
    // Alone, the batch is a transaction of its own. A savepoint would begin a deferred one, which
    // may fail as busy when it upgrades to writing.
    let is_alone = connection.is_autocommit();
    execute(connection, if is_alone { "BEGIN IMMEDIATE" } else { "SAVEPOINT batch" })?;
    let end = if is_alone { "COMMIT" } else { "RELEASE batch" };
    let failed = match run_steps(connection, batch) {
        Ok(Ok(rows)) => match execute(connection, end) {
            Ok(()) => return Ok(Ok(rows)),
            Err(error) => Err(error.into()),
        },
        failed => failed,
    };
    let undone = if is_alone {
        execute(connection, "ROLLBACK")
    } else {
        execute(connection, "ROLLBACK TO batch").and_then(|()| execute(connection, end))
    };
    match (failed, undone) {
        // SQLite may have rolled back already; the writer rolls back its whole group.
        (Err(DbError::Sqlite(error)), _) if !is_statement_error(&error) => Err(error.into()),
        (_, Err(error)) => Err(error.into()),
        (failed, Ok(())) => failed,
    }
}

fn run_steps<R: FromRows>(
    connection: &Connection,
    batch: &Batch,
) -> Result<Result<R, Unmet>, DbError> {
    let mut last = R::default();
    for (index, step) in batch.steps.iter().enumerate() {
        let outcome = run_statement::<Counted<R>>(connection, &step.statement, usize::MAX)?;
        let Counted { rows, count } = outcome.ok_or(DbError::NoRow)?;
        if let Err(unmet) = step.check(index, count) {
            return Ok(Err(unmet));
        }
        last = rows;
    }
    Ok(Ok(last))
}
