//! A circuit breaker: while the database cannot be reached, calls fail at once instead of each
//! waiting out its own deadline.
//!
//! A call that failed for want of a database, or that is slow, only raises a suspicion. What opens
//! the breaker is the failure of a probe, which asks for nothing but an answer: one user's locked
//! row or a pool that is merely busy never denies anybody else. While it is open the probe is
//! repeated in the background, one at a time, and its first success closes the breaker.
//!
//! The breaker also says since when connections count as good. One that did not answer, while a probe
//! that was begun later did, has fallen silent, and so have probably all that last answered before:
//! they are outdated. Without that each would cost a wait of its own.

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
}

/// The state that all clones of a database share.
pub(crate) struct Breaker {
    open: watch::Sender<bool>,
    /// Connections that last answered before are outdated.
    outdated: watch::Sender<Option<Instant>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    probing: bool,
    /// When a call or a probe last failed for want of a database.
    trouble: Option<Instant>,
    /// Since when a connection has not answered, if no probe has succeeded since.
    silence: Option<Instant>,
}

/// What follows a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Rest,
    Again,
    AtOnce,
}

impl Breaker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: watch::Sender::new(false),
            outdated: watch::Sender::new(None),
            state: Mutex::default(),
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Resolves once the breaker is open.
    pub(crate) async fn opened(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Whether there was trouble since a connection last answered.
    pub(crate) fn doubts(&self, answered: Instant) -> bool {
        self.state().trouble.is_some_and(|at| at >= answered)
    }

    /// Whether a connection that last answered then is outdated.
    pub(crate) fn is_outdated(&self, answered: Instant) -> bool {
        self.outdated.borrow().is_some_and(|since| answered < since)
    }

    /// Resolves once a connection that last answered then is outdated.
    pub(crate) async fn outdated(&self, answered: Instant) {
        let is_outdated = |since: &Option<Instant>| since.is_some_and(|since| answered < since);
        // The sender is `self`: it cannot be gone.
        let _ = self.outdated.subscribe().wait_for(is_outdated).await;
    }

    /// Declares connections outdated that last answered before `since`.
    pub(crate) fn outdate(&self, since: Instant) {
        self.outdated.send_if_modified(|known| {
            let is_news = known.is_none_or(|known| known < since);
            if is_news {
                *known = Some(since);
            }
            is_news
        });
    }

    /// Notes that a connection has not answered what was sent over it at `since`. The next success of
    /// a probe tells whether the connection or the database is to blame. See [`Breaker::suspect`].
    pub(crate) fn silent(&self, since: Instant) {
        let mut state = self.state();
        state.silence = state.silence.max(Some(since));
    }

    /// Notes that a call failed for want of a database.
    pub(crate) fn failed(&self) {
        self.state().trouble = Some(Instant::now());
    }

    /// Takes back what was noted by [`Breaker::silent`]: the answer came late.
    pub(crate) fn late(&self, since: Instant) {
        self.state().silence.take_if(|noted| *noted == since);
    }

    /// Whether a connection is suspected to have fallen silent.
    pub(crate) fn is_silent(&self) -> bool {
        self.state().silence.is_some()
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
        let mut probing = Probing(Some(Arc::clone(self)));
        tokio::spawn(async move {
            while let Some(breaker) = &probing.0 {
                let began = Instant::now();
                let found = tokio::time::timeout(PROBE_TIMEOUT, probe()).await;
                match breaker.heed(found.unwrap_or(Verdict::Down), began) {
                    Next::Rest => probing.0 = None,
                    Next::Again => tokio::time::sleep(PROBE_INTERVAL).await,
                    Next::AtOnce => {}
                }
            }
        });
    }

    /// Opens or closes after a probe that was begun then, and says how to go on. If that is to rest,
    /// the next suspicion has to start a probe of its own.
    fn heed(&self, found: Verdict, began: Instant) -> Next {
        let mut state = self.state();
        match found {
            Verdict::Up => {
                if let Some(since) = state.silence.take_if(|since| *since <= began) {
                    self.outdate(since);
                }
                if self.open.send_replace(false) {
                    tracing::info!("the database answers again");
                }
                if state.silence.is_some() {
                    return Next::AtOnce;
                }
                state.probing = false;
                Next::Rest
            }
            Verdict::Down => {
                state.trouble = Some(Instant::now());
                if !self.open.send_replace(true) {
                    tracing::warn!(
                        "the database does not answer; calls fail at once until it does"
                    );
                }
                Next::Again
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Probing(Option<Arc<Breaker>>);

impl Drop for Probing {
    fn drop(&mut self) {
        if let Some(breaker) = &self.0 {
            breaker.state().probing = false;
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_succeeds_outdates_what_was_silent_before_it() {
        let breaker = Breaker::new();
        let old = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let asked = Instant::now();
        breaker.silent(asked);
        assert!(!breaker.is_outdated(old), "the database may be silent");
        tokio::time::advance(Duration::from_millis(100)).await;
        breaker.suspect(|| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Verdict::Up
        });
        breaker.outdated(old).await;
        assert_eq!(asked.elapsed().as_millis(), 110);
        assert!(!breaker.is_outdated(asked), "what has answered since is good");
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_outdates_nothing() {
        let breaker = Breaker::new();
        let old = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let asked = Instant::now();
        breaker.silent(asked);
        breaker.suspect(|| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Verdict::Up
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        breaker.late(asked);
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert!(!breaker.is_outdated(old));
        assert!(!breaker.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_that_began_after_a_probe_has_a_probe_of_its_own() {
        let breaker = Breaker::new();
        let probes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&probes);
        breaker.suspect(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Verdict::Up
            }
        });
        let old = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        breaker.silent(Instant::now());
        breaker.outdated(old).await;
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert_eq!(probes.load(Ordering::Relaxed), 2);
    }
}
