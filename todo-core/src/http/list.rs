//! A list as JSON: whole if it is one chunk, else in chunks that together have the members and the
//! order of a [`TodoList`]. A chunk is produced when the client has read the previous one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream};

use crate::{
    auth::Caller,
    error::{BoxError, Error},
    http::{
        Api, Body,
        budget::{Payer, Reservation, UNCHARGED_BYTES},
        problem::ApiError,
    },
    request_id,
    todos::{ListQuery, ListVersion, Listing, TodoList},
};

/// Bytes reserved for a chunked list: the chunk being sent and the beginning of the next.
pub(crate) const CHUNKED_LIST_BYTES: usize = 320 << 10;

/// The body of the list for `query`, and its version. The first chunk is read here, so that an
/// error is known before the response head is sent.
pub(crate) async fn body(
    api: &Api,
    caller: &Caller,
    query: ListQuery,
    payer: Payer,
) -> Result<(Body, Option<ListVersion>), ApiError> {
    let budget = api.budget();
    let (mut listing, mut first) = begin(api, caller, query.clone()).await?;
    let size = if listing.is_done() { listing.chunk_bytes() } else { CHUNKED_LIST_BYTES };
    let held = if size <= UNCHARGED_BYTES {
        None
    } else if let Some(held) = budget.try_reserve(payer, size) {
        Some(Arc::new(held))
    } else {
        // The chunk is dropped during the wait, and read again.
        drop((listing, first));
        let held =
            budget.reserve_or_wait(payer, CHUNKED_LIST_BYTES).await.ok_or(ApiError::BodyMemory)?;
        (listing, first) = begin(api, caller, query).await?;
        Some(Arc::new(held))
    };
    let json = encode(&first, &listing, true)?;
    let body = match held {
        None => json.into(),
        Some(held) if listing.is_done() => held.attach_to(json).into(),
        Some(held) => Body::stream(chunks(json, listing, held)),
    };
    Ok((body, first.version))
}

/// Opens a listing and reads its first chunk.
async fn begin(
    api: &Api,
    caller: &Caller,
    query: ListQuery,
) -> Result<(Listing, TodoList), ApiError> {
    let mut listing = Listing::new(api.core(), caller, query)?;
    let first = listing.next().await?;
    let first =
        first.ok_or_else(|| Error::Internal(BoxError::new("a list without a first chunk")))?;
    Ok((listing, first))
}

/// The `first` chunk, then the rest of `listing`.
fn chunks(
    first: Bytes,
    listing: Listing,
    held: Arc<Reservation>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let id = request_id::current();
    let first = held.attach_to(first);
    let rest = stream::try_unfold((listing, held), move |(mut listing, held)| {
        let id = id.clone();
        async move {
            // The database may return chunks without a pause: other tasks must run in between.
            tokio::task::yield_now().await;
            let next = match id {
                Some(id) => request_id::scope(id, listing.next()).await?,
                None => listing.next().await?,
            };
            let Some(piece) = next else { return Ok(None) };
            let json = encode(&piece, &listing, false)?;
            Ok(Some((held.attach_to(json), (listing, held))))
        }
    });
    stream::once(ready(Ok(first))).chain(rest)
}

/// Encodes a chunk that was just read, with the start or the end of the list object.
fn encode(piece: &TodoList, listing: &Listing, is_first: bool) -> Result<Bytes, Error> {
    let mut json = Vec::with_capacity(listing.chunk_bytes() + 512);
    write(&mut json, piece, is_first, listing.is_done())
        .map_err(|error| Error::Internal(BoxError::new(error)))?;
    Ok(json.into())
}

fn write(
    json: &mut Vec<u8>,
    piece: &TodoList,
    is_first: bool,
    is_last: bool,
) -> serde_json::Result<()> {
    if is_first {
        json.extend_from_slice(b"{\"todos\":[");
    }
    for (number, todo) in piece.listed().enumerate() {
        if number > 0 || !is_first {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, &todo)?;
    }
    if is_last {
        json.extend_from_slice(b"],\"total\":");
        serde_json::to_writer(&mut *json, &piece.total)?;
        json.extend_from_slice(b",\"filters_applied\":");
        serde_json::to_writer(&mut *json, &piece.filters_applied)?;
        json.extend_from_slice(b",\"next_cursor\":");
        serde_json::to_writer(&mut *json, &piece.next_cursor)?;
        json.push(b'}');
    }
    Ok(())
}
