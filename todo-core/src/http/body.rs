//! Response bodies: whole, or in chunks that are produced while the client reads.

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
    http::{access_log::StreamLog, problem::ApiError},
};

/// A response body. Most are whole; a long list is sent in chunks, with one in memory at a time.
#[derive(Default)]
pub struct Body(Inner);

enum Inner {
    Whole(Bytes),
    /// The mutex is never locked: it makes the body `Sync`.
    Chunks(Box<Mutex<Chunks>>),
}

struct Chunks {
    stream: BoxStream<'static, Result<Bytes, Error>>,
    /// Logs and counts the response when the body ends or is dropped.
    log: Option<StreamLog>,
    is_done: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// A response body that failed before its end. The connection, or over HTTP/2 the stream, must be
/// aborted: otherwise the client would take the truncated body as complete.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut off: {0}")]
pub struct BodyError(#[source] Error);

impl Body {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(Inner::Whole(bytes))
    }

    /// A body of the chunks of `stream`, none of which may be empty.
    pub(crate) fn chunked(
        stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    ) -> Self {
        let chunks = Chunks { stream: stream.boxed(), log: None, is_done: false };
        Self(Inner::Chunks(Box::new(Mutex::new(chunks))))
    }

    /// The bytes of a whole body.
    ///
    /// # Errors
    /// The body itself, if it is chunked.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Whole(bytes) => Ok(bytes),
            chunks @ Inner::Chunks(_) => Err(Self(chunks)),
        }
    }

    /// The bytes of a whole body.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(bytes) => Some(bytes),
            Inner::Chunks(_) => None,
        }
    }

    /// Sets the log entry that a chunked body completes when it ends.
    pub(crate) fn set_log(&mut self, log: StreamLog) {
        if let Inner::Chunks(chunks) = &mut self.0 {
            chunks.get_mut().unwrap_or_else(PoisonError::into_inner).log = Some(log);
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl Chunks {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.stream.poll_next_unpin(cx));
        self.is_done = !matches!(chunk, Some(Ok(_)));
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => Some(Ok(chunk)),
            Some(Err(error)) => {
                let failure = ApiError::Core(error);
                if let Some(log) = self.log.take() {
                    log.cut_off(&failure);
                }
                let ApiError::Core(error) = failure else { return Poll::Ready(None) };
                Some(Err(BodyError(error)))
            }
            None => {
                if let Some(log) = self.log.take() {
                    log.end();
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
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Inner::Chunks(chunks) => {
                let chunks = chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
                Poll::Ready(ready!(chunks.poll_next(cx)).map(|chunk| chunk.map(Frame::data)))
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
            Inner::Whole(bytes) => f.debug_tuple("Body").field(&bytes.len()).finish(),
            Inner::Chunks(_) => f.write_str("Body(chunks)"),
        }
    }
}
