//! The types of a list: its query, its filters and its result.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};

use crate::{
    error::FieldError,
    ids::ListId,
    parsed::{impl_parse, impl_words},
    time_zone::TimeZone,
    todos::{
        filters::{DueBound, DueFilter, Filters, ListFilter},
        highlight::Match,
        list_version::ListVersion,
        search::Search,
        tags::Tag,
        todo::Todo,
    },
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
    /// By due date, the earliest first; a date comes after the times of its day. Todos without one
    /// are last in both directions, by `created_at`.
    Due,
    /// By the user's own order. Todos that were never moved come after the others, by `created_at`.
    Position,
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
impl_words!(SortBy, "sort_by", "created_at, priority, title, due or position",
    "created_at" => CreatedAt, "priority" => Priority, "title" => Title, "due" => Due,
    "position" => Position);
impl_words!(SortOrder, "order", "asc or desc", "asc" => Asc, "desc" => Desc);

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
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListQuery {
    /// The filter and the order.
    pub filters: Filters,
    /// The size of a page. Without a limit, a list has up to [`super::MAX_UNPAGED`] todos.
    pub limit: Option<Limit>,
    /// The `next_cursor` of the previous page, unaltered, with the same filters.
    pub cursor: Option<String>,
    /// Whether the list has its total. Some totals are counted, which reads all todos of the list.
    pub include_total: bool,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { filters: Filters::default(), limit: None, cursor: None, include_total: true }
    }
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

    /// Requires a tag, beside those that are required already.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.filters.tags.push(tag);
        self
    }

    /// Requires at least one of the tags that were given here.
    #[must_use]
    pub fn any_tag(mut self, tag: Tag) -> Self {
        self.filters.any_tags.push(tag);
        self
    }

    /// Sets the filter by due date; `None` for all todos.
    #[must_use]
    pub fn due(mut self, due: impl Into<Option<DueFilter>>) -> Self {
        self.filters.due = due.into();
        self
    }

    /// Requires a due date before this one, which is excluded.
    #[must_use]
    pub fn due_before(mut self, bound: impl Into<Option<DueBound>>) -> Self {
        self.filters.due_before = bound.into();
        self
    }

    /// Requires this due date or a later one.
    #[must_use]
    pub fn due_after(mut self, bound: impl Into<Option<DueBound>>) -> Self {
        self.filters.due_after = bound.into();
        self
    }

    /// Sets the time zone of the filters by due date. Default: UTC.
    #[must_use]
    pub fn time_zone(mut self, zone: impl Into<Option<TimeZone>>) -> Self {
        self.filters.time_zone = zone.into();
        self
    }

    /// Requires a list; `None` is the inbox.
    #[must_use]
    pub fn list(mut self, list: impl Into<Option<ListId>>) -> Self {
        self.filters.list = Some(list.into().map_or(ListFilter::Inbox, ListFilter::List));
        self
    }

    /// Sets the search; `None` for all todos.
    #[must_use]
    pub fn search(mut self, search: impl Into<Option<Search>>) -> Self {
        self.filters.q = search.into();
        self
    }

    /// Sets whether the list has its total. Default: true.
    #[must_use]
    pub fn include_total(mut self, include: bool) -> Self {
        self.include_total = include;
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
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TodoList {
    /// The todos, in the requested order. As JSON, each has its matches as the member `matches`, if
    /// there is a search.
    pub todos: Vec<Todo>,
    /// Where each todo matches the search, in the order of `todos`; empty without a search.
    pub matches: Vec<Vec<Match>>,
    /// The number of todos that match the filters, on all pages; null if it was not requested.
    pub total: Option<i64>,
    /// The filters of this list, defaults included.
    pub filters_applied: Filters,
    /// The cursor of the next page, or null after the last.
    pub next_cursor: Option<String>,
    /// The version of the list: that of its first chunk. A list that was empty while a todo was
    /// added has none.
    pub version: Option<ListVersion>,
}

impl TodoList {
    /// The todos as they are listed in JSON.
    pub(crate) fn listed(&self) -> impl ExactSizeIterator<Item = ListedTodo<'_>> {
        let matches = |index| self.matches.get(index).map(Vec::as_slice);
        self.todos
            .iter()
            .enumerate()
            .map(move |(index, todo)| ListedTodo { todo, matches: matches(index) })
    }
}

/// A todo of a list.
#[derive(Serialize)]
pub(crate) struct ListedTodo<'a> {
    #[serde(flatten)]
    todo: &'a Todo,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<&'a [Match]>,
}

impl Serialize for TodoList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Listed<'a>(&'a TodoList);

        impl Serialize for Listed<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let listed = self.0.listed();
                let mut todos = serializer.serialize_seq(Some(listed.len()))?;
                for todo in listed {
                    todos.serialize_element(&todo)?;
                }
                todos.end()
            }
        }

        #[derive(Serialize)]
        struct Members<'a> {
            todos: Listed<'a>,
            total: Option<i64>,
            filters_applied: &'a Filters,
            next_cursor: &'a Option<String>,
        }

        let Self { total, filters_applied, next_cursor, .. } = self;
        Members { todos: Listed(self), total: *total, filters_applied, next_cursor }
            .serialize(serializer)
    }
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
