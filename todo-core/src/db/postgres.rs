//! PostgreSQL: a pool, a timeout on every call, and a lease that closes a connection whose call
//! failed or was dropped, instead of lending it again.

use std::{
    marker::PhantomData,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::TryStreamExt;
use sqlx::{
    ConnectOptions, Connection, Either, Executor, PgConnection, migrate::MigrateError,
    postgres::PgConnectOptions,
};
use tokio::time::Instant;

use self::transaction::{Single, Transaction, Work};
use crate::{
    db::{
        DatabaseOptions, DatabaseUrlError, DbError, FromRows, OpenError, Row, Share, Statement,
        address::{Address, PostgresAddress},
        batch::Script,
        breaker::{Breaker, SLOW},
        is_connectivity,
        pool::{Lease, Pool},
        pooler_check::{self, PoolingMode},
        requirements::{self, Grants},
        schema::Found,
        session::{SessionState, is_full},
        statement::{MAX_PREPARED, Receive},
    },
    error::BoxError,
};

mod codec;
mod transaction;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

/// Timeout of a migration, which includes waiting for another replica's.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout of connecting at the start.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts to connect to a full server at the start.
const FULL_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Minimum age at which a read-only session is replaced, since a new session may be able to write.
/// If the server itself is read-only, each write would otherwise close a session.
const READ_ONLY_MIN_AGE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool,
    timeout: Duration,
    pooling_mode: PoolingMode,
    breaker: Arc<Breaker>,
    pool_max: u32,
}

/// Whether a statement may be retried after its connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Only reads: retried.
    Read,
    /// Writes: its outcome is unknown, so it is not retried.
    Write,
}

impl Postgres {
    pub(crate) async fn open(
        address: &PostgresAddress,
        options: &DatabaseOptions,
    ) -> Result<Self, OpenError> {
        let connect = driver_options(address)?;
        // First: never migrate over a pooler that mixes up statements.
        let pooling_mode = pooler_check::check(&connect, options.max_connections).await?;
        let mut session = connect_at_start(&connect).await?;
        let findings = requirements::settings(&mut session, pooling_mode).await;
        let _ = session.close().await;
        requirements::reject_or_warn(findings?)?;
        match &options.migrations_url {
            Some(url) => migrate(&connect_options(url.as_str())?, PoolingMode::Session).await?,
            None => migrate(&connect, pooling_mode).await?,
        }
        if pooling_mode == PoolingMode::Transaction {
            // A SET would leak to other clients of the pooler, migrations included. The limits can
            // be set for the role (ALTER ROLE … SET), and each call has its own timeout.
            tracing::info!(
                "a pooler shares connections between transactions: statement_timeout and \
                 lock_timeout are left to the role's settings"
            );
        }
        let breaker = Breaker::new();
        let connect = Arc::new(connect);
        let timeout = options.timeout;
        let size = (options.min_connections, options.max_connections);
        let pool = Pool::new(connect, timeout, pooling_mode, Arc::clone(&breaker), size);
        let pool_max = options.max_connections;
        let db = Self { pool, timeout, pooling_mode, breaker, pool_max };
        let grants: Option<Grants> = db
            .fetch(requirements::grants())
            .await
            .map_err(|error| OpenError::Connect(BoxError::new(error)))?;
        if let Some(grants) = grants {
            requirements::check_grants(&grants)
                .map_err(|lack| OpenError::Unfit(lack.to_string()))?;
            requirements::reject_or_warn(requirements::check_row_security(&grants))?;
        }
        Ok(db)
    }

    /// Checks that the database answers and that the role has the grants that requests need.
    pub(crate) async fn ping(&self) -> Result<(), DbError> {
        let grants: Option<Grants> = self.fetch(requirements::grants()).await?;
        requirements::check_grants(&grants.ok_or(DbError::NoRow)?)
    }

    /// Runs a statement that only reads, and returns its rows.
    pub(crate) async fn fetch<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        self.run(&Single(statement, PhantomData), Kind::Read).await
    }

    /// Runs a statement that writes, and returns its rows.
    pub(crate) async fn execute<R: FromRows>(&self, statement: Statement) -> Result<R, DbError> {
        self.run(&Single(statement, PhantomData), Kind::Write).await
    }

    /// Runs a script in one transaction.
    pub(crate) async fn execute_script<S: Script>(&self, script: S) -> Result<S::Output, DbError> {
        self.run(&Transaction(script), Kind::Write).await
    }

    async fn run<W: Work>(&self, work: &W, kind: Kind) -> Result<W::Output, DbError> {
        if self.breaker.is_open() {
            self.pool.trigger_probe();
            return Err(DbError::CircuitOpen);
        }
        // When the running statement was sent.
        let sent = Mutex::new(None);
        let mut call = pin!(async {
            let first = self.attempt(work, kind, &sent).await?;
            let AttemptOutcome::Retry(why) = first else { return first.into_result() };
            tracing::debug!(error = %why, "retrying a statement on another connection");
            self.attempt(work, kind, &sent).await?.into_result()
        });
        // Two timers: nearly every call finishes before the second is set.
        let outcome = match tokio::time::timeout(SLOW.min(self.timeout), &mut call).await {
            Ok(outcome) => outcome,
            Err(_slow) => {
                self.pool.trigger_probe();
                let rest = self.timeout.saturating_sub(SLOW);
                tokio::time::timeout(rest, call).await.unwrap_or(Err(DbError::Timeout))
            }
        };
        if let Err(error) = &outcome
            && error.is_connectivity()
        {
            // In session mode a live server would have hit its statement_timeout before.
            if let (DbError::Timeout, PoolingMode::Session, Some(sent)) =
                (error, self.pooling_mode, *lock(&sent))
            {
                self.breaker.silent(sent);
            }
            self.breaker.failed();
            self.pool.trigger_probe();
        }
        outcome
    }

    /// Runs `work` on one connection; `sent` holds when it was sent, until the server answers.
    async fn attempt<W: Work>(
        &self,
        work: &W,
        kind: Kind,
        sent: &Mutex<Option<Instant>>,
    ) -> Result<AttemptOutcome<W::Output>, DbError> {
        let mut lease = tokio::select! {
            // In this order: if a connection is free, the breaker is not polled.
            biased;
            lease = self.pool.acquire() => lease?,
            // Nothing was sent yet. A running statement is bounded by the call's timeout.
            () = self.breaker.wait_until_open() => return Err(DbError::CircuitOpen),
        };
        *lock(sent) = Some(Instant::now());
        let outcome = work.run(&mut lease).await;
        *lock(sent) = None;
        match outcome {
            Err(DbError::Postgres(error)) => Ok(self.failed(lease, error, kind)),
            outcome => {
                lease.release(outcome.is_ok());
                if outcome.is_ok() {
                    self.breaker.answered();
                }
                outcome.map(AttemptOutcome::Done)
            }
        }
    }

    /// Decides after an error whether to close the session and whether to retry the statement.
    fn failed<R>(&self, mut lease: Lease, error: sqlx::Error, kind: Kind) -> AttemptOutcome<R> {
        let session = SessionState::after(&error);
        let is_lost = is_connectivity(&error);
        let is_outdated = match session {
            SessionState::Usable | SessionState::Broken => false,
            SessionState::Outdated => true,
            SessionState::ReadOnly => lease.age() > READ_ONLY_MIN_AGE,
        };
        lease.release(
            session == SessionState::Usable || (session == SessionState::ReadOnly && !is_outdated),
        );
        if is_outdated {
            tracing::info!(%error, "replacing outdated sessions");
            self.breaker.outdate(Instant::now());
        }
        if is_lost {
            self.breaker.failed();
            self.pool.trigger_probe();
        }
        if is_outdated || (is_lost && kind == Kind::Read) {
            AttemptOutcome::Retry(error)
        } else {
            AttemptOutcome::Failed(error)
        }
    }

    pub(crate) fn share(&self) -> Share {
        Share { reads: share_of(self.pool_max), writes: None, drops_writes: false }
    }

    #[cfg(feature = "http")]
    pub(crate) fn stats(&self) -> crate::db::PoolStats {
        let breaker_open = i64::from(self.breaker.is_open());
        crate::db::PoolStats { breaker_open, ..self.pool.stats() }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// One caller's share of `pool_max` connections: a quarter, but at least two if that leaves one for
/// others. More would gain little: a caller's inserts wait for each other on its row in
/// `todo_counts`.
fn share_of(pool_max: u32) -> usize {
    let pool_max = usize::try_from(pool_max).unwrap_or(usize::MAX);
    (pool_max / 4).max(2).min(pool_max.saturating_sub(1)).max(1)
}

/// The outcome of a statement on one connection.
enum AttemptOutcome<R> {
    Done(R),
    Failed(sqlx::Error),
    /// The statement had no effect or only reads: it can be retried on another connection.
    Retry(sqlx::Error),
}

impl<R> AttemptOutcome<R> {
    /// The result of the last attempt.
    fn into_result(self) -> Result<R, DbError> {
        match self {
            Self::Done(rows) => Ok(rows),
            Self::Failed(error) | Self::Retry(error) => Err(error.into()),
        }
    }
}

fn lock(sent: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run_statement(
    connection: &mut PgConnection,
    statement: &Statement,
    receiver: &mut (impl Receive + Send),
) -> Result<(), DbError> {
    let query = sqlx::query_with(statement.sql.clone(), codec::arguments(&statement.binds)?);
    let mut results = connection.fetch_many(query);
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => receiver.set_affected(done.rows_affected()),
            Either::Right(row) => receiver.push(&Row::Postgres(&row))?,
        }
    }
    Ok(())
}

/// The driver's options for the PostgreSQL database at `url`.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    match Address::read(url)? {
        Address::Postgres(address) => driver_options(&address),
        #[cfg(feature = "sqlite")]
        Address::Sqlite(_) => {
            Err(OpenError::Url(DatabaseUrlError::new("it must be a PostgreSQL address")))
        }
    }
}

pub(crate) fn driver_options(address: &PostgresAddress) -> Result<PgConnectOptions, OpenError> {
    let options: PgConnectOptions = address
        .driver_url()
        .parse()
        // The driver's error may repeat parts of the address, such as the password.
        .map_err(|_: sqlx::Error| {
            OpenError::Url(DatabaseUrlError::new("not a PostgreSQL address"))
        })?;
    let name = address.application_name().unwrap_or("todo");
    // PgBouncer rejects this startup parameter, and no column is a float.
    let options = options.extra_float_digits(None).application_name(name);
    Ok(options.statement_cache_capacity(MAX_PREPARED).disable_statement_logging())
}

/// Connects at the start. Retries if the server is full: it may still count connections that were
/// just closed.
pub(super) async fn connect_at_start(
    connect: &PgConnectOptions,
) -> Result<PgConnection, OpenError> {
    let connecting = async {
        loop {
            match connect.connect().await {
                Err(error) if is_full(&error) => tokio::time::sleep(FULL_RETRY_PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| OpenError::Connect(BoxError::new(DbError::Timeout)))?
        .map_err(|e| OpenError::Connect(BoxError::new(e)))
}

async fn migrate(connect: &PgConnectOptions, pooling_mode: PoolingMode) -> Result<(), OpenError> {
    let run = async {
        let mut conn = connect_at_start(connect).await?;
        if pooling_mode == PoolingMode::Session {
            // The role's limits are meant for requests; a migration has its own timeout, below.
            let set = "SET statement_timeout = 0; SET lock_timeout = 0; \
                       SET default_transaction_isolation = 'read committed'; \
                       SET standard_conforming_strings = on";
            let set = sqlx::raw_sql(set).execute(&mut conn).await;
            set.map_err(|e| OpenError::Connect(BoxError::new(e)))?;
        }
        // Before any write: sqlx would first create its own table.
        let found = Found::in_postgres(&mut conn).await.map_err(|e| {
            pooler_check::detect_mixup(e).unwrap_or_else(|e| OpenError::Connect(BoxError::new(e)))
        })?;
        found.applied(&MIGRATIONS)?;
        // Under sqlx's advisory lock: replicas that start together migrate one at a time.
        MIGRATIONS.run(&mut conn).await.map_err(|e| match e {
            MigrateError::Execute(e) => pooler_check::detect_mixup(e)
                .unwrap_or_else(|e| OpenError::Migrate(BoxError::new(e))),
            e => OpenError::Migrate(BoxError::new(e)),
        })?;
        conn.close().await.map_err(|e| OpenError::Connect(BoxError::new(e)))
    };
    tokio::time::timeout(MIGRATION_TIMEOUT, run)
        .await
        .unwrap_or_else(|_| Err(OpenError::Migrate(BoxError::new("timed out after 60 s"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_gets_at_most_its_share_of_the_pool() {
        let shares = [0, 1, 2, 3, 4, 8, 20, 100].map(share_of);
        assert_eq!(shares, [1, 1, 1, 2, 2, 2, 5, 25]);
    }
}
