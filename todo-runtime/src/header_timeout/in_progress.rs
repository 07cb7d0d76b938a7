//! Counts the requests of a connection that have no complete response yet.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

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

    /// Whether no request is in progress.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Guard of a request in progress. A clone is another one, for what goes on after the response.
#[derive(Debug)]
pub struct InProgress(Unanswered);

impl Clone for InProgress {
    fn clone(&self) -> Self {
        self.0.begin()
    }
}

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
