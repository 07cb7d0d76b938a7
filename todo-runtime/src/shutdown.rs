//! The first and the last step of a graceful stop.

use std::time::Duration;

use todo_core::http::Api;

use crate::Signals;

/// Time for streams of changes to end after the drain: a close frame and its answer.
const STREAM_GRACE: Duration = Duration::from_secs(5);

/// Waits until the streams of changes have ended, for at most 5 s. One over a WebSocket is no
/// request in progress for an HTTP library.
pub async fn finish_streams(api: &Api) {
    if tokio::time::timeout(STREAM_GRACE, api.until_streams_end()).await.is_err() {
        tracing::warn!("streams of changes were cut off");
    }
}

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
