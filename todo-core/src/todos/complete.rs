//! Completion and reopening of a todo. The completion of a recurring todo makes the next one.
//!
//! A todo without a recurrence takes one statement. One with a recurrence is left alone by it, then
//! read, and changed by a script if it is still as it was read: the dates of a rule are computed
//! between the two, outside the transaction. So is one whose reminders have no room.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::script::{Completing, Outcome};
use super::{
    Target, Todo, TodoId,
    bulk::{Text, both},
    change::{completed_columns, next_updated_at},
    create::no_room_for_reminders,
    reminder_quota::{coming_reminders, has_room_for_reminders, open_reminders},
    series::Next,
    todo::{TODO_COLUMNS, todo_columns},
    version::{changing, is_target},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, Dialect, FromRow, Row, Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, Result},
    time_zone::TimeZone,
};

mod script;

/// Maximum number of attempts for a todo that others change meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// The outcome of [`set_completed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Completion {
    /// The todo.
    #[serde(flatten)]
    pub todo: Todo,
    /// The next occurrence, if the todo is completed and recurs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_id: Option<TodoId>,
}

/// Completes or reopens a todo. `completed_at` is set by the first completion, kept by further ones
/// and cleared by reopening.
///
/// The completion of a todo with a [recurrence](super::Recurrence) makes the next one, in the same
/// transaction: a todo of its own, with the same title, description, priority, tags, list and
/// reminders, and the next due date. Its rule has one less of COUNT. None is made at the end of the
/// series, and none if the series has an open todo after this one: to complete a todo twice, also
/// at the same time, makes one. Reopening deletes the next one, unless it was changed or completed.
///
/// # Errors
/// [`Error::QuotaExceeded`] if there is no room for the next one, or for the reminders of the todo
/// that is open then: nothing is changed. [`Error::Busy`] also if others keep changing a recurring
/// todo; else as [`replace`](super::replace).
pub async fn set_completed(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    completed: bool,
) -> Result<Completion> {
    macro_rules! plain {
        ($dialect:ident) => {
            concat!(
                "UPDATE todos SET ",
                completed_columns!("$10", "$11", "$12"),
                " WHERE ",
                is_target!(),
                " AND rule IS NULL AND ($10 OR NOT completed OR ",
                has_room_for_reminders!($dialect, "todos", "$11", "$13"),
                ") AND ",
                authorized!(),
                " RETURNING ",
                todo_columns!()
            )
        };
    }
    const PLAIN: Text = both!(plain);
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let max_reminders = core.max_reminders();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        for _ in 0..MAX_ATTEMPTS {
            let update = changing(caller, target, PLAIN.of(db.dialect()))
                .bind(completed)
                .bind(Timestamp(now))
                .bind(OneMicrosecond)
                .bind(i64::from(max_reminders));
            if let Some(todo) = db.execute(update).await? {
                return Ok(Completion { todo, next_id: None });
            }
            let other = set_otherwise(&work, caller, target, completed, now);
            if let Some(completion) = Box::pin(other).await? {
                return Ok(completion);
            }
        }
        Err(Error::Busy)
    })
    .await
}

/// Completes or reopens a todo with a recurrence, or finds why another one has not changed. `None`
/// if it was changed meanwhile.
async fn set_otherwise(
    core: &Core,
    caller: Caller,
    target: Target,
    completed: bool,
    now: DateTime<Utc>,
) -> Result<Option<Completion>> {
    let find = find(core.db().dialect(), caller, target.id(), now);
    let found = async { Ok(core.db().fetch_one(find).await?) };
    let found: Found = core.read_in_write(caller.user_id(), found).await?;
    let Room { coming, open } = found.room;
    let (todo, home) = found.of(caller)?;
    if !target.allows(todo.version()) {
        return Err(Error::PreconditionFailed);
    }
    if todo.recurrence.is_none() {
        let limit = core.max_reminders();
        let is_full = limit > 0 && coming > 0 && open + coming > i64::from(limit);
        let is_reopened = todo.completed && !completed;
        return if is_reopened && is_full {
            Err(no_room_for_reminders(limit, open))
        } else {
            Ok(None)
        };
    }
    let next =
        if completed && !todo.completed { Next::of(&todo, home.as_ref(), now)? } else { None };
    let script = Completing::new(core, caller, target, &todo, completed, next, now);
    let caller = Some(caller.user_id().as_uuid());
    match core.db().execute_script(caller, script).await {
        Ok(Outcome::Done(completion)) => Ok(Some(*completion)),
        Ok(Outcome::Moved) => Ok(None),
        Ok(Outcome::Failed(error)) => Err(error),
        Err(fault) => Err(fault.into()),
    }
}

/// The todo of an id, whoever has it, and what the answer depends on.
struct Found {
    is_authorized: bool,
    todo: Option<Todo>,
    owner: Option<Uuid>,
    home: Option<String>,
    room: Room,
}

/// The reminders that a todo would have if it were reopened, and those of the caller that have not
/// fired.
#[derive(Clone, Copy)]
struct Room {
    coming: i64,
    open: i64,
}

/// The statement of a [`Found`].
fn find(dialect: Dialect, caller: Caller, id: TodoId, now: DateTime<Utc>) -> Statement {
    macro_rules! find {
        ($dialect:ident) => {
            concat!(
                "SELECT ",
                todo_columns!(),
                ", ",
                authorized!(),
                ", (SELECT time_zone FROM users WHERE users.id = $1), CASE WHEN reminders IS NULL \
                 THEN 0 ELSE ",
                coming_reminders!($dialect, "todos", "$5"),
                " END, ",
                open_reminders!(""),
                " FROM (SELECT 1 AS one) AS one LEFT JOIN todos ON id = $4"
            )
        };
    }
    const SQL: Text = both!(find);
    acting_as(caller, SQL.of(dialect)).bind(id).bind(Timestamp(now))
}

impl FromRow for Found {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let owner: Option<Uuid> = row.get(1)?;
        Ok(Self {
            is_authorized: row.get(TODO_COLUMNS)?,
            todo: if owner.is_some() { Some(Todo::from_row(row)?) } else { None },
            owner,
            home: row.get(TODO_COLUMNS + 1)?,
            room: Room { coming: row.get(TODO_COLUMNS + 2)?, open: row.get(TODO_COLUMNS + 3)? },
        })
    }
}

impl Found {
    /// The todo and the time zone of its owner, or the reason why the caller may not change it.
    fn of(self, caller: Caller) -> Result<(Todo, Option<TimeZone>)> {
        match (self.is_authorized, self.owner, self.todo) {
            (false, _, _) => Err(Error::Unauthenticated),
            (true, Some(owner), _) if owner != caller.user_id().as_uuid() => Err(Error::Forbidden),
            (true, _, Some(todo)) => Ok((todo, self.home.map(TimeZone::from_stored))),
            (true, _, None) => Err(Error::NotFound),
        }
    }
}
