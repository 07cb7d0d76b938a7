//! [`Core`]: the few things every operation needs, and the way operations are run.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    OpenError,
    auth::{self, limits::Limits, passwords::Passwords, tokens::Tokens},
    clock::Clock,
    db::{Db, DbOptions},
    error::{Cause, Error, Result},
    request_id,
    secret::{Algorithm, Secret},
    turns::Turns,
};

/// Operations of callers that may be under way or wait for their turn at once; beyond it,
/// [`Error::Busy`] at once.
const MAX_OPERATIONS: usize = 4096;
/// The same of operations without a caller, which are above all signups and logins: however many of
/// them wait, callers are served.
const MAX_STRANGERS: usize = 1024;
/// The longest an operation may run, whoever still waits for it.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);

/// How a [`Core`] is to be set up. Start from [`Options::new`] and change what you need. Its `Debug`
/// shows no secret and no address.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// What tokens and cursors are signed with.
    pub secret: Secret,
    /// Secrets that were used before: what they signed is still good. Default: none.
    pub previous_secrets: Vec<Secret>,
    /// How tokens are signed. Default: HS256.
    pub algorithm: Algorithm,
    /// How long a session lasts. Default: 7 days.
    pub session_lifetime: chrono::TimeDelta,
    /// Failed logins, and signups, that a client address may make in any minute; 0: any number.
    /// Default: 5.
    pub rate_limit_per_minute: u32,
    /// Connections kept open to PostgreSQL. Default: 5.
    pub pool_min: u32,
    /// Connections that may be open at once. Default: 20.
    pub pool_max: u32,
    /// The longest a database call may take, the wait for a connection included; beyond it,
    /// [`Error::Unavailable`]. Default: 1.8 s.
    pub database_timeout: Duration,
    /// Where a PostgreSQL schema is brought up to date, if not over the database's own address: a
    /// direct one beside a pooler's, or one of a role that may change the schema. Default: none.
    pub migrations_url: Option<String>,
    /// What tells the time. Default: the system's clock.
    pub clock: Clock,
}

impl Options {
    /// The defaults, with the given secret.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            previous_secrets: Vec::new(),
            algorithm: Algorithm::Hs256,
            session_lifetime: chrono::TimeDelta::days(7),
            rate_limit_per_minute: 5,
            pool_min: 5,
            pool_max: 20,
            database_timeout: Duration::from_millis(1800),
            migrations_url: None,
            clock: Clock::system(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each field is named, so that a new one is thought of here.
        let Self {
            secret,
            previous_secrets,
            algorithm,
            session_lifetime,
            rate_limit_per_minute,
            pool_min,
            pool_max,
            database_timeout,
            migrations_url,
            clock,
        } = self;
        f.debug_struct("Options")
            .field("secret", secret)
            .field("previous_secrets", previous_secrets)
            .field("algorithm", algorithm)
            .field("session_lifetime", session_lifetime)
            .field("rate_limit_per_minute", rate_limit_per_minute)
            .field("pool_min", pool_min)
            .field("pool_max", pool_max)
            .field("database_timeout", database_timeout)
            .field("migrations_url", &migrations_url.as_ref().map(|_| Hidden))
            .field("clock", clock)
            .finish()
    }
}

/// Stands for a value that is not shown.
struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A todo installation: a database and what it takes to work on it. A cheap clone; nothing is
/// global, so two can live in one process.
#[derive(Clone)]
pub struct Core(Arc<Inner>);

struct Inner {
    db: Db,
    passwords: Passwords,
    tokens: Tokens,
    limits: Limits,
    clock: Clock,
    operations: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    reads: Arc<Turns>,
    /// The same as for reads where they share connections.
    writes: Arc<Turns>,
    drops_writes: bool,
}

impl Core {
    /// Opens the database at `url` (`sqlite://file.db`, `sqlite::memory:`, `postgres://…`), making
    /// the SQLite file if there is none, and brings its schema up to date. Several may do so at the
    /// same time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, options: Options) -> Result<Self, OpenError> {
        let db = DbOptions {
            pool_min: options.pool_min,
            pool_max: options.pool_max,
            timeout: options.database_timeout,
            migrations_url: options.migrations_url.clone(),
        };
        Ok(Self::over(Db::open(url, &db).await?, options).await)
    }

    /// As [`Core::open`], of a database that is open.
    pub(crate) async fn over(db: Db, options: Options) -> Self {
        let share = db.share();
        let turns = |at_once| Turns::new(at_once, options.database_timeout);
        let reads = turns(share.reads);
        let writes = share.writes.map_or_else(|| Arc::clone(&reads), turns);
        let core = Self(Arc::new(Inner {
            db,
            passwords: Passwords::new(),
            tokens: Tokens::new(
                options.algorithm,
                &options.secret,
                &options.previous_secrets,
                options.session_lifetime,
            ),
            limits: Limits::new(options.rate_limit_per_minute),
            clock: options.clock,
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            reads,
            writes,
            drops_writes: share.drops_writes,
        }));
        if let Err(error) = auth::learn_costs(&core).await {
            tracing::warn!(%error, "what stored passwords cost is not known yet");
        }
        core
    }

    /// Asks the database for an answer, and whether its role may do what requests need.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no answer comes within the database timeout, or a grant is missing.
    pub async fn ping(&self) -> Result<()> {
        let db = self.db();
        // Those who ask for this wait for each other, as one caller's operations do.
        self.read(Uuid::nil(), async move {
            db.ping().await?;
            Ok(())
        })
        .await
    }

    /// Finishes what is queued and closes the database. Operations that come later fail with
    /// [`Error::Unavailable`].
    pub async fn close(&self) {
        self.0.db.close().await;
    }

    /// Awaits the turn of `caller`, then runs an operation that reads, as [`Core::anonymous`] does.
    ///
    /// Dropped before its turn, it has cost the database nothing.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        caller: Uuid,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let turn = self.0.reads.take(caller).await?;
        Detached::new(bounded((permit, turn), operation)).await
    }

    /// Awaits the turn of `caller`, then runs an operation that is one statement that writes, and
    /// at most some that read.
    ///
    /// Dropped before its turn, it has cost the database nothing. Dropped later, it ends in a task
    /// of its own, as with [`Core::anonymous`], unless the database can leave out what has not begun.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        caller: Uuid,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let turn = self.0.writes.take(caller).await?;
        let operation = bounded((permit, turn), operation);
        if self.0.drops_writes { operation.boxed().await } else { Detached::new(operation).await }
    }

    /// As [`Core::write`], but once it was begun it runs to its end on either database: something
    /// follows the write that must not be left out.
    pub(crate) async fn write_and_log<T: Send + 'static>(
        &self,
        caller: Uuid,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let turn = self.0.writes.take(caller).await?;
        Detached::new(bounded((permit, turn), operation)).await
    }

    /// Runs an operation that has no caller (a signup, a login) to its end, and awaits it.
    ///
    /// The future may be dropped at any point: a client leaves, a request's time is up. Dropped
    /// with it, a database call would leave its connection in the middle of something, for the next
    /// borrower to find. So an operation that was begun goes on in a task of its own then, within its
    /// own permit and deadline.
    pub(crate) async fn anonymous<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.strangers)?;
        Detached::new(bounded(permit, operation)).await
    }

    /// How busy it is right now.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> Load {
        let mut load = self.0.db.load();
        for turns in [Some(&self.0.reads), self.0.separate_writes()].into_iter().flatten() {
            let lines = turns.waits().load(0, 0);
            load.waiting += lines.waiting;
            load.waited_micros += lines.waited_micros;
        }
        load.hashing = self.0.passwords.queued();
        load.hashed = self.0.passwords.run();
        load
    }

    pub(crate) fn db(&self) -> Db {
        self.0.db.clone()
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }
}

impl Inner {
    /// The turns of writes, unless they are those of reads.
    #[cfg(feature = "http")]
    fn separate_writes(&self) -> Option<&Arc<Turns>> {
        Some(&self.writes).filter(|writes| !Arc::ptr_eq(writes, &self.reads))
    }
}

fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(of).try_acquire_owned().map_err(|_| Error::Busy)
}

/// An operation with its deadline, that holds `held` until its end. A panic is an error.
async fn bounded<T>(
    held: impl Send,
    operation: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let operation = AssertUnwindSafe(operation).catch_unwind();
    let outcome = match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Error::Internal(Cause::new("an operation panicked"))),
        Err(_elapsed) => Err(Error::Unavailable(Cause::new("operation timed out"))),
    };
    drop(held);
    outcome
}

/// An operation that outlives whoever awaits it. Being awaited it costs no task.
struct Detached<T: Send + 'static> {
    operation: Option<BoxFuture<'static, T>>,
    is_begun: bool,
}

impl<T: Send + 'static> Detached<T> {
    fn new(operation: impl Future<Output = T> + Send + 'static) -> Self {
        Self { operation: Some(operation.boxed()), is_begun: false }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.is_begun = true;
        // As with any future: whoever polls it after its end gets nothing.
        let Some(operation) = &mut self.operation else { return Poll::Pending };
        let outcome = ready!(operation.as_mut().poll(cx));
        self.operation = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        let Some(operation) = self.operation.take().filter(|_| self.is_begun) else { return };
        // Without a runtime, all of it ends.
        let Ok(runtime) = Handle::try_current() else { return };
        let rest = operation.map(drop).in_current_span();
        match request_id::current() {
            Some(id) => runtime.spawn(request_id::scope(id, rest)),
            None => runtime.spawn(rest),
        };
    }
}

/// How busy a [`Core`] is.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Connections of the pool that wait to be lent, and that are lent.
    pub(crate) idle: i64,
    pub(crate) used: i64,
    /// Calls that wait for a connection, and how long calls have waited in all.
    pub(crate) waiting: i64,
    pub(crate) waited_micros: i64,
    /// 1 while calls fail at once because the database is known to be away.
    pub(crate) breaker_open: i64,
    /// Passwords being hashed, or waiting for it.
    pub(crate) hashing: i64,
    /// Passwords hashed since the start.
    pub(crate) hashed: u64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Core")
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::db::{Changed, Statement};

    async fn in_memory() -> Result<Core, Box<dyn std::error::Error>> {
        let secret = Secret::new("at least thirty-two random bytes")?;
        Ok(Core::open("sqlite::memory:", Options::new(secret)).await?)
    }

    #[tokio::test]
    async fn an_operation_runs_on_when_nobody_waits_for_it_any_more() {
        let core = in_memory().await.unwrap();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let mut operation = core
            .anonymous(async move {
                gone.await.unwrap();
                done.send(()).unwrap();
                Ok(())
            })
            .boxed();
        assert!(operation.as_mut().now_or_never().is_none(), "it has to wait");
        drop(operation);
        go.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn an_operation_that_nobody_began_is_not_run() {
        let core = in_memory().await.unwrap();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        drop(core.anonymous(async move {
            done.send(()).unwrap();
            Ok(())
        }));
        is_done.await.unwrap_err();
    }

    #[tokio::test]
    async fn an_operation_whose_turn_has_not_come_is_left_out_and_one_under_way_is_not() {
        let core = in_memory().await.unwrap();
        let turns = Turns::new(1, Duration::from_secs(10));
        let ann = Uuid::from_u128(1);
        let inner = Arc::into_inner(core.0).unwrap();
        let core = Core(Arc::new(Inner { reads: Arc::clone(&turns), writes: turns, ..inner }));
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let mut under_way = core
            .read(ann, async move {
                gone.await.unwrap();
                done.send(()).unwrap();
                Ok(())
            })
            .boxed();
        assert!(under_way.as_mut().now_or_never().is_none(), "it has to wait");
        let (begun, is_begun) = tokio::sync::oneshot::channel::<()>();
        let mut waiting = core
            .write(ann, async move {
                begun.send(()).unwrap();
                Ok(())
            })
            .boxed();
        assert!(waiting.as_mut().now_or_never().is_none(), "it has to wait for its turn");
        drop((under_way, waiting));
        go.send(()).unwrap();
        is_done.await.unwrap();
        is_begun.await.unwrap_err();
        // The turn and the permits are free again.
        core.read(ann, async { Ok(()) }).await.unwrap();
        assert_eq!(core.0.operations.available_permits(), MAX_OPERATIONS);
    }

    #[tokio::test]
    async fn a_write_that_waits_for_the_writer_is_left_out_with_its_caller() {
        const MAKE: &str = "CREATE TABLE rows (i INTEGER)";
        const ADD: &str = "INSERT INTO rows VALUES ($1)";
        const SUM: &str = "SELECT coalesce(sum(i), 0) FROM rows";
        // Some 100 ms.
        const SLOW: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 1000000) SELECT count(*) FROM n";
        let mut options = Options::new(Secret::new("at least thirty-two random bytes").unwrap());
        options.database_timeout = OPERATION_TIMEOUT;
        let core = Core::open("sqlite::memory:", options).await.unwrap();
        let (db, ann) = (core.db(), Uuid::from_u128(1));
        db.write::<Changed>(Statement::new(MAKE)).await.unwrap();
        let busy = core.db();
        let busy = tokio::spawn(async move { busy.one::<(i64,)>(Statement::new(SLOW)).await });
        tokio::task::yield_now().await;
        let add = |row: i64| {
            let (core, db) = (core.clone(), db.clone());
            let add = async move {
                let Changed(_) = db.write(Statement::new(ADD).of(ann).bind(row)).await?;
                Ok(())
            };
            async move { core.write(ann, add).await }.boxed()
        };
        let (mut left, stays) = (add(1), add(2));
        assert!(left.as_mut().now_or_never().is_none(), "it has to wait");
        drop(left);
        stays.await.unwrap();
        busy.await.unwrap().unwrap();
        let (sum,): (i64,) = db.one(Statement::new(SUM)).await.unwrap();
        assert_eq!(sum, 2);
    }

    #[tokio::test]
    async fn an_operation_that_never_ends_is_ended() {
        let core = in_memory().await.unwrap();
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let outcome = core.anonymous(std::future::pending::<Result<()>>()).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))));
        assert_eq!(began.elapsed().as_secs(), OPERATION_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_at_once_and_later() {
        let core = in_memory().await.unwrap();
        let at_once = core.anonymous::<()>(async { panic!("at once") }).await;
        assert!(matches!(at_once, Err(Error::Internal(_))));
        let later = core.anonymous::<()>(async {
            tokio::task::yield_now().await;
            panic!("later")
        });
        assert!(matches!(later.await, Err(Error::Internal(_))));
    }

    #[tokio::test]
    async fn more_operations_than_may_be_under_way_are_refused_at_once() {
        let core = in_memory().await.unwrap();
        let all = u32::try_from(MAX_OPERATIONS).unwrap();
        let under_way = Arc::clone(&core.0.operations).try_acquire_many_owned(all).unwrap();
        assert!(matches!(core.ping().await, Err(Error::Busy)));
        core.anonymous(async { Ok(()) }).await.unwrap();
        drop(under_way);
        core.ping().await.unwrap();
    }

    #[tokio::test]
    async fn however_many_strangers_wait_callers_are_served() {
        let core = in_memory().await.unwrap();
        let all = u32::try_from(MAX_STRANGERS).unwrap();
        let _waiting = Arc::clone(&core.0.strangers).try_acquire_many_owned(all).unwrap();
        assert!(matches!(core.anonymous(async { Ok(()) }).await, Err(Error::Busy)));
        core.read(Uuid::from_u128(1), async { Ok(()) }).await.unwrap();
    }
}
