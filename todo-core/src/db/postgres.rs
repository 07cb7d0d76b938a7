//! PostgreSQL: a pool, a deadline on every call, and a lease that closes a connection whose call
//! did not end well instead of handing it to the next borrower.

use std::{
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

use crate::{
    db::{
        DbOptions, Fault, OpenError, Row, Rows, Share, Statement,
        address::{Address, PostgresAddress},
        breaker::{Breaker, SLOW},
        fitness::{self, Grants},
        is_connectivity,
        pool::{Lease, Pool},
        pooler::{self, Sharing},
        schema::Found,
        session::{Session, is_full},
    },
    error::Cause,
};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// How long a start may wait for another replica to finish migrating.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one attempt to connect may take at the start.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to connect to a server that is full, at the start.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// A session that may not write is kept for so long, although a new one might: where it is the server
/// that may not be written to, each write would otherwise end one.
const READ_ONLY_FOR: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool,
    timeout: Duration,
    sharing: Sharing,
    breaker: Arc<Breaker>,
    pool_max: u32,
}

/// Whether a statement whose connection is lost may run once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It only reads.
    Read,
    /// It writes: what became of it is not known.
    Write,
}

impl Postgres {
    pub(crate) async fn open(
        address: &PostgresAddress,
        options: &DbOptions,
    ) -> Result<Self, OpenError> {
        let connect = driver_options(address)?;
        // First of all: a schema is not to be changed over a pooler that mixes things up.
        let sharing = pooler::check(&connect, options.pool_max).await?;
        let mut session = connected(&connect).await?;
        let findings = fitness::settings(&mut session, sharing).await;
        let _ = session.close().await;
        fitness::heed(findings?)?;
        match &options.migrations_url {
            Some(url) => migrate(&connect_options(url)?, Sharing::None).await?,
            None => migrate(&connect, sharing).await?,
        }
        if sharing == Sharing::Transactions {
            // They would stay on the server's connections for other users of the pooler, a migration
            // among them. The role can have them (ALTER ROLE … SET), and a call has its own deadline.
            tracing::info!(
                "a pooler shares connections between transactions: statement_timeout and \
                 lock_timeout are left to the role's settings"
            );
        }
        let (breaker, connect) = (Breaker::new(), Arc::new(connect));
        let (timeout, size) = (options.timeout, (options.pool_min, options.pool_max));
        let pool = Pool::new(connect, timeout, sharing, Arc::clone(&breaker), size);
        let pool_max = options.pool_max;
        let db = Self { pool, timeout, sharing, breaker, pool_max };
        let grants: Option<Grants> = db
            .read(fitness::grants())
            .await
            .map_err(|fault| OpenError::Connect(Cause::new(fault)))?;
        if let Some(grants) = grants {
            fitness::lacking(&grants).map_err(|lack| OpenError::Unfit(lack.to_string()))?;
            fitness::heed(fitness::hidden(&grants))?;
        }
        Ok(db)
    }

    /// Asks for an answer, and whether the role may do what requests need.
    pub(crate) async fn ping(&self) -> Result<(), Fault> {
        let grants: Option<Grants> = self.read(fitness::grants()).await?;
        fitness::lacking(&grants.ok_or(Fault::NoRow)?)
    }

    /// Runs a statement that only reads, and takes its rows.
    pub(crate) async fn read<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        self.run(statement, Kind::Read).await
    }

    /// Runs a statement that writes, and takes its rows.
    pub(crate) async fn write<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        self.run(statement, Kind::Write).await
    }

    async fn run<R: Rows>(&self, statement: Statement, kind: Kind) -> Result<R, Fault> {
        if self.breaker.is_open() {
            self.pool.suspect();
            return Err(Fault::Away);
        }
        // Since when an answer to what was sent is due.
        let sent = Mutex::new(None);
        let mut call = pin!(async {
            let first = self.attempt(&statement, kind, &sent).await?;
            let Attempt::RunAgain(why) = first else { return first.ended() };
            tracing::debug!(error = %why, "a statement runs once more, on another connection");
            self.attempt(&statement, kind, &sent).await?.ended()
        });
        // Two deadlines, of which nearly every call sets only the first.
        let outcome = match tokio::time::timeout(SLOW.min(self.timeout), &mut call).await {
            Ok(outcome) => outcome,
            Err(_slow) => {
                self.pool.suspect();
                let rest = self.timeout.saturating_sub(SLOW);
                tokio::time::timeout(rest, call).await.unwrap_or(Err(Fault::Deadline))
            }
        };
        if let Err(fault) = &outcome
            && fault.is_connectivity()
        {
            // A session with a limit of its own would have answered with that.
            if let (Fault::Deadline, Sharing::None, Some(sent)) =
                (fault, self.sharing, *lock(&sent))
            {
                self.breaker.silent(sent);
            }
            self.breaker.failed();
            self.pool.suspect();
        }
        outcome
    }

    /// Runs a statement on one connection, and notes in `sent` since when its answer is due.
    async fn attempt<R: Rows>(
        &self,
        statement: &Statement,
        kind: Kind,
        sent: &Mutex<Option<Instant>>,
    ) -> Result<Attempt<R>, Fault> {
        let mut lease = tokio::select! {
            // In this order: there is nothing to listen for if a connection is there at once.
            biased;
            lease = self.pool.acquire() => lease?,
            // Nothing was sent yet. A statement under way is left to its own deadline.
            () = self.breaker.opened() => return Err(Fault::Away),
        };
        *lock(sent) = Some(Instant::now());
        let outcome = run_on(lease.connection()?, statement).await;
        *lock(sent) = None;
        match outcome {
            Err(Fault::Postgres(error)) => Ok(self.failed(lease, error, kind)),
            outcome => {
                lease.settle(outcome.is_ok());
                outcome.map(Attempt::Done)
            }
        }
    }

    /// Decides after an error whether its session ends and whether its statement runs once more.
    fn failed<R>(&self, mut lease: Lease, error: sqlx::Error, kind: Kind) -> Attempt<R> {
        let session = Session::after(&error);
        let is_lost = is_connectivity(&error);
        let is_outdated = match session {
            Session::Good | Session::Over => false,
            Session::Outdated => true,
            Session::ReadOnly => lease.age() > READ_ONLY_FOR,
        };
        lease.settle(session == Session::Good || (session == Session::ReadOnly && !is_outdated));
        if is_outdated {
            tracing::info!(%error, "sessions that can only fail are replaced");
            self.breaker.outdate(Instant::now());
        }
        if is_lost {
            self.breaker.failed();
            self.pool.suspect();
        }
        if is_outdated || (is_lost && kind == Kind::Read) {
            Attempt::RunAgain(error)
        } else {
            Attempt::Failed(error)
        }
    }

    pub(crate) fn share(&self) -> Share {
        Share { reads: share_of(self.pool_max), writes: None, drops_writes: false }
    }

    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> crate::core::Load {
        let breaker_open = i64::from(self.breaker.is_open());
        crate::core::Load { breaker_open, ..self.pool.load() }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// How many of `pool_max` connections one caller may use: a quarter, but two if one is left for
/// others. More would gain little: a caller's creations wait for each other at its row of counts.
fn share_of(pool_max: u32) -> usize {
    let pool_max = usize::try_from(pool_max).unwrap_or(usize::MAX);
    (pool_max / 4).max(2).min(pool_max.saturating_sub(1)).max(1)
}

/// What became of a statement on one connection.
enum Attempt<R> {
    Done(R),
    Failed(sqlx::Error),
    /// It had no effect, or only reads: it may run once more on another connection.
    RunAgain(sqlx::Error),
}

impl<R> Attempt<R> {
    /// Its outcome, if it is the last one.
    fn ended(self) -> Result<R, Fault> {
        match self {
            Self::Done(rows) => Ok(rows),
            Self::Failed(error) | Self::RunAgain(error) => Err(error.into()),
        }
    }
}

fn lock(sent: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run_on<R: Rows>(connection: &mut PgConnection, statement: &Statement) -> Result<R, Fault> {
    let query = sqlx::query_with(statement.sql, statement.arguments()?);
    let mut outcome = R::default();
    let mut results = connection.fetch_many(query);
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => outcome.changed(done.rows_affected()),
            Either::Right(row) => outcome.push(&Row::Postgres(&row))?,
        }
    }
    Ok(outcome)
}

/// How the driver connects to the PostgreSQL database at `url`.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    match Address::read(url)? {
        Address::Postgres(address) => driver_options(&address),
        #[cfg(feature = "sqlite")]
        Address::Sqlite(_) => Err(OpenError::Url("it must be one of PostgreSQL".into())),
    }
}

pub(crate) fn driver_options(address: &PostgresAddress) -> Result<PgConnectOptions, OpenError> {
    let options: PgConnectOptions = address
        .for_the_driver()
        .parse()
        // The driver's own text may repeat parts of the address, a password among them.
        .map_err(|_: sqlx::Error| OpenError::Url("not a PostgreSQL address".into()))?;
    let name = address.application_name().unwrap_or("todo");
    // PgBouncer refuses this start-up parameter, and nothing here is a float.
    Ok(options.extra_float_digits(None).application_name(name).disable_statement_logging())
}

/// A connection at the start. Those that were closed a moment ago may still count at the server: one
/// that is full is asked again.
pub(super) async fn connected(connect: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    let connecting = async {
        loop {
            match connect.connect().await {
                Err(error) if is_full(&error) => tokio::time::sleep(FULL_PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| OpenError::Connect(Cause::new(Fault::Deadline)))?
        .map_err(|e| OpenError::Connect(Cause::new(e)))
}

async fn migrate(connect: &PgConnectOptions, sharing: Sharing) -> Result<(), OpenError> {
    let run = async {
        let mut conn = connected(connect).await?;
        if sharing == Sharing::None {
            // Limits of the role are for requests; a migration has one of its own, below.
            let set = "SET statement_timeout = 0; SET lock_timeout = 0; \
                       SET default_transaction_isolation = 'read committed'; \
                       SET standard_conforming_strings = on";
            let set = sqlx::raw_sql(set).execute(&mut conn).await;
            set.map_err(|e| OpenError::Connect(Cause::new(e)))?;
        }
        // Before anything is written: sqlx would begin with a table of its own.
        let found = Found::in_postgres(&mut conn).await.map_err(|e| {
            pooler::mixed_up(e).unwrap_or_else(|e| OpenError::Connect(Cause::new(e)))
        })?;
        found.applied(&MIGRATIONS)?;
        // Under sqlx's advisory lock: replicas that start together take turns.
        MIGRATIONS.run(&mut conn).await.map_err(|e| match e {
            MigrateError::Execute(e) => {
                pooler::mixed_up(e).unwrap_or_else(|e| OpenError::Migrate(Cause::new(e)))
            }
            e => OpenError::Migrate(Cause::new(e)),
        })?;
        conn.close().await.map_err(|e| OpenError::Connect(Cause::new(e)))
    };
    tokio::time::timeout(MIGRATION_TIMEOUT, run)
        .await
        .unwrap_or_else(|_| Err(OpenError::Migrate(Cause::new("timed out after 60 s"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_gets_no_more_than_a_share_of_the_pool() {
        let shares = [0, 1, 2, 3, 4, 8, 20, 100].map(share_of);
        assert_eq!(shares, [1, 1, 1, 2, 2, 2, 5, 25]);
    }
}
