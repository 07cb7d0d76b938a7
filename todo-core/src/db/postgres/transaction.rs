//! What one call runs on a borrowed connection: a statement, or a batch as one transaction.
//!
//! The transaction is begun here and nowhere else. Its connection returns to the pool only after
//! the server answered COMMIT or ROLLBACK: a call that is dropped or fails in between closes the
//! connection, and the server rolls back.

use std::{future::Future, marker::PhantomData};

use super::run_statement;
use crate::db::{
    DbError, FromRows, Statement,
    batch::{Batch, Counted, Unmet},
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

/// A batch: two round trips more than it has statements. It returns the rows of the last.
pub(super) struct Transaction<R>(pub(super) Batch, pub(super) PhantomData<fn() -> R>);

impl<R: FromRows> Work for Single<R> {
    type Output = R;

    async fn run(&self, lease: &mut Lease) -> Result<R, DbError> {
        run_statement(lease.connection()?, &self.0).await
    }
}

impl<R: FromRows> Work for Transaction<R> {
    type Output = Result<R, Unmet>;

    async fn run(&self, lease: &mut Lease) -> Result<Self::Output, DbError> {
        // First: a call that is dropped during BEGIN may have begun the transaction.
        lease.in_transaction(true);
        // The level is named for a pooler's connections, on which no session setting was made.
        execute(lease, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let outcome = run_steps(lease, &self.0).await;
        let end = match &outcome {
            Ok(Ok(_)) => "COMMIT",
            Err(DbError::Postgres(error)) if SessionState::after(error) == SessionState::Broken => {
                return outcome;
            }
            Ok(Err(_)) | Err(_) => "ROLLBACK",
        };
        match execute(lease, end).await {
            Ok(()) => lease.in_transaction(false),
            Err(error) if end == "COMMIT" => return Err(error),
            // Closing the connection rolls back.
            Err(_) => {}
        }
        outcome
    }
}

async fn run_steps<R: FromRows>(
    lease: &mut Lease,
    batch: &Batch,
) -> Result<Result<R, Unmet>, DbError> {
    let mut last = R::default();
    for (index, step) in batch.steps.iter().enumerate() {
        let connection = lease.connection()?;
        let Counted { rows, count } = run_statement(connection, &step.statement).await?;
        if let Err(unmet) = step.check(index, count) {
            return Ok(Err(unmet));
        }
        last = rows;
    }
    Ok(Ok(last))
}

async fn execute(lease: &mut Lease, sql: &'static str) -> Result<(), DbError> {
    sqlx::raw_sql(sql).execute(lease.connection()?).await?;
    Ok(())
}
