//! Compression of responses. A buffered body is compressed at once and sent with its length; a
//! streamed one is compressed chunk by chunk.
//!
//! salvo's middleware selects the encoding by `Accept-Encoding`, skips bodies that are already
//! compressed and weakens the `ETag`. But it turns every body into a stream.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use salvo::{
    Depot, FlowCtrl, Handler, Request, Response, async_trait,
    compression::Compression,
    http::{HeaderMap, HeaderValue, ResBody, StatusCode, header},
    hyper::body::Bytes,
};

/// Maximum size of a body compressed on the runtime's worker: a fraction of a millisecond.
const MAX_INLINE_BYTES: usize = 64 << 10;
/// The largest chunk that salvo compresses on the worker.
const INLINE_CHUNK_BYTES: usize = (16 << 10) - 1;

/// Marks the response of a live stream, in its extensions.
#[derive(Clone, Copy)]
pub(crate) struct LiveStream;

/// salvo's compression, except that a buffered body stays buffered, and that two bodies stay plain:
///
/// - A live stream: its chunks are short, and an encoder takes up to several megabytes for as long
///   as the stream lives.
/// - A body with a strong `ETag`, which a compressed body must not share (RFC 9110, section 8.8.1):
///   with the weak one of salvo, a client could never change a long todo by `If-Match`.
pub(crate) struct BufferedCompression(Compression);

impl BufferedCompression {
    /// Compresses responses of at least `bytes`, and those of unknown length.
    pub(crate) fn min_length(bytes: usize) -> Self {
        Self(Compression::new().min_length(bytes))
    }
}

/// Splits a body into chunks for salvo, which compresses chunks below 16 KiB on the current worker
/// and larger ones on a blocking thread: the two thread switches take longer than compressing a
/// usual list.
fn in_chunks(whole: &Bytes) -> ResBody {
    if !(INLINE_CHUNK_BYTES..=MAX_INLINE_BYTES).contains(&whole.len()) {
        return ResBody::Once(whole.clone());
    }
    let mut rest = whole.clone();
    let mut chunks = VecDeque::new();
    while !rest.is_empty() {
        chunks.push_back(rest.split_to(rest.len().min(INLINE_CHUNK_BYTES)));
    }
    ResBody::Chunks(chunks)
}

/// Whether the content is server-sent events.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

fn has_strong_etag(headers: &HeaderMap) -> bool {
    headers.get(header::ETAG).is_some_and(|etag| !etag.as_bytes().starts_with(b"W/"))
}

#[async_trait]
impl Handler for BufferedCompression {
    async fn handle(
        &self,
        req: &mut Request,
        depot: &mut Depot,
        res: &mut Response,
        ctrl: &mut FlowCtrl,
    ) {
        ctrl.call_next(req, depot, res).await;
        if res.extensions.get::<LiveStream>().is_some()
            || is_event_stream(res.headers())
            || has_strong_etag(res.headers())
        {
            return;
        }
        let whole = match res.take_body() {
            ResBody::Once(whole) => {
                res.body(in_chunks(&whole));
                Some(whole)
            }
            body => {
                res.body(body);
                None
            }
        };
        // The rest of the chain has run: this only compresses the body.
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
                tracing::error!(%error, "a response could not be compressed");
                res.headers_mut().remove(header::CONTENT_ENCODING);
                res.status_code(StatusCode::INTERNAL_SERVER_ERROR);
            }
        }
    }
}
