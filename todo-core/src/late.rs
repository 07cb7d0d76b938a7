//! The answer to a request whose head does not arrive in time. hyper gives up on it without a word: its
//! connection ends with an error, and its stream is dropped. So that is where this speaks.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Api;

/// A connection of HTTP/1 that is answered with 408 when it is given up in the middle of a head, as far
/// as its client still listens. One that has sent nothing hears nothing, nor does one of HTTP/2.
pub struct LateHead<S: AsyncWrite + Unpin> {
    stream: S,
    api: Api,
    head: Head,
}

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
    /// Watches what is read from and written to `stream`.
    pub fn new(stream: S, api: Api) -> Self {
        Self { stream, api, head: Head::Nothing }
    }
}

impl<S: AsyncWrite + Unpin> Drop for LateHead<S> {
    fn drop(&mut self) {
        if matches!(self.head, Head::Some { .. }) {
            let answer = self.api.late_head();
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
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(read) = buf.filled().get(before..) {
            self.head.read(read);
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
        self.head.answered();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.head.answered();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
