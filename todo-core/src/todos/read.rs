//! Reads of one todo and of lists.

use futures_util::{Stream, TryStreamExt, stream};

use super::{ListQuery, Listing, Todo, TodoId, TodoList, no_rows::require_row, todo_columns};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::Statement,
    error::{BoxError, Error, Result},
};

/// Reads one todo.
///
/// # Errors
/// [`Error::Unauthenticated`], [`Error::NotFound`], [`Error::Forbidden`] if it is another user's;
/// else as [`create`](super::create).
pub async fn get(core: &Core, caller: &Caller, id: TodoId) -> Result<Todo> {
    let db = core.db();
    let caller = *caller;
    let work = core.clone();
    core.read(caller.user_id(), async move {
        let found = db.fetch(read(caller, id)).await?;
        require_row(&work, caller, id.into(), found).await
    })
    .await
}

/// The statement that reads one todo.
pub(super) fn read(caller: Caller, id: TodoId) -> Statement {
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        " FROM todos WHERE id = $4 AND user_id = $1 AND ",
        authorized!()
    );
    acting_as(caller, SQL).bind(id)
}

/// Lists the caller's todos, up to the limit, or up to [`MAX_UNPAGED`](super::MAX_UNPAGED) without
/// one. Pagination is by key, not by offset: a todo that exists throughout is returned exactly
/// once, whatever is inserted or deleted meanwhile. The cost of a page is independent of the length
/// of the list.
///
/// A long list is assembled from the chunks of a [`Listing`], which are separate reads. All of it
/// is in memory: up to 10,000 todos, about 50 MB with the longest texts.
///
/// # Errors
/// [`Error::Invalid`] if the cursor was altered or belongs to another list,
/// [`Error::Unauthenticated`]; else as [`create`](super::create).
pub async fn list(core: &Core, caller: &Caller, query: ListQuery) -> Result<TodoList> {
    let mut listing = Listing::new(core, caller, query)?;
    let mut list: Option<TodoList> = None;
    while let Some(chunk) = listing.next().await? {
        match &mut list {
            None => list = Some(chunk),
            Some(list) => {
                list.todos.extend(chunk.todos);
                list.next_cursor = chunk.next_cursor;
            }
        }
    }
    list.ok_or_else(|| Error::Internal(BoxError::new("a list without a chunk")))
}

/// Returns the todos of a list one by one, across all pages: without a limit also beyond
/// [`MAX_UNPAGED`](super::MAX_UNPAGED). Todos are read in chunks of at most 500, as the stream is
/// polled.
///
/// As with [`Listing`], a todo that exists throughout and keeps its position is returned exactly
/// once.
///
/// ```
/// use futures_util::TryStreamExt;
/// use todo_core::{Core, Error, auth::Caller, todos::{self, ListQuery}};
///
/// async fn titles(core: &Core, caller: &Caller) -> Result<Vec<String>, Error> {
///     let todos = todos::stream(core, caller, ListQuery::new())?;
///     todos.map_ok(|todo| todo.title.into()).try_collect().await
/// }
/// ```
///
/// # Errors
/// [`Error::Invalid`] if the cursor was altered or belongs to another list. An item is an error
/// where a read fails, as in [`Listing::next`]; it is the last item.
pub fn stream(
    core: &Core,
    caller: &Caller,
    query: ListQuery,
) -> Result<impl Stream<Item = Result<Todo>> + Send + 'static> {
    let listing = Listing::new(core, caller, query)?;
    let chunks = stream::try_unfold(listing, async |mut listing| {
        let chunk = listing.next_of_all().await?;
        Ok::<_, Error>(chunk.map(|chunk| (stream::iter(chunk.todos.into_iter().map(Ok)), listing)))
    });
    Ok(chunks.try_flatten())
}
