//! The words of a todo list, each built only by parsing: whoever holds a [`Title`] holds a good one.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    db::{Fault, FromRow, Row, Value, columns::Stamp},
    error::{Error, FieldError},
    text::{self, Named},
    timestamp,
};

/// A todo's title: trimmed, 1 to 200 characters (Unicode scalar values), no U+0000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// Parses a title.
    ///
    /// # Errors
    /// Every rule that the field `title` breaks.
    pub fn parse(title: &str) -> Result<Self, Vec<FieldError>> {
        let title = title.trim();
        if title.is_empty() {
            return Err(FieldError::new("title", "blank", "Title cannot be empty.").into());
        }
        text::unless(text::broken("title", title, 1, 200), || Self(title.to_owned()))
    }

    /// The title as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A todo's description: up to 1000 characters (Unicode scalar values), no U+0000. Not trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

impl Description {
    /// Parses a description.
    ///
    /// # Errors
    /// Every rule that the field `description` breaks.
    pub fn parse(description: &str) -> Result<Self, Vec<FieldError>> {
        let broken = text::broken("description", description, 0, 1000);
        text::unless(broken, || Self(description.to_owned()))
    }

    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How urgent a todo is. Ordered by rank: low, medium, high.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type,
)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Priority {
    /// Can wait.
    Low = 1,
    /// The default.
    #[default]
    Medium = 2,
    /// Comes first.
    High = 3,
}

impl Priority {
    /// Parses one of the three words, in lower case.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `priority`.
    pub fn parse(priority: &str) -> Result<Self, FieldError> {
        match priority {
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            _ => {
                let message = "Priority must be high, medium or low.";
                Err(FieldError::new("priority", "invalid", message))
            }
        }
    }
}

impl From<Priority> for Value {
    fn from(priority: Priority) -> Self {
        Self::Rank(Some(priority as i16))
    }
}

impl From<Option<Priority>> for Value {
    fn from(priority: Option<Priority>) -> Self {
        Self::Rank(priority.map(|priority| priority as i16))
    }
}

#[cfg(feature = "sqlite")]
impl rusqlite::types::FromSql for Priority {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        match value.as_i64()? {
            1 => Ok(Self::Low),
            2 => Ok(Self::Medium),
            3 => Ok(Self::High),
            other => Err(rusqlite::types::FromSqlError::OutOfRange(other)),
        }
    }
}

/// One todo, as stored and as sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "http", schema(example = json!({
    "id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
    "user_id": "01938c6e-90b2-7c33-9a65-1d9b7a52c0de",
    "title": "Buy milk",
    "description": "two litres",
    "priority": "high",
    "completed": false,
    "created_at": "2026-11-23T09:30:00.123456Z",
    "updated_at": "2026-11-23T09:30:00.123456Z",
    "completed_at": null
})))]
#[non_exhaustive]
pub struct Todo {
    /// A UUIDv7.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Trimmed, 1 to 200 characters.
    pub title: String,
    /// Up to 1000 characters.
    #[cfg_attr(feature = "http", schema(required = true))]
    pub description: Option<String>,
    /// `high`, `medium` or `low`.
    pub priority: Priority,
    /// Whether it is done.
    pub completed: bool,
    /// When it was made.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it last changed; moves forward, strictly, with every change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
    /// When it was first completed since it was last open.
    #[cfg_attr(feature = "http", schema(required = true))]
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

/// How many columns [`todo_columns!`] names: what a statement adds comes behind them.
pub(crate) const TODO_COLUMNS: usize = 9;

impl FromRow for Todo {
    fn from_row(row: &Row<'_>) -> Result<Self, Fault> {
        Ok(Self {
            id: row.get(0)?,
            user_id: row.get(1)?,
            title: row.get(2)?,
            description: row.get(3)?,
            priority: row.get(4)?,
            completed: row.get(5)?,
            created_at: row.get::<Stamp>(6)?.0,
            updated_at: row.get::<Stamp>(7)?.0,
            completed_at: row.get::<Option<Stamp>>(8)?.map(|stamp| stamp.0),
        })
    }
}

/// A todo to be made, or to replace one.
#[derive(Clone, Debug)]
pub struct NewTodo {
    /// What is to be done.
    pub title: Title,
    /// More about it.
    pub description: Option<Description>,
    /// How urgent it is.
    pub priority: Priority,
}

/// What a partial update changes; `None` keeps (RFC 7396).
#[derive(Clone, Debug, Default)]
pub struct TodoPatch {
    /// A new title.
    pub title: Option<Title>,
    /// `Some(None)` clears the description.
    pub description: Option<Option<Description>>,
    /// A new priority.
    pub priority: Option<Priority>,
}

impl TodoPatch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.title.is_none() && self.description.is_none() && self.priority.is_none()
    }
}

/// Which todos a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All of them.
    #[default]
    All,
    /// Those not completed.
    Pending,
    /// Those completed.
    Completed,
}

/// What a list is sorted by; ties go by `created_at`, then `id`, in the same direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    /// When it was made.
    #[default]
    CreatedAt,
    /// Its rank, low to high.
    Priority,
    /// Its title in Unicode lower case, in code point order.
    Title,
}

/// In which direction a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Smallest first.
    Asc,
    /// Greatest first.
    #[default]
    Desc,
}

/// Parses each of a small set of words.
macro_rules! words {
    ($type:ident, $field:literal, $allowed:literal, $($word:literal => $value:ident),+) => {
        impl $type {
            #[doc = concat!("Parses a word: ", $allowed, ".")]
            ///
            /// # Errors
            #[doc = concat!("The [`FieldError`] of the field `", $field, "`.")]
            pub fn parse(word: &str) -> Result<Self, FieldError> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => {
                        let message = format!(concat!("{} must be ", $allowed, "."), Named($field));
                        Err(FieldError::new($field, "invalid", message))
                    }
                }
            }
        }
    };
}
words!(Status, "status", "all, pending or completed",
    "all" => All, "pending" => Pending, "completed" => Completed);
words!(SortBy, "sort_by", "created_at, priority or title",
    "created_at" => CreatedAt, "priority" => Priority, "title" => Title);
words!(Order, "order", "asc or desc", "asc" => Asc, "desc" => Desc);

/// What a list is of and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Filters {
    /// Which todos.
    pub status: Status,
    /// Sorted by what.
    pub sort_by: SortBy,
    /// In which direction.
    pub order: Order,
}

/// How many todos a page holds at most: 1 to 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The most that a page can be asked to hold.
    pub const MAX: u16 = 500;

    /// A limit.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `limit`, unless it is 1 to 500.
    pub fn new(limit: u16) -> Result<Self, FieldError> {
        if (1..=Self::MAX).contains(&limit) {
            return Ok(Self(limit));
        }
        Err(FieldError::new("limit", "out_of_range", "Limit must be a whole number from 1 to 500."))
    }

    /// Parses a limit written in decimal digits.
    ///
    /// # Errors
    /// As [`Limit::new`].
    pub fn parse(limit: &str) -> Result<Self, FieldError> {
        let digits = !limit.is_empty() && limit.bytes().all(|b| b.is_ascii_digit());
        Self::new(limit.parse().ok().filter(|_| digits).unwrap_or(0))
    }

    /// The limit as a number.
    #[must_use]
    pub fn as_u16(self) -> u16 {
        self.0
    }
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Which todos, in which order.
    pub filters: Filters,
    /// The size of a page. Without a limit, a list runs to [`super::FULL_LIST`] todos.
    pub limit: Option<Limit>,
    /// Where the last page ended: its `next_cursor`, unaltered, with the same filters.
    pub cursor: Option<String>,
}

/// A list, or one page of it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct TodoList {
    /// The todos, in the order asked for.
    pub todos: Vec<Todo>,
    /// How many todos match the filters, on this page or not.
    pub total: i64,
    /// The filters as understood.
    pub filters_applied: Filters,
    /// Asks for the rest, if there is more.
    #[cfg_attr(feature = "http", schema(required = true))]
    pub next_cursor: Option<String>,
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&str> for Title {
    type Error = Error;

    fn try_from(title: &str) -> Result<Self, Error> {
        Self::parse(title).map_err(Error::invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes<T>(parsed: Result<T, Vec<FieldError>>) -> Vec<&'static str> {
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
    fn words_are_exact() {
        assert_eq!(Priority::parse("high"), Ok(Priority::High));
        assert!(Priority::parse("High").is_err() && Priority::parse("").is_err());
        assert!(Priority::Low < Priority::Medium && Priority::Medium < Priority::High);
        assert_eq!(SortBy::parse("created_at"), Ok(SortBy::CreatedAt));
        assert!(Status::parse("done").is_err() && Order::parse("up").is_err());
    }

    #[test]
    fn limits_are_plain_numbers_in_range() {
        for good in ["1", "50", "500", "0500"] {
            assert!(Limit::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "501", "-1", "+1", "1.0", " 1", "x", "99999999999999999999"] {
            assert_eq!(Limit::parse(bad).unwrap_err().code, "out_of_range", "{bad}");
        }
    }
}
