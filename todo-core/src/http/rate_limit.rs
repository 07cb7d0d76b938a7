//! The fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, sections 3
//! and 4): the limit of a route, and what is left of it for the client.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{error::whole_seconds, rate_limit::RateLimitState};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The rate limit that the response to a request reports; empty if its route has none. Boxed: few
/// requests have one.
#[derive(Debug, Default)]
pub(crate) struct ReportedLimit(Mutex<Option<Box<RateLimit>>>);

/// The rate limit of a request's route.
#[derive(Debug)]
struct RateLimit {
    /// The name of the policy, a word of lower-case letters.
    policy: &'static str,
    quota: u32,
    window: Duration,
    /// Unknown for a request that was rejected before its attempt was counted.
    state: Option<RateLimitState>,
}

impl ReportedLimit {
    /// Sets the limit of the route: `quota` attempts in any `window`.
    pub(crate) fn set(&self, policy: &'static str, quota: u32, window: Duration) {
        *self.lock() = Some(Box::new(RateLimit { policy, quota, window, state: None }));
    }

    /// Sets the state of the limit, if there is a limit.
    pub(crate) fn set_state(&self, state: RateLimitState) {
        if let Some(limit) = &mut *self.lock() {
            limit.state = Some(state);
        }
    }

    /// Adds the fields to a response. `RateLimit` is absent if the state is unknown.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        if let Some(limit) = &*self.lock() {
            limit.add_to(headers);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<RateLimit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateLimit {
    fn add_to(&self, headers: &mut HeaderMap) {
        let Self { policy, quota, window, state } = self;
        let limit = format!("\"{policy}\";q={quota};w={}", window.as_secs());
        if let Ok(limit) = HeaderValue::try_from(limit) {
            headers.insert(RATE_LIMIT_POLICY, limit);
        }
        let Some(state) = state else { return };
        let remaining = state.remaining;
        let left = match state.reset {
            Some(reset) => format!("\"{policy}\";r={remaining};t={}", whole_seconds(reset)),
            None => format!("\"{policy}\";r={remaining}"),
        };
        if let Ok(left) = HeaderValue::try_from(left) {
            headers.insert(RATE_LIMIT, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_structured_items_with_parameters() {
        let fields = |state: Option<RateLimitState>| {
            let mut headers = HeaderMap::new();
            let reported = ReportedLimit::default();
            reported.set("login", 5, Duration::from_mins(1));
            if let Some(state) = state {
                reported.set_state(state);
            }
            reported.add_to(&mut headers);
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (text(RATE_LIMIT_POLICY).unwrap(), text(RATE_LIMIT))
        };
        let state = |remaining, reset: Option<u64>| {
            Some(RateLimitState { remaining, reset: reset.map(Duration::from_millis) })
        };
        let policy = || "\"login\";q=5;w=60".to_owned();
        assert_eq!(fields(None), (policy(), None));
        let left = |text: &str| (policy(), Some(text.to_owned()));
        assert_eq!(fields(state(5, None)), left("\"login\";r=5"));
        assert_eq!(fields(state(4, Some(36_001))), left("\"login\";r=4;t=37"));
        assert_eq!(fields(state(0, Some(0))), left("\"login\";r=0;t=1"));
    }
}
