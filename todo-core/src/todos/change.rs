//! Changes of one todo.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Description, NewTodo, Target, Title, Todo, TodoPatch,
    no_rows::require_change,
    read::get,
    todo_columns,
    version::{changing, is_target},
};
use crate::{
    authz::{Caller, authorized},
    core::Core,
    db::{
        Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, Result},
};

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
pub(super) use next_updated_at;

/// SQL assignments of a [`TodoPatch`]: `$title` and `$key` are its title, `$describes` whether it
/// has a description, which is `$text`, `$priority` its priority. See [`bind_patch`].
macro_rules! patched_columns {
    ($title:literal, $key:literal, $describes:literal, $text:literal, $priority:literal,
     $now:literal, $step:literal) => {
        concat!(
            "title = coalesce(",
            $title,
            ", title), title_key = coalesce(",
            $key,
            ", title_key), description = CASE WHEN ",
            $describes,
            " THEN ",
            $text,
            " ELSE description END, priority = coalesce(",
            $priority,
            ", priority), updated_at = ",
            next_updated_at!($now, $step)
        )
    };
}
pub(super) use patched_columns;

/// Binds a patch, and the time, for [`patched_columns!`].
pub(super) fn bind_patch(statement: Statement, patch: &TodoPatch, now: DateTime<Utc>) -> Statement {
    statement
        .bind(patch.title.as_ref().map(Title::as_str))
        .bind(patch.title.as_ref().map(|title| crate::validate::sort_key(title.as_str())))
        .bind(patch.description.is_some())
        .bind(patch.description.as_ref().and_then(Option::as_ref).map(Description::as_str))
        .bind(patch.priority)
        .bind(Timestamp(now))
        .bind(OneMicrosecond)
}

/// SQL assignments of a completion, or of a reopening: `$completed` says which.
macro_rules! completed_columns {
    ($completed:literal, $now:literal, $step:literal) => {
        concat!(
            "completed = ",
            $completed,
            ", completed_at = CASE WHEN ",
            $completed,
            " THEN coalesce(completed_at, ",
            $now,
            ") ELSE NULL END, updated_at = ",
            next_updated_at!($now, $step)
        )
    };
}
pub(super) use completed_columns;

/// Replaces title, description and priority; `completed` is unchanged.
///
/// # Errors
/// [`Error::PreconditionFailed`] if the todo has no version that `target` allows; else as [`get`].
pub async fn replace(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    new: NewTodo,
) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET title = $10, title_key = $11, description = $12, priority = $13, \
         updated_at = ",
        next_updated_at!("$14", "$15"),
        " WHERE ",
        is_target!(),
        " AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = changing(caller, target, SQL)
            .bind(new.title.as_str())
            .bind(crate::validate::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_change(&work, caller, target, changed).await
    })
    .await
}

/// Updates the fields given in `patch` (RFC 7396). An empty patch changes nothing, `updated_at`
/// included.
///
/// # Errors
/// As [`replace`].
pub async fn patch(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    patch: TodoPatch,
) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET ",
        patched_columns!("$10", "$11", "$12", "$13", "$14", "$15", "$16"),
        " WHERE ",
        is_target!(),
        " AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    if patch.is_empty() {
        let target = target.into();
        let todo = get(core, caller, target.id()).await?;
        return if target.allows(todo.version()) {
            Ok(todo)
        } else {
            Err(Error::PreconditionFailed)
        };
    }
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = bind_patch(changing(caller, target, SQL), &patch, now);
        let changed = db.execute(update).await?;
        require_change(&work, caller, target, changed).await
    })
    .await
}

/// Completes or reopens a todo. `completed_at` is set by the first completion, kept by further ones
/// and cleared by reopening.
///
/// # Errors
/// As [`replace`].
pub async fn set_completed(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    completed: bool,
) -> Result<Todo> {
    const SQL: &str = concat!(
        "UPDATE todos SET ",
        completed_columns!("$10", "$11", "$12"),
        " WHERE ",
        is_target!(),
        " AND ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update =
            changing(caller, target, SQL).bind(completed).bind(Timestamp(now)).bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_change(&work, caller, target, changed).await
    })
    .await
}

/// Moves a todo to the trash, or deletes it permanently without one
/// ([`CoreBuilder::trash_days`](crate::CoreBuilder::trash_days)).
///
/// # Errors
/// As [`replace`].
pub async fn delete(core: &Core, caller: &Caller, target: impl Into<Target>) -> Result<()> {
    const DELETE: &str =
        concat!("DELETE FROM todos WHERE ", is_target!(), " AND ", authorized!(), " RETURNING id");
    // A view, whose trigger moves the todo as it is by then. A todo of any version has no guard: a
    // change that commits meanwhile does not keep it.
    const TRASH: &str = concat!(
        "INSERT INTO deletions (id, user_id, guard, deleted_at) \
         SELECT id, user_id, CASE WHEN $5 THEN NULL ELSE updated_at END, $10 FROM todos WHERE ",
        is_target!(),
        " AND ",
        authorized!(),
        " RETURNING id"
    );
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let keeps = !core.trash_lifetime().is_zero();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let statement = if keeps {
            changing(caller, target, TRASH).bind(Timestamp(now))
        } else {
            changing(caller, target, DELETE)
        };
        let deleted: Option<(Uuid,)> = db.execute(statement).await?;
        require_change(&work, caller, target, deleted).await?;
        Ok(())
    })
    .await
}
