//! A script on the writer's connection.

use rusqlite::Connection;

use super::{execute, run_statement, writer::is_statement_error};
use crate::db::{
    DbError,
    batch::{Next, Running, Script},
};

/// Runs a script. After a failure none of its statements has an effect, and the writes before them
/// in the same transaction keep theirs.
pub(super) fn run_script<S: Script>(
    connection: &Connection,
    script: S,
) -> Result<S::Output, DbError> {
    // Alone, the script is a transaction of its own. A savepoint would begin a deferred one, which
    // may fail as busy when it upgrades to writing.
    let is_alone = connection.is_autocommit();
    execute(connection, if is_alone { "BEGIN IMMEDIATE" } else { "SAVEPOINT batch" })?;
    let end = if is_alone { "COMMIT" } else { "RELEASE batch" };
    let failed = match run_statements(connection, script) {
        Ok(Next::Commit(output)) => match execute(connection, end) {
            Ok(()) => return Ok(output),
            Err(error) => Err(error.into()),
        },
        Ok(Next::RollBack(output)) => Ok(output),
        Ok(Next::Run(_)) => Err(DbError::NoRow),
        Err(error) => Err(error),
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

/// Runs the statements, and returns the end.
fn run_statements<S: Script>(
    connection: &Connection,
    mut script: S,
) -> Result<Next<S::Output>, DbError> {
    let mut rows = 0;
    loop {
        let statement = match script.next(rows)? {
            Next::Run(statement) => statement,
            end => return Ok(end),
        };
        let mut running = Running { script: &mut script, rows: 0 };
        run_statement(connection, &statement, usize::MAX, &mut running)?;
        rows = running.rows;
    }
}
