//! What one call runs on a borrowed connection: a statement, or a script as one transaction.
//!
//! The transaction is begun here and nowhere else. Its connection returns to the pool only after
//! the server answered COMMIT or ROLLBACK: a call that is dropped or fails in between closes the
//! connection, and the server rolls back.

use std::{future::Future, marker::PhantomData};

use super::run_statement;
use crate::db::{
    DbError, FromRows, Statement,
    batch::{Next, Running, Script},
    pool::Lease,
    session::SessionState,
};

/// The work of one call; it may run again on another connection if it had no effect.
pub(super) trait Work: Sync {
    type Output: Send;

    fn run(&self, lease: &mut Lease) -> impl Future<Output = Result<Self::Output, DbError>> + Send;
}

/// One statement, which commits itself: one round trip.
pub(super) struct Single<R>(pub(super) Statement, pub(super) PhantomData<fn() -> R>);

/// A unit of work: two round trips more than it has statements.
pub(super) struct Transaction<S>(pub(super) S);

impl<R: FromRows> Work for Single<R> {
    type Output = R;

    async fn run(&self, lease: &mut Lease) -> Result<R, DbError> {
        let mut rows = R::default();
        run_statement(lease.connection()?, &self.0, &mut rows).await?;
        Ok(rows)
    }
}

impl<S: Script> Work for Transaction<S> {
    type Output = S::Output;

    async fn run(&self, lease: &mut Lease) -> Result<Self::Output, DbError> {
        // First: a call that is dropped during BEGIN may have begun the transaction.
        lease.in_transaction(true);
        // The level is named for a pooler's connections, on which no session setting was made.
        execute(lease, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let outcome = run_statements(lease, self.0.clone()).await;
        let end = match &outcome {
            Ok((_, End::Commit)) => "COMMIT",
            Err(DbError::Postgres(error)) if SessionState::after(error) == SessionState::Broken => {
                return outcome.map(|(output, _)| output);
            }
            Ok((_, End::RollBack)) | Err(_) => "ROLLBACK",
        };
        match execute(lease, end).await {
            Ok(()) => lease.in_transaction(false),
            Err(error) if end == "COMMIT" => return Err(error),
            // Closing the connection rolls back.
            Err(_) => {}
        }
        outcome.map(|(output, _)| output)
    }
}

/// How a script ends its transaction.
enum End {
    Commit,
    RollBack,
}

async fn run_statements<S: Script>(
    lease: &mut Lease,
    mut script: S,
) -> Result<(S::Output, End), DbError> {
    let mut rows = 0;
    loop {
        let statement = match script.next(rows)? {
            Next::Run(statement) => statement,
            Next::Commit(output) => return Ok((output, End::Commit)),
            Next::RollBack(output) => return Ok((output, End::RollBack)),
        };
        let mut running = Running { script: &mut script, rows: 0 };
        run_statement(lease.connection()?, &statement, &mut running).await?;
        rows = running.rows;
    }
}

async fn execute(lease: &mut Lease, sql: &'static str) -> Result<(), DbError> {
    sqlx::raw_sql(sql).execute(lease.connection()?).await?;
    Ok(())
}
