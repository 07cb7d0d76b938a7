//! Idle timeout and header timeout of HTTP/1 connections, and the 408 response to a late head.
//! hyper has one deadline for both, which runs while a connection is idle, so the two deadlines are
//! here, on the stream. hyper closes silently when a head is late: the connection ends with an
//! error and drops its stream, so the response is written on drop.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use todo_core::http::{Api, HeadError, HeadMemory};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use self::head::Head;
pub use self::in_progress::{InProgress, TrackedBody, Unanswered};
use crate::limits::HEADER_TIMEOUT;

mod head;
mod in_progress;

/// A stream with the deadlines of an HTTP/1 connection; an HTTP/2 connection has none here.
///
/// A new connection must begin its first request within [`HEADER_TIMEOUT`]. After a request it is
/// closed when it was idle for [`Settings::keep_alive`](crate::Settings::keep_alive). A
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

/// Size of a head up to which no memory is charged.
const FREE_HEAD_BYTES: usize = 8 << 10;
/// Granularity of charges for larger heads.
const CHARGE_STEP: usize = 8 << 10;

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
            // A complete head without a request is of empty lines, which the server skips.
            Head::Empty | Head::Complete if is_idle => (WaitsFor::Request, HEADER_TIMEOUT),
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
mod tests;
