//! Live streams end when the server drains: by themselves, or cut off in the grace period.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use todo_core::http::with_test_routes;
use tokio::time::{Instant, sleep};

use super::{AtDrain, CELLS, Streaming, handled, rest, settings};

/// Time for a live stream to end by itself in a shutdown.
const LIVE_GRACE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_streams_end_themselves_when_the_server_drains() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ends).await;
        let (_connection, body, _started) = streaming.open(protocol).await;
        let (took, rest) = tokio::join!(streaming.stop(), rest(body));
        assert_eq!(rest, "event: end\n\n", "{server:?} {protocol:?}");
        assert!(took < LIVE_GRACE, "{server:?} {protocol:?}: stopped after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_streams_that_do_not_end_are_ended_early_in_the_grace_period() {
    let stop = |(server, protocol)| async move {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (_connection, body, started) = streaming.open(protocol).await;
        let (took, rest) = tokio::join!(streaming.stop(), rest(body));
        assert_eq!(rest, "", "{server:?} {protocol:?}");
        assert!(
            took > LIVE_GRACE / 2 && took < 3 * LIVE_GRACE,
            "{server:?} {protocol:?}: stopped after {took:?}"
        );
        drop(started);
    };
    stream::iter(CELLS).map(stop).buffer_unordered(CELLS.len()).collect::<Vec<()>>().await;
}

#[tokio::test]
async fn a_live_stream_that_is_always_ready_ends_when_the_server_drains() {
    let api = settings().open().await.expect("a database in memory");
    let api = with_test_routes(&api, |_| {
        stream::repeat_with(|| Ok(Bytes::from_static(b"again"))).boxed()
    });
    let mut body = handled(&api, "/testing/live").await.into_body();
    assert!(body.is_live());
    assert_eq!(handled(&api, "/testing/excluded").await.status().as_u16(), 500);
    tokio::time::pause();
    api.until_draining().now_or_never().ok_or(()).expect_err("it does not drain yet");
    api.drain();
    api.until_draining().await;
    let began = Instant::now();
    while body.frame().await.is_some() {
        assert!(began.elapsed() < 2 * LIVE_GRACE);
        sleep(LIVE_GRACE / 10).await;
    }
    assert!(began.elapsed() >= LIVE_GRACE);
}
