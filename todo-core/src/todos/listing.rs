//! A list read in chunks of bounded size. Each chunk is one page after the last key, so the memory
//! of a list does not grow with the number of its todos.

use std::collections::HashSet;

use super::{
    Description, MAX_UNPAGED,
    cursor::Position,
    filters::Filters,
    highlight::{self, Match},
    list_query::{self, Selection},
    list_types::{Limit, ListQuery, SortBy, TodoList},
    list_version::{ListVersion, QueryHash, version_in},
    todo::{TODO_COLUMNS, Todo},
    unfolded,
};
use crate::{
    authz::Caller,
    core::Core,
    db::{DbError, FromRow, FromRows, Row},
    error::{Error, FieldError, Result},
    ids::TodoId,
};

/// Maximum number of todos in a chunk.
const CHUNK_ROWS: u16 = 500;
/// Maximum size of a chunk as JSON in bytes, unless it is a single todo.
const CHUNK_BYTES: usize = 256 << 10;
/// Minimum number of rows of a statement after a chunk that reached [`CHUNK_BYTES`].
const MIN_ROWS: u16 = 16;
/// Maximum size of todos, as JSON in bytes, whose matches are found on the request's worker.
const MAX_INLINE_BYTES: usize = 32 << 10;
/// Maximum size of a todo as JSON without its texts, in bytes.
const TODO_OVERHEAD_BYTES: usize = 410;
/// Size of an id as JSON in bytes, instead of null.
const ID_BYTES: usize = 34;
/// Maximum size of a due date and of a recurrence's frame as JSON, in bytes.
const DUE_BYTES: usize = 160;
/// Maximum size of a reminder as JSON, in bytes.
const REMINDER_BYTES: usize = 27;

/// A list that is read in chunks: see [`Listing::next`].
///
/// Chunks are separate reads, not one snapshot. A todo that exists throughout and keeps its
/// position is returned exactly once, and no todo is returned twice, whatever is inserted, changed
/// or deleted meanwhile.
///
/// ```
/// use todo_core::{Core, Error, auth::Caller, todos::{ListQuery, Listing}};
///
/// async fn titles(core: &Core, caller: &Caller) -> Result<Vec<String>, Error> {
///     let mut listing = Listing::new(core, caller, ListQuery::new())?;
///     let mut titles = Vec::new();
///     while let Some(chunk) = listing.next().await? {
///         titles.extend(chunk.todos.into_iter().map(|todo| todo.title.into()));
///     }
///     Ok(titles)
/// }
/// ```
pub struct Listing {
    core: Core,
    caller: Caller,
    filters: Filters,
    selection: Selection,
    /// The position of the last chunk's end.
    after: Option<Position>,
    /// The number of todos that the list may still return.
    left: u16,
    /// Whether the query has a limit.
    is_limited: bool,
    /// The maximum number of rows of the next statement.
    rows: u16,
    /// Whether the list has a total that is not known yet.
    counts: bool,
    /// The total of the first chunk.
    total: Option<i64>,
    query: QueryHash,
    /// The version of the first chunk, once it is read; it may have none.
    version: Option<Option<ListVersion>>,
    /// The ids of the returned todos, if a change can move a todo to a later chunk.
    seen: HashSet<TodoId>,
    is_done: bool,
    bytes: usize,
}

impl Listing {
    /// Creates the listing, without a read.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the cursor was altered or belongs to another list, or if there are too
    /// many tags.
    pub fn new(core: &Core, caller: &Caller, query: ListQuery) -> Result<Self> {
        query.filters.check()?;
        // One time for all chunks.
        let now = core.now();
        let hash = QueryHash::of(&query, now);
        let ListQuery { filters, limit, cursor, include_total } = query;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let position = Position::unseal(&cursor, core.tokens(), caller.user_id(), &filters);
                Some(position.ok_or_else(|| Error::from(bad_cursor()))?)
            }
        };
        Ok(Self {
            core: core.clone(),
            caller: *caller,
            selection: Selection::of(&filters, now),
            filters,
            after,
            left: limit.map_or(MAX_UNPAGED, Limit::as_u16),
            is_limited: limit.is_some(),
            rows: CHUNK_ROWS,
            counts: include_total,
            total: None,
            query: hash,
            version: None,
            seen: HashSet::new(),
            is_done: false,
            bytes: 0,
        })
    }

    /// Reads the next chunk with one statement: at most 500 todos, and at most 256 KiB of JSON.
    /// Returns `None` after the last chunk. A list without todos has one empty chunk.
    ///
    /// The `total` of each chunk is that of the first; its `next_cursor` continues after the chunk.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the caller's session has ended, also between two chunks;
    /// [`Error::Unavailable`] while [`jobs::run_due`](crate::jobs::run_due) prepares many todos of
    /// an older version for searches; else the errors of every operation: [`Error::Busy`],
    /// [`Error::Unavailable`], [`Error::Internal`]. The call can be repeated after an error.
    pub async fn next(&mut self) -> Result<Option<TodoList>> {
        while !self.is_done {
            let chunk = self.read().await?;
            if !chunk.todos.is_empty() || self.is_done {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// As [`Listing::next`], but a listing without a limit continues after [`MAX_UNPAGED`] todos.
    pub(crate) async fn next_of_all(&mut self) -> Result<Option<TodoList>> {
        let chunk = self.next().await?;
        if self.is_done
            && !self.is_limited
            && chunk.as_ref().is_some_and(|c| c.next_cursor.is_some())
        {
            self.left = MAX_UNPAGED;
            self.is_done = false;
        }
        Ok(chunk)
    }

    /// Whether the last chunk was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The size of the last chunk as JSON in bytes, rather over- than underestimated.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.bytes
    }

    async fn read(&mut self) -> Result<TodoList> {
        let caller = self.caller;
        let size = self.left.min(self.rows);
        let Page { mut todos, total, epoch, number, bytes, is_full, places, unfolded } =
            self.read_page(size).await?;
        if unfolded > 0 {
            // Nothing is listed before: the search does not find all todos yet.
            unfolded::fold_few(&self.core, caller, unfolded).await?;
            return Ok(self.chunk(Vec::new(), Vec::new(), None));
        }
        if self.counts {
            self.total = total;
            self.counts = false;
        }
        let query = self.query;
        self.version.get_or_insert_with(|| version_in(epoch, number, query));
        let mut has_more = is_full || todos.len() > usize::from(size);
        todos.truncate(usize::from(size));
        self.bytes = bytes;
        let mut matches = self.matches(&todos, bytes).await;
        let kept = self.fit(&todos, &matches);
        has_more |= kept < todos.len();
        todos.truncate(kept);
        matches.truncate(kept);
        if is_full {
            let kept = u16::try_from(todos.len()).unwrap_or(CHUNK_ROWS);
            self.rows = kept.saturating_mul(2).clamp(MIN_ROWS, CHUNK_ROWS);
        } else {
            self.rows = self.rows.saturating_mul(2).min(CHUNK_ROWS);
        }
        if let Some(last) = todos.last() {
            let place = places.into_iter().nth(todos.len() - 1).flatten();
            self.after = Some(Position::of(last, place, self.filters.sort_by));
        }
        self.leave_out_seen(&mut todos, &mut matches, has_more);
        let listed = u16::try_from(todos.len()).unwrap_or(self.left);
        self.left = self.left.saturating_sub(listed);
        self.is_done = !has_more || self.left == 0;
        let next_cursor = self
            .after
            .as_ref()
            .filter(|_| has_more)
            .map(|position| position.seal(self.core.tokens(), caller.user_id(), &self.filters));
        Ok(self.chunk(todos, matches, next_cursor))
    }

    /// Reads up to one row more than `size`, which shows whether the list continues.
    async fn read_page(&self, size: u16) -> Result<Page> {
        let Self { caller, counts, .. } = *self;
        let db = self.core.db();
        let dialect = db.dialect();
        let rows = i64::from(size) + 1;
        let after = self.after.as_ref();
        let page = list_query::page(dialect, caller, &self.selection, rows, after, counts);
        // For an empty page.
        let total = list_query::total(dialect, caller, &self.selection, counts);
        self.core
            .read(caller.user_id(), async move {
                let mut page: Page = db.fetch(page).await?;
                if page.todos.is_empty() {
                    let counted: Counted = Box::pin(db.fetch_one(total)).await?;
                    if !counted.is_authorized {
                        return Err(Error::Unauthenticated);
                    }
                    page.total = counted.total;
                    page.unfolded = counted.unfolded;
                    // The state of now is that of the page only if the list is still empty.
                    if page.total == Some(0) {
                        page.epoch = counted.epoch;
                        page.number = counted.number;
                    }
                }
                Ok(page)
            })
            .await
    }

    /// The places of the terms of a search in each todo.
    async fn matches(&self, todos: &[Todo], bytes: usize) -> Vec<Vec<Match>> {
        let Some(search) = self.selection.search() else { return Vec::new() };
        if bytes <= MAX_INLINE_BYTES {
            return todos.iter().map(|todo| highlight::matches(todo, search)).collect();
        }
        let (todos, search) = (todos.to_vec(), search.clone());
        let all = move || todos.iter().map(|todo| highlight::matches(todo, &search)).collect();
        // A panic there is a bug: the todos are then listed without their matches.
        tokio::task::spawn_blocking(all).await.unwrap_or_default()
    }

    /// The number of todos whose JSON is at most [`CHUNK_BYTES`] with their matches; at least one.
    fn fit(&mut self, todos: &[Todo], matches: &[Vec<Match>]) -> usize {
        if matches.is_empty() {
            return todos.len();
        }
        let mut bytes = 0;
        let mut kept = 0;
        for (todo, matches) in todos.iter().zip(matches) {
            let size = max_json_len(todo) + highlight::max_json_len(matches);
            if kept > 0 && bytes + size > CHUNK_BYTES {
                break;
            }
            bytes += size;
            kept += 1;
        }
        self.bytes = bytes;
        kept
    }

    /// Removes the todos that were listed before. A change can move a todo, which would then be
    /// returned again; `created_at` never changes.
    fn leave_out_seen(
        &mut self,
        todos: &mut Vec<Todo>,
        matches: &mut Vec<Vec<Match>>,
        has_more: bool,
    ) {
        if self.filters.sort_by == SortBy::CreatedAt || (!has_more && self.seen.is_empty()) {
            return;
        }
        let is_new: Vec<bool> = todos.iter().map(|todo| self.seen.insert(todo.id)).collect();
        let mut of_todos = is_new.iter();
        todos.retain(|_| of_todos.next() == Some(&true));
        let mut of_matches = is_new.iter();
        matches.retain(|_| of_matches.next() == Some(&true));
    }

    fn chunk(
        &self,
        todos: Vec<Todo>,
        matches: Vec<Vec<Match>>,
        next_cursor: Option<String>,
    ) -> TodoList {
        let version = self.version.clone().flatten();
        let filters_applied = self.filters.clone();
        TodoList { todos, matches, total: self.total, filters_applied, next_cursor, version }
    }
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("filters", &self.filters).finish_non_exhaustive()
    }
}

/// The rows of a page: todos, each with the list's total. It is full at [`CHUNK_BYTES`].
#[derive(Default)]
struct Page {
    todos: Vec<Todo>,
    total: Option<i64>,
    /// The state of the user's todos.
    epoch: Option<String>,
    number: Option<i64>,
    bytes: usize,
    is_full: bool,
    /// The places of the todos in the user's own order.
    places: Vec<Option<String>>,
    /// The number of the user's todos that a search does not find yet.
    unfolded: i64,
}

impl FromRows for Page {
    fn push(&mut self, row: &Row<'_>) -> std::result::Result<(), DbError> {
        if self.is_full {
            return Ok(());
        }
        let todo = Todo::from_row(row)?;
        let bytes = max_json_len(&todo);
        if self.todos.is_empty() {
            self.epoch = row.get(TODO_COLUMNS)?;
            self.number = row.get(TODO_COLUMNS + 1)?;
            self.total = row.get(TODO_COLUMNS + 2)?;
            self.unfolded = row.get(TODO_COLUMNS + 4)?;
        } else if self.bytes + bytes > CHUNK_BYTES {
            self.is_full = true;
            return Ok(());
        }
        self.bytes += bytes;
        self.places.push(row.get(TODO_COLUMNS + 3)?);
        self.todos.push(todo);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_full
    }
}

/// Maximum size of a todo as JSON, in bytes.
pub(super) fn max_json_len(todo: &Todo) -> usize {
    TODO_OVERHEAD_BYTES
        + json_len(todo.title.as_str())
        + todo.description.as_ref().map(Description::as_str).map(json_len).unwrap_or_default()
        + todo.tags.iter().map(|tag| json_len(tag.as_str()) + 3).sum::<usize>()
        + todo.due.as_ref().map_or(0, |_| DUE_BYTES)
        + todo
            .recurrence
            .as_ref()
            .map_or(0, |recurrence| DUE_BYTES + json_len(recurrence.rule.as_str()))
        + todo.reminders.len() * REMINDER_BYTES
        + todo.list_id.map_or(0, |_| ID_BYTES)
}

/// Maximum size of a text as JSON (RFC 8259, section 7), in bytes.
pub(super) fn json_len(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    bytes.sum()
}

/// The total for an empty page, and the state of the user's todos.
struct Counted {
    is_authorized: bool,
    total: Option<i64>,
    epoch: Option<String>,
    number: Option<i64>,
    unfolded: i64,
}

impl FromRow for Counted {
    fn from_row(row: &Row<'_>) -> std::result::Result<Self, DbError> {
        Ok(Self {
            is_authorized: row.get(0)?,
            total: row.get(1)?,
            epoch: row.get(2)?,
            number: row.get(3)?,
            unfolded: row.get(4)?,
        })
    }
}

/// The field error for an invalid cursor.
fn bad_cursor() -> FieldError {
    let message = "Cursor must be the next_cursor of a list with the same filters.";
    FieldError::new("cursor", "invalid", message)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
