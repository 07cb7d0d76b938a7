//! The check behind `/health/db`: at most one runs at a time and at most one begins in any
//! [`FRESH`], however many ask. All that wait share its outcome. It knows no database.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::error::{Cause, Error, Result};

/// The longest a check may take: the contract promises an answer in 2 s.
const TIMEOUT: Duration = Duration::from_millis(1850);
/// How long an outcome is told to further callers before the database is asked again.
const FRESH: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct DatabaseCheck(Mutex<State>);

#[derive(Default)]
struct State {
    /// The check that runs.
    running: Option<watch::Receiver<Option<bool>>>,
    /// When the last one ended, and whether the database answered.
    last: Option<(Instant, bool)>,
}

impl DatabaseCheck {
    /// Whether the database answers `ask`, which is asked only if no check runs and the last one
    /// is not fresh.
    pub(super) async fn answers<F>(self: &Arc<Self>, ask: impl FnOnce() -> F) -> bool
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut outcome = {
            let mut state = self.state();
            if let Some((at, answers)) = state.last
                && at.elapsed() < FRESH
            {
                return answers;
            }
            // One whose task has ended without an outcome is none.
            match state.running.clone().filter(|running| running.has_changed().is_ok()) {
                Some(running) => running,
                None => state.running.insert(self.begin(ask())).clone(),
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(answers) => answers.unwrap_or(false),
            Err(_ended) => false,
        }
    }

    /// Checks in a task of its own: whoever asked first may leave.
    fn begin(
        self: &Arc<Self>,
        check: impl Future<Output = Result<()>> + Send + 'static,
    ) -> watch::Receiver<Option<bool>> {
        let (told, outcome) = watch::channel(None);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let checked = tokio::time::timeout(TIMEOUT, check).await;
            let checked = checked.unwrap_or_else(|e| Err(Error::Unavailable(Cause::new(e))));
            if let Err(error) = &checked {
                tracing::warn!(%error, "the database does not answer");
            }
            let mut state = this.state();
            state.last = Some((Instant::now(), checked.is_ok()));
            state.running = None;
            told.send_replace(Some(checked.is_ok()));
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

    /// Asks `n` times at once; how many times the answer was that it answers.
    async fn ask(
        check: &Arc<DatabaseCheck>,
        n: usize,
        asked: &Arc<AtomicUsize>,
        outcome: impl Fn() -> Option<Result<()>>,
    ) -> usize {
        let answers = join_all((0..n).map(|_| {
            check.answers(|| {
                asked.fetch_add(1, Ordering::Relaxed);
                let outcome = outcome();
                async move {
                    match outcome {
                        Some(outcome) => outcome,
                        None => std::future::pending().await,
                    }
                }
            })
        }));
        answers.await.into_iter().filter(|answers| *answers).count()
    }

    #[tokio::test(start_paused = true)]
    async fn many_calls_at_once_are_one_check_of_a_database_that_does_not_answer() {
        let (check, asked) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        let began = Instant::now();
        assert_eq!(ask(&check, 200, &asked, || None).await, 0);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_is_told_for_a_moment_and_then_looked_for_again() {
        let (check, asked) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        assert_eq!(ask(&check, 200, &asked, || Some(Ok(()))).await, 200);
        assert_eq!(ask(&check, 200, &asked, || Some(Err(Error::Busy))).await, 200, "still fresh");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(FRESH).await;
        assert_eq!(ask(&check, 200, &asked, || Some(Err(Error::Busy))).await, 0);
        tokio::time::sleep(FRESH).await;
        assert_eq!(ask(&check, 1, &asked, || Some(Ok(()))).await, 1);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_goes_on_when_its_caller_leaves_and_a_panic_ends_it() {
        let (check, asked) = (Arc::new(DatabaseCheck::default()), Arc::new(AtomicUsize::new(0)));
        let first = ask(&check, 1, &asked, || None);
        assert!(tokio::time::timeout(Duration::from_millis(10), first).await.is_err());
        assert_eq!(ask(&check, 1, &asked, || Some(Ok(()))).await, 0, "it shares the first one's");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(FRESH).await;
        assert!(!check.answers(|| async { panic!("a fault") }).await);
        assert_eq!(ask(&check, 1, &asked, || Some(Ok(()))).await, 1);
    }
}
