//! Stall detection for HTTP/2 responses. A client controls the window of each stream (RFC 9113,
//! section 5.2), and a closed window is not a stalled write on the connection, which still
//! acknowledges PINGs. So a response body is sent in chunks, and a client that accepts none of them
//! for the write-stall timeout of HTTP/1 loses its connection. The time in which a live stream has
//! nothing to send does not count.

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
use todo_runtime::InProgress;
use tokio::{sync::watch, time::timeout};

use crate::connections::{ActiveRequest, LastActivity};

/// Maximum size of a chunk, in bytes. Smaller bodies are not guarded: a connection buffers at most
/// this much of a response that the client does not read.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// A body sent in chunks, with a stall timeout.
pub(crate) struct StallGuardBody {
    body: ResBody,
    chunk: Bytes,
    /// Notified of every chunk, and of a wait for the next one; closed with the body.
    progress: watch::Sender<Progress>,
    /// Last activity of the connection.
    last_activity: LastActivity,
    _in_progress: InProgress,
}

/// What a body waits for. hyper polls it only while the client's window is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// For the client, to take the next chunk.
    Client,
    /// For its own source.
    Source,
}

impl StallGuardBody {
    /// Aborts `connection` if no chunk of `body` is accepted for the write-stall timeout. Each
    /// chunk updates the last activity, and `request` is in progress until the body is dropped.
    pub(crate) fn new(body: ResBody, connection: ConnCtrl, request: ActiveRequest) -> Self {
        let ActiveRequest { last_activity, in_progress, write_stall, .. } = request;
        let (progress, mut changes) = watch::channel(Progress::Client);
        tokio::spawn(async move {
            loop {
                let waits_for = *changes.borrow_and_update();
                let change = match waits_for {
                    Progress::Source => Ok(changes.changed().await),
                    Progress::Client => timeout(write_stall, changes.changed()).await,
                };
                match change {
                    Ok(Ok(())) => {}
                    Ok(Err(_ended)) => return,
                    Err(_elapsed) => break,
                }
            }
            tracing::debug!("a client stalled while receiving a response");
            connection.abort();
        });
        Self { body, chunk: Bytes::new(), progress, last_activity, _in_progress: in_progress }
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
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            if polled.is_pending() && *self.progress.borrow() == Progress::Client {
                self.progress.send_replace(Progress::Source);
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        self.progress.send_replace(Progress::Client);
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
    use todo_runtime::WRITE_STALL;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_accepted_chunk_updates_the_last_activity() {
        let body = ResBody::Once(vec![0; 4 * CHUNK_BYTES].into());
        let last_activity = LastActivity::new();
        let request = ActiveRequest::of(last_activity.clone(), WRITE_STALL);
        let mut guarded = StallGuardBody::new(body, ConnCtrl::new(), request);
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert_eq!(last_activity.elapsed(), Duration::from_secs(20));
            let chunk = guarded.frame().await.unwrap().unwrap();
            assert_eq!(chunk.into_data().unwrap().len(), CHUNK_BYTES);
            assert_eq!(last_activity.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_source_is_waited_for_and_a_stalled_client_is_not() {
        let (mut source, chunks) = tokio::io::duplex(64);
        let chunks = futures_util::stream::unfold(chunks, |mut chunks| async move {
            let byte = chunks.read_u8().await.ok()?;
            Some((Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[byte])), chunks))
        });
        let connection = ConnCtrl::new();
        let body = ResBody::stream(chunks);
        let request = ActiveRequest::of(LastActivity::new(), WRITE_STALL);
        let mut guarded = StallGuardBody::new(body, connection.clone(), request);
        for _ in 0..3 {
            let quiet = timeout(3 * WRITE_STALL, guarded.frame()).await;
            assert!(quiet.is_err() && !connection.is_aborted(), "the source has sent nothing");
            source.write_u8(1).await.unwrap();
            guarded.frame().await.unwrap().unwrap();
        }
        // The client takes no more.
        tokio::time::sleep(WRITE_STALL / 2).await;
        assert!(!connection.is_aborted());
        tokio::time::sleep(WRITE_STALL).await;
        assert!(connection.is_aborted());
    }
}
