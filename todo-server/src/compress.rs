//! Compression of answers. What is whole is compressed in one go and sent with its length; what is
//! streamed is compressed piece by piece as it comes.
//!
//! What is compressed, and how, is for salvo's middleware: it weighs `Accept-Encoding`, leaves alone
//! what is compressed already, and weakens an `ETag`. But it makes a stream of everything.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use salvo::{
    Depot, FlowCtrl, Handler, Request, Response, async_trait,
    compression::Compression,
    http::{HeaderValue, ResBody, StatusCode, header},
    hyper::body::Bytes,
};

/// Bodies up to this size are compressed on the runtime's worker: a fraction of a millisecond.
const HERE: usize = 64 << 10;
/// The largest piece that salvo compresses there.
const PIECE: usize = (16 << 10) - 1;

/// salvo's compression, whose answers are whole where they were whole before.
pub(crate) struct Whole(Compression);

impl Whole {
    /// Compresses answers of `least` bytes and more, and those whose length is not known.
    pub(crate) fn compressed_from(least: usize) -> Self {
        Self(Compression::new().min_length(least))
    }
}

/// A body as it is handed to salvo, which compresses pieces of less than 16 KiB where it is, and others
/// on a thread for what blocks: two changes of threads, which take longer than to compress a usual list.
fn in_pieces(whole: &Bytes) -> ResBody {
    if !(PIECE..=HERE).contains(&whole.len()) {
        return ResBody::Once(whole.clone());
    }
    let mut rest = whole.clone();
    let mut pieces = VecDeque::new();
    while !rest.is_empty() {
        pieces.push_back(rest.split_to(rest.len().min(PIECE)));
    }
    ResBody::Chunks(pieces)
}

#[async_trait]
impl Handler for Whole {
    async fn handle(
        &self,
        req: &mut Request,
        depot: &mut Depot,
        res: &mut Response,
        ctrl: &mut FlowCtrl,
    ) {
        ctrl.call_next(req, depot, res).await;
        let whole = match res.take_body() {
            ResBody::Once(whole) => {
                res.body(in_pieces(&whole));
                Some(whole)
            }
            body => {
                res.body(body);
                None
            }
        };
        // It calls what is next, which was called, and compresses what is there.
        self.0.handle(req, depot, res, ctrl).await;
        let Some(whole) = whole else { return };
        if !res.body.is_stream() {
            if res.body.is_chunks() {
                res.body(ResBody::Once(whole));
            }
            return;
        }
        match res.take_body().collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
                res.body(ResBody::Once(body));
            }
            // Compressing into memory does not fail.
            Err(error) => {
                tracing::error!(%error, "an answer could not be compressed");
                res.headers_mut().remove(header::CONTENT_ENCODING);
                res.status_code(StatusCode::INTERNAL_SERVER_ERROR);
            }
        }
    }
}
