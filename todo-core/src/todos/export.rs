//! All todos of a user and then the trash, in pages, for an export of the account.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    ListQuery, Listing, SortOrder, Todo, TodoId, TrashedTodo,
    listing::max_json_len,
    todo::{TODO_COLUMNS, todo_columns},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, FromRows, Row, value::Timestamp},
    error::{Error, Result},
};

/// Maximum number of todos on a page.
const PAGE_ROWS: usize = 500;
/// Maximum size of a page as JSON in bytes, unless it is a single todo.
const PAGE_BYTES: usize = 256 << 10;

/// Reads all todos of a caller and then the trash: see [`TodoWalk::next`].
///
/// The order of the todos is that of their creation, then of their ids. Neither ever changes, so a
/// todo that exists throughout is returned once, whatever else about it changes. The order of the
/// trash is that of the deletions, so a todo that is deleted meanwhile is in the trash, if it is
/// not among the todos.
pub(crate) struct TodoWalk {
    core: Core,
    caller: Caller,
    todos: Listing,
    /// Todos that were deleted until then have expired.
    oldest: DateTime<Utc>,
    /// The position of the last todo in the trash that was read.
    after: (DateTime<Utc>, TodoId),
    is_done: bool,
}

/// A page of a [`TodoWalk`].
pub(crate) enum WalkPage {
    Todos(Vec<Todo>),
    Trash(Vec<TrashedTodo>),
}

impl TodoWalk {
    pub(crate) fn new(core: &Core, caller: &Caller) -> Result<Self> {
        let query = ListQuery::new().order(SortOrder::Asc);
        let oldest = core.now() - core.trash_lifetime();
        Ok(Self {
            core: core.clone(),
            caller: *caller,
            todos: Listing::new(core, caller, query)?,
            oldest,
            after: (oldest, TodoId::new(Uuid::nil())),
            is_done: false,
        })
    }

    /// Reads the next page with one statement, and one more if it is empty: at most 500 todos, and
    /// at most 256 KiB of JSON. Returns `None` after the last page.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the caller's session has ended; else [`Error::Busy`],
    /// [`Error::Unavailable`], [`Error::Internal`]. The call can be repeated after an error.
    pub(crate) async fn next(&mut self) -> Result<Option<WalkPage>> {
        if let Some(todos) = self.next_todos().await? {
            return Ok(Some(WalkPage::Todos(todos)));
        }
        if self.is_done {
            return Ok(None);
        }
        let page = self.read_trash().await?;
        self.is_done = !page.is_full && page.todos.len() < PAGE_ROWS;
        let lifetime = self.core.trash_lifetime();
        let todos = page.todos.into_iter().map(|(todo, deleted_at)| TrashedTodo {
            todo,
            deleted_at,
            expires_at: deleted_at + lifetime,
        });
        let todos: Vec<TrashedTodo> = todos.collect();
        if let Some(last) = todos.last() {
            self.after = (last.deleted_at, last.todo.id);
        }
        Ok(Some(WalkPage::Trash(todos)))
    }

    /// As [`TodoWalk::next`], without the trash.
    pub(crate) async fn next_todos(&mut self) -> Result<Option<Vec<Todo>>> {
        Ok(self.todos.next_of_all().await?.map(|list| list.todos))
    }

    async fn read_trash(&self) -> Result<TrashRows> {
        const SQL: &str = concat!(
            "SELECT ",
            todo_columns!(),
            ", deleted_at FROM trash WHERE user_id = $1 AND deleted_at > $4 \
             AND (deleted_at, id) > ($5, $6) AND ",
            authorized!(),
            " ORDER BY deleted_at, id LIMIT $7"
        );
        const AUTHORIZED: &str = concat!("SELECT ", authorized!());
        let db = self.core.db();
        let caller = self.caller;
        let (deleted_at, id) = self.after;
        let select = acting_as(caller, SQL)
            .bind(Timestamp(self.oldest))
            .bind(Timestamp(deleted_at))
            .bind(id)
            .bind(i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX));
        self.core
            .read(caller.user_id(), async move {
                let page: TrashRows = db.fetch(select).await?;
                if page.todos.is_empty() {
                    let authorized = acting_as(caller, AUTHORIZED);
                    let (is_authorized,): (bool,) = db.fetch_one(authorized).await?;
                    if !is_authorized {
                        return Err(Error::Unauthenticated);
                    }
                }
                Ok(page)
            })
            .await
    }
}

/// Todos of the trash, with the times of their deletion. Full at [`PAGE_BYTES`].
#[derive(Default)]
struct TrashRows {
    todos: Vec<(Todo, DateTime<Utc>)>,
    bytes: usize,
    is_full: bool,
}

impl FromRows for TrashRows {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        if self.is_full {
            return Ok(());
        }
        let todo = Todo::from_row(row)?;
        let bytes = max_json_len(&todo);
        if !self.todos.is_empty() && self.bytes + bytes > PAGE_BYTES {
            self.is_full = true;
            return Ok(());
        }
        self.bytes += bytes;
        self.todos.push((todo, row.get::<Timestamp>(TODO_COLUMNS)?.0));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_full
    }
}
