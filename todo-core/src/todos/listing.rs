//! A list read in chunks of bounded size. Each chunk is one page after the last key, so the memory
//! of a list does not grow with the number of its todos.

use std::collections::HashSet;

use super::{
    MAX_UNPAGED,
    cursor::Position,
    list_query::{self, STATE_COLUMNS},
    list_types::{Filters, Limit, ListQuery, SortBy, Status, TodoList},
    list_version::{ListVersion, QueryHash, version_in},
    types::{Description, TODO_COLUMNS, Todo},
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
/// Maximum size of a todo as JSON without its texts, in bytes.
const TODO_OVERHEAD_BYTES: usize = 340;

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
    /// The position of the last chunk's end.
    after: Option<Position>,
    /// The number of todos that the list may still return.
    left: u16,
    /// Whether the query has a limit.
    is_limited: bool,
    /// The maximum number of rows of the next statement.
    rows: u16,
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
    /// [`Error::Invalid`] if the cursor was altered or belongs to another list.
    pub fn new(core: &Core, caller: &Caller, query: ListQuery) -> Result<Self> {
        let hash = QueryHash::of(&query);
        let ListQuery { filters, limit, cursor } = query;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let position = Position::unseal(&cursor, core.tokens(), caller.user_id(), filters);
                Some(position.ok_or_else(|| Error::from(bad_cursor()))?)
            }
        };
        Ok(Self {
            core: core.clone(),
            caller: *caller,
            filters,
            after,
            left: limit.map_or(MAX_UNPAGED, Limit::as_u16),
            is_limited: limit.is_some(),
            rows: CHUNK_ROWS,
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
    /// [`Error::Unauthenticated`] if the caller's session has ended, also between two chunks; else
    /// the errors of every operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
    /// The call can be repeated after an error.
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
        let filters = self.filters;
        let caller = self.caller;
        let size = self.left.min(self.rows);
        let db = self.core.db();
        let work = self.core.clone();
        // One row more than the size shows whether the list continues.
        let rows = i64::from(size) + 1;
        let page = list_query::page(db.dialect(), caller, filters, rows, self.after.as_ref());
        let page = self.core.read(caller.user_id(), async move {
            let mut page: Page = db.fetch(page).await?;
            if page.todos.is_empty() {
                let counted = Box::pin(count(&work, caller, filters.status)).await?;
                page.total = counted.total;
                // The state of now is that of the page only if the list is still empty.
                if page.total == 0 {
                    page.epoch = counted.epoch;
                    page.number = counted.number;
                }
            }
            Ok(page)
        });
        let Page { mut todos, total, epoch, number, bytes, is_full } = page.await?;
        let total = *self.total.get_or_insert(total);
        let query = self.query;
        let version = self.version.get_or_insert_with(|| version_in(epoch, number, query)).clone();
        let has_more = is_full || todos.len() > usize::from(size);
        todos.truncate(usize::from(size));
        if is_full {
            let kept = u16::try_from(todos.len()).unwrap_or(CHUNK_ROWS);
            self.rows = kept.saturating_mul(2).clamp(MIN_ROWS, CHUNK_ROWS);
        } else {
            self.rows = self.rows.saturating_mul(2).min(CHUNK_ROWS);
        }
        if let Some(last) = todos.last() {
            self.after = Some(Position::of(last, filters.sort_by));
        }
        // A changed title or priority can move a todo, which would then be returned again;
        // `created_at` never changes.
        if filters.sort_by != SortBy::CreatedAt && (has_more || !self.seen.is_empty()) {
            todos.retain(|todo| self.seen.insert(todo.id));
        }
        let listed = u16::try_from(todos.len()).unwrap_or(self.left);
        self.left = self.left.saturating_sub(listed);
        self.is_done = !has_more || self.left == 0;
        self.bytes = bytes;
        let next_cursor = self
            .after
            .as_ref()
            .filter(|_| has_more)
            .map(|position| position.seal(self.core.tokens(), caller.user_id(), filters));
        Ok(TodoList { todos, total, filters_applied: filters, next_cursor, version })
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
    total: i64,
    /// The state of the user's todos.
    epoch: Option<String>,
    number: Option<i64>,
    bytes: usize,
    is_full: bool,
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
            self.total = row.get(TODO_COLUMNS + STATE_COLUMNS)?;
        } else if self.bytes + bytes > CHUNK_BYTES {
            self.is_full = true;
            return Ok(());
        }
        self.bytes += bytes;
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
}

/// Maximum size of a text as JSON (RFC 8259, section 7), in bytes.
fn json_len(text: &str) -> usize {
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
    total: i64,
    epoch: Option<String>,
    number: Option<i64>,
}

impl FromRow for Counted {
    fn from_row(row: &Row<'_>) -> std::result::Result<Self, DbError> {
        Ok(Self {
            is_authorized: row.get(0)?,
            total: row.get(1)?,
            epoch: row.get(2)?,
            number: row.get(3)?,
        })
    }
}

/// Counts the todos of an empty page; fails if the session has ended.
async fn count(core: &Core, caller: Caller, status: Status) -> Result<Counted> {
    let db = core.db();
    let counted: Counted = db.fetch_one(list_query::total(db.dialect(), caller, status)).await?;
    if counted.is_authorized { Ok(counted) } else { Err(Error::Unauthenticated) }
}

/// The field error for an invalid cursor.
fn bad_cursor() -> FieldError {
    let message = "Cursor must be the next_cursor of a list with the same filters.";
    FieldError::new("cursor", "invalid", message)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
