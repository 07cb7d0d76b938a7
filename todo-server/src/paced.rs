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

/// The most that is handed on at once, and the least that is watched: what a connection keeps of an
/// answer that its client does not take, once all of it is handed on.
pub(crate) const PIECE: usize = 16 << 10;

/// A body in pieces.
pub(crate) struct Paced {
    body: ResBody,
    piece: Bytes,
    /// Told of every piece. Closed with the body.
    taken: watch::Sender<()>,
}

impl Paced {
    /// Aborts `connection` if nobody takes a piece of `body` for [`WRITE_STALL`].
    pub(crate) fn new(body: ResBody, connection: ConnCtrl) -> Self {
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
        Self { body, piece: Bytes::new(), taken }
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
