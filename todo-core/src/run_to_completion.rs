//! [`RunToCompletion`]: an operation that its caller may drop.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::runtime::Handle;
use tracing::Instrument;

use crate::request_id;

/// An operation that completes in a task if its future is dropped. Without a drop it needs no task.
pub(crate) struct RunToCompletion<T: Send + 'static> {
    operation: Option<BoxFuture<'static, T>>,
    is_started: bool,
}

impl<T: Send + 'static> RunToCompletion<T> {
    pub(crate) fn new(operation: impl Future<Output = T> + Send + 'static) -> Self {
        Self { operation: Some(operation.boxed()), is_started: false }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.is_started = true;
        // Polled after completion, a future may stay pending.
        let Some(operation) = &mut self.operation else { return Poll::Pending };
        let outcome = ready!(operation.as_mut().poll(cx));
        self.operation = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        let Some(operation) = self.operation.take().filter(|_| self.is_started) else { return };
        // Without a runtime there is no task to spawn, so the operation is dropped.
        let Ok(runtime) = Handle::try_current() else { return };
        let rest = operation.map(drop).in_current_span();
        match request_id::current() {
            Some(id) => runtime.spawn(request_id::scope(id, rest)),
            None => runtime.spawn(rest),
        };
    }
}
