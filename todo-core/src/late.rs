//! The answer to a request whose head does not arrive in time. hyper gives up on it without a word: its
//! connection ends with an error, and its stream is dropped. So that is where this speaks.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::{Api, Held, Payer};

/// A connection of HTTP/1 that is answered with 408 when it is given up in the middle of a head, as far
/// as its client still listens. One that has sent nothing hears nothing, nor does one of HTTP/2.
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
    /// Watches what is read from and written to `stream`, whose other end is at `peer`.
    pub fn new(stream: S, api: Api, peer: Option<IpAddr>) -> Self {
        let payer = Payer::new(peer, None);
        let (read, held, is_refused) = (0, None, false);
        Self { stream, api, head: Head::Nothing, payer, read, held, is_refused }
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
        let has_room = match &mut self.held {
            Some(held) => held.grow(size),
            None => {
                self.held = self.api.budget().take(self.payer, size);
                self.held.is_some()
            }
        };
        if has_room {
            return Ok(());
        }
        self.is_refused = true;
        Err(io::Error::other("no memory for a head"))
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
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Some(read) = buf.filled().get(before..) else { return Poll::Ready(Ok(())) };
        self.head.read(read);
        let more = read.len();
        Poll::Ready(self.charge(more))
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
