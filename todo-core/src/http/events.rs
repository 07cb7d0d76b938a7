//! A stream of changes as server-sent events (HTML standard, section 9.2). Each chunk is produced
//! when the client has read the one before it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    error::{BoxError, Error},
    http::{
        Api, Body,
        budget::{Budget, Payer},
        respond,
    },
    request_id,
    streams::{EndReason, jitter},
    todos::{Batch, ChangeCursor, ChangeEvent, Follower},
};

/// Bounds in milliseconds of the time after which a client connects again: a random one for each,
/// so that not all do so at once after a restart.
const RETRY_MILLIS: u64 = 2000;
const RETRY_SPREAD_MILLIS: u64 = 3000;
/// A comment.
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");
/// Asks nginx not to buffer the response.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The response with the events of `follower`; without one, the headers alone, for HEAD.
pub(crate) fn response(api: &Api, payer: Payer, follower: Option<Follower>) -> Response<Body> {
    let body = match follower {
        Some(follower) => events(api, payer, follower),
        None => Body::live(stream::empty::<Result<Bytes, Error>>()),
    };
    let mut response = respond::bytes(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn events(api: &Api, payer: Payer, follower: Follower) -> Body {
    let begin = beginning(follower.start()).into();
    let source = Source {
        follower: Some(follower),
        begin: Some(begin),
        budget: api.budget().clone(),
        payer,
        draining: Box::pin(api.until_draining()),
        heartbeat: api.config().event_heartbeat,
        request_id: request_id::current(),
    };
    Body::live(stream::try_unfold(source, async |mut source| {
        let chunk = match source.request_id.clone() {
            Some(id) => request_id::scope(id, source.next()).await?,
            None => source.next().await?,
        };
        Ok::<_, Error>(chunk.map(|chunk| (chunk, source)))
    }))
}

/// The chunks of a stream.
struct Source {
    /// Absent after the end.
    follower: Option<Follower>,
    begin: Option<Bytes>,
    budget: Budget,
    payer: Payer,
    draining: BoxFuture<'static, ()>,
    heartbeat: Duration,
    request_id: Option<Arc<str>>,
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(follower) = &mut self.follower else { return Ok(None) };
        // At once: a client that loses its connection before the first event can continue.
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        // The database may return pages without a pause: other tasks must run in between.
        tokio::task::yield_now().await;
        let batch = tokio::select! {
            biased;
            () = &mut self.draining => Batch::End(EndReason::Draining),
            batch = timeout(self.heartbeat, follower.next()) => match batch {
                Ok(batch) => batch,
                Err(_elapsed) => return Ok(Some(HEARTBEAT)),
            },
        };
        let reason = match batch {
            Batch::End(reason) => reason,
            Batch::Changes(events) => {
                match charge(&self.budget, self.payer, encode(&events)?).await {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => EndReason::Unavailable,
                }
            }
        };
        // The user's next stream may begin before the client has read the end of this one.
        self.follower = None;
        Ok(Some(end(reason)))
    }
}

/// Charges a chunk until it is sent; `None` if there is no memory for it.
async fn charge(budget: &Budget, payer: Payer, chunk: Vec<u8>) -> Option<Bytes> {
    Some(match budget.charge_or_wait(payer, chunk.len()).await.ok()? {
        None => chunk.into(),
        Some(held) => Arc::new(held).attach_to(chunk),
    })
}

/// The first bytes: the pause before the next connection, and the position of the beginning.
fn beginning(start: &ChangeCursor) -> String {
    let retry = RETRY_MILLIS + jitter(RETRY_SPREAD_MILLIS);
    format!("retry: {retry}\nid: {start}\n\n")
}

fn encode(events: &[ChangeEvent]) -> Result<Vec<u8>, Error> {
    let mut chunk = Vec::with_capacity(512 * events.len());
    for ChangeEvent { cursor, change } in events {
        let head = format!("event: {}\nid: {cursor}\ndata: ", change.kind());
        chunk.extend_from_slice(head.as_bytes());
        // JSON has no line break outside of its strings, where it is escaped.
        serde_json::to_writer(&mut chunk, change)
            .map_err(|error| Error::Internal(BoxError::new(error)))?;
        chunk.extend_from_slice(b"\n\n");
    }
    Ok(chunk)
}

/// The last event, which has no id: a client continues from the one before.
fn end(reason: EndReason) -> Bytes {
    let data = json!({ "type": "end", "reason": reason });
    format!("event: end\ndata: {data}\n\n").into()
}
