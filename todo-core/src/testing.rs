//! Internals that the workspace's tests run on both databases. No part of the API: it changes
//! without notice.

use std::time::Duration;

use crate::{
    BoxError, OpenError,
    db::{
        Db, DbOptions, Statement,
        batch::{Batch, BatchError, Expected, Unmet},
    },
};

/// A statement with binds of numbers, and the number of rows that it must affect, if any.
pub type Step = (&'static str, Vec<i64>, Option<u64>);

/// A failed batch.
#[derive(Debug)]
pub enum Failure {
    /// The statement at this index affected this number of rows.
    Unmet(usize, u64),
    /// A unique index rejected a row.
    Duplicate,
    /// Another error.
    Other(BoxError),
}

/// A database without a [`crate::Core`].
#[derive(Clone)]
pub struct Database(Db);

impl Database {
    /// Opens and migrates the database, with one connection on PostgreSQL.
    ///
    /// # Errors
    /// As [`crate::Core::open`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let timeout = Duration::from_millis(1800);
        let options = DbOptions { migrations_url: None, pool_min: 0, pool_max: 1, timeout };
        Db::open(url, &options).await.map(Self)
    }

    /// Runs a batch whose last statement may return a number, and returns that.
    ///
    /// # Errors
    /// The reason; then nothing was changed.
    pub async fn batch(&self, steps: &[Step]) -> Result<Option<i64>, Failure> {
        let mut batch = Batch::default();
        for (sql, binds, rows) in steps {
            let statement = binds.iter().fold(Statement::new(sql), |all, bind| all.bind(*bind));
            batch = batch.then(statement, rows.map_or(Expected::Any, Expected::Rows));
        }
        match self.0.execute_batch::<Option<(i64,)>>(batch).await {
            Ok(row) => Ok(row.map(|(number,)| number)),
            Err(BatchError::Unmet(Unmet { statement, rows })) => {
                Err(Failure::Unmet(statement, rows))
            }
            Err(BatchError::Db(error)) if error.is_unique_violation() => Err(Failure::Duplicate),
            Err(BatchError::Db(error)) => Err(Failure::Other(BoxError::new(error))),
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}
