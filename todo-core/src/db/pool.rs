//! Connections to PostgreSQL that wait to be used. The pool itself is deadpool's: sqlx's own asks
//! each connection for a sign of life whenever it is returned, one more round trip in every request.

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
    CLOSE_TIMEOUT, Fault, Waits,
    breaker::{Breaker, Verdict},
    places::{Place, Places},
    pooler::Sharing,
    session::{self, is_full},
};

/// Below Neon's five minutes, after which it closes idle connections itself.
const IDLE_TIMEOUT: Duration = Duration::from_mins(4);
/// A connection is not used for longer than this, so that what the server keeps for it stays small.
const MAX_AGE: Duration = Duration::from_mins(30);
/// An idle connection older than this is asked whether it lives before it is lent. The driver does not
/// say whether its socket is readable, as it is when the server has closed it, so that only a round
/// trip can tell. A busy pool lends what was used a moment ago, and asks nothing.
const TRUSTED_IDLE: Duration = Duration::from_millis(20);
/// The same behind a pooler that shares connections: it keeps those of its clients, and has to find a
/// server's connection to answer.
const TRUSTED_IDLE_SHARED: Duration = Duration::from_secs(1);
/// An idle connection that takes longer to say that it lives is suspicious.
const HESITATION: Duration = Duration::from_millis(100);
/// The longest an idle connection may take to say that it lives.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// How often idle connections are looked after.
const MAINTENANCE: Duration = Duration::from_secs(15);
/// Between two attempts to connect to a server that is starting or full.
const RETRY: Duration = Duration::from_millis(10);
const RETRY_MOST: Duration = Duration::from_millis(300);

/// The pool. A cheap clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    pool: managed::Pool<Manager>,
    places: Arc<Places>,
    waits: Arc<Waits>,
}

pub(super) struct Manager {
    connect: Arc<PgConnectOptions>,
    /// The longest a call may take, for what is set on a new connection.
    call: Duration,
    sharing: Sharing,
    breaker: Arc<Breaker>,
    held: Arc<AtomicUsize>,
    pool: Weak<Inner>,
}

/// A connection, and since when it is there and good.
pub(super) struct Held {
    connection: PgConnection,
    made: Instant,
    answered: Instant,
    _counted: Counted,
}

/// One connection that there is.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn among(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A borrowed connection. Unless its call ended in an answer of the server, which
/// [`Lease::settle`] says, it is closed: it may have half a statement on it.
pub(super) struct Lease {
    // Returned before its place is.
    held: Option<Object<Manager>>,
    is_settled: bool,
    _place: Place,
}

impl Pool {
    /// A pool of `min` to `max` connections, the former made in the background. What is set on a new
    /// connection depends on `call`, the longest a call may take.
    pub(super) fn new(
        connect: Arc<PgConnectOptions>,
        call: Duration,
        sharing: Sharing,
        breaker: Arc<Breaker>,
        (min, max): (u32, u32),
    ) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        let inner = Arc::new_cyclic(|pool| {
            let (held, pool) = (Arc::default(), Weak::clone(pool));
            let manager = Manager { connect, call, sharing, breaker, held, pool };
            let pool = managed::Pool::builder(manager)
                .max_size(max)
                // The one that was used last is the least likely to have been closed meanwhile.
                .queue_mode(managed::QueueMode::Lifo)
                .build()
                .unwrap_or_else(|e| unreachable!("nothing here needs a runtime to be named: {e}"));
            Inner { pool, places: Places::new(max), waits: Arc::default() }
        });
        let min = usize::try_from(min).unwrap_or(usize::MAX).min(max);
        tokio::spawn(maintain(Arc::downgrade(&inner), min));
        Self(inner)
    }

    /// Borrows a connection, or makes one. A server that is starting up is asked again, and one that
    /// is full is not: what comes back is waited for. How long all that may take is for the caller to
    /// say.
    pub(super) async fn acquire(&self) -> Result<Lease, Fault> {
        let Inner { pool, places, waits } = &*self.0;
        let _waiting = Waits::begin(Arc::clone(waits));
        let mut place = places.take().await?;
        let mut pause = RETRY;
        loop {
            let kept = match pool.get().await {
                Err(PoolError::Backend(error)) if is_full(&error) => {
                    places.refused(place, self.held())
                }
                Err(PoolError::Backend(error)) if is_starting(&error) => Some(place),
                got => return lease(got, place),
            };
            place = match kept {
                None => places.take().await?,
                Some(kept) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                    kept
                }
            };
        }
    }

    /// A connection that nobody uses right now.
    async fn try_acquire(&self) -> Option<Lease> {
        let Inner { pool, places, .. } = &*self.0;
        if pool.status().available == 0 {
            return None;
        }
        let place = places.try_take()?;
        lease(pool.timeout_get(&AT_ONCE).await, place).ok()
    }

    /// How many connections there are.
    fn held(&self) -> usize {
        self.manager().held.load(Ordering::Relaxed)
    }

    fn manager(&self) -> &Manager {
        self.0.pool.manager()
    }

    /// Has somebody find out in the background whether the database answers.
    pub(super) fn suspect(&self) {
        let inner = Arc::downgrade(&self.0);
        self.manager().breaker.suspect(move || probe(Weak::clone(&inner)));
    }

    /// Closes every connection, or gives up on those that do not come back.
    pub(super) async fn close(&self) {
        let pool = &self.0.pool;
        let closed = async {
            loop {
                close_all(pool.retain(|_, _| false).removed).await;
                if pool.status().size == 0 {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("the pool did not close in time");
        }
        pool.close();
    }

    #[cfg(feature = "http")]
    pub(super) fn load(&self) -> crate::core::Load {
        let status = self.0.pool.status();
        self.0.waits.load(status.size, status.available)
    }
}

/// Without waiting for one that is lent.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

fn lease(
    got: Result<Object<Manager>, PoolError<sqlx::Error>>,
    place: Place,
) -> Result<Lease, Fault> {
    match got {
        Ok(held) => Ok(Lease { held: Some(held), is_settled: false, _place: place }),
        Err(PoolError::Backend(error)) => Err(error.into()),
        Err(PoolError::Closed) => Err(Fault::Closed),
        Err(_) => Err(Fault::Deadline),
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, Fault> {
        self.held.as_deref_mut().map(|held| &mut held.connection).ok_or(Fault::Closed)
    }

    /// How long ago the connection was made.
    pub(super) fn age(&self) -> Duration {
        self.held.as_deref().map_or(Duration::ZERO, |held| held.made.elapsed())
    }

    /// Says whether the call ended in an answer of the server after which the connection is as good
    /// as before.
    pub(super) fn settle(&mut self, is_settled: bool) {
        self.is_settled = is_settled;
        if let (true, Some(held)) = (is_settled, self.held.as_deref_mut()) {
            held.answered = Instant::now();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(held)) = (self.is_settled, self.held.take()) {
            drop(Object::take(held));
        }
    }
}

impl managed::Manager for Manager {
    type Type = Held;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Held> {
        let connection = self.connect().await?;
        if let Some(inner) = self.pool.upgrade() {
            inner.places.made();
        }
        let now = Instant::now();
        Ok(Held { connection, made: now, answered: now, _counted: Counted::among(&self.held) })
    }

    async fn recycle(&self, held: &mut Held, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if held.made.elapsed() > MAX_AGE {
            return Err(RecycleError::message("too old"));
        }
        if self.breaker.is_outdated(held.answered) {
            return Err(RecycleError::message("older than some trouble"));
        }
        let trusted = match self.sharing {
            Sharing::None => TRUSTED_IDLE,
            Sharing::Transactions => TRUSTED_IDLE_SHARED,
        };
        let is_trusted = held.answered.elapsed() < trusted && !self.breaker.doubts(held.answered);
        if is_trusted || self.lives(held).await {
            return Ok(());
        }
        Err(RecycleError::message("it does not answer"))
    }
}

impl Manager {
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut connection = self.connect.connect().await?;
        if self.sharing == Sharing::None {
            let set = session::settings(self.call, connection.server_version_num());
            // Numbers of ours, no input.
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Whether an idle connection lives. One that has fallen silent is given up as soon as a probe
    /// over a new connection has an answer.
    async fn lives(&self, held: &mut Held) -> bool {
        let (asked, answered) = (Instant::now(), held.answered);
        let doubt = async {
            tokio::time::sleep(HESITATION).await;
            self.breaker.silent(asked);
            if let Some(inner) = self.pool.upgrade() {
                Pool(inner).suspect();
            }
            self.breaker.outdated(answered).await;
        };
        let lives = tokio::select! {
            biased;
            lives = answers(&mut held.connection) => lives,
            () = doubt => return false,
        };
        if lives {
            self.breaker.late(asked);
            held.answered = Instant::now();
        } else {
            // Others may have ended with it.
            self.breaker.failed();
        }
        lives
    }
}

/// Asks the database for a sign of life: over a connection that nobody uses, if that answers at once
/// and none is suspected to have fallen silent, else over a new one.
async fn probe(inner: Weak<Inner>) -> Verdict {
    // Nobody is left to ask.
    let Some(pool) = inner.upgrade().map(Pool) else { return Verdict::Up };
    let breaker = &pool.manager().breaker;
    let is_silent = breaker.is_silent();
    let mut idle = std::pin::pin!(async {
        let Some(mut lease) = pool.try_acquire().await else { return false };
        let Ok(connection) = lease.connection() else { return false };
        let lives = answers(connection).await;
        lease.settle(lives);
        lives
    });
    let mut found = None;
    if !is_silent {
        found = tokio::time::timeout(HESITATION, &mut idle).await.ok();
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
    // A refusal for want of room is an answer, as long as there is a connection to wait for.
    let is_busy = is_full(&error) && pool.held() > 0;
    // New connections may be what does not work: a resolver that is away, a password that was changed.
    let lives = is_busy
        || match found {
            Some(lives) => lives,
            None => idle.await,
        };
    if lives { Verdict::Up } else { Verdict::Down }
}

/// Whether an idle connection lives.
async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// Whether a server refused for a moment: it is starting.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

/// Closes what has been idle or alive for too long and makes up for what is missing, as long as
/// there is a pool.
async fn maintain(inner: Weak<Inner>, min: usize) {
    while let Some(inner) = inner.upgrade().filter(|inner| !inner.pool.is_closed()) {
        let pool = Pool(inner);
        let is_fresh = |held: &Held| {
            held.answered.elapsed() < IDLE_TIMEOUT
                && held.made.elapsed() < MAX_AGE
                && !pool.manager().breaker.is_outdated(held.answered)
        };
        close_all(pool.0.pool.retain(|held, _| is_fresh(held)).removed).await;
        let mut kept = Vec::new();
        while pool.0.pool.status().size < min && !pool.manager().breaker.is_open() {
            // Kept until there are enough: what is idle is lent before a new one is made.
            let Some(place) = pool.0.places.try_take() else { break };
            match tokio::time::timeout(MAINTENANCE, pool.0.pool.timeout_get(&AT_ONCE)).await {
                Ok(Ok(held)) => kept.push((held, place)),
                Ok(Err(PoolError::Backend(error))) if is_full(&error) => {
                    pool.0.places.refused(place, pool.held());
                    break;
                }
                _ => break,
            }
        }
        drop((kept, pool));
        tokio::time::sleep(MAINTENANCE).await;
    }
}

async fn close_all(connections: Vec<Held>) {
    for held in connections {
        // It is told to be polite: a server notes connections that just go.
        let _ = tokio::time::timeout(PING_TIMEOUT, held.connection.close()).await;
    }
}
