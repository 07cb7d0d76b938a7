//! The key set of an issuer, kept in memory: when it is fetched, and which requests wait for that.
//!
//! | age of the set | a key that it has | a key that it does not have |
//! |---|---|---|
//! | up to 5 minutes | is used | waits for a fetch, if one is allowed |
//! | up to 10 minutes | is used, and a fetch starts in the background | as above |
//! | up to 24 hours | waits for that fetch, unless one has failed; is used if it fails | as above |
//! | more | as a key that it does not have | as above |
//!
//! At most one fetch runs at a time, in a task of its own, so that it does not end with the request
//! that started it. Requests with unknown keys start one while a bucket of 5 has a token; one comes
//! back every 6 seconds, and at once if the fetch found a new key. So invented keys cause few
//! fetches, and many new keys of an issuer that rotates them are all found. An interval between two
//! fetches would refuse valid tokens: issuers announce no key, and one that rotates can publish
//! several in a second.
//!
//! Ages are the larger one of the monotonic clock's and of the [`Clock`]'s: a clock that is set
//! back must not prolong the trust in a key, nor a machine that slept.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    VerifyError,
    jwks::{Candidates, KeyId, KeySet},
    key_source::KeySource,
    options::SignatureAlgorithm,
};
use crate::clock::Clock;

/// From this age on, a set is refreshed in the background.
const REFRESH_AGE: Duration = Duration::from_mins(5);
/// From this age on, a set is used only if it cannot be fetched.
const TTL: Duration = Duration::from_mins(10);
/// From this age on, a set is not used.
const MAX_AGE: Duration = Duration::from_hours(24);
/// Interval between two attempts in the background.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Timeout of a fetch, and of a request's wait for fetches.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of tokens of the bucket.
const BUCKET_SIZE: u32 = 5;
/// The time after which a token comes back.
const BUCKET_INTERVAL: Duration = Duration::from_secs(6);

/// The key set of an issuer.
pub(super) struct KeyCache(Arc<Inner>);

struct Inner {
    source: KeySource,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    fetched: Option<Fetched>,
    /// The end of the last fetch, if it failed.
    failed_at: Option<Instant>,
    /// The start of the last fetch.
    tried_at: Option<Instant>,
    bucket: Bucket,
    running: Option<Running>,
}

/// A set and the time of its fetch.
struct Fetched {
    set: Arc<KeySet>,
    at: Instant,
    at_time: DateTime<Utc>,
}

/// Receives whether a running fetch succeeded.
type Running = watch::Receiver<Option<bool>>;

/// What a request does about its key.
enum Step {
    /// Use the set.
    Use(Arc<KeySet>),
    /// Wait for a fetch; then use the set also if the fetch fails.
    Refresh(Running, Arc<KeySet>),
    /// Wait for a fetch that another request started, perhaps before the key was published.
    Join(Running),
    /// Wait for a fetch.
    Fetch(Running),
    Refuse(VerifyError),
}

impl KeyCache {
    pub(super) fn new(source: KeySource, clock: Clock) -> Self {
        let state = State {
            fetched: None,
            failed_at: None,
            tried_at: None,
            bucket: Bucket { tokens: BUCKET_SIZE, refilled_at: Instant::now() },
            running: None,
        };
        Self(Arc::new(Inner { source, clock, state: Mutex::new(state) }))
    }

    /// The set that has keys for this id and algorithm. Waits at most 3 seconds for the issuer.
    ///
    /// # Errors
    /// [`VerifyError::Rejected`] if there is no such key; [`VerifyError::Unavailable`] if the
    /// issuer does not say so.
    pub(super) async fn find(
        &self,
        kid: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<KeySet>, VerifyError> {
        let deadline = Instant::now() + FETCH_TIMEOUT;
        let mut may_join = true;
        loop {
            let is_last = match self.step(kid, algorithm) {
                Step::Use(set) => return Ok(set),
                Step::Refuse(reason) => return Err(reason),
                Step::Refresh(running, old) => {
                    if succeeds(running, deadline).await {
                        continue;
                    }
                    return Ok(old);
                }
                Step::Join(running) => {
                    require(running, deadline).await?;
                    // A second fetch began after this request.
                    !std::mem::take(&mut may_join)
                }
                Step::Fetch(running) => {
                    require(running, deadline).await?;
                    true
                }
            };
            if is_last {
                return self.known(kid, algorithm);
            }
        }
    }

    /// Whether the set has the key, without waiting. Starts a fetch in the background if one is
    /// due.
    pub(super) fn has(&self, id: &KeyId) -> bool {
        let mut state = self.0.lock();
        let now = Instant::now();
        let Some((set, age)) = state.usable(now, self.0.clock.now()) else { return false };
        if age >= REFRESH_AGE {
            Inner::refresh(&self.0, &mut state, now);
        }
        set.has(id) && (age < TTL || state.has_failed(now))
    }

    /// Decides what a request does, and starts the fetch that it needs.
    fn step(&self, kid: &str, algorithm: SignatureAlgorithm) -> Step {
        let mut state = self.0.lock();
        let now = Instant::now();
        if let Some((set, age)) = state.usable(now, self.0.clock.now()) {
            match set.candidates(kid, algorithm) {
                Candidates::Keys(_) if age < REFRESH_AGE => return Step::Use(set),
                Candidates::Keys(_) => {
                    return match Inner::refresh(&self.0, &mut state, now) {
                        Some(running) if age >= TTL && !state.has_failed(now) => {
                            Step::Refresh(running, set)
                        }
                        _ => Step::Use(set),
                    };
                }
                Candidates::OtherAlgorithms => return Step::Refuse(OTHER_ALGORITHMS),
                Candidates::Unknown => {}
            }
        }
        if let Some(running) = state.running() {
            Step::Join(running)
        } else if state.bucket.take(now)
            && let Some(running) = Inner::start(&self.0, &mut state, now)
        {
            Step::Fetch(running)
        } else if state.failed_at.is_some() || state.fetched.is_none() {
            Step::Refuse(VerifyError::Unavailable)
        } else {
            Step::Refuse(UNKNOWN_KEY)
        }
    }

    /// The set, after a fetch that was complete.
    fn known(&self, kid: &str, algorithm: SignatureAlgorithm) -> Result<Arc<KeySet>, VerifyError> {
        let state = self.0.lock();
        let Some(fetched) = &state.fetched else { return Err(VerifyError::Unavailable) };
        match fetched.set.candidates(kid, algorithm) {
            Candidates::Keys(_) => Ok(Arc::clone(&fetched.set)),
            Candidates::OtherAlgorithms => Err(OTHER_ALGORITHMS),
            Candidates::Unknown => Err(UNKNOWN_KEY),
        }
    }
}

/// The issuer has no key with the token's id.
pub(super) const UNKNOWN_KEY: VerifyError = VerifyError::Rejected("unknown key");
const OTHER_ALGORITHMS: VerifyError = VerifyError::Rejected("key of another algorithm");

/// Waits for a fetch, and returns whether it succeeded.
async fn succeeds(mut running: Running, deadline: Instant) -> bool {
    let result = timeout_at(deadline, running.wait_for(Option::is_some)).await;
    matches!(result, Ok(Ok(value)) if *value == Some(true))
}

async fn require(running: Running, deadline: Instant) -> Result<(), VerifyError> {
    if succeeds(running, deadline).await { Ok(()) } else { Err(VerifyError::Unavailable) }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running fetch, or a new one if the last one began long enough ago.
    fn refresh(this: &Arc<Self>, state: &mut State, now: Instant) -> Option<Running> {
        let is_due = state.tried_at.is_none_or(|at| now.duration_since(at) >= RETRY_INTERVAL);
        let running = state.running();
        if running.is_none() && is_due { Self::start(this, state, now) } else { running }
    }

    /// Starts a fetch; `None` outside of a runtime.
    fn start(this: &Arc<Self>, state: &mut State, now: Instant) -> Option<Running> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (sender, running) = watch::channel(None);
        state.tried_at = Some(now);
        state.running = Some(running.clone());
        let this = Arc::clone(this);
        runtime.spawn(async move {
            let fetch = AssertUnwindSafe(this.source.fetch()).catch_unwind();
            let result = match timeout(FETCH_TIMEOUT, fetch).await {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => Err("the HTTP client panicked".to_owned()),
                Err(_elapsed) => Err("no answer within 3 s".to_owned()),
            };
            let succeeded = result.is_ok();
            this.lock().finish(result, Instant::now(), this.clock.now(), this.source.issuer());
            sender.send_replace(Some(succeeded));
        });
        Some(running)
    }
}

impl State {
    /// The set and its age, unless it is too old.
    fn usable(&self, now: Instant, time: DateTime<Utc>) -> Option<(Arc<KeySet>, Duration)> {
        let fetched = self.fetched.as_ref()?;
        let by_time = (time - fetched.at_time).to_std().unwrap_or_default();
        let age = by_time.max(now.duration_since(fetched.at));
        (age < MAX_AGE).then(|| (Arc::clone(&fetched.set), age))
    }

    /// Whether the last fetch failed, a short time ago.
    fn has_failed(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|at| now.duration_since(at) < TTL)
    }

    /// The running fetch. One whose runtime ended does not run.
    fn running(&self) -> Option<Running> {
        self.running.clone().filter(|running| running.has_changed().is_ok())
    }

    fn finish(
        &mut self,
        result: Result<KeySet, String>,
        now: Instant,
        time: DateTime<Utc>,
        issuer: &str,
    ) {
        self.running = None;
        let has_failed = self.failed_at.is_some();
        match result {
            Ok(set) => {
                self.failed_at = None;
                if self.fetched.as_ref().is_none_or(|old| set.adds_to(&old.set)) {
                    self.bucket.put_back();
                }
                self.fetched = Some(Fetched { set: Arc::new(set), at: now, at_time: time });
                if has_failed {
                    tracing::info!(issuer, "an issuer's keys are available again");
                }
            }
            Err(reason) => {
                self.failed_at = Some(now);
                if !has_failed {
                    tracing::warn!(issuer, reason, "an issuer's keys are not available");
                }
            }
        }
    }
}

/// A token bucket.
struct Bucket {
    tokens: u32,
    /// Until then, tokens have come back.
    refilled_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        while self.tokens < BUCKET_SIZE && now >= self.refilled_at + BUCKET_INTERVAL {
            self.tokens += 1;
            self.refilled_at += BUCKET_INTERVAL;
        }
        if self.tokens == BUCKET_SIZE {
            self.refilled_at = now;
        }
        let has_token = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has_token
    }

    fn put_back(&mut self) {
        self.tokens = (self.tokens + 1).min(BUCKET_SIZE);
    }
}

#[cfg(test)]
mod tests;
