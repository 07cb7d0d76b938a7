//! PostgreSQL: a pool, a deadline on every call, and a lease that closes a connection whose call
//! did not end well instead of handing it to the next borrower.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    ConnectOptions, Connection, Either, Executor, PgConnection, migrate::MigrateError,
    postgres::PgConnectOptions,
};

use crate::{
    db::{
        DbOptions, Fault, OpenError, Row, Rows, Share, Statement,
        breaker::{Breaker, SLOW, Verdict},
        is_connectivity,
        pool::{Pool, answers},
        pooler::{self, Sharing},
    },
    error::Cause,
};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// How long a start may wait for another replica to finish migrating.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one attempt to connect may take at the start.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool,
    timeout: Duration,
    connect: Arc<PgConnectOptions>,
    breaker: Arc<Breaker>,
    pool_max: u32,
}

impl Postgres {
    pub(crate) async fn open(url: &str, options: &DbOptions) -> Result<Self, OpenError> {
        let connect = connect_options(url)?;
        // First of all: a schema is not to be changed over a pooler that mixes things up.
        let sharing = pooler::check(&connect, options.pool_max).await?;
        match &options.migrations_url {
            Some(url) => migrate(&connect_options(url)?).await?,
            None => migrate(&connect).await?,
        }
        let limits = match sharing {
            Sharing::None => Some(limits(options.timeout)),
            // They would stay on the server's connections for other users of the pooler, a migration
            // among them. The role can have them (ALTER ROLE … SET), and a call has its own deadline.
            Sharing::Transactions => {
                tracing::info!(
                    "a pooler shares connections between transactions: statement_timeout and \
                     lock_timeout are left to the role's settings"
                );
                None
            }
        };
        let (breaker, connect) = (Breaker::new(), Arc::new(connect));
        let size = (options.pool_min, options.pool_max);
        let pool = Pool::new(Arc::clone(&connect), limits, Arc::clone(&breaker), size);
        let (timeout, pool_max) = (options.timeout, options.pool_max);
        let db = Self { pool, timeout, connect, breaker, pool_max };
        let _: Option<(i64,)> = db
            .run(Statement::new("SELECT CAST(1 AS bigint)"))
            .await
            .map_err(|fault| OpenError::Connect(Cause::new(fault)))?;
        Ok(db)
    }

    /// Runs a statement and takes its rows.
    pub(crate) async fn run<R: Rows>(&self, statement: Statement) -> Result<R, Fault> {
        if self.breaker.is_open() {
            self.suspect();
            return Err(Fault::Away);
        }
        let mut call = pin!(async {
            let mut lease = tokio::select! {
                // In this order: there is nothing to listen for if a connection is there at once.
                biased;
                lease = self.pool.acquire() => lease?,
                // Nothing was sent yet. A statement under way is left to its own deadline.
                () = self.breaker.opened() => return Err(Fault::Away),
            };
            let outcome = run_on(lease.connection()?, &statement).await;
            lease.settle(match &outcome {
                Ok(_) => true,
                Err(Fault::Postgres(error @ sqlx::Error::Database(_))) => !is_connectivity(error),
                Err(_) => false,
            });
            outcome
        });
        // Two deadlines, of which nearly every call sets only the first.
        let outcome = match tokio::time::timeout(SLOW.min(self.timeout), &mut call).await {
            Ok(outcome) => outcome,
            Err(_slow) => {
                self.suspect();
                let rest = self.timeout.saturating_sub(SLOW);
                tokio::time::timeout(rest, call).await.unwrap_or(Err(Fault::Deadline))
            }
        };
        if let Err(fault) = &outcome
            && fault.is_connectivity()
        {
            self.breaker.failed();
            self.suspect();
        }
        outcome
    }

    /// Has somebody find out in the background whether the database answers.
    fn suspect(&self) {
        let (pool, connect) = (self.pool.clone(), Arc::clone(&self.connect));
        self.breaker.suspect(move || probe(pool.clone(), Arc::clone(&connect)));
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

/// How many of `pool_max` connections one caller may use: a quarter, but two if one is left for others.
/// More would gain a caller little: creations wait for each other at the caller's row of counts.
fn share_of(pool_max: u32) -> usize {
    let pool_max = usize::try_from(pool_max).unwrap_or(usize::MAX);
    (pool_max / 4).max(2).min(pool_max.saturating_sub(1)).max(1)
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

/// What a connection is told when it is new. By SET, not as start-up parameters: poolers refuse those
/// that they do not know, and a session of its own keeps what is set.
fn limits(call: Duration) -> String {
    // Shorter than the call's own deadline: a row that somebody holds is then told by the server, and
    // does not look like a server that has gone silent.
    let timeout_ms = (call * 3 / 4).as_millis().max(1);
    format!(
        "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; \
         SET idle_in_transaction_session_timeout = 10000"
    )
}

/// Asks the database for a sign of life: over a connection that nobody uses, else over a new one.
async fn probe(pool: Pool, connect: Arc<PgConnectOptions>) -> Verdict {
    if let Some(mut lease) = pool.try_acquire().await
        && let Ok(connection) = lease.connection()
        && answers(connection).await
    {
        lease.settle(true);
        return Verdict::Up;
    }
    // Who holds them will tell; one more could be one more than the server was promised.
    if pool.is_exhausted() {
        return Verdict::Unknown;
    }
    match connect.connect().await {
        Ok(connection) => {
            let _ = connection.close().await;
            Verdict::Up
        }
        Err(error) => {
            tracing::debug!(%error, "probe failed");
            Verdict::Down
        }
    }
}

pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    let options: PgConnectOptions = as_the_driver_spells(url)
        .parse()
        // The driver's own text may repeat parts of the address, a password among them.
        .map_err(|_: sqlx::Error| OpenError::Url("not a PostgreSQL address".into()))?;
    // PgBouncer refuses this start-up parameter, and nothing here is a float.
    Ok(options.extra_float_digits(None).application_name("todo").disable_statement_logging())
}

/// The address with SQLAlchemy's spellings turned into libpq's: the driver behind a plus, and
/// asyncpg's `ssl` for `sslmode`. `channel_binding`, which Neon's addresses carry, is dropped: the
/// driver does not know it and would log it as a mistake at each start.
fn as_the_driver_spells(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let scheme = scheme.split('+').next().unwrap_or(scheme);
    let Some((base, query)) = rest.split_once('?') else { return format!("{scheme}:{rest}") };
    let query: Vec<_> = query
        .split('&')
        .filter_map(|pair| match pair.split_once('=') {
            Some(("ssl", "true")) => Some("sslmode=require".to_owned()),
            Some(("ssl", "false")) => Some("sslmode=disable".to_owned()),
            Some(("ssl", mode)) => Some(format!("sslmode={mode}")),
            Some(("channel_binding", _)) => None,
            _ => Some(pair.to_owned()),
        })
        .collect();
    format!("{scheme}:{base}?{}", query.join("&"))
}

async fn migrate(connect: &PgConnectOptions) -> Result<(), OpenError> {
    let run = async {
        let mut conn = tokio::time::timeout(CONNECT_TIMEOUT, connect.connect())
            .await
            .map_err(|_| OpenError::Connect(Cause::new(Fault::Deadline)))?
            .map_err(|e| OpenError::Connect(Cause::new(e)))?;
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
    use sqlx::postgres::PgSslMode;

    use super::*;

    #[test]
    fn one_caller_gets_no_more_than_a_share_of_the_pool() {
        let shares = [0, 1, 2, 3, 4, 8, 20, 100].map(share_of);
        assert_eq!(shares, [1, 1, 1, 2, 2, 2, 5, 25]);
    }

    #[test]
    fn addresses_of_neon_and_of_sqlalchemy_are_understood() {
        let cases = [
            ("postgresql://u:p@h/db?sslmode=require&channel_binding=require", PgSslMode::Require),
            ("postgresql+asyncpg://u:p@h/db?ssl=require", PgSslMode::Require),
            ("postgresql+asyncpg://u:p@h/db?ssl=verify-full", PgSslMode::VerifyFull),
            ("postgresql+asyncpg://u:p@h/db?ssl=disable", PgSslMode::Disable),
            ("postgresql+asyncpg://u:p@h/db?ssl=true", PgSslMode::Require),
            ("postgres://u:p@h/db?unheard_of=1&sslmode=verify-ca", PgSslMode::VerifyCa),
        ];
        for (url, mode) in cases {
            let options = connect_options(url).expect(url);
            let found = options.get_ssl_mode();
            assert_eq!(format!("{found:?}"), format!("{mode:?}"), "{url}");
            assert_eq!((options.get_host(), options.get_database()), ("h", Some("db")), "{url}");
        }
        assert!(connect_options("postgres://u:p@h/db?ssl=perhaps").is_err());
    }
}
