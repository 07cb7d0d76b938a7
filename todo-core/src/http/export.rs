//! An export as JSON, in chunks: the head, then each page of todos when the client has read what
//! was before.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;

use crate::{
    auth::{Export, ExportHead, ExportPart},
    error::{BoxError, Error},
    http::{Body, budget::Reservation},
    request_id,
};

/// How far an export is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Head,
    Todos { has_some: bool },
    Trash { has_some: bool },
    End,
}

/// The body of an export. `held` is released when it is dropped.
pub(crate) fn body(export: Export, held: Reservation) -> Body {
    Body::stream(chunks(export, Arc::new(held)))
}

fn chunks(
    export: Export,
    held: Arc<Reservation>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let id = request_id::current();
    stream::try_unfold((export, held, Progress::Head), move |(mut export, held, mut progress)| {
        let id = id.clone();
        async move {
            if progress == Progress::End {
                return Ok(None);
            }
            // The database may return pages without a pause: other tasks must run in between.
            tokio::task::yield_now().await;
            let mut json = Vec::new();
            let written = if progress == Progress::Head {
                progress = Progress::Todos { has_some: false };
                write_head(&mut json, export.head())
            } else {
                let part = match id {
                    Some(id) => request_id::scope(id, export.next()).await?,
                    None => export.next().await?,
                };
                write_part(&mut json, &mut progress, part)
            };
            written.map_err(|error| Error::Internal(BoxError::new(error)))?;
            Ok(Some((held.attach_to(json), (export, held, progress))))
        }
    })
}

/// Writes the members before the todos.
fn write_head(json: &mut Vec<u8>, head: &ExportHead) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *json, head)?;
    // The object continues.
    json.pop();
    json.extend_from_slice(b",\"todos\":[");
    Ok(())
}

/// Writes a part, or the end.
fn write_part(
    json: &mut Vec<u8>,
    progress: &mut Progress,
    part: Option<ExportPart>,
) -> serde_json::Result<()> {
    if !matches!((&part, *progress), (Some(ExportPart::Todos(_)), _) | (_, Progress::Trash { .. }))
    {
        json.extend_from_slice(b"],\"trash\":[");
        *progress = Progress::Trash { has_some: false };
    }
    match (part, progress) {
        (Some(ExportPart::Todos(todos)), Progress::Todos { has_some }) => {
            write_items(json, &todos, has_some)
        }
        (Some(ExportPart::Trash(todos)), Progress::Trash { has_some }) => {
            write_items(json, &todos, has_some)
        }
        (_, progress) => {
            json.extend_from_slice(b"]}");
            *progress = Progress::End;
            Ok(())
        }
    }
}

fn write_items<T: Serialize>(
    json: &mut Vec<u8>,
    items: &[T],
    has_some: &mut bool,
) -> serde_json::Result<()> {
    for item in items {
        if *has_some {
            json.push(b',');
        }
        *has_some = true;
        serde_json::to_writer(&mut *json, item)?;
    }
    Ok(())
}
