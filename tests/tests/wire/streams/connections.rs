//! A live stream keeps its connection open, however long it is silent. It ends with its connection,
//! and both end with a client that does not read or that leaves.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};

use super::{AtDrain, CELLS, Connection, LIMIT, Protocol::Http2, SLACK, Streaming, chunk, rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_live_stream_keeps_its_connection_and_an_idle_connection_ends() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (connection, mut body, started) = streaming.open(protocol).await;
        let mut idle = Connection::open(streaming.addr, protocol).await;
        assert_eq!(idle.get("/health").await.status(), StatusCode::OK);
        idle.wait_for_close().await;
        // Beyond the time after which an HTTP/2 connection is aborted.
        sleep(3 * LIMIT).await;
        assert!(!connection.io.is_finished(), "{server:?} {protocol:?}");
        started.send("second").await;
        assert_eq!(chunk(&mut body).await, "second", "{server:?} {protocol:?}");
        // After its end, the connection is idle, and ends like any other.
        drop(started);
        assert_eq!(rest(body).await, "");
        let ended = Instant::now();
        connection.wait_for_close().await;
        let took = ended.elapsed();
        assert!(took > LIMIT / 2, "{server:?} {protocol:?}: the limit starts anew, not {took:?}");
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_a_live_stream_is_disconnected() {
    // More than what the sockets buffer.
    const MAX_BYTES: usize = 64 << 20;
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (connection, body, mut started) = streaming.open(protocol).await;
        let chunk = Bytes::from(vec![b'x'; 10_000]);
        let mut taken = 0;
        let fill = async {
            loop {
                tokio::select! {
                    sent = started.chunks.send(chunk.clone()) => match sent {
                        Ok(()) => taken += chunk.len(),
                        Err(_) => break,
                    },
                    _ = &mut started.dropped => break,
                }
                assert!(taken < MAX_BYTES, "{server:?} {protocol:?} buffers without a bound");
            }
        };
        timeout(SLACK, fill).await.expect("the client is disconnected");
        println!("{server:?} {protocol:?} took {taken} bytes");
        drop(body);
        connection.wait_for_close().await;
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_is_dropped_with_its_client() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        if protocol == Http2 {
            let (mut connection, body, mut started) = streaming.open(protocol).await;
            // This resets the stream, and keeps the connection.
            drop(body);
            started.wait_for_drop((server, protocol)).await;
            assert_eq!(connection.get("/health").await.status(), StatusCode::OK);
        }
        let (connection, body, mut started) = streaming.open(protocol).await;
        connection.close();
        started.wait_for_drop((server, protocol)).await;
        drop(body);
        streaming.stop().await;
    }
}
