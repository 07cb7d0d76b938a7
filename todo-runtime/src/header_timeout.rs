//! Idle timeout and header timeout of HTTP/1 connections, and the 408 response to a late head.
//! hyper has one deadline for both, which runs while a connection is idle, so the two deadlines are
//! here, on the stream. hyper closes silently when a head is late: the connection ends with an
//! error and drops its stream, so the response is written on drop.

use std::{
    error::Error,
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use todo_core::http::{Api, HeadError, HeadMemory};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::server::HEADER_TIMEOUT;

/// A stream with the deadlines of an HTTP/1 connection; an HTTP/2 connection has none here.
///
/// A new connection must begin its first request within [`HEADER_TIMEOUT`]. After a request it is
/// closed when it was idle for [`Settings::keep_alive`](crate::settings::Settings::keep_alive). A
/// head must be complete [`HEADER_TIMEOUT`] after its first byte; otherwise the response is 408, if
/// the client still reads.
///
/// The server needs no such deadlines itself, and must count requests in [`Unanswered`]: neither
/// deadline runs while a request is in progress.
///
/// A head over 8 KiB is charged to the memory of bodies in flight. If that is exhausted,
/// the response is 503 and the connection is closed.
pub struct HeaderTimeoutStream<S: AsyncWrite + Unpin> {
    stream: S,
    api: Api,
    head: Head,
    /// Bytes read of an incomplete head, and the memory reserved for it.
    read: usize,
    memory: HeadMemory,
    is_out_of_memory: bool,
    keep_alive: Duration,
    unanswered: Unanswered,
    /// Whether a write is blocked until the client reads.
    is_writing: bool,
    had_request: bool,
    waits_for: Option<WaitsFor>,
    /// The deadline for `waits_for`; created on first use.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The event that a deadline applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Request,
    RestOfHead,
    /// No deadline, only a periodic check: a response may end without a read or a write.
    Server,
}

/// Number of one connection's requests without a complete response. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    /// Counts a request until the returned guard is dropped.
    #[must_use]
    pub fn begin(&self) -> InProgress {
        self.0.fetch_add(1, Ordering::Relaxed);
        InProgress(self.clone())
    }

    fn is_zero(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Guard of a request in progress.
#[derive(Debug)]
pub struct InProgress(Unanswered);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body that keeps its request in progress until it is dropped.
#[derive(Debug)]
pub struct TrackedBody<B> {
    body: B,
    _request: InProgress,
}

impl<B> TrackedBody<B> {
    /// The response body of `request`.
    pub fn new(body: B, request: InProgress) -> Self {
        Self { body, _request: request }
    }
}

impl<B> Body for TrackedBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Size of a head up to which no memory is charged.
const FREE_HEAD_BYTES: usize = 8 << 10;
/// Granularity of charges for larger heads.
const CHARGE_STEP: usize = 8 << 10;

/// State of the next request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Empty,
    /// Its first bytes, up to four, and its last four.
    Partial {
        first: u32,
        last: u32,
    },
    /// Fully read: the response is hyper's.
    Complete,
    /// Not a head but the preface of HTTP/2 (RFC 9113, section 3.4).
    Http2,
}

/// First bytes of the HTTP/2 preface, and last bytes of a head.
const PREFACE: [u8; 4] = *b"PRI ";
const END: [u8; 4] = *b"\r\n\r\n";

impl Head {
    fn read(&mut self, bytes: &[u8]) {
        // Fast path: most reads are exactly one complete head.
        if *self == Self::Empty && bytes.ends_with(&END) && !bytes.starts_with(&PREFACE) {
            *self = Self::Complete;
            return;
        }
        for byte in bytes {
            let (first, last) = match *self {
                Self::Empty => (0, 0),
                Self::Partial { first, last } => (first, last),
                Self::Complete | Self::Http2 => return,
            };
            let last = last << 8 | u32::from(*byte);
            let first = if first >> 24 == 0 { last } else { first };
            *self = match last {
                _ if first == u32::from_be_bytes(PREFACE) => Self::Http2,
                // Lines may end without the CR (RFC 9112, section 2.2).
                last if last == u32::from_be_bytes(END) || last & 0xffff == 0x0a0a => {
                    Self::Complete
                }
                last => Self::Partial { first, last },
            };
        }
    }

    /// A response is being written: the next bytes read belong to another request.
    fn response_started(&mut self) {
        if *self != Self::Http2 {
            *self = Self::Empty;
        }
    }
}

impl<S: AsyncWrite + Unpin> HeaderTimeoutStream<S> {
    /// Wraps `stream`, a connection from `peer`, and ends it after `keep_alive` without a request,
    /// counted from its first request.
    pub fn new(
        stream: S,
        api: Api,
        peer: Option<IpAddr>,
        keep_alive: Duration,
        unanswered: Unanswered,
    ) -> Self {
        let memory = api.head_memory(peer);
        Self {
            stream,
            api,
            head: Head::Empty,
            read: 0,
            memory,
            is_out_of_memory: false,
            keep_alive,
            unanswered,
            is_writing: false,
            had_request: false,
            waits_for: None,
            timer: None,
        }
    }

    /// Charges the growth of an incomplete head.
    fn charge(&mut self, more: usize) -> io::Result<()> {
        if !matches!(self.head, Head::Partial { .. }) {
            self.read = 0;
            self.memory.release();
            return Ok(());
        }
        self.read += more;
        if self.read <= FREE_HEAD_BYTES {
            return Ok(());
        }
        if self.memory.grow(self.read.next_multiple_of(CHARGE_STEP)) {
            return Ok(());
        }
        self.is_out_of_memory = true;
        Err(io::Error::other("no memory for a head"))
    }

    /// A response is being written: the deadline for the next request starts again.
    fn response_started(&mut self) {
        self.head.response_started();
        self.had_request = true;
        self.waits_for = None;
    }

    /// `Ready` with the overdue event, once its deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<WaitsFor> {
        let is_idle = !self.is_writing && self.unanswered.is_zero();
        let (waits_for, timeout) = match self.head {
            Head::Http2 => return Poll::Pending,
            Head::Empty if is_idle && self.had_request => (WaitsFor::Request, self.keep_alive),
            Head::Empty if is_idle => (WaitsFor::Request, HEADER_TIMEOUT),
            Head::Partial { .. } => (WaitsFor::RestOfHead, HEADER_TIMEOUT),
            Head::Empty | Head::Complete => (WaitsFor::Server, self.keep_alive),
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if self.waits_for != Some(waits_for) {
            self.waits_for = Some(waits_for);
            timer.as_mut().reset(Instant::now() + timeout);
        }
        ready!(timer.as_mut().poll(cx));
        if waits_for != WaitsFor::Server {
            return Poll::Ready(waits_for);
        }
        timer.as_mut().reset(Instant::now() + timeout);
        let _ = timer.as_mut().poll(cx);
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Drop for HeaderTimeoutStream<S> {
    fn drop(&mut self) {
        if matches!(self.head, Head::Partial { .. }) {
            let error =
                if self.is_out_of_memory { HeadError::OutOfMemory } else { HeadError::Timeout };
            let response = self.api.head_error_response(error);
            // No task waits for this: bytes that the socket does not accept at once are not sent.
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(&mut cx, &response) {
                let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for HeaderTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
            return match ready!(self.poll_deadline(cx)) {
                // End of file, as if the client had closed: hyper then ends an idle connection.
                WaitsFor::Request => Poll::Ready(Ok(())),
                WaitsFor::RestOfHead => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                WaitsFor::Server => Poll::Pending,
            };
        };
        read?;
        // While a request is in progress, these bytes are its body, or pipelined behind it.
        if let Some(read) = buf.filled().get(before..)
            && self.unanswered.is_zero()
        {
            self.head.read(read);
            let more = read.len();
            self.charge(more)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.response_started();
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.is_writing = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.response_started();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.is_writing = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS buffers writes, so a flush may be blocked too.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.is_writing = flushed.is_pending();
        // If a read was pending while hyper worked on the response, hyper does not read again after
        // the response. So the deadline starts here; its timer wakes the pending read, which
        // enforces it.
        let _ = self.poll_deadline(cx);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use todo_core::{Core, Options, Secret, http::ApiOptions};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(40);

    /// A client's end of a connection, and its server's end with deadlines.
    async fn connected() -> (DuplexStream, HeaderTimeoutStream<DuplexStream>, Unanswered) {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
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
        let read = server.read(&mut [0; 64]).await;
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
        assert!(
            woken.0.load(Ordering::Relaxed) > before,
            "the deadline did not wake the pending read"
        );
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

    fn head_after(reads: &[&str]) -> Head {
        let mut head = Head::Empty;
        for read in reads {
            head.read(read.as_bytes());
        }
        head
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_arrives() {
        for partial in [&["G"][..], &["GET / HTTP/1.1\r\nHost: a\r\n"], &["GET /", "\r\n", "\r"]] {
            assert!(matches!(head_after(partial), Head::Partial { .. }), "{partial:?}");
        }
        for complete in
            [&["GET / HTTP/1.1\r\nHost: a\r\n\r\nmore"][..], &["GET /\r", "\n\r", "\n"], &["G\n\n"]]
        {
            assert_eq!(head_after(complete), Head::Complete, "{complete:?}");
        }
        assert_eq!(head_after(&[]), Head::Empty);
    }

    #[test]
    fn an_http2_connection_has_no_deadlines() {
        for preface in [&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][..], &["P", "RI", " "]] {
            let mut head = head_after(preface);
            head.response_started();
            head.read(b"frames");
            assert_eq!(head, Head::Http2, "{preface:?}");
        }
        assert_ne!(head_after(&["PRIVATE / HTTP/1.1\r\n"]), Head::Http2);
    }
}
