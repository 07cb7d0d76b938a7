//! Stall detection for HTTP/2 responses. A client controls the window of each stream (RFC 9113,
//! section 5.2), and a closed window is not a stalled write on the connection, which still
//! acknowledges PINGs. So a response body is sent in chunks, and a client that accepts none of them
//! for the write-stall timeout of HTTP/1 loses its connection.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use salvo::{
    conn::ConnCtrl,
    http::ResBody,
    hyper::body::{Body, Bytes, Frame, SizeHint},
};
use todo_core::server::WRITE_STALL;
use tokio::{sync::watch, time::timeout};

use crate::connections::LastActivity;

/// Maximum size of a chunk, in bytes. Smaller bodies are not guarded: a connection buffers at most
/// this much of a response that the client does not read.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// A body sent in chunks, with a stall timeout.
pub(crate) struct StallGuardBody {
    body: ResBody,
    chunk: Bytes,
    /// Notified of every chunk; closed with the body.
    sent: watch::Sender<()>,
    /// Last activity of the connection.
    last_activity: LastActivity,
}

impl StallGuardBody {
    /// Aborts `connection` if no chunk of `body` is accepted for [`WRITE_STALL`].
    /// Each chunk updates `last_activity`.
    pub(crate) fn new(body: ResBody, connection: ConnCtrl, last_activity: LastActivity) -> Self {
        let (sent, mut chunks) = watch::channel(());
        tokio::spawn(async move {
            while let Ok(chunk) = timeout(WRITE_STALL, chunks.changed()).await {
                if chunk.is_err() {
                    return;
                }
            }
            tracing::debug!("a client stalled while receiving a response");
            connection.abort();
        });
        Self { body, chunk: Bytes::new(), sent, last_activity }
    }
}

impl Body for StallGuardBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.chunk.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        self.sent.send_replace(());
        self.last_activity.touch();
        let size = self.chunk.len().min(CHUNK_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.chunk.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunk.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let chunk = self.chunk.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + chunk);
        }
        hint.set_lower(body.lower() + chunk);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_accepted_chunk_updates_the_last_activity() {
        let body = ResBody::Once(vec![0; 4 * CHUNK_BYTES].into());
        let last_activity = LastActivity::new();
        let mut guarded = StallGuardBody::new(body, ConnCtrl::new(), last_activity.clone());
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert_eq!(last_activity.elapsed(), Duration::from_secs(20));
            let chunk = guarded.frame().await.unwrap().unwrap();
            assert_eq!(chunk.into_data().unwrap().len(), CHUNK_BYTES);
            assert_eq!(last_activity.elapsed(), Duration::ZERO);
        }
    }
}
