//! The pool of idle PostgreSQL connections. It is built on deadpool: sqlx's own pool pings each
//! connection whenever it is returned, one more round trip in every request.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, Timeouts};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::{
    CLOSE_TIMEOUT, DbError, WaitStats,
    breaker::{Breaker, Verdict},
    connection_slots::{ConnectionSlot, ConnectionSlots},
    pooler_check::PoolingMode,
    session::{self, is_full},
};

/// Maximum idle time: below the five minutes after which Neon closes idle connections itself.
const IDLE_TIMEOUT: Duration = Duration::from_mins(4);
/// Maximum age of a connection, which bounds the memory that the server keeps for it.
const MAX_AGE: Duration = Duration::from_mins(30);
/// A connection idle for longer than this is pinged before use. The socket becomes readable when
/// the server closes it, but the driver does not expose that: only a round trip detects it. A busy
/// pool reuses connections within this time and skips the ping.
const TRUSTED_IDLE: Duration = Duration::from_millis(20);
/// [`TRUSTED_IDLE`] behind a pooler in transaction mode: it keeps client connections open, and
/// needs a server connection to answer a ping.
const TRUSTED_IDLE_SHARED: Duration = Duration::from_secs(1);
/// A ping that takes longer than this triggers a probe.
const SLOW_PING: Duration = Duration::from_millis(100);
/// Timeout of a ping on an idle connection.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Interval of the idle connections' maintenance.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(15);
/// Pause between attempts to connect to a server that is starting or full; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(300);

/// The pool. A cheap clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    pool: managed::Pool<Manager>,
    slots: Arc<ConnectionSlots>,
    waits: Arc<WaitStats>,
}

pub(super) struct Manager {
    connect: Arc<PgConnectOptions>,
    /// The timeout of a call, from which a new session's settings are derived.
    call: Duration,
    pooling_mode: PoolingMode,
    breaker: Arc<Breaker>,
    held: Arc<AtomicUsize>,
    pool: Weak<Inner>,
}

/// A connection, when it was made and when the server last answered on it.
pub(super) struct PooledConnection {
    connection: PgConnection,
    made_at: Instant,
    answered_at: Instant,
    _count: ConnectionCount,
}

/// Counts one open connection until it is dropped.
struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    fn among(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A borrowed connection. It is closed on drop unless [`Lease::release`] marked it as reusable: a
/// statement may still be running on it.
pub(super) struct Lease {
    // Declared before the slot: the connection is returned first.
    held: Option<Object<Manager>>,
    is_reusable: bool,
    /// A transaction may be open on it.
    in_transaction: bool,
    _slot: ConnectionSlot,
}

impl Pool {
    /// A pool of `min` to `max` connections; the first `min` are made in the background. `call` is
    /// the timeout of a call, from which a new session's settings are derived.
    pub(super) fn new(
        connect: Arc<PgConnectOptions>,
        call: Duration,
        pooling_mode: PoolingMode,
        breaker: Arc<Breaker>,
        (min, max): (u32, u32),
    ) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        let inner = Arc::new_cyclic(|pool| {
            let held = Arc::default();
            let pool = Weak::clone(pool);
            let manager = Manager { connect, call, pooling_mode, breaker, held, pool };
            let pool = managed::Pool::builder(manager)
                .max_size(max)
                // The last used connection is the least likely to have been closed meanwhile.
                .queue_mode(managed::QueueMode::Lifo)
                .build()
                .unwrap_or_else(|e| unreachable!("no timeout of the pool needs a runtime: {e}"));
            Inner { pool, slots: ConnectionSlots::new(max), waits: Arc::default() }
        });
        let min = usize::try_from(min).unwrap_or(usize::MAX).min(max);
        tokio::spawn(maintain(Arc::downgrade(&inner), min));
        Self(inner)
    }

    /// Borrows a connection, or makes one. Retries while the server is starting; if the server is
    /// full, waits for a connection to be returned. The caller sets the timeout.
    pub(super) async fn acquire(&self) -> Result<Lease, DbError> {
        let Inner { pool, slots, waits } = &*self.0;
        let _waiting = WaitStats::begin(Arc::clone(waits));
        let mut slot = slots.take().await?;
        let mut pause = RETRY_PAUSE;
        loop {
            let kept = match pool.get().await {
                Err(PoolError::Backend(error)) if is_full(&error) => {
                    slots.refused(slot, self.held())
                }
                Err(PoolError::Backend(error)) if is_starting(&error) => Some(slot),
                got => return lease(got, slot),
            };
            slot = match kept {
                None => slots.take().await?,
                Some(kept) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY_PAUSE);
                    kept
                }
            };
        }
    }

    /// An idle connection, without waiting.
    async fn try_acquire(&self) -> Option<Lease> {
        let Inner { pool, slots, .. } = &*self.0;
        if pool.status().available == 0 {
            return None;
        }
        let slot = slots.try_take()?;
        lease(pool.timeout_get(&AT_ONCE).await, slot).ok()
    }

    /// The number of open connections.
    fn held(&self) -> usize {
        self.manager().held.load(Ordering::Relaxed)
    }

    fn manager(&self) -> &Manager {
        self.0.pool.manager()
    }

    /// Starts a background probe of the database, unless one is running.
    pub(super) fn trigger_probe(&self) {
        let inner = Arc::downgrade(&self.0);
        self.manager().breaker.trigger_probe(move || probe(Weak::clone(&inner)));
    }

    /// Closes every connection; gives up on borrowed ones after [`CLOSE_TIMEOUT`].
    pub(super) async fn close(&self) {
        let pool = &self.0.pool;
        let closed = async {
            loop {
                close_all(pool.retain(|_, _| false).removed).await;
                if pool.status().size == 0 {
                    return;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("the pool did not close in time");
        }
        pool.close();
    }

    #[cfg(feature = "http")]
    pub(super) fn stats(&self) -> crate::db::PoolStats {
        let status = self.0.pool.status();
        self.0.waits.stats(status.size, status.available)
    }
}

/// Does not wait for a borrowed connection.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

fn lease(
    got: Result<Object<Manager>, PoolError<sqlx::Error>>,
    slot: ConnectionSlot,
) -> Result<Lease, DbError> {
    match got {
        Ok(held) => {
            Ok(Lease { held: Some(held), is_reusable: false, in_transaction: false, _slot: slot })
        }
        Err(PoolError::Backend(error)) => Err(error.into()),
        Err(PoolError::Closed) => Err(DbError::Closed),
        Err(_) => Err(DbError::Timeout),
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, DbError> {
        self.held.as_deref_mut().map(|held| &mut held.connection).ok_or(DbError::Closed)
    }

    /// The age of the connection.
    pub(super) fn age(&self) -> Duration {
        self.held.as_deref().map_or(Duration::ZERO, |held| held.made_at.elapsed())
    }

    /// Records whether a transaction may be open: the connection is then not reusable.
    pub(super) fn in_transaction(&mut self, in_transaction: bool) {
        self.in_transaction = in_transaction;
    }

    /// Marks the connection as reusable: the server answered, and the session is still usable.
    pub(super) fn release(&mut self, is_reusable: bool) {
        let is_reusable = is_reusable && !self.in_transaction;
        self.is_reusable = is_reusable;
        if let (true, Some(held)) = (is_reusable, self.held.as_deref_mut()) {
            held.answered_at = Instant::now();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(held)) = (self.is_reusable, self.held.take()) {
            drop(Object::take(held));
        }
    }
}

impl managed::Manager for Manager {
    type Type = PooledConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<PooledConnection> {
        let connection = self.connect().await?;
        if let Some(inner) = self.pool.upgrade() {
            inner.slots.made();
        }
        let now = Instant::now();
        Ok(PooledConnection {
            connection,
            made_at: now,
            answered_at: now,
            _count: ConnectionCount::among(&self.held),
        })
    }

    async fn recycle(
        &self,
        held: &mut PooledConnection,
        _: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if held.made_at.elapsed() > MAX_AGE {
            return Err(RecycleError::message("too old"));
        }
        if self.breaker.is_outdated(held.answered_at) {
            return Err(RecycleError::message("older than a failure"));
        }
        let trusted = match self.pooling_mode {
            PoolingMode::Session => TRUSTED_IDLE,
            PoolingMode::Transaction => TRUSTED_IDLE_SHARED,
        };
        let is_trusted =
            held.answered_at.elapsed() < trusted && !self.breaker.failed_since(held.answered_at);
        if is_trusted || self.is_alive(held).await {
            return Ok(());
        }
        Err(RecycleError::message("no answer to a ping"))
    }
}

impl Manager {
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut connection = self.connect.connect().await?;
        if self.pooling_mode == PoolingMode::Session {
            let set = session::settings(self.call, connection.server_version_num());
            // Only our own numbers, no input.
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Pings an idle connection. Gives it up as soon as a probe over a new connection succeeds.
    async fn is_alive(&self, held: &mut PooledConnection) -> bool {
        let sent_at = Instant::now();
        let answered_at = held.answered_at;
        let outdated = async {
            tokio::time::sleep(SLOW_PING).await;
            self.breaker.silent(sent_at);
            if let Some(inner) = self.pool.upgrade() {
                Pool(inner).trigger_probe();
            }
            self.breaker.wait_until_outdated(answered_at).await;
        };
        let is_alive = tokio::select! {
            biased;
            is_alive = ping(&mut held.connection) => is_alive,
            () = outdated => return false,
        };
        if is_alive {
            self.breaker.late(sent_at);
            held.answered_at = Instant::now();
        } else {
            // Other connections may be dead too.
            self.breaker.failed();
        }
        is_alive
    }
}

/// Probes the database: with a ping on an idle connection if it answers within [`SLOW_PING`] and no
/// connection is suspected to be silent, otherwise by a new connection.
async fn probe(inner: Weak<Inner>) -> Verdict {
    // The pool is gone.
    let Some(pool) = inner.upgrade().map(Pool) else { return Verdict::Up };
    let breaker = &pool.manager().breaker;
    let is_silent = breaker.is_silent();
    let mut idle = std::pin::pin!(async {
        let Some(mut lease) = pool.try_acquire().await else { return false };
        let Ok(connection) = lease.connection() else { return false };
        let is_alive = ping(connection).await;
        lease.release(is_alive);
        is_alive
    });
    let mut found = None;
    if !is_silent {
        found = tokio::time::timeout(SLOW_PING, &mut idle).await.ok();
        if found == Some(true) {
            return Verdict::Up;
        }
    }
    let error = match pool.manager().connect.connect().await {
        Ok(connection) => {
            let _ = connection.close().await;
            return Verdict::Up;
        }
        Err(error) => error,
    };
    tracing::debug!(%error, "probe failed");
    // A server that is full is up, as long as there is a connection to wait for.
    let is_busy = is_full(&error) && pool.held() > 0;
    // Only new connections may fail: the resolver is down, or the password was changed.
    let is_alive = is_busy
        || match found {
            Some(is_alive) => is_alive,
            None => idle.await,
        };
    if is_alive { Verdict::Up } else { Verdict::Down }
}

/// Whether a connection answers a ping.
async fn ping(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// Whether the server refused the connection because it is starting.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

/// Closes connections that are too old or idle for too long and keeps `min` open, until the pool is
/// closed.
async fn maintain(inner: Weak<Inner>, min: usize) {
    while let Some(inner) = inner.upgrade().filter(|inner| !inner.pool.is_closed()) {
        let pool = Pool(inner);
        let is_fresh = |held: &PooledConnection| {
            held.answered_at.elapsed() < IDLE_TIMEOUT
                && held.made_at.elapsed() < MAX_AGE
                && !pool.manager().breaker.is_outdated(held.answered_at)
        };
        close_all(pool.0.pool.retain(|held, _| is_fresh(held)).removed).await;
        let mut kept = Vec::new();
        while pool.0.pool.status().size < min && !pool.manager().breaker.is_open() {
            // Kept until there are enough: the pool lends an idle connection before it makes one.
            let Some(slot) = pool.0.slots.try_take() else { break };
            match tokio::time::timeout(MAINTENANCE_INTERVAL, pool.0.pool.timeout_get(&AT_ONCE))
                .await
            {
                Ok(Ok(held)) => kept.push((held, slot)),
                Ok(Err(PoolError::Backend(error))) if is_full(&error) => {
                    pool.0.slots.refused(slot, pool.held());
                    break;
                }
                _ => break,
            }
        }
        drop((kept, pool));
        tokio::time::sleep(MAINTENANCE_INTERVAL).await;
    }
}

async fn close_all(connections: Vec<PooledConnection>) {
    for held in connections {
        // Closed with a Terminate message: servers log connections that end without one.
        let _ = tokio::time::timeout(PING_TIMEOUT, held.connection.close()).await;
    }
}
