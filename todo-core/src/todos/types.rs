//! The types of a todo list, constructed only by parsing: a [`Title`] is always valid.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    db::{
        DbError, FromRow, Row,
        value::{Timestamp, Value},
    },
    error::{Error, FieldError},
    timestamp,
    validate::{self, FieldLabel},
};

/// A todo's title: trimmed, 1 to 200 characters (Unicode scalar values), no U+0000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 200;

    /// Parses a title.
    ///
    /// # Errors
    /// Every rule that the field `title` breaks.
    pub fn parse(title: &str) -> Result<Self, Vec<FieldError>> {
        let title = title.trim();
        if title.is_empty() {
            return Err(FieldError::new("title", "blank", "Title cannot be empty.").into());
        }
        validate::into_result(validate::check_text("title", title, 1, Self::MAX_CHARS), || {
            Self(title.to_owned())
        })
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
    /// Maximum number of characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 1000;

    /// Parses a description.
    ///
    /// # Errors
    /// Every rule that the field `description` breaks.
    pub fn parse(description: &str) -> Result<Self, Vec<FieldError>> {
        let broken = validate::check_text("description", description, 0, Self::MAX_CHARS);
        validate::into_result(broken, || Self(description.to_owned()))
    }

    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How urgent a todo is. Ordered by rank: low, medium, high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
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

impl Priority {
    /// Parses a priority: `low`, `medium` or `high`, in lower case.
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
    /// The owner.
    pub user_id: Uuid,
    /// Trimmed, 1 to 200 characters.
    pub title: String,
    /// Up to 1000 characters.
    #[cfg_attr(feature = "http", schema(required = true))]
    pub description: Option<String>,
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

/// The number of columns of [`todo_columns!`]; further columns of a statement follow them.
pub(crate) const TODO_COLUMNS: usize = 9;

impl FromRow for Todo {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get(0)?,
            user_id: row.get(1)?,
            title: row.get(2)?,
            description: row.get(3)?,
            priority: Priority::from_rank(row.get(4)?).ok_or(DbError::Value("priority"))?,
            completed: row.get(5)?,
            created_at: row.get::<Timestamp>(6)?.0,
            updated_at: row.get::<Timestamp>(7)?.0,
            completed_at: row.get::<Option<Timestamp>>(8)?.map(|timestamp| timestamp.0),
        })
    }
}

/// The data of a new todo, or of a replacement.
#[derive(Clone, Debug)]
pub struct NewTodo {
    /// The title.
    pub title: Title,
    /// The description, if any.
    pub description: Option<Description>,
    /// The priority.
    pub priority: Priority,
}

/// A partial update (RFC 7396); a field that is `None` is unchanged.
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
    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.title.is_none() && self.description.is_none() && self.priority.is_none()
    }
}

/// Filter of a list by completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All todos.
    #[default]
    All,
    /// Todos that are not completed.
    Pending,
    /// Completed todos.
    Completed,
}

/// The sort key of a list; ties are sorted by `created_at`, then `id`, in the same direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    /// By creation time.
    #[default]
    CreatedAt,
    /// By rank, low to high.
    Priority,
    /// By title in Unicode lower case, in code point order.
    Title,
}

/// The sort direction of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "http", schema(as = Order))]
#[serde(rename_all = "snake_case")]
pub enum SortOrder {
    /// Smallest first.
    Asc,
    /// Greatest first.
    #[default]
    Desc,
}

/// Implements `parse` for an enum of fixed strings.
macro_rules! string_enum {
    ($type:ident, $field:literal, $allowed:literal, $($word:literal => $value:ident),+) => {
        impl $type {
            /// Every value.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$value),+];

            #[doc = concat!("Parses a string: ", $allowed, ".")]
            ///
            /// # Errors
            #[doc = concat!("The [`FieldError`] of the field `", $field, "`.")]
            pub fn parse(word: &str) -> Result<Self, FieldError> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => {
                        let message = format!(concat!("{} must be ", $allowed, "."), FieldLabel($field));
                        Err(FieldError::new($field, "invalid", message))
                    }
                }
            }
        }
    };
}
string_enum!(Status, "status", "all, pending or completed",
    "all" => All, "pending" => Pending, "completed" => Completed);
string_enum!(SortBy, "sort_by", "created_at, priority or title",
    "created_at" => CreatedAt, "priority" => Priority, "title" => Title);
string_enum!(SortOrder, "order", "asc or desc", "asc" => Asc, "desc" => Desc);

/// The filter and the order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Filters {
    /// The filter by completion.
    pub status: Status,
    /// The sort key.
    pub sort_by: SortBy,
    /// The sort direction.
    pub order: SortOrder,
}

/// The maximum number of todos on a page: 1 to 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The largest limit.
    pub const MAX: u16 = 500;

    /// Creates a limit.
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

/// The query of a list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// The filter and the order.
    pub filters: Filters,
    /// The size of a page. Without a limit, a list has up to [`super::MAX_UNPAGED`] todos.
    pub limit: Option<Limit>,
    /// The `next_cursor` of the previous page, unaltered, with the same filters.
    pub cursor: Option<String>,
}

/// A list of todos, or one page of it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct TodoList {
    /// The todos, in the requested order.
    pub todos: Vec<Todo>,
    /// The number of todos that match the filters, on all pages.
    pub total: i64,
    /// The filters of this list, defaults included.
    pub filters_applied: Filters,
    /// The cursor of the next page, or null after the last.
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
    fn limits_are_plain_numbers_in_range() {
        for valid in ["1", "50", "500", "0500"] {
            assert!(Limit::parse(valid).is_ok(), "{valid}");
        }
        for bad in ["", "0", "501", "-1", "+1", "1.0", " 1", "x", "99999999999999999999"] {
            assert_eq!(Limit::parse(bad).unwrap_err().code, "out_of_range", "{bad}");
        }
    }
}
