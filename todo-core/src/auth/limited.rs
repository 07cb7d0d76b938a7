//! The result of a rate-limited operation.

use crate::{
    error::{Error, Result},
    rate_limit::RateLimitState,
};

/// The result of a rate-limited operation, with the state of the limit if it is known.
pub(crate) struct Limited<T> {
    pub(crate) result: Result<T>,
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for fields of responses"))]
    pub(crate) state: Option<RateLimitState>,
}

impl<T> Limited<T> {
    pub(crate) fn new(outcome: Result<(Result<T>, Option<RateLimitState>)>) -> Self {
        let (result, state) = outcome.unwrap_or_else(|error| (Err(error), None));
        let state = match &result {
            Err(Error::RateLimited { retry_after }) => {
                Some(RateLimitState::exhausted(*retry_after))
            }
            _ => state,
        };
        Self { result, state }
    }
}

/// Logs a failed refund or commit. The login's result stands, and the slot expires on its own.
pub(super) fn log_if_failed(ended: Result<()>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "rate-limit slot not updated");
    }
}
