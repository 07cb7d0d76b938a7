//! Changes of one todo.

use super::{
    Description, NewTodo, Title, Todo, TodoId, TodoPatch,
    no_rows::{explain_no_rows, require_row},
    read::get,
    todo_columns,
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        RowsAffected,
        value::{OneMicrosecond, Timestamp},
    },
    error::Result,
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
