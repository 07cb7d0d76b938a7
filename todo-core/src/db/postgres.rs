//! PostgreSQL: a pool, a deadline on every call, and a lease that closes a connection whose call
//! did not end well instead of handing it to the next borrower.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres as Driver,
    migrate::MigrateError,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    db::{
        DbOptions, Fault, OpenError, Pool,
        breaker::{Breaker, SLOW, Verdict},
        is_connectivity,
        pooler::{self, Sharing},
    },
    error::Cause,
};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// How long a start may wait for another replica to finish migrating.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one attempt to connect may take at the start.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Below Neon's five minutes, after which it closes idle connections itself.
const IDLE_TIMEOUT: Duration = Duration::from_mins(4);
/// An idle connection older than this is asked whether it lives before it is lent.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// The longest an idle connection may take to say that it lives.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool<Driver>,
    timeout: Duration,
    connect: Arc<PgConnectOptions>,
    breaker: Arc<Breaker>,
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
        let limits: Option<Arc<str>> = match sharing {
            Sharing::None => Some(limits(options.timeout).into()),
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
        let breaker = Breaker::new();
        let doubting = Arc::clone(&breaker);
        let pool = PgPoolOptions::new()
            .min_connections(options.pool_min)
            .max_connections(options.pool_max)
            .acquire_timeout(options.timeout)
            .idle_timeout(IDLE_TIMEOUT)
            // A ping before every loan would be one more round trip in every request.
            .test_before_acquire(false)
            .before_acquire(move |conn, idle| {
                let trusted = idle.idle_for < TRUSTED_IDLE && !doubting.doubts(idle.idle_for);
                Box::pin(async move { Ok(trusted || answers(conn).await) })
            })
            .after_connect(move |conn, _| {
                let limits = limits.clone();
                Box::pin(async move {
                    if let Some(limits) = limits {
                        // Two numbers of ours, no input.
                        sqlx::raw_sql(AssertSqlSafe(limits)).execute(conn).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(connect.clone());
        let db = Self {
            pool: Pool::new(pool),
            timeout: options.timeout,
            connect: Arc::new(connect),
            breaker,
        };
        db.read(|conn| Box::pin(async move { conn.ping().await }))
            .await
            .map_err(|fault| OpenError::Connect(Cause::new(fault)))?;
        Ok(db)
    }

    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Fault>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        if self.breaker.is_open() {
            self.suspect();
            return Err(Fault::Away);
        }
        let call = async {
            let connection = tokio::select! {
                connection = self.pool.acquire() => connection?,
                // Nothing was sent yet. A statement under way is left to its own deadline.
                () = self.breaker.opened() => return Err(Fault::Away),
            };
            let mut lease = Lease { connection: Some(connection), settled: false };
            let result = match &mut lease.connection {
                Some(connection) => work(connection).await,
                None => return Err(Fault::Sql(sqlx::Error::PoolClosed)),
            };
            lease.settled = match &result {
                Ok(_) => true,
                Err(error @ sqlx::Error::Database(_)) => !is_connectivity(error),
                Err(_) => false,
            };
            result.map_err(Fault::Sql)
        };
        let slow = async {
            tokio::time::sleep(SLOW).await;
            self.suspect();
            std::future::pending().await
        };
        let call = async {
            tokio::select! {
                result = call => result,
                never = slow => never,
            }
        };
        let result = tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(Fault::Deadline));
        if let Err(fault) = &result
            && fault.is_connectivity()
        {
            self.breaker.failed();
            self.suspect();
        }
        result
    }

    /// Has somebody find out in the background whether the database answers.
    fn suspect(&self) {
        let (pool, connect) = (self.pool.clone(), Arc::clone(&self.connect));
        self.breaker.suspect(move || probe(pool.clone(), Arc::clone(&connect)));
    }

    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Fault>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        self.read(work).await
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
async fn probe(pool: Pool<Driver>, connect: Arc<PgConnectOptions>) -> Verdict {
    if let Some(connection) = pool.try_acquire() {
        let mut lease = Lease { connection: Some(connection), settled: false };
        if let Some(connection) = &mut lease.connection {
            lease.settled = answers(connection).await;
        }
        if lease.settled {
            return Verdict::Up;
        }
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

/// Whether an idle connection lives.
async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// A borrowed connection. Unless its call ended in an answer of the server, the connection is
/// closed: it may have half a statement on it.
struct Lease {
    connection: Option<PoolConnection<Driver>>,
    settled: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(connection)) = (self.settled, &mut self.connection) {
            connection.close_on_drop();
        }
    }
}

pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    let options: PgConnectOptions = as_the_driver_spells(url)
        .parse()
        // The driver's own text may repeat parts of the address, a password among them.
        .map_err(|_: sqlx::Error| OpenError::Url("not a PostgreSQL address".into()))?;
    // PgBouncer refuses this start-up parameter, and nothing here is a float.
    Ok(options.extra_float_digits(None).application_name("todo"))
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
