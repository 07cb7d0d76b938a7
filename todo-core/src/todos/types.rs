//! The types of a todo list, constructed only by parsing: a [`Title`] is always valid.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    db::{
        DbError, FromRow, Row,
        value::{Timestamp, Value},
    },
    error::{FieldError, FieldErrors},
    ids::{TodoId, UserId},
    parsed::{impl_text, impl_words},
    timestamp, validate,
};

/// A todo's title: trimmed, 1 to 200 characters (Unicode scalar values), no U+0000.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Title(String);

impl Title {
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 200;

    /// Parses a title.
    ///
    /// # Errors
    /// Every rule that the field `title` breaks.
    pub fn parse(title: &str) -> Result<Self, FieldErrors> {
        let title = title.trim();
        if title.is_empty() {
            return Err(FieldError::new("title", "blank", "Title cannot be empty.").into());
        }
        let errors = validate::check_text("title", title, 1, Self::MAX_CHARS);
        errors.into_result(|| Self(title.to_owned()))
    }

    /// The title as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A title from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Title);

/// A todo's description: up to 1000 characters (Unicode scalar values), no U+0000. Not trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Description(String);

impl Description {
    /// Maximum number of characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 1000;

    /// Parses a description.
    ///
    /// # Errors
    /// Every rule that the field `description` breaks.
    pub fn parse(description: &str) -> Result<Self, FieldErrors> {
        let errors = validate::check_text("description", description, 0, Self::MAX_CHARS);
        errors.into_result(|| Self(description.to_owned()))
    }

    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A description from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Description);

/// How urgent a todo is. Ordered by rank: low, medium, high.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Priority {
    /// Not urgent.
    Low = 1,
    /// The default.
    #[default]
    Medium = 2,
    /// Urgent.
    High = 3,
}

impl_words!(Priority, "priority", "high, medium or low",
    "low" => Low, "medium" => Medium, "high" => High);

impl Priority {
    /// The number that is stored: 1 for low to 3 for high.
    pub(crate) fn rank(self) -> i16 {
        self as i16
    }

    /// The priority of a stored number.
    pub(crate) fn from_rank(rank: i16) -> Option<Self> {
        match rank {
            1 => Some(Self::Low),
            2 => Some(Self::Medium),
            3 => Some(Self::High),
            _ => None,
        }
    }
}

impl From<Priority> for Value {
    fn from(priority: Priority) -> Self {
        Self::SmallInt(Some(priority.rank()))
    }
}

impl From<Option<Priority>> for Value {
    fn from(priority: Option<Priority>) -> Self {
        Self::SmallInt(priority.map(Priority::rank))
    }
}

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
}

/// The columns of a [`Todo`], in the order its row is read.
macro_rules! todo_columns {
    () => {
        "id, user_id, title, description, priority, completed, created_at, updated_at, completed_at"
    };
}
pub(crate) use todo_columns;

/// The number of columns of [`todo_columns!`]; further columns of a statement follow them.
pub(crate) const TODO_COLUMNS: usize = 9;

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
        })
    }
}

/// The data of a new todo, or of a replacement.
///
/// ```
/// use todo_core::todos::{Description, NewTodo, Priority};
///
/// let new = NewTodo::new("Buy milk".parse()?)
///     .description(Description::parse("two litres")?)
///     .priority(Priority::High);
/// assert_eq!(new.title, "Buy milk");
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTodo {
    /// The title.
    pub title: Title,
    /// The description, if any.
    pub description: Option<Description>,
    /// The priority.
    pub priority: Priority,
}

impl NewTodo {
    /// A todo without a description, of medium priority.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self { title, description: None, priority: Priority::default() }
    }

    /// Sets the description; `None` for none.
    #[must_use]
    pub fn description(mut self, description: impl Into<Option<Description>>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// A partial update (RFC 7396); a field that is `None` is unchanged.
///
/// ```
/// use todo_core::todos::{Priority, TodoPatch};
///
/// let patch = TodoPatch::new().description(None).priority(Priority::Low);
/// assert!(patch.title.is_none());
/// assert_eq!(patch.description, Some(None), "the description is cleared");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TodoPatch {
    /// A new title.
    pub title: Option<Title>,
    /// `Some(None)` clears the description.
    pub description: Option<Option<Description>>,
    /// A new priority.
    pub priority: Option<Priority>,
}

impl TodoPatch {
    /// A patch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the title.
    #[must_use]
    pub fn title(mut self, title: Title) -> Self {
        self.title = Some(title);
        self
    }

    /// Changes the description; `None` clears it.
    #[must_use]
    pub fn description(mut self, description: impl Into<Option<Description>>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Changes the priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt, str::FromStr};

    use super::*;
    use crate::todos::list_types::{Limit, SortBy, SortOrder, Status};

    fn codes<T>(parsed: Result<T, FieldErrors>) -> Vec<&'static str> {
        parsed.err().into_iter().flatten().map(|error| error.code).collect()
    }

    #[test]
    fn titles_are_trimmed_then_measured() {
        assert_eq!(Title::parse("  a b \u{3000}").unwrap().as_str(), "a b");
        assert_eq!(codes(Title::parse(" \t\u{a0}")), ["blank"]);
        assert!(Title::parse(&format!(" {} ", "é".repeat(200))).is_ok());
        assert_eq!(codes(Title::parse(&"é".repeat(201))), ["too_long"]);
        assert_eq!(codes(Title::parse("a\0")), ["nul"]);
        assert_eq!(codes(Title::parse(&"\0".repeat(201))), ["nul", "too_long"]);
    }

    #[test]
    fn descriptions_keep_their_space_and_may_be_empty() {
        assert_eq!(Description::parse(" x ").unwrap().as_str(), " x ");
        assert!(Description::parse("").is_ok());
        assert!(Description::parse(&"x".repeat(1000)).is_ok());
        assert_eq!(codes(Description::parse(&"x".repeat(1001))), ["too_long"]);
    }

    #[test]
    fn enum_strings_are_exact() {
        assert_eq!(Priority::parse("high"), Ok(Priority::High));
        assert!(Priority::parse("High").is_err() && Priority::parse("").is_err());
        assert!(Priority::Low < Priority::Medium && Priority::Medium < Priority::High);
        assert_eq!(SortBy::parse("created_at"), Ok(SortBy::CreatedAt));
        assert!(Status::parse("done").is_err() && SortOrder::parse("up").is_err());
    }

    #[test]
    fn each_priority_is_stored_as_its_rank() {
        for priority in [Priority::Low, Priority::Medium, Priority::High] {
            assert_eq!(Priority::from_rank(priority.rank()), Some(priority));
        }
        assert_eq!((Priority::from_rank(0), Priority::from_rank(4)), (None, None));
    }

    #[test]
    fn words_in_json_are_those_that_are_parsed() {
        fn check<T>(values: &[T])
        where
            T: Serialize
                + for<'de> Deserialize<'de>
                + AsRef<str>
                + FromStr
                + PartialEq
                + fmt::Debug,
            T::Err: fmt::Debug,
        {
            for value in values {
                let json = serde_json::to_value(value).unwrap();
                assert_eq!(json.as_str(), Some(value.as_ref()));
                assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value);
                assert_eq!(&value.as_ref().parse::<T>().unwrap(), value);
            }
        }
        check(Priority::ALL);
        check(Status::ALL);
        check(SortBy::ALL);
        check(SortOrder::ALL);
    }

    #[test]
    fn deserializing_parses() {
        assert_eq!(serde_json::from_str::<Title>("\" a \"").unwrap(), "a");
        assert!(serde_json::from_str::<Title>("\"\"").is_err());
        assert!(serde_json::from_str::<Description>("\"\\u0000\"").is_err());
        assert_eq!(serde_json::from_str::<Limit>("500").unwrap(), Limit::new(500).unwrap());
        assert!(serde_json::from_str::<Limit>("501").is_err());
    }
}
