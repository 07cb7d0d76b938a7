//! Series of recurring todos: their next occurrences, and where they are found.
//!
//! A todo that recurs has a series and is an occurrence of it: the day of its due date, which is
//! unique in the series. An occurrence that would not be unique (a todo that was moved to the day
//! of another one, or restored beside the one that took its place) is NULL: the todo belongs to the
//! series, and takes no day of it.

use chrono::{DateTime, Utc};

use super::{Due, Recurrence, Todo, TodoId};
use crate::{
    clock::new_id,
    db::{Db, DbError, Statement, value::Timestamp},
    error::{BoxError, Error, Result},
    time_zone::TimeZone,
};

/// SQL query of the id of the first todo of a series after the row `$todo`.
macro_rules! later_todo {
    ($todo:literal) => {
        concat!(
            "(SELECT later.id FROM todos AS later WHERE later.series_id = ",
            $todo,
            ".series_id AND later.user_id = $1 AND later.occurrence > ",
            $todo,
            ".due_date ORDER BY later.occurrence LIMIT 1)"
        )
    };
}
pub(super) use later_todo;

/// SQL condition that no todo may follow the row `$todo` on the day `$date`: the series has an open
/// one after it, or one of that day.
macro_rules! is_followed {
    ($todo:literal, $date:expr) => {
        concat!(
            "EXISTS (SELECT 1 FROM todos AS later WHERE later.series_id = ",
            $todo,
            ".series_id AND later.user_id = $1 AND later.occurrence > ",
            $todo,
            ".due_date AND (NOT later.completed OR later.occurrence = ",
            $date,
            "))"
        )
    };
}
pub(super) use is_followed;

/// The columns of the next occurrence, in the order of [`next_values!`].
macro_rules! next_columns {
    () => {
        "id, user_id, title, title_key, description, priority, completed, created_at, updated_at, \
         search, tags, list_id, parent_id, due_date, due_minute, due_zone, due_at, undated, \
         due_key, rule, rule_from, series_id, occurrence, reminders, ical"
    };
}
pub(super) use next_columns;

/// SQL values of the next occurrence of a todo `done`: `$id` is its id, `$now` the time, `$date`,
/// `$at` and `$key` its due date, `$rule` its rule. It has no position, and is in the inbox if the
/// list was deleted.
macro_rules! next_values {
    ($id:expr, $now:literal, $date:expr, $at:expr, $key:expr, $rule:expr) => {
        concat!(
            $id,
            ", done.user_id, done.title, done.title_key, done.description, done.priority, FALSE, ",
            $now,
            ", ",
            $now,
            ", done.search, done.tags, (SELECT lists.id FROM lists WHERE lists.id = done.list_id \
             AND lists.deleted_at IS NULL), done.parent_id, ",
            $date,
            ", done.due_minute, done.due_zone, ",
            $at,
            ", FALSE, ",
            $key,
            ", ",
            $rule,
            ", done.rule_from, done.series_id, ",
            $date,
            ", done.reminders, done.ical"
        )
    };
}
pub(super) use next_values;

/// SQL of an insertion of next occurrences that ends it: a day that is taken is none.
macro_rules! unless_taken {
    () => {
        " ON CONFLICT (series_id, occurrence) WHERE series_id IS NOT NULL DO NOTHING RETURNING id"
    };
}
pub(super) use unless_taken;

/// SQL condition that a todo is as it was made.
macro_rules! is_untouched {
    () => {
        "NOT completed AND updated_at = created_at"
    };
}
pub(super) use is_untouched;

/// Runs a change of a todo, again if another one of its series took its day meanwhile: the change
/// then finds it, and takes none.
pub(super) async fn unless_taken_meanwhile(
    db: &Db,
    change: Statement,
) -> Result<Option<Todo>, DbError> {
    match db.execute(change.clone()).await {
        Err(fault) if fault.is_unique_violation() => db.execute(change).await,
        changed => changed,
    }
}

/// The next occurrence of a todo.
#[derive(Clone, Debug)]
pub(super) struct Next {
    pub(super) id: TodoId,
    due: Due,
    recurrence: Recurrence,
}

impl Next {
    /// The occurrence after `todo`, which is completed at `now` by a user of the time zone `home`;
    /// `None` at the end of the series.
    ///
    /// # Errors
    /// [`Error::Internal`] if the rule or the time zone is not one of this version.
    pub(super) fn of(
        todo: &Todo,
        home: Option<&TimeZone>,
        now: DateTime<Utc>,
    ) -> Result<Option<Self>> {
        let (Some(due), Some(recurrence)) = (&todo.due, &todo.recurrence) else {
            return Ok(None);
        };
        let next = recurrence.next(due, home, now);
        let next = next.map_err(|errors| Error::Internal(BoxError::new(errors)))?;
        Ok(next.map(|(due, recurrence)| Self { id: new_id(now).into(), due, recurrence }))
    }

    /// The days since 1970-01-01.
    pub(super) fn date(&self) -> i64 {
        self.due.days()
    }

    pub(super) fn at(&self) -> Option<Timestamp> {
        self.due.at().map(Timestamp)
    }

    pub(super) fn key(&self) -> i64 {
        self.due.key()
    }

    pub(super) fn rule(&self) -> &str {
        self.recurrence.rule.as_str()
    }
}
