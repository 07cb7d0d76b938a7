//! The changes of a user's todos, tags and lists since a point in time, for clients that keep a
//! copy of them.
//!
//! The log has one entry for each change, numbered without gaps in the order of the commits. An
//! entry has no content: a page has the state of now of each todo that changed. So a client that
//! follows the pages has the user's todos in the end, wherever it began.

use std::{collections::HashSet, fmt};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{
    FiredReminder, Limit, List, ListId, ReminderId, Tag, TagCount, Todo, TodoId,
    fired::{fired_columns, fired_reminders},
    listing::{json_len, max_json_len},
    lists::list_at,
    tag_list::tag_count,
    todo::{TODO_COLUMNS, todo_columns},
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
/// Maximum size of a change as JSON without its todo, or without names, in bytes.
const CHANGE_BYTES: usize = 72;
const TAG_BYTES: usize = 160;
const LIST_BYTES: usize = 384;
const REMINDER_BYTES: usize = 300;
/// The kinds of entries that are about a todo, a tag, a reminder and a list.
const TODO: i16 = 1;
const DELETED: i16 = 2;
const TAG: i16 = 3;
const REMINDER: i16 = 4;
const LIST: i16 = 5;

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

/// A change of one of the user's todos, tags or lists.
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
    /// A todo has the tag, and none had it before, or none has it any more. The numbers of its
    /// todos change with these, without an entry.
    Tag {
        /// The tag.
        name: Tag,
        /// The numbers of its todos now; null if there are none.
        tag: Option<TagCount>,
    },
    /// The list is new, changed or gone. If it is gone, so are its todos, whose changes follow.
    List {
        /// The list's id.
        id: ListId,
        /// The list as it is now; null if it is gone.
        list: Option<Box<List>>,
    },
    /// A reminder has fired.
    Reminder {
        /// The reminder.
        reminder: FiredReminder,
    },
}

impl Change {
    /// The kind of the change: `todo`, `deleted`, `tag`, `list` or `reminder`, as its JSON's
    /// `type`. Further kinds may follow.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Todo { .. } => "todo",
            Self::Deleted { .. } => "deleted",
            Self::Tag { .. } => "tag",
            Self::List { .. } => "list",
            Self::Reminder { .. } => "reminder",
        }
    }
}

/// A page of changes, in the order of the last change of each thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangePage {
    /// The changes; each todo, tag and list is in it at most once.
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

/// An entry of the log, with the state of now of what it is about.
struct Entry {
    number: i64,
    /// None of a kind that a newer version has added: it may run already.
    change: Option<(Subject, Change)>,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Todo(TodoId),
    Tag(String),
    List(ListId),
    Reminder(ReminderId),
}

/// The number of columns of an entry, which are followed by those of a tag, a list and a reminder.
const ENTRY_COLUMNS: usize = 5;
/// The first columns behind those of a todo: the state of the log, an entry, a tag, a list, a
/// reminder.
const STATE_AT: usize = TODO_COLUMNS;
const ENTRY_AT: usize = STATE_AT + 4;
const TAG_AT: usize = ENTRY_AT + ENTRY_COLUMNS;
const LIST_AT: usize = TAG_AT + 3;
const REMINDER_AT: usize = LIST_AT + 7;

impl FromRow for LogRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            is_authorized: row.get(STATE_AT)?,
            epoch: row.get(STATE_AT + 1)?,
            last: row.get(STATE_AT + 2)?,
            first: row.get(STATE_AT + 3)?,
            entry: match row.get(ENTRY_AT)? {
                None => None,
                Some(number) => Some(Entry::from_row(number, row)?),
            },
        })
    }
}

impl Entry {
    fn from_row(number: i64, row: &Row<'_>) -> Result<Self, DbError> {
        let kind: i16 = row.get(ENTRY_AT + 1)?;
        let change = match kind {
            TODO | DELETED => {
                let id: TodoId = row.get::<Uuid>(ENTRY_AT + 2)?.into();
                let change = match row.get::<Option<Uuid>>(0)? {
                    None => Change::Deleted { id },
                    Some(_) => Change::Todo { todo: Box::new(Todo::from_row(row)?) },
                };
                Some((Subject::Todo(id), change))
            }
            TAG => {
                let name: String = row.get(ENTRY_AT + 3)?;
                let tag = tag_count(row, TAG_AT)?;
                let change = Change::Tag { name: Tag::from_stored(name.clone()), tag };
                Some((Subject::Tag(name), change))
            }
            LIST => {
                let id: ListId = row.get::<Uuid>(ENTRY_AT + 4)?.into();
                let list = list_at(row, LIST_AT)?.map(Box::new);
                Some((Subject::List(id), Change::List { id, list }))
            }
            REMINDER => FiredReminder::read(row, REMINDER_AT)?
                .map(|reminder| (Subject::Reminder(reminder.id), Change::Reminder { reminder })),
            _ => None,
        };
        Ok(Self { number, change })
    }
}

/// Returns the changes of the caller's todos, tags and lists since a position: those of up to
/// `limit` entries of the log (500 without one). Without a position, it returns that of now and no
/// changes.
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
         entry_seq, entry_kind, entry_todo_id, entry_tag, entry_list_id, \
         tag_name, tag_pending, tag_completed, of_list_id, list_name, list_color, \
         coalesce((SELECT pending FROM list_counts \
         WHERE list_counts.list_id = of_list_id), 0), \
         coalesce((SELECT completed FROM list_counts \
         WHERE list_counts.list_id = of_list_id), 0), \
         list_created_at, list_updated_at, ",
        fired_columns!(),
        " FROM (SELECT 1 AS one) AS one \
         LEFT JOIN (SELECT seq AS entry_seq, kind AS entry_kind, todo_id AS entry_todo_id, \
         tag AS entry_tag, list_id AS entry_list_id, reminder_id AS entry_reminder_id \
         FROM changes WHERE user_id = $1 AND seq > $4 ORDER BY seq LIMIT $5) AS entry ON TRUE \
         LEFT JOIN todos ON todos.id = entry_todo_id AND todos.user_id = $1 \
         LEFT JOIN (SELECT tag AS tag_name, pending AS tag_pending, completed AS tag_completed \
         FROM tags WHERE user_id = $1) AS of_tag ON tag_name = entry_tag \
         LEFT JOIN (SELECT id AS of_list_id, name AS list_name, color AS list_color, \
         created_at AS list_created_at, updated_at AS list_updated_at FROM lists \
         WHERE user_id = $1 AND deleted_at IS NULL) AS of_list ON of_list_id = entry_list_id \
         LEFT JOIN ",
        fired_reminders!(),
        " ON fired_id = entry_reminder_id AND fired_user_id = $1 ORDER BY entry_seq"
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
        if let Some((subject, change)) = &entry.change
            && seen.insert(subject.clone())
        {
            bytes += max_change_len(change);
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
        }
        next.number = entry.number;
        entries.push(entry);
    }
    // Each thing stands where it was changed last.
    seen.clear();
    let mut changes: Vec<(i64, Change)> = entries
        .into_iter()
        .rev()
        .filter_map(|entry| {
            let (subject, change) = entry.change?;
            seen.insert(subject).then_some((entry.number, change))
        })
        .collect();
    changes.reverse();
    let has_more = next.number < last;
    NumberedPage { changes, next, has_more }
}

/// Maximum size of a change as JSON, in bytes.
fn max_change_len(change: &Change) -> usize {
    match change {
        Change::Todo { todo } => CHANGE_BYTES + max_json_len(todo),
        Change::Deleted { .. } => CHANGE_BYTES,
        Change::Reminder { .. } => REMINDER_BYTES,
        Change::Tag { name, .. } => TAG_BYTES + 2 * json_len(name.as_str()),
        Change::List { list, .. } => {
            LIST_BYTES + list.as_ref().map_or(0, |list| json_len(list.name.as_str()))
        }
    }
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
