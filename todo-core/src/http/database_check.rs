//! The check behind `/health/db`: at most one runs at a time, and its result is cached for
//! [`CACHE_TTL`], however many requests there are. All waiting requests share the result. The query
//! is an argument.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::error::{BoxError, Error, Result};

/// Time limit of a check: the contract promises a response within 2 s.
const TIMEOUT: Duration = Duration::from_millis(1850);
/// How long a result is returned to further requests before the database is queried again.
const CACHE_TTL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct DatabaseCheck(Mutex<State>);

#[derive(Default)]
struct State {
    /// The running check.
    running: Option<watch::Receiver<Option<bool>>>,
    /// The end of the last check, and whether it succeeded.
    last: Option<(Instant, bool)>,
}

impl DatabaseCheck {
    /// Whether `query` succeeds. It is run only if no check is running and the last result has
    /// expired.
    pub(super) async fn is_healthy<F>(self: &Arc<Self>, query: impl FnOnce() -> F) -> bool
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut outcome = {
            let mut state = self.state();
            if let Some((at, is_healthy)) = state.last
                && at.elapsed() < CACHE_TTL
            {
                return is_healthy;
            }
            // A check whose task ended without a result, by a panic, is not running.
            match state.running.clone().filter(|running| running.has_changed().is_ok()) {
                Some(running) => running,
                None => state.running.insert(self.spawn_check(query())).clone(),
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(is_healthy) => is_healthy.unwrap_or(false),
            Err(_ended) => false,
        }
    }

    /// Runs the check in a separate task: the first request may be dropped.
    fn spawn_check(
        self: &Arc<Self>,
        check: impl Future<Output = Result<()>> + Send + 'static,
    ) -> watch::Receiver<Option<bool>> {
        let (sender, outcome) = watch::channel(None);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let checked = tokio::time::timeout(TIMEOUT, check).await;
            let checked = checked.unwrap_or_else(|e| Err(Error::Unavailable(BoxError::new(e))));
            if let Err(error) = &checked {
                tracing::warn!(%error, "database health check failed");
            }
            let mut state = this.state();
            state.last = Some((Instant::now(), checked.is_ok()));
            state.running = None;
            sender.send_replace(Some(checked.is_ok()));
        });
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// Makes `n` concurrent calls and returns the number of `true` results.
    async fn call_at_once(
        check: &Arc<DatabaseCheck>,
        n: usize,
        queries: &Arc<AtomicUsize>,
        outcome: impl Fn() -> Option<Result<()>>,
    ) -> usize {
        let results = join_all((0..n).map(|_| {
            check.is_healthy(|| {
                queries.fetch_add(1, Ordering::Relaxed);
                let outcome = outcome();
                async move {
                    match outcome {
                        Some(outcome) => outcome,
                        None => std::future::pending().await,
                    }
                }
            })
        }));
        results.await.into_iter().filter(|is_healthy| *is_healthy).count()
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_calls_share_one_check_of_an_unresponsive_database() {
        let (check, queries) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        let started = Instant::now();
        assert_eq!(call_at_once(&check, 200, &queries, || None).await, 0);
        assert_eq!(queries.load(Ordering::Relaxed), 1);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_cached_for_a_moment_and_then_checked_again() {
        let (check, queries) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        assert_eq!(call_at_once(&check, 200, &queries, || Some(Ok(()))).await, 200);
        assert_eq!(
            call_at_once(&check, 200, &queries, || Some(Err(Error::Busy))).await,
            200,
            "still cached"
        );
        assert_eq!(queries.load(Ordering::Relaxed), 1);
        tokio::time::sleep(CACHE_TTL).await;
        assert_eq!(call_at_once(&check, 200, &queries, || Some(Err(Error::Busy))).await, 0);
        tokio::time::sleep(CACHE_TTL).await;
        assert_eq!(call_at_once(&check, 1, &queries, || Some(Ok(()))).await, 1);
        assert_eq!(queries.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_continues_when_its_caller_is_dropped_and_a_panic_ends_it() {
        let (check, queries) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        let first = call_at_once(&check, 1, &queries, || None);
        assert!(tokio::time::timeout(Duration::from_millis(10), first).await.is_err());
        assert_eq!(
            call_at_once(&check, 1, &queries, || Some(Ok(()))).await,
            0,
            "it shares the first check"
        );
        assert_eq!(queries.load(Ordering::Relaxed), 1);
        tokio::time::sleep(CACHE_TTL).await;
        assert!(!check.is_healthy(|| async { panic!("a fault") }).await);
        assert_eq!(call_at_once(&check, 1, &queries, || Some(Ok(()))).await, 1);
    }
}
