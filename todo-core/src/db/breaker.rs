//! A circuit breaker: while the database cannot be reached, calls fail at once instead of each
//! waiting for its timeout.
//!
//! A connection failure or a slow call only triggers a probe; only a failed probe opens the
//! breaker, and only if no call was answered since the probe began: on a machine without a core to
//! spare a probe may time out while statements still return. The probe is just a ping, so one
//! user's locked row or a busy pool never fails the calls of others. While the breaker is open the
//! probe repeats in the background, one at a time, and its first success closes the breaker.
//!
//! The breaker also marks connections as outdated. If a connection does not answer, and a probe
//! that began later succeeds, the connection is dead, and so probably are all that last answered
//! before it. Without that, each of them would cost one timeout.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// Pause between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Timeout of a probe: a TLS handshake across an ocean, with a margin.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call that takes longer triggers a probe.
pub(crate) const SLOW: Duration = Duration::from_millis(500);

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The database answers.
    Up,
    /// The database does not answer.
    Down,
}

/// The circuit breaker, shared by all clones of a database.
pub(crate) struct Breaker {
    open: watch::Sender<bool>,
    /// Connections that last answered before this instant are outdated.
    outdated: watch::Sender<Option<Instant>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    probing: bool,
    /// When a call or a probe last failed to reach the database.
    last_failure: Option<Instant>,
    /// When the database last answered a call.
    last_answer: Option<Instant>,
    /// When a connection stopped answering, until a later probe succeeds.
    silent_since: Option<Instant>,
}

/// The step after a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextProbe {
    Stop,
    Later,
    Immediately,
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
    pub(crate) async fn wait_until_open(&self) {
        // The sender is `self`, so it is not dropped.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Whether a call or a probe failed since `answered`.
    pub(crate) fn failed_since(&self, answered: Instant) -> bool {
        self.state().last_failure.is_some_and(|at| at >= answered)
    }

    /// Whether a connection that last answered at `answered` is outdated.
    pub(crate) fn is_outdated(&self, answered: Instant) -> bool {
        self.outdated.borrow().is_some_and(|since| answered < since)
    }

    /// Resolves once a connection that last answered at `answered` is outdated.
    pub(crate) async fn wait_until_outdated(&self, answered: Instant) {
        let is_outdated = |since: &Option<Instant>| since.is_some_and(|since| answered < since);
        // The sender is `self`, so it is not dropped.
        let _ = self.outdated.subscribe().wait_for(is_outdated).await;
    }

    /// Marks connections that last answered before `since` as outdated.
    pub(crate) fn outdate(&self, since: Instant) {
        self.outdated.send_if_modified(|known| {
            let is_later = known.is_none_or(|known| known < since);
            if is_later {
                *known = Some(since);
            }
            is_later
        });
    }

    /// Records that a statement sent at `since` got no answer. The next successful probe shows
    /// whether the connection or the database is at fault. See [`Breaker::trigger_probe`].
    pub(crate) fn silent(&self, since: Instant) {
        let mut state = self.state();
        state.silent_since = state.silent_since.max(Some(since));
    }

    /// Records that a call failed to reach the database.
    pub(crate) fn failed(&self) {
        self.state().last_failure = Some(Instant::now());
    }

    /// Records that the database answered a call.
    pub(crate) fn answered(&self) {
        self.state().last_answer = Some(Instant::now());
    }

    /// Reverts [`Breaker::silent`]: the answer came late.
    pub(crate) fn late(&self, since: Instant) {
        self.state().silent_since.take_if(|noted| *noted == since);
    }

    /// Whether a connection is recorded as silent.
    pub(crate) fn is_silent(&self) -> bool {
        self.state().silent_since.is_some()
    }

    /// Runs `probe` in the background, repeatedly while the breaker is open. Does nothing if a
    /// probe is already running.
    pub(crate) fn trigger_probe<F>(self: &Arc<Self>, probe: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Verdict> + Send,
    {
        if std::mem::replace(&mut self.state().probing, true) {
            return;
        }
        // Reset on drop: a runtime that shuts down must not leave the breaker open for ever.
        let mut probing = Probing(Some(Arc::clone(self)));
        tokio::spawn(async move {
            while let Some(breaker) = &probing.0 {
                let began = Instant::now();
                let found = tokio::time::timeout(PROBE_TIMEOUT, probe()).await;
                match breaker.record(found.unwrap_or(Verdict::Down), began) {
                    NextProbe::Stop => probing.0 = None,
                    NextProbe::Later => tokio::time::sleep(PROBE_INTERVAL).await,
                    NextProbe::Immediately => {}
                }
            }
        });
    }

    /// Opens or closes the breaker after a probe that began at `began`, and returns the next step.
    /// After [`NextProbe::Stop`] a new probe has to be triggered.
    fn record(&self, found: Verdict, began: Instant) -> NextProbe {
        let mut state = self.state();
        match found {
            Verdict::Up => {
                if let Some(since) = state.silent_since.take_if(|since| *since <= began) {
                    self.outdate(since);
                }
                if self.open.send_replace(false) {
                    tracing::info!("the database answers again");
                }
                if state.silent_since.is_some() {
                    return NextProbe::Immediately;
                }
                state.probing = false;
                NextProbe::Stop
            }
            Verdict::Down if state.last_answer.is_some_and(|at| at > began) => {
                tracing::debug!("a probe failed while calls were answered");
                NextProbe::Later
            }
            Verdict::Down => {
                state.last_failure = Some(Instant::now());
                if !self.open.send_replace(true) {
                    tracing::warn!(
                        "the database does not answer; calls fail at once until it does"
                    );
                }
                NextProbe::Later
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
    async fn only_a_failed_probe_opens_and_the_next_successful_one_closes() {
        let breaker = Breaker::new();
        breaker.failed();
        breaker.trigger_probe(|| async { Verdict::Up });
        tokio::time::sleep(PROBE_INTERVAL * 4).await;
        assert!(!breaker.is_open(), "a call's failure alone opened it");

        let up = Arc::new(AtomicBool::new(false));
        let probes = Arc::new(AtomicU32::new(0));
        for _ in 0..5 {
            let (up, probes) = (up.clone(), probes.clone());
            breaker.trigger_probe(move || {
                probes.fetch_add(1, Ordering::Relaxed);
                let up = up.load(Ordering::Relaxed);
                async move { if up { Verdict::Up } else { Verdict::Down } }
            });
        }
        breaker.wait_until_open().await;
        tokio::time::sleep(PROBE_INTERVAL * 4).await;
        assert!(breaker.is_open());
        assert!(probes.load(Ordering::Relaxed) <= 5, "probes run concurrently");
        up.store(true, Ordering::Relaxed);
        tokio::time::sleep(PROBE_INTERVAL * 2).await;
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_a_failure() {
        let breaker = Breaker::new();
        breaker.trigger_probe(std::future::pending);
        tokio::time::sleep(PROBE_TIMEOUT * 2).await;
        assert!(breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_only_once_no_call_is_answered() {
        let breaker = Breaker::new();
        breaker.trigger_probe(std::future::pending);
        for _ in 0..30 {
            tokio::time::sleep(PROBE_TIMEOUT / 10).await;
            breaker.answered();
            assert!(!breaker.is_open());
        }
        tokio::time::sleep(PROBE_TIMEOUT * 2 + PROBE_INTERVAL * 2).await;
        assert!(breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_successful_probe_outdates_connections_silent_before_it() {
        let breaker = Breaker::new();
        let old = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let sent = Instant::now();
        breaker.silent(sent);
        assert!(!breaker.is_outdated(old), "the database may be silent");
        tokio::time::advance(Duration::from_millis(100)).await;
        breaker.trigger_probe(|| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Verdict::Up
        });
        breaker.wait_until_outdated(old).await;
        assert_eq!(sent.elapsed().as_millis(), 110);
        assert!(!breaker.is_outdated(sent), "a connection that answered since is valid");
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_outdates_no_connection() {
        let breaker = Breaker::new();
        let old = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let sent = Instant::now();
        breaker.silent(sent);
        breaker.trigger_probe(|| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Verdict::Up
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        breaker.late(sent);
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert!(!breaker.is_outdated(old));
        assert!(!breaker.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_that_began_after_a_probe_triggers_another_probe() {
        let breaker = Breaker::new();
        let probes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&probes);
        breaker.trigger_probe(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Verdict::Up
            }
        });
        let old = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        breaker.silent(Instant::now());
        breaker.wait_until_outdated(old).await;
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert_eq!(probes.load(Ordering::Relaxed), 2);
    }
}
