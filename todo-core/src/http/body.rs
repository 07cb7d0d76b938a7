//! The body of an answer: whole bytes, or pieces that are made while the client takes them.

use std::{
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    error::Error,
    http::{access::Answering, problem::Failure},
};

/// The body of an answer. Most are whole; a long list comes in pieces, of which one at a time is held.
#[derive(Default)]
pub struct Body(Kind);

enum Kind {
    Whole(Bytes),
    /// In a mutex, which is never locked, for the sake of `Sync`.
    Pieces(Box<Mutex<Pieces>>),
}

struct Pieces {
    stream: BoxStream<'static, Result<Bytes, Error>>,
    /// Logs and counts the answer when the body ends or is dropped.
    answering: Option<Answering>,
    is_done: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// An answer that could not be sent to its end. Its connection, or over HTTP/2 its stream, must be
/// aborted: otherwise the client would take what it has for all of it.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off: {0}")]
pub struct BodyError(#[source] Error);

impl Body {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// A body of the pieces of `stream`. None of them may be empty.
    pub(crate) fn pieces(
        stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    ) -> Self {
        let pieces = Pieces { stream: stream.boxed(), answering: None, is_done: false };
        Self(Kind::Pieces(Box::new(Mutex::new(pieces))))
    }

    /// All of it, if the body is whole.
    ///
    /// # Errors
    /// The body itself, if it comes in pieces.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        match self.0 {
            Kind::Whole(bytes) => Ok(bytes),
            pieces @ Kind::Pieces(_) => Err(Self(pieces)),
        }
    }

    /// All of it, if the body is whole.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Pieces(_) => None,
        }
    }

    /// Has `answering` know how a body in pieces ends.
    pub(crate) fn answers(&mut self, answering: Answering) {
        if let Kind::Pieces(pieces) = &mut self.0 {
            pieces.get_mut().unwrap_or_else(PoisonError::into_inner).answering = Some(answering);
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl Pieces {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let piece = ready!(self.stream.poll_next_unpin(cx));
        self.is_done = !matches!(piece, Some(Ok(_)));
        Poll::Ready(match piece {
            Some(Ok(piece)) => Some(Ok(piece)),
            Some(Err(error)) => {
                let failure = Failure::Core(error);
                if let Some(answering) = self.answering.take() {
                    answering.cut_off(&failure);
                }
                let Failure::Core(error) = failure else { return Poll::Ready(None) };
                Some(Err(BodyError(error)))
            }
            None => {
                if let Some(answering) = self.answering.take() {
                    answering.end();
                }
                None
            }
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Pieces(pieces) => {
                let pieces = pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
                Poll::Ready(ready!(pieces.poll_next(cx)).map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole().is_some_and(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.whole().map_or_else(SizeHint::new, |bytes| SizeHint::with_exact(bytes.len() as u64))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(bytes) => f.debug_tuple("Body").field(&bytes.len()).finish(),
            Kind::Pieces(_) => f.write_str("Body(pieces)"),
        }
    }
}
