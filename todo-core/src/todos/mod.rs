//! Todos: create, list, read, update, complete, delete. Every function takes a [`Caller`], and
//! every statement contains the caller's user id: isolation is in the types and in the WHERE
//! clauses.
//!
//! Each operation is one statement. The same statement checks that the caller's session still
//! exists, so a revoked session is rejected at once on every replica. A second statement runs only
//! if the first one affected no row, to find the reason.

use futures_util::{Stream, TryStreamExt, stream};
use uuid::Uuid;

pub use self::{
    list_types::{Filters, Limit, ListQuery, SortBy, SortOrder, Status, TodoList},
    listing::Listing,
    types::{Description, NewTodo, Priority, Title, Todo, TodoPatch},
};
pub use crate::ids::TodoId;
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::{
        RowsAffected,
        value::{OneMicrosecond, Timestamp},
    },
    error::{BoxError, Error, FieldError, Result},
};

mod cursor;
mod list_query;
mod list_types;
mod listing;
mod types;

/// Maximum number of todos in a list without a limit; its cursor continues it.
pub const MAX_UNPAGED: u16 = 10_000;

#[cfg(feature = "testing")]
pub(crate) use list_query::{ListShape, list_statements};
pub(crate) use types::todo_columns;

/// SQL expression for an `updated_at` that increases strictly, also if the clock goes back.
macro_rules! next_updated_at {
    ($now:literal, $step:literal) => {
        concat!(
            "CASE WHEN ",
            $now,
            " > updated_at THEN ",
            $now,
            " ELSE updated_at + ",
            $step,
            " END"
        )
    };
}

/// Creates a todo.
///
/// # Errors
/// [`Error::Unauthenticated`] if the caller's session has ended or the user was deleted; else the
/// errors of every operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn create(core: &Core, caller: &Caller, new: NewTodo) -> Result<Todo> {
    const SQL: &str = concat!(
        "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at) SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9 WHERE ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    core.write(caller.user_id(), async move {
        let insert = acting_as(caller, SQL)
            .bind(new_id(now))
            .bind(new.title.as_str())
            .bind(crate::validate::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Timestamp(now));
        match db.execute::<Option<Todo>>(insert).await {
            Ok(todo) => todo.ok_or(Error::Unauthenticated),
            Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}

/// Reads one todo.
///
/// # Errors
/// [`Error::Unauthenticated`], [`Error::NotFound`], [`Error::Forbidden`] if it is another user's;
/// else as [`create`].
pub async fn get(core: &Core, caller: &Caller, id: TodoId) -> Result<Todo> {
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        " FROM todos WHERE id = $4 AND user_id = $1 AND ",
        authorized!()
    );
    let db = core.db();
    let caller = *caller;
    let work = core.clone();
    core.read(caller.user_id(), async move {
        let found = db.fetch(acting_as(caller, SQL).bind(id)).await?;
        require_row(&work, caller, id, found).await
    })
    .await
}

/// Replaces title, description and priority; `completed` is unchanged.
///
/// # Errors
/// As [`get`].
pub async fn replace(core: &Core, caller: &Caller, id: TodoId, new: NewTodo) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET title = $5, title_key = $6, description = $7, priority = $8, \
         updated_at = ",
        next_updated_at!("$9", "$10"),
        " WHERE id = $4 AND user_id = $1 AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL)
            .bind(id)
            .bind(new.title.as_str())
            .bind(crate::validate::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_row(&work, caller, id, changed).await
    })
    .await
}

/// Updates the fields given in `patch` (RFC 7396). An empty patch changes nothing, `updated_at`
/// included.
///
/// # Errors
/// As [`get`].
pub async fn patch(core: &Core, caller: &Caller, id: TodoId, patch: TodoPatch) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET title = coalesce($5, title), title_key = coalesce($6, title_key), \
         description = CASE WHEN $7 THEN $8 ELSE description END, \
         priority = coalesce($9, priority), updated_at = ",
        next_updated_at!("$10", "$11"),
        " WHERE id = $4 AND user_id = $1 AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    if patch.is_empty() {
        return get(core, caller, id).await;
    }
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL)
            .bind(id)
            .bind(patch.title.as_ref().map(Title::as_str))
            .bind(patch.title.as_ref().map(|title| crate::validate::sort_key(title.as_str())))
            .bind(patch.description.is_some())
            .bind(patch.description.as_ref().and_then(Option::as_ref).map(Description::as_str))
            .bind(patch.priority)
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_row(&work, caller, id, changed).await
    })
    .await
}

/// Completes or reopens a todo. `completed_at` is set by the first completion, kept by further ones
/// and cleared by reopening.
///
/// # Errors
/// As [`get`].
pub async fn set_completed(
    core: &Core,
    caller: &Caller,
    id: TodoId,
    completed: bool,
) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET completed = $5, \
         completed_at = CASE WHEN $5 THEN coalesce(completed_at, $6) ELSE NULL END, updated_at = ",
        next_updated_at!("$6", "$7"),
        " WHERE id = $4 AND user_id = $1 AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL)
            .bind(id)
            .bind(completed)
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_row(&work, caller, id, changed).await
    })
    .await
}

/// Deletes a todo permanently.
///
/// # Errors
/// As [`get`].
pub async fn delete(core: &Core, caller: &Caller, id: TodoId) -> Result<()> {
    const SQL: &str =
        concat!("DELETE FROM todos WHERE id = $4 AND user_id = $1 AND ", authorized!());
    let db = core.db();
    let caller = *caller;
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let RowsAffected(deleted) = db.execute(acting_as(caller, SQL).bind(id)).await?;
        match deleted {
            0 => Err(explain_no_rows(&work, caller, id).await),
            _ => Ok(()),
        }
    })
    .await
}

/// Lists the caller's todos, up to the limit, or up to [`MAX_UNPAGED`] without one. Pagination is
/// by key, not by offset: a todo that exists throughout is returned exactly once, whatever is
/// inserted or deleted meanwhile. The cost of a page is independent of the length of the list.
///
/// A long list is assembled from the chunks of a [`Listing`], which are separate reads. All of it
/// is in memory: up to 10,000 todos, about 50 MB with the longest texts.
///
/// # Errors
/// [`Error::Invalid`] if the cursor was altered or belongs to another list,
/// [`Error::Unauthenticated`]; else as [`create`].
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
/// [`MAX_UNPAGED`]. Todos are read in chunks of at most 500, as the stream is polled.
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

/// The field error for an invalid cursor.
fn bad_cursor() -> FieldError {
    let message = "Cursor must be the next_cursor of a list with the same filters.";
    FieldError::new("cursor", "invalid", message)
}

/// The total for an empty page; fails if the session has ended.
async fn count(core: &Core, caller: Caller, status: Status) -> Result<i64> {
    let db = core.db();
    let total = list_query::total(db.dialect(), caller, status);
    let (is_authorized, total): (bool, i64) = db.fetch_one(total).await?;
    if is_authorized { Ok(total) } else { Err(Error::Unauthenticated) }
}

/// Returns the statement's row, or the reason why it affected none.
async fn require_row(core: &Core, caller: Caller, id: TodoId, found: Option<Todo>) -> Result<Todo> {
    match found {
        Some(todo) => Ok(todo),
        None => Err(Box::pin(explain_no_rows(core, caller, id)).await),
    }
}

/// Returns the reason why a statement on the todo `id` affected no row.
async fn explain_no_rows(core: &Core, caller: Caller, id: TodoId) -> Error {
    const SQL: &str =
        concat!("SELECT ", authorized!(), ", (SELECT user_id FROM todos WHERE id = $4)");
    match core.db().fetch_one::<(bool, Option<Uuid>)>(acting_as(caller, SQL).bind(id)).await {
        Err(fault) => fault.into(),
        Ok((false, _)) => Error::Unauthenticated,
        Ok((true, Some(owner))) if owner != caller.user_id().as_uuid() => Error::Forbidden,
        Ok((true, _)) => Error::NotFound,
    }
}
