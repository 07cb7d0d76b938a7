//! [`Core`]: the few things every operation needs, and the way operations are run.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::Instrument;

use crate::{
    OpenError,
    auth::{limits::Limits, passwords::Passwords, tokens::Tokens},
    clock::Clock,
    db::{Db, DbOptions, Statement},
    error::{Cause, Error, Result},
    request_id,
    secret::{Algorithm, Secret},
};

/// Operations that may be under way at once; beyond it, [`Error::Busy`] at once.
const MAX_OPERATIONS: usize = 4096;
/// The longest an operation may run, whoever still waits for it.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);

/// How a [`Core`] is to be set up. Start from [`Options::new`] and change what you need.
#[derive(Clone, Debug)]
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
        let db = Db::open(url, &db).await?;
        Ok(Self(Arc::new(Inner {
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
        })))
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none comes within the database timeout.
    pub async fn ping(&self) -> Result<()> {
        let db = self.db();
        self.detached(async move {
            let (_one,): (i64,) = db.one(Statement::new("SELECT CAST(1 AS bigint)")).await?;
            Ok(())
        })
        .await
    }

    /// Finishes what is queued and closes the database. Operations that come later fail with
    /// [`Error::Unavailable`].
    pub async fn close(&self) {
        self.0.db.close().await;
    }

    /// Runs an operation to its end, whoever waits for it, and awaits it.
    ///
    /// Whoever calls may be dropped at any point: a client leaves, a request's time is up. Dropped
    /// with it, a database call would leave its connection in the middle of something, for the next
    /// borrower to find. So an operation that was begun goes on in a task of its own then, within its
    /// own permit and deadline.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0.operations).try_acquire_owned().map_err(|_| Error::Busy)?;
        let operation = async move {
            let _permit = permit;
            let operation = AssertUnwindSafe(operation).catch_unwind();
            match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_panic)) => Err(Error::Internal(Cause::new("an operation panicked"))),
                Err(_elapsed) => Err(Error::Unavailable(Cause::new("operation timed out"))),
            }
        };
        Detached { operation: Some(operation.boxed()), is_begun: false }.await
    }

    /// How busy it is right now.
    #[cfg(feature = "http")]
    pub(crate) fn load(&self) -> Load {
        let mut load = self.0.db.load();
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

/// An operation that outlives whoever awaits it. Being awaited it costs no task.
struct Detached<T: Send + 'static> {
    operation: Option<BoxFuture<'static, T>>,
    is_begun: bool,
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

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Core")
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

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
            .detached(async move {
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
        drop(core.detached(async move {
            done.send(()).unwrap();
            Ok(())
        }));
        is_done.await.unwrap_err();
    }

    #[tokio::test]
    async fn an_operation_that_never_ends_is_ended() {
        let core = in_memory().await.unwrap();
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let outcome = core.detached(std::future::pending::<Result<()>>()).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))));
        assert_eq!(began.elapsed().as_secs(), OPERATION_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_at_once_and_later() {
        let core = in_memory().await.unwrap();
        let at_once = core.detached::<()>(async { panic!("at once") }).await;
        assert!(matches!(at_once, Err(Error::Internal(_))));
        let later = core.detached::<()>(async {
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
        drop(under_way);
        core.ping().await.unwrap();
    }
}
