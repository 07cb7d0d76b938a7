//! Response bodies: whole, or streams whose chunks are produced while the client reads.

use std::{
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{
    error::{BoxError, Error},
    http::{Api, access_log::StreamLog, problem::ApiError},
};

/// Time for a live stream to end by itself after [`Api::drain`]; then its body ends. Less than a
/// server's time for requests in progress.
const LIVE_GRACE: Duration = Duration::from_secs(5);

/// A response body: whole, or a stream with one chunk in memory at a time.
///
/// A stream is polled only while the client reads, and dropped when the client disconnects. The
/// response to HEAD drops it before the first poll.
#[derive(Default)]
pub struct Body(Inner);

enum Inner {
    Whole(Bytes),
    /// The mutex is never locked: it makes the body `Sync`.
    Stream {
        stream: Box<Mutex<Streamed>>,
        is_live: bool,
    },
}

struct Streamed {
    source: BoxStream<'static, Result<Bytes, Error>>,
    limit: Limit,
    /// Logs and counts the response when the body ends or is dropped.
    log: Option<StreamLog>,
    is_done: bool,
}

/// The time limit of a stream.
enum Limit {
    None,
    /// Of a finite stream: the time until its next chunk.
    Silence {
        max: Duration,
        /// Present while the body waits for its source.
        timer: Option<Pin<Box<Sleep>>>,
    },
    /// Of a live stream: completes [`LIVE_GRACE`] after the start of the drain.
    Drain(BoxFuture<'static, ()>),
}

impl Default for Inner {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// A response body that failed before its end. The connection, or over HTTP/2 the stream, must be
/// aborted: otherwise the client would take the truncated body as complete.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut off")]
pub struct BodyError(#[source] BoxError);

impl Body {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(Inner::Whole(bytes))
    }

    /// A body of the chunks of a finite stream, such as an export. Empty chunks are skipped.
    ///
    /// In the response of an [`Api`], each chunk must be ready within the request timeout
    /// ([`ApiOptions::request_timeout`](super::ApiOptions::request_timeout)). An error, and a later
    /// chunk, end the body with a [`BodyError`].
    pub fn stream<E>(source: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::streamed(source, false)
    }

    /// A body of the chunks of a live stream, such as server-sent events: it has no end of its own,
    /// and may be silent for any time. Empty chunks are skipped.
    ///
    /// The source should end soon after [`Api::until_draining`] completes. In the response of an
    /// [`Api`], the body ends without an error 5 s after that, so that a shutdown does not wait for
    /// it. A silent source must not hold memory of requests or permits of operations.
    pub fn live<E>(source: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::streamed(source, true)
    }

    fn streamed<E>(
        source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        is_live: bool,
    ) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let source = source.map_err(|error| {
            let error = error.into().downcast::<Error>();
            error.map_or_else(|cause| Error::Internal(BoxError::new(cause)), |error| *error)
        });
        let source = source.boxed();
        let stream = Streamed { source, limit: Limit::None, log: None, is_done: false };
        Self(Inner::Stream { stream: Box::new(Mutex::new(stream)), is_live })
    }

    /// The bytes of a whole body.
    ///
    /// # Errors
    /// The body itself, if it is a stream.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Whole(bytes) => Ok(bytes),
            stream @ Inner::Stream { .. } => Err(Self(stream)),
        }
    }

    /// Whether it is a live stream, made by [`Body::live`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.0, Inner::Stream { is_live: true, .. })
    }

    /// The bytes of a whole body.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(bytes) => Some(bytes),
            Inner::Stream { .. } => None,
        }
    }

    /// Sets the time within which each chunk of a finite stream must be ready.
    pub(crate) fn limit_silence(&mut self, max: Duration) {
        if !self.is_live()
            && let Some(stream) = self.stream_mut()
        {
            stream.limit = Limit::Silence { max, timer: None };
        }
    }

    /// Starts a stream in a response of `api`: sets its time limit, if it has none, and the log
    /// entry that it completes when it ends.
    pub(crate) fn start(&mut self, api: &Api, log: StreamLog) {
        let is_live = self.is_live();
        let Some(stream) = self.stream_mut() else { return };
        stream.log = Some(log);
        if is_live {
            let draining = api.until_draining();
            stream.limit = Limit::Drain(Box::pin(async {
                draining.await;
                sleep(LIVE_GRACE).await;
            }));
        } else if matches!(stream.limit, Limit::None) {
            let max = api.config().request_timeout;
            stream.limit = Limit::Silence { max, timer: None };
        }
    }

    fn stream_mut(&mut self) -> Option<&mut Streamed> {
        match &mut self.0 {
            Inner::Whole(_) => None,
            Inner::Stream { stream, .. } => {
                Some(stream.get_mut().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl Streamed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        // Also if the source is always ready: a shutdown does not wait for it.
        if let Limit::Drain(drained) = &mut self.limit
            && drained.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(self.finish(Ok(())));
        }
        let chunk = loop {
            match self.source.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                Poll::Ready(chunk) => break chunk,
                Poll::Pending => {
                    ready!(self.limit.poll_silence(cx));
                    return Poll::Ready(self.finish(Err(ApiError::Timeout)));
                }
            }
        };
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => {
                if let Limit::Silence { timer, .. } = &mut self.limit {
                    *timer = None;
                }
                Some(Ok(chunk))
            }
            Some(Err(error)) => self.finish(Err(ApiError::Core(error))),
            None => self.finish(Ok(())),
        })
    }

    /// Ends the stream and completes its log entry.
    fn finish(&mut self, outcome: Result<(), ApiError>) -> Option<Result<Bytes, BodyError>> {
        self.is_done = true;
        let log = self.log.take();
        match outcome {
            Ok(()) => {
                if let Some(log) = log {
                    log.end();
                }
                None
            }
            Err(failure) => {
                if let Some(log) = log {
                    log.cut_off(&failure);
                }
                Some(Err(BodyError(match failure {
                    ApiError::Core(error) => BoxError::new(error),
                    _ => BoxError::new("no data in time"),
                })))
            }
        }
    }
}

impl Limit {
    /// `Ready` once the source was silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Silence { max, timer } => {
                timer.get_or_insert_with(|| Box::pin(sleep(*max))).as_mut().poll(cx)
            }
            Self::None | Self::Drain(_) => Poll::Pending,
        }
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
            Inner::Stream { stream, .. } => {
                let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
                Poll::Ready(ready!(stream.poll_next(cx)).map(|chunk| chunk.map(Frame::data)))
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
            Inner::Stream { .. } => f.write_str("Body(stream)"),
        }
    }
}
