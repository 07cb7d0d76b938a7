//! The rows that an export reads beside its todos.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    authz::{Caller, acting_as, authorized},
    db::{DbError, Dialect, FromRows, Row, Statement},
    ids::{ListId, TodoId},
    todos::bulk::{Text, are_items, both, is_callers_row, is_item, item_id, items, member},
};

macro_rules! extras {
    ($dialect:ident, $table:literal, $order:literal) => {
        concat!(
            "SELECT id, position, ical FROM ",
            $table,
            " WHERE ",
            are_items!($dialect),
            " AND (position IS NOT NULL OR ical IS NOT NULL) ORDER BY ",
            $order
        )
    };
}

macro_rules! extras_of_todos {
    ($dialect:ident) => {
        extras!($dialect, "todos", "created_at, id")
    };
}

macro_rules! extras_of_trash {
    ($dialect:ident) => {
        extras!($dialect, "trash", "deleted_at, id")
    };
}

/// The lists of a user for an export, in the order of their creation.
#[derive(Clone, Debug, Default)]
pub(super) struct ListRows {
    pub(super) is_authorized: bool,
    /// Id, name, color.
    pub(super) lists: Vec<(ListId, String, Option<String>)>,
}

impl ListRows {
    /// The statement of its rows, at least one.
    pub(super) fn find(caller: Caller) -> Statement {
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            " AS is_authorized, id, name, color FROM (SELECT 1 AS one) AS one \
             LEFT JOIN lists ON user_id = $1 AND deleted_at IS NULL ORDER BY created_at, id"
        );
        acting_as(caller, SQL)
    }
}

impl FromRows for ListRows {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        let id = row.get::<Option<Uuid>>(1)?.map(ListId::from);
        if let (Some(id), Some(name)) = (id, row.get(2)?) {
            self.lists.push((id, name, row.get(3)?));
        }
        Ok(())
    }
}

/// What todos have beside their type. It is full at [`Extras::MAX_BYTES`].
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    /// Id, position, lines of iCalendar, in the order of the todos.
    pub(super) rows: Vec<(TodoId, Option<String>, Option<String>)>,
    bytes: usize,
}

impl Extras {
    const MAX_BYTES: usize = 256 << 10;

    /// The statement of its rows.
    pub(super) fn find(
        caller: Caller,
        dialect: Dialect,
        ids: impl Iterator<Item = TodoId>,
        is_trash: bool,
    ) -> Statement {
        const TODOS: Text = both!(extras_of_todos);
        const TRASH: Text = both!(extras_of_trash);
        let object: Map<String, Value> = ids.map(|id| (member(id), Value::Null)).collect();
        let text = if is_trash { TRASH } else { TODOS };
        acting_as(caller, text.of(dialect)).bind(Value::Object(object).to_string())
    }
}

impl FromRows for Extras {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        if self.is_full() {
            return Ok(());
        }
        let ical: Option<String> = row.get(2)?;
        self.bytes += ical.as_ref().map_or(0, String::len);
        self.rows.push((row.get::<Uuid>(0)?.into(), row.get(1)?, ical));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= Self::MAX_BYTES
    }
}
