//! A todo, and how its row is read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Description, Due, Priority, Recurrence, Reminders, Tags, Title};
use crate::{
    db::{DbError, FromRow, Row, value::Timestamp},
    ids::{ListId, TodoId, UserId},
    timestamp,
};

/// A todo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Todo {
    /// A UUIDv7.
    pub id: TodoId,
    /// The owner.
    pub user_id: UserId,
    /// Trimmed, 1 to 200 characters.
    pub title: Title,
    /// Up to 1000 characters.
    pub description: Option<Description>,
    /// `high`, `medium` or `low`.
    pub priority: Priority,
    /// Whether it is completed.
    pub completed: bool,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed; increases strictly with every change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    /// When it was completed; null while it is open.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub completed_at: Option<DateTime<Utc>>,
    /// Up to 20 tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it is due.
    #[serde(default)]
    pub due: Option<Due>,
    /// The rule by which its next occurrence is made when it is completed.
    #[serde(default)]
    pub recurrence: Option<Recurrence>,
    /// Up to 5 reminders.
    #[serde(default)]
    pub reminders: Reminders,
    /// Its list; null for the inbox.
    #[serde(default)]
    pub list_id: Option<ListId>,
}

/// The columns of a [`Todo`], in the order its row is read.
macro_rules! todo_columns {
    () => {
        "id, user_id, title, description, priority, completed, created_at, updated_at, \
         completed_at, tags, due_date, due_minute, due_zone, due_at, rule, rule_from, reminders, \
         list_id"
    };
}
pub(crate) use todo_columns;

/// The number of columns of [`todo_columns!`]; further columns of a statement follow them.
pub(crate) const TODO_COLUMNS: usize = 18;

impl FromRow for Todo {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get::<Uuid>(0)?.into(),
            user_id: row.get::<Uuid>(1)?.into(),
            title: Title::from_stored(row.get(2)?),
            description: row.get::<Option<String>>(3)?.map(Description::from_stored),
            priority: Priority::from_rank(row.get(4)?).ok_or(DbError::Value("priority"))?,
            completed: row.get(5)?,
            created_at: row.get::<Timestamp>(6)?.0,
            updated_at: row.get::<Timestamp>(7)?.0,
            completed_at: row.get::<Option<Timestamp>>(8)?.map(|timestamp| timestamp.0),
            tags: Tags::from_stored(&row.get::<String>(9)?).ok_or(DbError::Value("tags"))?,
            due: due(row)?,
            recurrence: recurrence(row)?,
            reminders: Reminders::from_stored(&row.get::<String>(16)?)
                .ok_or(DbError::Value("reminders"))?,
            list_id: row.get::<Option<Uuid>>(17)?.map(ListId::from),
        })
    }
}

fn due(row: &Row<'_>) -> Result<Option<Due>, DbError> {
    let Some(days) = row.get(10)? else { return Ok(None) };
    let time = match row.get(11)? {
        None => None,
        Some(minute) => Some((minute, row.get(12)?, row.get::<Timestamp>(13)?.0)),
    };
    Due::from_stored(days, time).map(Some).ok_or(DbError::Value("due_date"))
}

fn recurrence(row: &Row<'_>) -> Result<Option<Recurrence>, DbError> {
    let Some(rule) = row.get(14)? else { return Ok(None) };
    Recurrence::from_stored(rule, row.get(15)?).map(Some).ok_or(DbError::Value("rule_from"))
}
