//! Todos: make, list, read, change, complete, delete. No function works without a [`Caller`], and
//! every statement names the caller's user id: isolation is in the types and in the WHERE.
//!
//! Each operation is one statement. That the caller's session still lives is a condition of that
//! same statement, so a revoked session is refused at once on every replica. Only when the statement
//! touched no row does a second one find out why.

use uuid::Uuid;

pub use self::{
    listing::Listing,
    types::{
        Description, Filters, Limit, ListQuery, NewTodo, Order, Priority, SortBy, Status, Title,
        Todo, TodoList, TodoPatch,
    },
};
use crate::{
    Core,
    auth::Caller,
    clock::new_id,
    db::{
        Changed, Statement,
        columns::{Stamp, Tick},
    },
    error::{Cause, Error, FieldError, Result},
};

mod cursor;
mod listing;
mod statements;
mod types;

/// How many todos a list without a limit holds at most; its cursor then leads on.
pub const FULL_LIST: u16 = 10_000;

/// Holds if the caller may act at all: `$1` is the user, `$2` whether a host program vouches, `$3`
/// the session. Every statement here begins its binds with these three.
macro_rules! caller_lives {
    () => {
        "($2 OR EXISTS (SELECT 1 FROM sessions WHERE id = $3 AND user_id = $1))"
    };
}
pub(crate) use caller_lives;
pub(crate) use types::todo_columns;

/// A statement whose first binds say who acts.
pub(crate) fn by(caller: Caller, sql: &'static str) -> Statement {
    Statement::new(sql)
        .of(caller.user_id())
        .bind(caller.user_id())
        .bind(caller.is_vouched())
        .bind(caller.session_or_nil())
}

/// An `updated_at` that moves forward strictly, whatever the clock does.
macro_rules! touched {
    ($now:literal, $tick:literal) => {
        concat!(
            "CASE WHEN ",
            $now,
            " > updated_at THEN ",
            $now,
            " ELSE updated_at + ",
            $tick,
            " END"
        )
    };
}

/// Makes a todo.
///
/// # Errors
/// [`Error::Unauthenticated`] if the caller's session (or the user vouched for) is gone; else what
/// every operation can fail with: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn create(core: &Core, caller: &Caller, new: NewTodo) -> Result<Todo> {
    const SQL: &str = concat!(
        "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at) SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9 WHERE ",
        caller_lives!(),
        " RETURNING ",
        todo_columns!()
    );
    let (db, caller, now) = (core.db(), *caller, core.now());
    core.write(caller.user_id(), async move {
        let insert = by(caller, SQL)
            .bind(new_id(now))
            .bind(new.title.as_str())
            .bind(crate::text::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Stamp(now));
        match db.write::<Option<Todo>>(insert).await {
            Ok(made) => made.ok_or(Error::Unauthenticated),
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
pub async fn get(core: &Core, caller: &Caller, id: Uuid) -> Result<Todo> {
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        " FROM todos WHERE id = $4 AND user_id = $1 AND ",
        caller_lives!()
    );
    let (db, caller) = (core.db(), *caller);
    let work = core.clone();
    core.read(caller.user_id(), async move {
        let found = db.read(by(caller, SQL).bind(id)).await?;
        found_or_why_not(&work, caller, id, found).await
    })
    .await
}

/// Replaces title, description and priority; `completed` stays.
///
/// # Errors
/// As [`get`].
pub async fn replace(core: &Core, caller: &Caller, id: Uuid, new: NewTodo) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET title = $5, title_key = $6, description = $7, priority = $8, \
         updated_at = ",
        touched!("$9", "$10"),
        " WHERE id = $4 AND user_id = $1 AND ",
        caller_lives!(),
        " RETURNING ",
        todo_columns!()
    );
    let (db, caller, now) = (core.db(), *caller, core.now());
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = by(caller, SQL)
            .bind(id)
            .bind(new.title.as_str())
            .bind(crate::text::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Stamp(now))
            .bind(Tick);
        let changed = db.write(update).await?;
        found_or_why_not(&work, caller, id, changed).await
    })
    .await
}

/// Changes what `patch` names and keeps the rest (RFC 7396). A patch that names nothing changes
/// nothing, `updated_at` included.
///
/// # Errors
/// As [`get`].
pub async fn patch(core: &Core, caller: &Caller, id: Uuid, patch: TodoPatch) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET title = coalesce($5, title), title_key = coalesce($6, title_key), \
         description = CASE WHEN $7 THEN $8 ELSE description END, \
         priority = coalesce($9, priority), updated_at = ",
        touched!("$10", "$11"),
        " WHERE id = $4 AND user_id = $1 AND ",
        caller_lives!(),
        " RETURNING ",
        todo_columns!()
    );
    if patch.is_empty() {
        return get(core, caller, id).await;
    }
    let (db, caller, now) = (core.db(), *caller, core.now());
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = by(caller, SQL)
            .bind(id)
            .bind(patch.title.as_ref().map(Title::as_str))
            .bind(patch.title.as_ref().map(|title| crate::text::sort_key(title.as_str())))
            .bind(patch.description.is_some())
            .bind(patch.description.as_ref().and_then(Option::as_ref).map(Description::as_str))
            .bind(patch.priority)
            .bind(Stamp(now))
            .bind(Tick);
        let changed = db.write(update).await?;
        found_or_why_not(&work, caller, id, changed).await
    })
    .await
}

/// Completes a todo, or opens it again. `completed_at` is set by the first completion, kept by
/// further ones and cleared by reopening.
///
/// # Errors
/// As [`get`].
pub async fn set_completed(
    core: &Core,
    caller: &Caller,
    id: Uuid,
    completed: bool,
) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET completed = $5, \
         completed_at = CASE WHEN $5 THEN coalesce(completed_at, $6) ELSE NULL END, updated_at = ",
        touched!("$6", "$7"),
        " WHERE id = $4 AND user_id = $1 AND ",
        caller_lives!(),
        " RETURNING ",
        todo_columns!()
    );
    let (db, caller, now) = (core.db(), *caller, core.now());
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = by(caller, SQL).bind(id).bind(completed).bind(Stamp(now)).bind(Tick);
        let changed = db.write(update).await?;
        found_or_why_not(&work, caller, id, changed).await
    })
    .await
}

/// Deletes a todo for good.
///
/// # Errors
/// As [`get`].
pub async fn delete(core: &Core, caller: &Caller, id: Uuid) -> Result<()> {
    const SQL: &str =
        concat!("DELETE FROM todos WHERE id = $4 AND user_id = $1 AND ", caller_lives!());
    let (db, caller) = (core.db(), *caller);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let Changed(deleted) = db.write(by(caller, SQL).bind(id)).await?;
        match deleted {
            0 => Err(why_not(&work, caller, id).await),
            _ => Ok(()),
        }
    })
    .await
}

/// Lists the caller's todos: as many as the limit says, without one up to [`FULL_LIST`]. Pages follow
/// each other by key, not by offset: a todo that is there throughout is seen exactly once, whatever
/// comes and goes meanwhile. A page costs the same however long the list is.
///
/// A long list is put together from the pieces of a [`Listing`], which are separate reads. All of it
/// is held in memory: up to 10,000 todos, some 50 MB at the longest texts.
///
/// # Errors
/// [`Error::Invalid`] for a cursor that was altered or belongs to another list,
/// [`Error::Unauthenticated`]; else as [`create`].
pub async fn list(core: &Core, caller: &Caller, query: ListQuery) -> Result<TodoList> {
    let mut listing = Listing::new(core, caller, query)?;
    let mut list: Option<TodoList> = None;
    while let Some(piece) = listing.next().await? {
        match &mut list {
            None => list = Some(piece),
            Some(list) => {
                list.todos.extend(piece.todos);
                list.next_cursor = piece.next_cursor;
            }
        }
    }
    list.ok_or_else(|| Error::Internal(Cause::new("a list without a piece")))
}

/// The field error of a cursor that does not open.
fn bad_cursor() -> FieldError {
    let message = "Cursor must be the next_cursor of a list with the same filters.";
    FieldError::new("cursor", "invalid", message)
}

/// How many todos a list without rows on this page counts, if the caller may ask at all.
async fn count(core: &Core, caller: Caller, status: Status) -> Result<i64> {
    let total = by(caller, statements::total(status));
    let (lives, total): (bool, i64) = core.db().one(total).await?;
    if lives { Ok(total) } else { Err(Error::Unauthenticated) }
}

/// The todo that a statement touched, or why it touched none.
async fn found_or_why_not(
    core: &Core,
    caller: Caller,
    id: Uuid,
    found: Option<Todo>,
) -> Result<Todo> {
    match found {
        Some(todo) => Ok(todo),
        None => Err(Box::pin(why_not(core, caller, id)).await),
    }
}

/// Why a statement about the todo `id` touched no row.
async fn why_not(core: &Core, caller: Caller, id: Uuid) -> Error {
    const SQL: &str =
        concat!("SELECT ", caller_lives!(), ", (SELECT user_id FROM todos WHERE id = $4)");
    match core.db().one::<(bool, Option<Uuid>)>(by(caller, SQL).bind(id)).await {
        Err(fault) => fault.into(),
        Ok((false, _)) => Error::Unauthenticated,
        Ok((true, Some(owner))) if owner != caller.user_id() => Error::Forbidden,
        Ok((true, _)) => Error::NotFound,
    }
}
