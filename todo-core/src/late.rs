//! How long a connection of HTTP/1 may be without a request, and how long a request's head may take;
//! and the answer to a head that does not arrive in time. hyper has one deadline for both, which runs
//! while nothing is asked, so the two are kept here, on the stream. hyper gives up on a late head
//! without an answer: its connection ends with an error, and its stream is dropped, which is where the
//! answer is written.

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{
    http::{Api, Held, Payer},
    server::HEADER_TIMEOUT,
};

/// A connection with its deadlines, as far as it speaks HTTP/1; one of HTTP/2 has none here.
///
/// A new connection has [`HEADER_TIMEOUT`] to begin its first request, one that has made a request is
/// kept as long as it is told to ([`Settings::keep_alive`](crate::settings::Settings::keep_alive)),
/// and is then closed. A head must be whole [`HEADER_TIMEOUT`] after its first byte, whenever that
/// comes; else it is answered with 408, as far as its client still listens.
///
/// The connection's server needs no such deadlines of its own, and must count its requests in
/// [`Unanswered`]: while one is under way neither runs.
///
/// A head that goes on beyond the usual size is charged to the memory of bodies in flight. If there is
/// none, it is answered with 503 and its connection is closed.
pub struct LateHead<S: AsyncWrite + Unpin> {
    stream: S,
    api: Api,
    head: Head,
    payer: Payer,
    /// How much of an unfinished head was read, and what is held for it.
    read: usize,
    held: Option<Held>,
    is_refused: bool,
    keep_alive: Duration,
    unanswered: Unanswered,
    /// Whether a write waits for the client to read.
    is_writing: bool,
    has_asked: bool,
    waits_for: Option<WaitsFor>,
    /// Made when first needed: a deadline of what it waits for.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What a deadline runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Request,
    RestOfHead,
    /// Not for the client: it is only looked again after a while. The end of an answer may come
    /// without a read or a write.
    Server,
}

/// Counts the requests of one connection whose answers are not whole yet. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    /// A request is under way until what this returns is dropped.
    #[must_use]
    pub fn begin(&self) -> InProgress {
        self.0.fetch_add(1, Ordering::Relaxed);
        InProgress(self.clone())
    }

    fn is_zero(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A request whose answer is not whole yet.
#[derive(Debug)]
pub struct InProgress(Unanswered);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is sent: its request is in progress until it is dropped.
#[derive(Debug)]
pub struct Answering<B> {
    body: B,
    _request: InProgress,
}

impl<B> Answering<B> {
    /// The answer to `request`.
    pub fn new(body: B, request: InProgress) -> Self {
        Self { body, _request: request }
    }
}

impl<B> Body for Answering<B>
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

/// What a connection has for a head from the start.
const FREE_HEAD: usize = 8 << 10;
/// In what steps more is charged.
const STEP: usize = 8 << 10;

/// How much there is of the next request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Nothing,
    /// Its first bytes, up to four of them, and its last.
    Some {
        first: u32,
        last: u32,
    },
    /// All of it: the answer is somebody else's.
    Whole,
    /// It is no head: HTTP/2 begins with a preface (RFC 9113, section 3.4).
    Never,
}

/// What HTTP/2 begins with, and how a head ends.
const PREFACE: [u8; 4] = *b"PRI ";
const END: [u8; 4] = *b"\r\n\r\n";

impl Head {
    fn read(&mut self, bytes: &[u8]) {
        // Most heads come whole and alone: that spares looking for their end.
        if *self == Self::Nothing && bytes.ends_with(&END) && !bytes.starts_with(&PREFACE) {
            *self = Self::Whole;
            return;
        }
        for byte in bytes {
            let (first, last) = match *self {
                Self::Nothing => (0, 0),
                Self::Some { first, last } => (first, last),
                Self::Whole | Self::Never => return,
            };
            let last = last << 8 | u32::from(*byte);
            let first = if first >> 24 == 0 { last } else { first };
            *self = match last {
                _ if first == u32::from_be_bytes(PREFACE) => Self::Never,
                // Lines may end without the CR (RFC 9112, section 2.2).
                last if last == u32::from_be_bytes(END) || last & 0xffff == 0x0a0a => Self::Whole,
                last => Self::Some { first, last },
            };
        }
    }

    /// An answer is being written: what is read next is another request.
    fn answered(&mut self) {
        if *self != Self::Never {
            *self = Self::Nothing;
        }
    }
}

impl<S: AsyncWrite + Unpin> LateHead<S> {
    /// Watches what is read from and written to `stream`, whose other end is at `peer`, and ends it once it was without a request
    /// for `keep_alive` after its first.
    pub fn new(
        stream: S,
        api: Api,
        peer: Option<IpAddr>,
        keep_alive: Duration,
        unanswered: Unanswered,
    ) -> Self {
        Self {
            stream,
            api,
            head: Head::Nothing,
            payer: Payer::new(peer, None),
            read: 0,
            held: None,
            is_refused: false,
            keep_alive,
            unanswered,
            is_writing: false,
            has_asked: false,
            waits_for: None,
            timer: None,
        }
    }

    /// Charges what an unfinished head has grown by.
    fn charge(&mut self, more: usize) -> io::Result<()> {
        if !matches!(self.head, Head::Some { .. }) {
            self.read = 0;
            self.held = None;
            return Ok(());
        }
        self.read += more;
        if self.read <= FREE_HEAD {
            return Ok(());
        }
        let size = self.read.next_multiple_of(STEP);
        let has_room = if let Some(held) = &mut self.held {
            held.grow(size)
        } else {
            self.held = self.api.budget().take(self.payer, size);
            self.held.is_some()
        };
        if has_room {
            return Ok(());
        }
        self.is_refused = true;
        Err(io::Error::other("no memory for a head"))
    }

    /// An answer is being written: the next request may take its time.
    fn answered(&mut self) {
        self.head.answered();
        self.has_asked = true;
        self.waits_for = None;
    }

    /// Whether the client has taken too long with what is waited for; `Ready` tells with what.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<WaitsFor> {
        let is_idle = !self.is_writing && self.unanswered.is_zero();
        let (waits_for, patience) = match self.head {
            Head::Never => return Poll::Pending,
            Head::Nothing if is_idle && self.has_asked => (WaitsFor::Request, self.keep_alive),
            Head::Nothing if is_idle => (WaitsFor::Request, HEADER_TIMEOUT),
            Head::Some { .. } => (WaitsFor::RestOfHead, HEADER_TIMEOUT),
            Head::Nothing | Head::Whole => (WaitsFor::Server, self.keep_alive),
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if self.waits_for != Some(waits_for) {
            self.waits_for = Some(waits_for);
            timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(timer.as_mut().poll(cx));
        if waits_for != WaitsFor::Server {
            return Poll::Ready(waits_for);
        }
        timer.as_mut().reset(Instant::now() + patience);
        let _ = timer.as_mut().poll(cx);
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Drop for LateHead<S> {
    fn drop(&mut self) {
        if matches!(self.head, Head::Some { .. }) {
            let answer = self.api.without_head(self.is_refused);
            // Nobody waits: what the system does not take at once is not sent.
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(&mut cx, &answer) {
                let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for LateHead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
            return match ready!(self.poll_late(cx)) {
                // As if the client had closed it: hyper ends an idle connection then.
                WaitsFor::Request => Poll::Ready(Ok(())),
                WaitsFor::RestOfHead => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                WaitsFor::Server => Poll::Pending,
            };
        };
        read?;
        // While a request is under way, this is its body, or what waits behind it.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for LateHead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered();
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.is_writing = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.is_writing = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes what is written, and flushes what it kept.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.is_writing = flushed.is_pending();
        // Where hyper has found nothing to read while it worked on the answer, it does not read again
        // after it: the deadline begins here. It is enforced by the read that it wakes.
        let _ = self.poll_late(cx);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{Core, Options, Secret, http::ApiOptions};

    const KEEP_ALIVE: Duration = Duration::from_secs(40);

    /// A connection of a client, as its server reads it.
    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    async fn connected() -> (DuplexStream, LateHead<DuplexStream>, Unanswered) {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let api = Api::new(core, ApiOptions::default());
        let (client, server) = duplex(1 << 16);
        let unanswered = Unanswered::default();
        tokio::time::pause();
        (client, LateHead::new(server, api, None, KEEP_ALIVE, unanswered.clone()), unanswered)
    }

    /// How long a read waits until it ends without a byte, and with which error.
    async fn silence(server: &mut LateHead<DuplexStream>) -> (Duration, Option<io::ErrorKind>) {
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
    async fn a_connection_that_was_opened_early_is_kept_as_long_as_any_other() {
        let (mut client, mut server, _) = connected().await;
        sleep(HEADER_TIMEOUT.saturating_sub(Duration::from_secs(1))).await;
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(server.read(&mut [0; 64]).await.unwrap() > 0);
            server.write_all(b"an answer").await.unwrap();
            let (took, error) = silence(&mut server).await;
            assert!(is_about(took, KEEP_ALIVE) && error.is_none(), "{took:?} {error:?}");
        }
    }

    #[tokio::test]
    async fn a_first_request_must_begin_in_time() {
        let (_client, mut server, _) = connected().await;
        let (took, error) = silence(&mut server).await;
        assert!(is_about(took, HEADER_TIMEOUT) && error.is_none(), "{took:?} {error:?}");
    }

    #[tokio::test]
    async fn a_head_must_be_whole_in_time_whenever_it_begins() {
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
        let mut heard = Vec::new();
        writing.await.unwrap().read_to_end(&mut heard).await.unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.starts_with("an answerHTTP/1.1 408"), "{heard}");
    }

    /// hyper reads again after an answer only if it has not read in vain before.
    #[tokio::test]
    async fn an_answer_begins_the_time_to_be_idle_without_a_read() {
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
        assert!(woken.0.load(Ordering::Relaxed) > before, "nothing wakes the connection");
        assert!(Pin::new(&mut server).poll_read(&mut cx, &mut buf).is_ready());
        assert!(buf.filled().is_empty());
    }

    #[tokio::test]
    async fn no_deadline_runs_while_a_request_is_under_way() {
        let (mut client, mut server, unanswered) = connected().await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(server.read(&mut [0; 64]).await.unwrap() > 0);
        let request = unanswered.begin();
        // The first part of an answer, whose rest takes longer than a connection may be idle.
        server.write_all(b"a part").await.unwrap();
        let wait = 3 * KEEP_ALIVE;
        assert!(tokio::time::timeout(wait, server.read(&mut [0; 64])).await.is_err());
        // Its body is no head that could be late.
        client.write_all(b"a body").await.unwrap();
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 6);
        drop(request);
        let (took, error) = silence(&mut server).await;
        assert!(is_about(took, KEEP_ALIVE) && error.is_none(), "{took:?} {error:?}");
    }

    fn after(reads: &[&str]) -> Head {
        let mut head = Head::Nothing;
        for read in reads {
            head.read(read.as_bytes());
        }
        head
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_arrives() {
        for begun in [&["G"][..], &["GET / HTTP/1.1\r\nHost: a\r\n"], &["GET /", "\r\n", "\r"]] {
            assert!(matches!(after(begun), Head::Some { .. }), "{begun:?}");
        }
        for whole in
            [&["GET / HTTP/1.1\r\nHost: a\r\n\r\nmore"][..], &["GET /\r", "\n\r", "\n"], &["G\n\n"]]
        {
            assert_eq!(after(whole), Head::Whole, "{whole:?}");
        }
        assert_eq!(after(&[]), Head::Nothing);
    }

    #[test]
    fn http2_is_left_alone() {
        for preface in [&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][..], &["P", "RI", " "]] {
            let mut head = after(preface);
            head.answered();
            head.read(b"frames");
            assert_eq!(head, Head::Never, "{preface:?}");
        }
        assert_ne!(after(&["PRIVATE / HTTP/1.1\r\n"]), Head::Never);
    }
}
