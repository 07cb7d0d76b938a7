//! The first step of a graceful stop.

use std::time::Duration;

use todo_core::http::Api;

use crate::Signals;

/// Marks `api` as draining, then waits for `delay`, or until the next stop signal, so that load
/// balancers take the server out of rotation first.
pub async fn drain(api: &Api, delay: Duration, signals: &mut Signals) {
    api.drain();
    if delay.is_zero() {
        return;
    }
    tracing::info!("draining for {} s", delay.as_secs());
    // The timeout and another signal both end the delay.
    let _ = tokio::time::timeout(delay, signals.stop()).await;
}
