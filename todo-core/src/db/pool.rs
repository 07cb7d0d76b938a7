//! Connections to PostgreSQL that wait to be used. The pool itself is deadpool's: sqlx's own asks
//! each connection for a sign of life whenever it is returned, one more round trip in every request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, Timeouts};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use super::{CLOSE_TIMEOUT, Fault, Waits, breaker::Breaker};

/// Below Neon's five minutes, after which it closes idle connections itself.
const IDLE_TIMEOUT: Duration = Duration::from_mins(4);
/// A connection is not used for longer than this, so that what the server keeps for it stays small.
const MAX_AGE: Duration = Duration::from_mins(30);
/// An idle connection older than this is asked whether it lives before it is lent.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// The longest an idle connection may take to say that it lives.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// How often idle connections are looked after.
const MAINTENANCE: Duration = Duration::from_secs(15);
/// Between two attempts to connect to a server that is starting or full.
const RETRY: Duration = Duration::from_millis(10);
const RETRY_MOST: Duration = Duration::from_millis(300);

/// The pool. A cheap clone.
#[derive(Clone)]
pub(super) struct Pool {
    pool: managed::Pool<Manager>,
    waits: Arc<Waits>,
}

pub(super) struct Manager {
    connect: Arc<PgConnectOptions>,
    /// What a connection is told when it is new.
    limits: Option<String>,
    breaker: Arc<Breaker>,
}

/// A borrowed connection. Unless its call ended in an answer of the server, which
/// [`Lease::settle`] says, it is closed: it may have half a statement on it.
pub(super) struct Lease {
    connection: Option<Object<Manager>>,
    settled: bool,
}

impl Pool {
    /// A pool of `min` to `max` connections, the former made in the background.
    pub(super) fn new(
        connect: Arc<PgConnectOptions>,
        limits: Option<String>,
        breaker: Arc<Breaker>,
        (min, max): (u32, u32),
    ) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        let pool = managed::Pool::builder(Manager { connect, limits, breaker })
            .max_size(max)
            // The one that was used last is the least likely to have been closed meanwhile.
            .queue_mode(managed::QueueMode::Lifo)
            .build()
            .unwrap_or_else(|e| unreachable!("nothing here needs a runtime to be named: {e}"));
        tokio::spawn(maintain(pool.weak(), usize::try_from(min).unwrap_or(usize::MAX).min(max)));
        Self { pool, waits: Arc::default() }
    }

    /// Borrows a connection, or makes one. How long that may take is for the caller to say.
    pub(super) async fn acquire(&self) -> Result<Lease, Fault> {
        let _waiting = Waits::begin(Arc::clone(&self.waits));
        lease(self.pool.get().await)
    }

    /// A connection that nobody uses right now.
    pub(super) async fn try_acquire(&self) -> Option<Lease> {
        if self.pool.status().available == 0 {
            return None;
        }
        lease(self.pool.timeout_get(&AT_ONCE).await).ok()
    }

    /// Whether every connection there may be is lent.
    pub(super) fn is_exhausted(&self) -> bool {
        let status = self.pool.status();
        status.available == 0 && status.size >= status.max_size
    }

    /// Closes every connection, or gives up on those that do not come back.
    pub(super) async fn close(&self) {
        let closed = async {
            loop {
                close_all(self.pool.retain(|_, _| false).removed).await;
                if self.pool.status().size == 0 {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("the pool did not close in time");
        }
        self.pool.close();
    }

    #[cfg(feature = "http")]
    pub(super) fn load(&self) -> crate::core::Load {
        let status = self.pool.status();
        self.waits.load(status.size, status.available)
    }
}

/// Without waiting for one that is lent.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

fn lease(got: Result<Object<Manager>, PoolError<sqlx::Error>>) -> Result<Lease, Fault> {
    match got {
        Ok(connection) => Ok(Lease { connection: Some(connection), settled: false }),
        Err(PoolError::Backend(error)) => Err(error.into()),
        Err(PoolError::Closed) => Err(Fault::Closed),
        Err(_) => Err(Fault::Deadline),
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, Fault> {
        self.connection.as_deref_mut().ok_or(Fault::Closed)
    }

    /// Says whether the call ended in an answer of the server.
    pub(super) fn settle(&mut self, settled: bool) {
        self.settled = settled;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(connection)) = (self.settled, self.connection.take()) {
            drop(Object::take(connection));
        }
    }
}

impl managed::Manager for Manager {
    type Type = PgConnection;
    type Error = sqlx::Error;

    /// Connects. A server that is starting up or has no place is asked again until the caller gives
    /// up.
    async fn create(&self) -> sqlx::Result<PgConnection> {
        let mut pause = RETRY;
        loop {
            match self.connect().await {
                Err(error) if is_transient(&error) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
                outcome => return outcome,
            }
        }
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        let now = Instant::now();
        let idle = now.saturating_duration_since(metrics.recycled.unwrap_or(metrics.created));
        if now.saturating_duration_since(metrics.created) > MAX_AGE {
            return Err(RecycleError::message("too old"));
        }
        let trusted = idle < TRUSTED_IDLE && !self.breaker.doubts(idle);
        if trusted || answers(connection).await {
            return Ok(());
        }
        Err(RecycleError::message("it does not answer"))
    }
}

impl Manager {
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut connection = self.connect.connect().await?;
        if let Some(limits) = &self.limits {
            // Two numbers of ours, no input.
            sqlx::raw_sql(AssertSqlSafe(limits.clone())).execute(&mut connection).await?;
        }
        Ok(connection)
    }
}

/// Whether an idle connection lives.
pub(super) async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// Whether a server refused for a moment: it is starting, or full.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["53300", "57P03"].contains(&code.as_ref()))
        }
        _ => false,
    }
}

/// Closes what has been idle or alive for too long and makes up for what is missing, as long as
/// there is a pool.
async fn maintain(pool: managed::WeakPool<Manager>, min: usize) {
    while let Some(pool) = pool.upgrade().filter(|pool| !pool.is_closed()) {
        let is_fresh =
            |metrics: Metrics| metrics.last_used() < IDLE_TIMEOUT && metrics.age() < MAX_AGE;
        close_all(pool.retain(|_, metrics| is_fresh(metrics)).removed).await;
        let mut held = Vec::new();
        while pool.status().size < min && !pool.manager().breaker.is_open() {
            // Held until there are enough: what is idle is lent before a new one is made.
            match tokio::time::timeout(MAINTENANCE, pool.timeout_get(&AT_ONCE)).await {
                Ok(Ok(connection)) => held.push(connection),
                _ => break,
            }
        }
        drop((held, pool));
        tokio::time::sleep(MAINTENANCE).await;
    }
}

async fn close_all(connections: Vec<PgConnection>) {
    for connection in connections {
        // It is told to be polite: a server notes connections that just go.
        let _ = tokio::time::timeout(PING_TIMEOUT, connection.close()).await;
    }
}
