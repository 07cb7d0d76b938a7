//! The deadlines of a connection, on a paused clock.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use todo_core::{Core, Secret, http::ApiOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const KEEP_ALIVE: Duration = Duration::from_secs(40);

/// A client's end of a connection, and its server's end with deadlines.
async fn connected() -> (DuplexStream, HeaderTimeoutStream<DuplexStream>, Unanswered) {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    let api = Api::new(core, ApiOptions::default());
    let (client, server) = duplex(1 << 16);
    let unanswered = Unanswered::default();
    tokio::time::pause();
    (
        client,
        HeaderTimeoutStream::new(server, api, None, KEEP_ALIVE, unanswered.clone()),
        unanswered,
    )
}

/// The time until a read ends without a byte, and its error.
async fn time_to_close(
    server: &mut HeaderTimeoutStream<DuplexStream>,
) -> (Duration, Option<io::ErrorKind>) {
    let began = Instant::now();
    let read = tokio::time::timeout(10 * KEEP_ALIVE, server.read(&mut [0; 64])).await;
    let read = read.expect("it is closed");
    if let Ok(read) = read {
        assert_eq!(read, 0);
    }
    (began.elapsed(), read.err().map(|error| error.kind()))
}

fn is_about(took: Duration, expected: Duration) -> bool {
    (expected..expected + Duration::from_millis(10)).contains(&took)
}

#[tokio::test]
async fn the_time_before_the_first_request_does_not_shorten_keep_alive() {
    let (mut client, mut server, _) = connected().await;
    sleep(HEADER_TIMEOUT.saturating_sub(Duration::from_secs(1))).await;
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(server.read(&mut [0; 64]).await.unwrap() > 0);
        server.write_all(b"an answer").await.unwrap();
        let (took, error) = time_to_close(&mut server).await;
        assert!(is_about(took, KEEP_ALIVE) && error.is_none(), "{took:?} {error:?}");
    }
}

#[tokio::test]
async fn a_first_request_must_begin_in_time() {
    let (_client, mut server, _) = connected().await;
    let (took, error) = time_to_close(&mut server).await;
    assert!(is_about(took, HEADER_TIMEOUT) && error.is_none(), "{took:?} {error:?}");
}

/// A server skips empty lines before a request (RFC 9112, section 2.2), and waits.
#[tokio::test]
async fn empty_lines_are_not_a_request() {
    let (mut client, mut server, _) = connected().await;
    client.write_all(b"\r\n\r\n").await.unwrap();
    assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 4);
    let (took, error) = time_to_close(&mut server).await;
    assert!(is_about(took, HEADER_TIMEOUT) && error.is_none(), "{took:?} {error:?}");
}

#[tokio::test]
async fn the_header_timeout_runs_from_the_first_byte_of_each_head() {
    let (mut client, mut server, _) = connected().await;
    server.write_all(b"an answer").await.unwrap();
    let writing = tokio::spawn(async move {
        sleep(KEEP_ALIVE.saturating_sub(Duration::from_secs(1))).await;
        client.write_all(b"GET / HTTP").await.unwrap();
        for _ in 0..20 {
            sleep(Duration::from_secs(1)).await;
            if client.write_all(b"x").await.is_err() {
                break;
            }
        }
        client
    });
    assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 10);
    let began = Instant::now();
    let error = loop {
        match server.read(&mut [0; 64]).await {
            Ok(read) => assert_eq!(read, 1),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(is_about(began.elapsed(), HEADER_TIMEOUT), "{:?}", began.elapsed());
    drop(server);
    let mut received = Vec::new();
    writing.await.unwrap().read_to_end(&mut received).await.unwrap();
    let received = String::from_utf8_lossy(&received);
    assert!(received.starts_with("an answerHTTP/1.1 408"), "{received}");
}

/// hyper does not read again after a response if an earlier read is still pending.
#[tokio::test]
async fn the_flush_of_a_response_starts_the_idle_timeout_without_a_read() {
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (mut client, mut server, _) = connected().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(server.read(&mut [0; 64]).await.unwrap() > 0);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut bytes = [0; 64];
    let mut buf = ReadBuf::new(&mut bytes);
    assert!(Pin::new(&mut server).poll_read(&mut cx, &mut buf).is_pending());
    assert!(Pin::new(&mut server).poll_write(&mut cx, b"an answer").is_ready());
    assert!(Pin::new(&mut server).poll_flush(&mut cx).is_ready());
    sleep(KEEP_ALIVE.saturating_sub(Duration::from_secs(1))).await;
    let before = woken.0.load(Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert!(woken.0.load(Ordering::Relaxed) > before, "the deadline did not wake the pending read");
    assert!(Pin::new(&mut server).poll_read(&mut cx, &mut buf).is_ready());
    assert!(buf.filled().is_empty());
}

#[tokio::test]
async fn no_deadline_runs_while_a_request_is_in_progress() {
    let (mut client, mut server, unanswered) = connected().await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(server.read(&mut [0; 64]).await.unwrap() > 0);
    let request = unanswered.begin();
    // The first part of a response whose rest takes longer than the idle timeout.
    server.write_all(b"a part").await.unwrap();
    let wait = 3 * KEEP_ALIVE;
    assert!(tokio::time::timeout(wait, server.read(&mut [0; 64])).await.is_err());
    // The bytes of its body are not taken for a late head.
    client.write_all(b"a body").await.unwrap();
    assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 6);
    drop(request);
    let (took, error) = time_to_close(&mut server).await;
    assert!(is_about(took, KEEP_ALIVE) && error.is_none(), "{took:?} {error:?}");
}
