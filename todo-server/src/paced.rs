//! Answers over HTTP/2. A client opens the window of each of its streams as it likes (RFC 9113,
//! section 5.2), and what it leaves closed is no stalled write to the connection underneath: its PINGs
//! are still answered. So an answer is handed on in pieces, and a client that takes none of them for
//! as long as a write may stall over HTTP/1 loses its connection.

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

use crate::connections::Since;

/// The most that is handed on at once, and the least that is watched: what a connection keeps of an
/// answer that its client does not take, once all of it is handed on.
pub(crate) const PIECE: usize = 16 << 10;

/// A body in pieces.
pub(crate) struct Paced {
    body: ResBody,
    piece: Bytes,
    /// Told of every piece. Closed with the body.
    taken: watch::Sender<()>,
    /// When the connection was last of use.
    since: Since,
}

impl Paced {
    /// Aborts `connection` if nobody takes a piece of `body` for [`WRITE_STALL`].
    /// Each piece moves `since` on.
    pub(crate) fn new(body: ResBody, connection: ConnCtrl, since: Since) -> Self {
        let (taken, mut pieces) = watch::channel(());
        tokio::spawn(async move {
            while let Ok(piece) = timeout(WRITE_STALL, pieces.changed()).await {
                if piece.is_err() {
                    return;
                }
            }
            tracing::debug!("a client does not take its answer");
            connection.abort();
        });
        Self { body, piece: Bytes::new(), taken, since }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        self.taken.send_replace(());
        self.since.is_now();
        let size = self.piece.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (piece, body) = (self.piece.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + piece);
        }
        hint.set_lower(body.lower() + piece);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_piece_that_is_taken_is_a_sign_of_use() {
        let body = ResBody::Once(vec![0; 4 * PIECE].into());
        let since = Since::new();
        let mut paced = Paced::new(body, ConnCtrl::new(), since.clone());
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert_eq!(since.elapsed(), Duration::from_secs(20));
            let piece = paced.frame().await.unwrap().unwrap();
            assert_eq!(piece.into_data().unwrap().len(), PIECE);
            assert_eq!(since.elapsed(), Duration::ZERO);
        }
    }
}
