//! The types of a list: its query, its filters and its result.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::FieldError,
    parsed::{impl_parse, impl_words},
    todos::{list_version::ListVersion, types::Todo},
};

/// Filter of a list by completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SortOrder {
    /// Smallest first.
    Asc,
    /// Greatest first.
    #[default]
    Desc,
}

impl_words!(Status, "status", "all, pending or completed",
    "all" => All, "pending" => Pending, "completed" => Completed);
impl_words!(SortBy, "sort_by", "created_at, priority or title",
    "created_at" => CreatedAt, "priority" => Priority, "title" => Title);
impl_words!(SortOrder, "order", "asc or desc", "asc" => Asc, "desc" => Desc);

/// The filter and the order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Filters {
    /// The filter by completion.
    pub status: Status,
    /// The sort key.
    pub sort_by: SortBy,
    /// The sort direction.
    pub order: SortOrder,
}

/// The maximum number of todos on a page: 1 to 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
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

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl_parse!(Limit, FieldError);

impl TryFrom<u16> for Limit {
    type Error = FieldError;

    fn try_from(limit: u16) -> Result<Self, FieldError> {
        Self::new(limit)
    }
}

impl From<Limit> for u16 {
    fn from(limit: Limit) -> Self {
        limit.as_u16()
    }
}

/// The query of a list.
///
/// ```
/// use todo_core::todos::{Limit, ListQuery, SortBy, Status};
///
/// let query = ListQuery::new()
///     .status(Status::Pending)
///     .sort_by(SortBy::Priority)
///     .limit(Limit::new(50)?);
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListQuery {
    /// The filter and the order.
    pub filters: Filters,
    /// The size of a page. Without a limit, a list has up to [`super::MAX_UNPAGED`] todos.
    pub limit: Option<Limit>,
    /// The `next_cursor` of the previous page, unaltered, with the same filters.
    pub cursor: Option<String>,
}

impl ListQuery {
    /// All todos, the newest first, without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the filter by completion.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.filters.status = status;
        self
    }

    /// Sets the sort key.
    #[must_use]
    pub fn sort_by(mut self, sort_by: SortBy) -> Self {
        self.filters.sort_by = sort_by;
        self
    }

    /// Sets the sort direction.
    #[must_use]
    pub fn order(mut self, order: SortOrder) -> Self {
        self.filters.order = order;
        self
    }

    /// Sets the size of a page; `None` for no limit.
    #[must_use]
    pub fn limit(mut self, limit: impl Into<Option<Limit>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Continues after the page whose `next_cursor` this is; `None` starts at the first page.
    #[must_use]
    pub fn cursor(mut self, cursor: impl Into<Option<String>>) -> Self {
        self.cursor = cursor.into();
        self
    }
}

/// A list of todos, or one page of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TodoList {
    /// The todos, in the requested order.
    pub todos: Vec<Todo>,
    /// The number of todos that match the filters, on all pages.
    pub total: i64,
    /// The filters of this list, defaults included.
    pub filters_applied: Filters,
    /// The cursor of the next page, or null after the last.
    pub next_cursor: Option<String>,
    /// The version of the list: that of its first chunk. A list that was empty while a todo was
    /// added has none.
    #[serde(skip)]
    pub version: Option<ListVersion>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
