//! A list read in pieces of bounded size. Each piece is one page, found by key behind the last: the
//! memory that a list takes does not grow with what its owner has stored.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    FULL_LIST, bad_cursor, by, count,
    cursor::{Key, Place},
    statements,
    types::{Filters, Limit, ListQuery, SortBy, TODO_COLUMNS, Todo, TodoList},
};
use crate::{
    Core,
    auth::Caller,
    db::{Fault, FromRow, Row, Rows, columns::Stamp},
    error::{Error, Result},
};

/// The most todos in a piece.
const PIECE_ROWS: u16 = 500;
/// The most bytes that a piece has as JSON, unless it is a single todo.
const PIECE_BYTES: usize = 256 << 10;
/// The fewest rows that a statement asks for after a piece was full before its rows were.
const FEWEST_ROWS: u16 = 16;
/// What a todo has as JSON beside its texts, at most.
const TODO_BYTES: usize = 340;

/// A list on its way, in pieces: see [`Listing::next`].
///
/// Pieces are separate reads, not one snapshot. A todo that is there throughout and keeps its place
/// in the order comes exactly once, and no todo comes twice, whatever is inserted, changed or deleted
/// meanwhile.
///
/// ```
/// use todo_core::{Core, Error, auth::Caller, todos::{ListQuery, Listing}};
///
/// async fn titles(core: &Core, caller: &Caller) -> Result<Vec<String>, Error> {
///     let mut listing = Listing::new(core, caller, ListQuery::default())?;
///     let mut titles = Vec::new();
///     while let Some(piece) = listing.next().await? {
///         titles.extend(piece.todos.into_iter().map(|todo| todo.title));
///     }
///     Ok(titles)
/// }
/// ```
pub struct Listing {
    core: Core,
    caller: Caller,
    filters: Filters,
    /// Where the last piece ended.
    after: Option<Place>,
    /// How many more todos the list may hold.
    left: u16,
    /// How many rows the next statement asks for at most.
    rows: u16,
    /// The total as the first piece had it.
    total: Option<i64>,
    /// The ids of what was listed, where a change can move a todo on to a later piece.
    seen: HashSet<Uuid>,
    is_done: bool,
    bytes: usize,
}

impl Listing {
    /// Begins the list. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor that was altered or belongs to another list.
    pub fn new(core: &Core, caller: &Caller, query: ListQuery) -> Result<Self> {
        let ListQuery { filters, limit, cursor } = query;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let place = Place::open(&cursor, core.tokens(), caller.user_id(), filters);
                Some(place.ok_or_else(|| Error::invalid(bad_cursor()))?)
            }
        };
        Ok(Self {
            core: core.clone(),
            caller: *caller,
            filters,
            after,
            left: limit.map_or(FULL_LIST, Limit::as_u16),
            rows: PIECE_ROWS,
            total: None,
            seen: HashSet::new(),
            is_done: false,
            bytes: 0,
        })
    }

    /// Reads the next piece, by one statement: at most 500 todos, and at most 256 KiB of them as JSON.
    /// `None` after the last, which is the first if there are no todos.
    ///
    /// The `total` of each piece is the first one's; its `next_cursor` asks for what follows the piece.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the caller's session is gone, also if it went after the last
    /// piece; else what every operation can fail with: [`Error::Busy`], [`Error::Unavailable`],
    /// [`Error::Internal`]. The list can then be gone on with.
    pub async fn next(&mut self) -> Result<Option<TodoList>> {
        while !self.is_done {
            let piece = self.read().await?;
            if !piece.todos.is_empty() || self.is_done {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Whether the last piece was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// About how many bytes the last piece has as JSON, rather more than fewer.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn piece_bytes(&self) -> usize {
        self.bytes
    }

    async fn read(&mut self) -> Result<TodoList> {
        let (filters, caller) = (self.filters, self.caller);
        let size = self.left.min(self.rows);
        let (db, work) = (self.core.db(), self.core.clone());
        let sql = statements::page(db.dialect(), filters, self.after.is_some());
        // One more than is shown tells whether there is more.
        let mut page = by(caller, sql).bind(i64::from(size) + 1);
        if let Some(Place { key, created_at, id }) = &self.after {
            page = page.bind(Stamp(*created_at)).bind(*id);
            page = match key {
                Key::CreatedAt => page,
                Key::Priority(priority) => page.bind(*priority),
                Key::Title(title) => page.bind(title.as_str()),
            };
        }
        let page = self.core.read(caller.user_id(), async move {
            let mut page: Page = db.read(page).await?;
            if page.todos.is_empty() {
                page.total = Box::pin(count(&work, caller, filters.status)).await?;
            }
            Ok(page)
        });
        let Page { mut todos, total, bytes, is_full } = page.await?;
        let total = *self.total.get_or_insert(total);
        let has_more = is_full || todos.len() > usize::from(size);
        todos.truncate(usize::from(size));
        if is_full {
            let kept = u16::try_from(todos.len()).unwrap_or(PIECE_ROWS);
            self.rows = kept.saturating_mul(2).clamp(FEWEST_ROWS, PIECE_ROWS);
        } else {
            self.rows = self.rows.saturating_mul(2).min(PIECE_ROWS);
        }
        if let Some(last) = todos.last() {
            self.after = Some(Place::of(last, filters.sort_by));
        }
        // A todo made keeps its `created_at`. Its title and priority may change, and it would come
        // again.
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
            .map(|place| place.seal(self.core.tokens(), caller.user_id(), filters));
        Ok(TodoList { todos, total, filters_applied: filters, next_cursor })
    }
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("filters", &self.filters).finish_non_exhaustive()
    }
}

/// The rows of a page: todos, and with each the list's total. It is full at [`PIECE_BYTES`].
#[derive(Default)]
struct Page {
    todos: Vec<Todo>,
    total: i64,
    bytes: usize,
    is_full: bool,
}

impl Rows for Page {
    fn push(&mut self, row: &Row<'_>) -> std::result::Result<(), Fault> {
        if self.is_full {
            return Ok(());
        }
        let todo = Todo::from_row(row)?;
        let bytes = TODO_BYTES
            + escaped(&todo.title)
            + todo.description.as_deref().map(escaped).unwrap_or_default();
        if self.todos.is_empty() {
            self.total = row.get(TODO_COLUMNS)?;
        } else if self.bytes + bytes > PIECE_BYTES {
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

/// How many bytes a text has as JSON (RFC 8259, section 7), at most.
fn escaped(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    bytes.sum()
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{
        Options, Secret,
        todos::{Description, NewTodo, Order, Priority, Title},
    };

    const MANY: usize = 1200;

    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    async fn core() -> (Core, Caller) {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let signup = crate::auth::Signup::parse("a@example.com", "Correct1horse", "Ann").unwrap();
        let session = crate::auth::signup(&core, None, signup).await.unwrap();
        let caller = crate::auth::prove(&core, &session.token, None).unwrap();
        (core, caller)
    }

    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    async fn make(core: &Core, caller: &Caller, title: &str, description: Option<&str>) -> Todo {
        let new = NewTodo {
            title: Title::parse(title).unwrap(),
            description: description.map(|text| Description::parse(text).unwrap()),
            priority: Priority::Medium,
        };
        crate::todos::create(core, caller, new).await.unwrap()
    }

    fn ids(todos: &[Todo]) -> Vec<Uuid> {
        todos.iter().map(|todo| todo.id).collect()
    }

    #[tokio::test]
    async fn pieces_are_bounded_in_rows_and_bytes() {
        let (core, caller) = core().await;
        let mut made = Vec::new();
        for number in 0..MANY {
            made.push(make(&core, &caller, &format!("{number}"), None).await.id);
        }
        made.reverse();
        let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        while let Some(piece) = listing.next().await.unwrap() {
            assert_eq!(piece.total, i64::try_from(MANY).unwrap());
            assert_eq!(piece.next_cursor.is_none(), listing.is_done());
            sizes.push(piece.todos.len());
            seen.extend(ids(&piece.todos));
        }
        assert_eq!(sizes, [500, 500, 200]);
        assert_eq!(seen, made);

        let long = "\u{1}".repeat(1000);
        for number in 0..60 {
            make(&core, &caller, &format!("long {number}"), Some(&long)).await;
        }
        let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
        let mut listed = 0;
        while let Some(piece) = listing.next().await.unwrap() {
            let size = serde_json::to_vec(&piece).unwrap().len();
            assert!(size <= PIECE_BYTES + 1024, "{size} bytes");
            assert!(size <= listing.piece_bytes() + 1024);
            listed += piece.todos.len();
        }
        assert_eq!(listed, MANY + 60);
        let limit = Limit::new(50).unwrap();
        let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
        let list = crate::todos::list(&core, &caller, query).await.unwrap();
        assert_eq!(list.todos.len(), 50, "a page that is read in pieces is as long as asked for");
        assert!(list.next_cursor.is_some());
    }

    #[tokio::test]
    async fn a_todo_that_is_moved_on_comes_once() {
        let (core, caller) = core().await;
        for number in 0..600 {
            make(&core, &caller, &format!("a{number:03}"), None).await;
        }
        let filters = Filters { sort_by: SortBy::Title, order: Order::Asc, ..Filters::default() };
        let query = ListQuery { filters, ..ListQuery::default() };
        let mut listing = Listing::new(&core, &caller, query).unwrap();
        let first = listing.next().await.unwrap().unwrap().todos;
        let patch = crate::todos::TodoPatch {
            title: Some(Title::parse("z").unwrap()),
            ..crate::todos::TodoPatch::default()
        };
        crate::todos::patch(&core, &caller, first[0].id, patch).await.unwrap();
        let rest = listing.next().await.unwrap().unwrap().todos;
        assert!(!ids(&rest).contains(&first[0].id));
        assert_eq!(first.len() + rest.len(), 600);
    }

    #[tokio::test]
    async fn a_session_that_ends_ends_the_list() {
        let (core, caller) = core().await;
        for number in 0..600 {
            make(&core, &caller, &format!("{number}"), None).await;
        }
        let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
        assert!(listing.next().await.unwrap().is_some() && !listing.is_done());
        crate::auth::end_session(&core, caller, None).await.unwrap();
        assert!(matches!(listing.next().await, Err(Error::Unauthenticated)));
    }

    #[test]
    fn texts_are_not_longer_than_reckoned() {
        let all: String = ('\0'..'\u{300}').chain(['\u{1f600}', '\u{2028}']).collect();
        assert!(serde_json::to_string(&all).unwrap().len() <= escaped(&all) + 2);
    }
}
