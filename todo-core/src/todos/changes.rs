//! The changes of a user's todos since a point in time, for clients that keep a copy of them.
//!
//! The log has one entry for each change, numbered without gaps in the order of the commits. An
//! entry has no content: a page has the state of now of each todo that changed. So a client that
//! follows the pages has the user's todos in the end, wherever it began.

use std::{collections::HashSet, fmt};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{
    Limit, Todo, TodoId,
    listing::max_json_len,
    types::{TODO_COLUMNS, todo_columns},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row},
    error::{Error, FieldError, Result},
    parsed::impl_parse,
};

/// Maximum number of entries that a page covers, without a limit.
const DEFAULT_LIMIT: u16 = 500;
/// Size of a page as JSON in bytes at which it ends, although there are more changes.
const PAGE_BYTES: usize = 256 << 10;
/// Maximum size of a change as JSON without its todo, in bytes.
const CHANGE_BYTES: usize = 72;
/// The last kind of entry that is about a todo.
const LAST_TODO_KIND: i16 = 2;

/// A position in the log of a user's changes. Its text is opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeCursor {
    /// Random; another one after a restored backup, whose numbers would be assigned again.
    epoch: String,
    /// The number of the last change before the position.
    number: i64,
}

impl ChangeCursor {
    pub(super) fn new(epoch: String, number: i64) -> Self {
        Self { epoch, number }
    }

    /// Parses the text of a cursor: the `next` of a page of changes.
    ///
    /// # Errors
    /// It is not such a text.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let parse = |text: &str| {
            let (epoch, number) = text.split_once('.')?;
            let is_epoch = (1..=64).contains(&epoch.len())
                && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let is_number =
                (1..=19).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
            let number = number.parse().ok().filter(|_| is_epoch && is_number)?;
            Some(Self { epoch: epoch.to_owned(), number })
        };
        let message = "Since must be the next of a page of changes.";
        parse(text).ok_or_else(|| FieldError::new("since", "invalid", message))
    }
}

impl_parse!(ChangeCursor, FieldError);

impl ChangeCursor {
    /// The position after this number, in the same epoch.
    pub(super) fn at(&self, number: i64) -> Self {
        Self { epoch: self.epoch.clone(), number }
    }

    pub(super) fn number(&self) -> i64 {
        self.number
    }
}

impl fmt::Display for ChangeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl Serialize for ChangeCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A change of one of the user's todos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Change {
    /// The todo is new, changed or restored.
    Todo {
        /// The todo as it is now.
        todo: Box<Todo>,
    },
    /// The todo is gone.
    Deleted {
        /// The todo's id.
        id: TodoId,
    },
}

impl Change {
    /// The kind of the change: `todo` or `deleted`, as its JSON's `type`. Further kinds may follow.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Todo { .. } => "todo",
            Self::Deleted { .. } => "deleted",
        }
    }
}

/// A page of changes, in the order of the last change of each todo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangePage {
    /// The changes; each todo is in it at most once.
    pub changes: Vec<Change>,
    /// The position after the page.
    pub next: ChangeCursor,
    /// Whether there are more changes now.
    pub has_more: bool,
}

/// A page of changes, each with its number.
pub(super) struct NumberedPage {
    pub(super) changes: Vec<(i64, Change)>,
    pub(super) next: ChangeCursor,
    pub(super) has_more: bool,
}

/// Maximum size of a page.
#[derive(Clone, Copy)]
pub(super) struct PageSize {
    /// Entries of the log that it covers.
    pub(super) entries: u16,
    /// Bytes as JSON, unless it has a single change.
    pub(super) bytes: usize,
}

/// The log of a user, and one of its entries, if there is one.
struct LogRow {
    is_authorized: bool,
    epoch: String,
    /// The number of the last change; none if the account does not exist.
    last: Option<i64>,
    /// The number of the first entry in the log.
    first: Option<i64>,
    entry: Option<Entry>,
}

struct Entry {
    number: i64,
    kind: i16,
    id: Option<TodoId>,
    todo: Option<Todo>,
}

impl FromRow for LogRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let entry = match row.get::<Option<i64>>(TODO_COLUMNS + 4)? {
            None => None,
            Some(number) => Some(Entry {
                number,
                kind: row.get(TODO_COLUMNS + 5)?,
                id: row.get::<Option<Uuid>>(TODO_COLUMNS + 6)?.map(TodoId::from),
                todo: match row.get::<Option<Uuid>>(0)? {
                    None => None,
                    Some(_) => Some(Todo::from_row(row)?),
                },
            }),
        };
        Ok(Self {
            is_authorized: row.get(TODO_COLUMNS)?,
            epoch: row.get(TODO_COLUMNS + 1)?,
            last: row.get(TODO_COLUMNS + 2)?,
            first: row.get(TODO_COLUMNS + 3)?,
            entry,
        })
    }
}

/// Returns the changes of the caller's todos since a position: those of up to `limit` entries of
/// the log (500 without one). Without a position, it returns that of now and no changes.
///
/// A client first takes the position of now, then lists all todos, and then follows the changes
/// since that position: what changes during the list is in both.
///
/// # Errors
/// [`Error::CursorExpired`] if the log does not reach back so far: the client then begins anew.
/// [`Error::Unauthenticated`]; else as [`create`](super::create).
pub async fn changes(
    core: &Core,
    caller: &Caller,
    since: Option<ChangeCursor>,
    limit: Option<Limit>,
) -> Result<ChangePage> {
    let entries = limit.map_or(DEFAULT_LIMIT, Limit::as_u16);
    let page = read_page(core, caller, since, PageSize { entries, bytes: PAGE_BYTES }).await?;
    let changes = page.changes.into_iter().map(|(_, change)| change).collect();
    Ok(ChangePage { changes, next: page.next, has_more: page.has_more })
}

/// Reads a page of changes: see [`changes`].
pub(super) async fn read_page(
    core: &Core,
    caller: &Caller,
    since: Option<ChangeCursor>,
    size: PageSize,
) -> Result<NumberedPage> {
    // Always at least one row, which has the state of the log.
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        ", ",
        authorized!(),
        ", (SELECT value FROM meta WHERE name = 'epoch'), \
         (SELECT seq FROM todo_counts WHERE user_id = $1), \
         (SELECT seq FROM changes WHERE user_id = $1 ORDER BY seq LIMIT 1), \
         entry_seq, entry_kind, entry_todo_id \
         FROM (SELECT 1 AS one) AS one \
         LEFT JOIN (SELECT seq AS entry_seq, kind AS entry_kind, todo_id AS entry_todo_id \
         FROM changes WHERE user_id = $1 AND seq > $4 ORDER BY seq LIMIT $5) AS entry ON TRUE \
         LEFT JOIN todos ON todos.id = entry_todo_id AND todos.user_id = $1 \
         ORDER BY entry_seq"
    );
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let (after, limit) = match &since {
            None => (i64::MAX, 0),
            Some(since) => (since.number, i64::from(size.entries)),
        };
        let select = acting_as(caller, SQL).bind(after).bind(limit);
        let rows: Vec<LogRow> = db.fetch(select).await?;
        let Some(log) = rows.first() else { return Err(DbError::NoRow.into()) };
        // A trusted caller's account may not exist.
        let (true, Some(last)) = (log.is_authorized, log.last) else {
            return Err(Error::Unauthenticated);
        };
        let epoch = log.epoch.clone();
        let Some(since) = since else {
            let next = ChangeCursor { epoch, number: last };
            return Ok(NumberedPage { changes: Vec::new(), next, has_more: false });
        };
        let oldest = log.first.map_or(last, |first| first - 1);
        if since.epoch != epoch || since.number < oldest || since.number > last {
            return Err(Error::CursorExpired);
        }
        Ok(page(rows, since, last, size.bytes))
    })
    .await
}

/// The page of these rows, which begin after `since`.
fn page(rows: Vec<LogRow>, since: ChangeCursor, last: i64, max_bytes: usize) -> NumberedPage {
    let mut next = since;
    let mut entries = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    let mut seen = HashSet::new();
    for entry in rows.into_iter().filter_map(|row| row.entry) {
        let is_new = entry.id.is_some_and(|id| seen.insert(id));
        if is_new {
            bytes += entry.todo.as_ref().map_or(0, max_json_len) + CHANGE_BYTES;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
        }
        next.number = entry.number;
        entries.push(entry);
    }
    // Each todo stands where it was changed last.
    seen.clear();
    let mut changes: Vec<(i64, Change)> = entries
        .into_iter()
        .rev()
        .filter(|entry| entry.kind <= LAST_TODO_KIND)
        .filter_map(|entry| {
            let id = entry.id.filter(|id| seen.insert(*id))?;
            let change = match entry.todo {
                Some(todo) => Change::Todo { todo: Box::new(todo) },
                None => Change::Deleted { id },
            };
            Some((entry.number, change))
        })
        .collect();
    changes.reverse();
    let has_more = next.number < last;
    NumberedPage { changes, next, has_more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_back() {
        for text in ["0a1b2c3d4e5f6a7b.0", "x.9223372036854775807"] {
            assert_eq!(ChangeCursor::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            "x.",
            ".1",
            "x",
            "x.-1",
            "x.+1",
            "x.1.2",
            "x y.1",
            "x.\u{661}",
            "x.99999999999999999999",
        ] {
            assert!(ChangeCursor::parse(text).is_err(), "{text}");
        }
    }
}
