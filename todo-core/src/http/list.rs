//! A list as JSON: whole if it is one piece, else piece by piece in the members and the order of a
//! [`TodoList`]. A piece is made when the client has taken the last.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream};

use crate::{
    auth::Caller,
    error::{Cause, Error},
    http::{
        Api, Body,
        budget::{FREE, Held, Payer},
        problem::Failure,
    },
    request_id,
    todos::{ListQuery, Listing, TodoList},
};

/// What a list in pieces holds: one that is being sent, and the beginning of the next.
const HELD: usize = 320 << 10;

/// The list that `query` asks for. Its first piece is read here: whether there is an answer at all is
/// known before its head is sent.
pub(crate) async fn body(
    api: &Api,
    caller: &Caller,
    query: ListQuery,
    payer: Payer,
) -> Result<Body, Failure> {
    let budget = api.budget();
    let (mut listing, mut first) = begin(api, caller, query.clone()).await?;
    let size = if listing.is_done() { listing.piece_bytes() } else { HELD };
    let held = if size <= FREE {
        None
    } else if let Some(held) = budget.try_take(payer, size) {
        Some(Arc::new(held))
    } else {
        // What was read is let go of for the wait, and read again.
        drop((listing, first));
        let held = budget.take_soon(payer, HELD).await.ok_or(Failure::BodyMemory)?;
        (listing, first) = begin(api, caller, query).await?;
        Some(Arc::new(held))
    };
    let json = encode(&first, &listing, true)?;
    Ok(match held {
        None => json.into(),
        Some(held) if listing.is_done() => held.by(json).into(),
        Some(held) => Body::pieces(pieces(json, listing, held)),
    })
}

/// A list and its first piece.
async fn begin(
    api: &Api,
    caller: &Caller,
    query: ListQuery,
) -> Result<(Listing, TodoList), Failure> {
    let mut listing = Listing::new(api.core(), caller, query)?;
    let first = listing.next().await?;
    let first = first.ok_or_else(|| Error::Internal(Cause::new("a list without a piece")))?;
    Ok((listing, first))
}

/// The `first` piece, then the rest of `listing`.
fn pieces(
    first: Bytes,
    listing: Listing,
    held: Arc<Held>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let id = request_id::current();
    let first = held.by(first);
    let rest = stream::try_unfold((listing, held), move |(mut listing, held)| {
        let id = id.clone();
        async move {
            // The database may answer without a pause: others want their turn between two pieces.
            tokio::task::yield_now().await;
            let next = match id {
                Some(id) => request_id::scope(id, listing.next()).await?,
                None => listing.next().await?,
            };
            let Some(piece) = next else { return Ok(None) };
            let json = encode(&piece, &listing, false)?;
            Ok(Some((held.by(json), (listing, held))))
        }
    });
    stream::once(ready(Ok(first))).chain(rest)
}

/// A piece that was just read, with what stands around it.
fn encode(piece: &TodoList, listing: &Listing, is_first: bool) -> Result<Bytes, Error> {
    let mut json = Vec::with_capacity(listing.piece_bytes() + 512);
    write(&mut json, piece, is_first, listing.is_done())
        .map_err(|error| Error::Internal(Cause::new(error)))?;
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
    for (number, todo) in piece.todos.iter().enumerate() {
        if number > 0 || !is_first {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, todo)?;
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
