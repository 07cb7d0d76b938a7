//! A circuit breaker: while the database cannot be reached, calls fail at once instead of each
//! waiting out its own deadline.
//!
//! A call that failed for want of a database, or that is slow, only raises a suspicion. What opens
//! the breaker is the failure of a probe, which asks for nothing but an answer: one user's locked
//! row or a pool that is merely busy never denies anybody else. While it is open the probe is
//! repeated in the background, one at a time, and its first success closes the breaker.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The longest a probe may take: a TLS handshake across an ocean, with room.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call that takes longer is suspicious.
pub(crate) const SLOW: Duration = Duration::from_millis(500);

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The database answers.
    Up,
    /// It does not.
    Down,
    /// Nothing could be found out now; what was known stays.
    Unknown,
}

/// The state that all clones of a database share.
pub(crate) struct Breaker {
    open: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    probing: bool,
    /// When a call or a probe last failed for want of a database.
    trouble: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(false), state: Mutex::default() })
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Resolves once the breaker is open.
    pub(crate) async fn opened(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Whether there was trouble since what has been idle for so long was last used.
    pub(crate) fn doubts(&self, idle: Duration) -> bool {
        self.state().trouble.is_some_and(|at| at.elapsed() <= idle)
    }

    /// Notes that a call failed for want of a database.
    pub(crate) fn failed(&self) {
        self.state().trouble = Some(Instant::now());
    }

    /// Has `probe` run in the background, again and again while the breaker is open. Does nothing if
    /// that is under way.
    pub(crate) fn suspect<F>(self: &Arc<Self>, probe: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Verdict> + Send,
    {
        if std::mem::replace(&mut self.state().probing, true) {
            return;
        }
        // Told by a drop, so that a runtime that ends does not leave the breaker open for ever.
        let probing = Probing(Arc::clone(self));
        tokio::spawn(async move {
            loop {
                let found = tokio::time::timeout(PROBE_TIMEOUT, probe()).await;
                if !probing.0.heed(found.unwrap_or(Verdict::Down)) {
                    return;
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        });
    }

    /// Opens or closes. Whether to probe on.
    fn heed(&self, found: Verdict) -> bool {
        match found {
            Verdict::Up => {
                if self.open.send_replace(false) {
                    tracing::info!("the database answers again");
                }
            }
            Verdict::Down => {
                self.failed();
                if !self.open.send_replace(true) {
                    tracing::warn!(
                        "the database does not answer; calls fail at once until it does"
                    );
                }
            }
            Verdict::Unknown => {}
        }
        self.is_open()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Probing(Arc<Breaker>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.state().probing = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_failed_probe_opens_and_the_next_good_one_closes() {
        let breaker = Breaker::new();
        breaker.failed();
        breaker.suspect(|| async { Verdict::Up });
        tokio::time::sleep(PROBE_INTERVAL * 4).await;
        assert!(!breaker.is_open(), "a call's failure alone opened it");

        let up = Arc::new(AtomicBool::new(false));
        let probes = Arc::new(AtomicU32::new(0));
        for _ in 0..5 {
            let (up, probes) = (up.clone(), probes.clone());
            breaker.suspect(move || {
                probes.fetch_add(1, Ordering::Relaxed);
                let up = up.load(Ordering::Relaxed);
                async move { if up { Verdict::Up } else { Verdict::Down } }
            });
        }
        breaker.opened().await;
        tokio::time::sleep(PROBE_INTERVAL * 4).await;
        assert!(breaker.is_open());
        assert!(probes.load(Ordering::Relaxed) <= 5, "probes run beside each other");
        up.store(true, Ordering::Relaxed);
        tokio::time::sleep(PROBE_INTERVAL * 2).await;
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_a_failure() {
        let breaker = Breaker::new();
        breaker.suspect(std::future::pending);
        tokio::time::sleep(PROBE_TIMEOUT * 2).await;
        assert!(breaker.is_open());
    }
}
