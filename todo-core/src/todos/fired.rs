//! A reminder that has fired.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    db::{DbError, Row, value::Timestamp},
    ids::{ReminderId, TodoId},
    timestamp,
};

/// A reminder that has fired. Each fires once, under one id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FiredReminder {
    /// Its id, by which a receiver knows a repetition.
    pub id: ReminderId,
    /// The todo, which may have changed since.
    pub todo_id: TodoId,
    /// Minutes before the todo was due.
    pub minutes_before: i64,
    /// When it was to fire.
    #[serde(serialize_with = "timestamp::serialize")]
    pub at: DateTime<Utc>,
    /// When it fired.
    #[serde(serialize_with = "timestamp::serialize")]
    pub fired_at: DateTime<Utc>,
    /// Whether it fired more than 60 seconds after its time.
    pub late: bool,
}

/// The columns of [`FiredReminder::read`], of `fired`: see [`fired_reminders!`].
macro_rules! fired_columns {
    () => {
        "fired_id, fired_todo_id, minutes_before, fire_at, fired_at, is_late"
    };
}
pub(crate) use fired_columns;

/// SQL table of the reminders, whose columns have other names than those of todos.
macro_rules! fired_reminders {
    () => {
        "(SELECT id AS fired_id, user_id AS fired_user_id, todo_id AS fired_todo_id, \
         minutes_before, fire_at, fired_at, is_late FROM reminders) AS fired"
    };
}
pub(crate) use fired_reminders;

impl FiredReminder {
    /// Reads the columns of [`fired_columns!`] from the one at `index`; `None` if the row has no
    /// reminder that has fired.
    pub(crate) fn read(row: &Row<'_>, index: usize) -> Result<Option<Self>, DbError> {
        let (Some(id), Some(fired_at)) =
            (row.get::<Option<Uuid>>(index)?, row.get::<Option<Timestamp>>(index + 4)?)
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: id.into(),
            todo_id: row.get::<Uuid>(index + 1)?.into(),
            minutes_before: row.get(index + 2)?,
            at: row.get::<Timestamp>(index + 3)?.0,
            fired_at: fired_at.0,
            late: row.get(index + 5)?,
        }))
    }
}
