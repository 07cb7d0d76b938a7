//! Changes of one todo.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Description, Details, NewTodo, Target, Title, Todo, TodoPatch,
    bulk::{Text, both},
    create::Limits,
    details::{self, Known, allows_details, is_below_tag_quota, is_own_list, patched_details},
    no_rows::{require_change, require_row},
    read::{get, read},
    reminder_quota::{keeps_reminder_quota, number_of, open_reminders},
    series::unless_taken_meanwhile,
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

/// SQL assignments of a [`TodoPatch`] without its details: `$title` and `$key` are its title,
/// `$describes` whether it has a description, which is `$text`, `$priority` its priority, `$folded`
/// the folded parts that it changes. See [`bind_patch`].
macro_rules! patched_columns {
    ($dialect:ident, $title:literal, $key:literal, $describes:literal, $text:literal,
     $priority:literal, $now:literal, $step:literal, $folded:tt) => {
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
            next_updated_at!($now, $step),
            ", search = ",
            refolded!($dialect, $folded)
        )
    };
}
pub(super) use patched_columns;

/// SQL expression for the folded text with new parts: title, tags, description. A part that is NULL
/// is kept. SQLite has the function from the library; PostgreSQL has none, since a role may lack
/// the right to execute one.
macro_rules! refolded {
    (Sqlite, ($title:literal, $tags:literal, $description:literal)) => {
        concat!("refolded(search, ", $title, ", ", $tags, ", ", $description, ")")
    };
    (Postgres, ($title:literal, $tags:literal, $description:literal)) => {
        concat!(
            "CASE WHEN ",
            $title,
            " IS NULL AND ",
            $tags,
            " IS NULL AND ",
            $description,
            " IS NULL THEN search ELSE coalesce(",
            $title,
            ", split_part(search, chr(30), 1)) || chr(30) || coalesce(",
            $tags,
            ", split_part(search, chr(30), 2)) || chr(30) || coalesce(",
            $description,
            ", split_part(search, chr(30), 3)) END"
        )
    };
}
pub(super) use refolded;

/// Binds a patch without its details, and the time, for [`patched_columns!`]: 10 binds.
pub(super) fn bind_patch(statement: Statement, patch: &TodoPatch, now: DateTime<Utc>) -> Statement {
    let [title, tags, description] = details::folded_parts(patch);
    statement
        .bind(patch.title.as_ref().map(Title::as_str))
        .bind(patch.title.as_ref().map(|title| crate::validate::sort_key(title.as_str())))
        .bind(patch.description.is_some())
        .bind(patch.description.as_ref().and_then(Option::as_ref).map(Description::as_str))
        .bind(patch.priority)
        .bind(Timestamp(now))
        .bind(OneMicrosecond)
        .bind(title)
        .bind(tags)
        .bind(description)
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

/// Replaces title, description and priority, and the details that are given; `completed` is
/// unchanged.
///
/// # Errors
/// As [`patch`].
pub async fn replace(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    new: NewTodo,
) -> Result<Todo> {
    patch(core, caller, target, new.into()).await
}

/// Updates the fields given in `patch` (RFC 7396). An empty patch changes nothing, `updated_at`
/// included.
///
/// # Errors
/// [`Error::PreconditionFailed`] if the todo has no version that `target` allows;
/// [`Error::Invalid`] and [`Error::QuotaExceeded`] as of [`create`](super::create); else as
/// [`get`].
pub async fn patch(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    patch: TodoPatch,
) -> Result<Todo> {
    /// SQL assignments of the fields that every todo has.
    macro_rules! columns {
        ($dialect:ident) => {
            patched_columns!(
                $dialect,
                "$10",
                "$11",
                "$12",
                "$13",
                "$14",
                "$15",
                "$16",
                ("$17", "$18", "$19")
            )
        };
    }
    macro_rules! plain {
        ($dialect:ident) => {
            concat!(
                "UPDATE todos SET ",
                columns!($dialect),
                " WHERE ",
                is_target!(),
                " AND ",
                authorized!(),
                " RETURNING ",
                todo_columns!()
            )
        };
    }
    const PLAIN: Text = both!(plain);
    macro_rules! detailed {
        ($dialect:ident) => {
            concat!(
                "UPDATE todos SET ",
                columns!($dialect),
                ", ",
                patched_details!(
                    "$20", "$21", "$22", "$23", "$24", "$25", "$26", "$27", "$28", "$29", "$30",
                    "$31", "$32", ""
                ),
                " WHERE ",
                is_target!(),
                " AND ",
                authorized!(),
                " AND ",
                allows_details!("$21", "$22", "$27", "$28", "$30", "$32"),
                " AND ",
                is_below_tag_quota!($dialect, "$20", "$33"),
                " AND ",
                keeps_reminder_quota!($dialect, "$30", "$21", "$34"),
                " RETURNING ",
                todo_columns!()
            )
        };
    }
    const DETAILED: Text = both!(detailed);
    let (caller, target) = (*caller, target.into());
    if patch.is_empty() {
        let todo = get(core, &caller, target.id()).await?;
        return if target.allows(todo.version()) {
            Ok(todo)
        } else {
            Err(Error::PreconditionFailed)
        };
    }
    let now = core.now();
    patch.details.check(false, now)?;
    let db = core.db();
    let limits = Limits::of(core);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        if patch.details.is_empty() {
            let update = bind_patch(changing(caller, target, PLAIN.of(db.dialect())), &patch, now);
            let changed = db.execute(update).await?;
            return require_change(&work, caller, target, changed).await;
        }
        let update = bind_patch(changing(caller, target, DETAILED.of(db.dialect())), &patch, now);
        let update = details::bind_patch(update, &patch.details)
            .bind(i64::from(limits.tags))
            .bind(i64::from(limits.reminders));
        match unless_taken_meanwhile(&db, update).await {
            Ok(Some(todo)) => Ok(todo),
            Ok(None) => {
                let reason = explain_no_patch(&work, caller, target, &patch.details, limits);
                Err(Box::pin(reason).await)
            }
            Err(fault) if fault.is_unique_violation() => Err(Error::Busy),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}

/// The reason why a patch with details changed nothing.
async fn explain_no_patch(
    core: &Core,
    caller: Caller,
    target: Target,
    details: &Details,
    limits: Limits,
) -> Error {
    let reason = async {
        let db = core.db();
        let found = db.fetch(read(caller, target.id())).await?;
        let todo = require_row(core, caller, target.id().into(), found).await?;
        let known: Known = db.fetch(Known::find(caller)).await?;
        Ok(details::judge_patch(&todo, target, details, &known, limits))
    };
    match core.read_in_write::<Error>(caller.user_id(), reason).await {
        Ok(error) | Err(error) => error,
    }
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
