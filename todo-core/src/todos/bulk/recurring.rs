//! The recurring todos of a bulk that completes or reopens: the next occurrences of those that it
//! completes. They are computed before the transaction that inserts them, from what was read; the
//! transaction begins anew with others if a todo was changed meanwhile.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::statements::{
    Circumstances, Places, Text, are_items, as_time, as_uuid, both, for_update, is_callers_row,
    is_item, item_id, items, member,
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row, Statement, value::Timestamp},
    error::{BoxError, Error, Result},
    ids::TodoId,
    time_zone::TimeZone,
    todos::{
        Todo,
        create::used_quota,
        series::{
            Next, is_followed, is_untouched, later_todo, next_columns, next_values, unless_taken,
        },
        todo::{TODO_COLUMNS, todo_columns},
    },
};

/// Maximum number of dates that are computed on the thread of the request: each takes up to 50 µs.
const MAX_INLINE: usize = 16;

/// The next occurrences of todos that recur, and the version of each that they were computed of.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan(HashMap<TodoId, (DateTime<Utc>, Option<Next>)>);

impl Plan {
    /// Reads the open todos of the items that recur, and computes what follows them.
    pub(super) async fn make(core: &Core, about: Circumstances, ids: &[TodoId]) -> Result<Self> {
        let items: Places = ids.iter().copied().zip(0..).collect();
        let select = about.recurring_items(&items);
        let found = async { Ok(core.db().fetch(select).await?) };
        let user = about.caller.user_id();
        let found: Vec<Recurring> = core.read_in_write(user, found).await?;
        let now = about.now;
        if found.len() <= MAX_INLINE {
            return Self::of(found, now);
        }
        let plan = tokio::task::spawn_blocking(move || Self::of(found, now)).await;
        plan.map_err(|error| Error::Internal(BoxError::new(error)))?
    }

    fn of(found: Vec<Recurring>, now: DateTime<Utc>) -> Result<Self> {
        let planned = found.into_iter().map(|Recurring { todo, home }| {
            let next = Next::of(&todo, home.as_ref(), now)?;
            Ok((todo.id, (todo.updated_at, next)))
        });
        planned.collect::<Result<_>>().map(Self)
    }

    /// The next occurrence of a todo that has the version that was read.
    pub(super) fn next(&self, id: TodoId, version: DateTime<Utc>) -> Option<Option<&Next>> {
        let (seen, next) = self.0.get(&id)?;
        (*seen == version).then_some(next.as_ref())
    }
}

/// A todo that recurs, and the time zone of its owner.
struct Recurring {
    todo: Todo,
    home: Option<TimeZone>,
}

impl FromRow for Recurring {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let home: Option<String> = row.get(TODO_COLUMNS)?;
        Ok(Self { todo: Todo::from_row(row)?, home: home.map(TimeZone::from_stored) })
    }
}

/// The state of a recurring todo in the transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) id: TodoId,
    pub(super) completed: bool,
    pub(super) version: DateTime<Utc>,
    /// The first todo of the series after it.
    pub(super) later: Option<TodoId>,
    /// Whether one after it is open.
    pub(super) is_followed: bool,
    /// The number of the user's todos.
    pub(super) used: i64,
}

impl FromRow for State {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get::<Uuid>(0)?.into(),
            completed: row.get(1)?,
            version: row.get::<Timestamp>(2)?.0,
            later: row.get::<Option<Uuid>>(3)?.map(TodoId::from),
            is_followed: row.get(4)?,
            used: row.get::<Option<i64>>(5)?.unwrap_or_default(),
        })
    }
}

macro_rules! read {
    ($dialect:ident) => {
        concat!(
            "SELECT ",
            todo_columns!(),
            ", (SELECT time_zone FROM users WHERE users.id = $1) FROM todos \
             WHERE rule IS NOT NULL AND NOT completed AND ",
            are_items!($dialect)
        )
    };
}

macro_rules! states {
    ($dialect:ident) => {
        concat!(
            "SELECT id, completed, updated_at, ",
            later_todo!("todos"),
            ", ",
            // An occurrence has no day that is NULL: only open ones follow.
            is_followed!("todos", "NULL"),
            ", ",
            used_quota!(),
            " FROM todos WHERE rule IS NOT NULL AND ",
            are_items!($dialect)
        )
    };
}

macro_rules! later_of_items {
    ($dialect:ident) => {
        concat!(
            "id IN (SELECT ",
            later_todo!("done"),
            " FROM ",
            items!($dialect),
            " CROSS JOIN todos AS done WHERE done.id = ",
            item_id!($dialect),
            ") AND user_id = $1 AND ",
            authorized!()
        )
    };
}

macro_rules! lock {
    ($dialect:ident) => {
        concat!(
            "SELECT id FROM todos WHERE ",
            later_of_items!($dialect),
            " ORDER BY id",
            for_update!($dialect, "todos")
        )
    };
}

macro_rules! unmake {
    ($dialect:ident) => {
        concat!("DELETE FROM todos WHERE ", later_of_items!($dialect), " AND ", is_untouched!())
    };
}

macro_rules! insert {
    ($dialect:ident) => {
        concat!(
            "INSERT INTO todos (",
            next_columns!(),
            ") SELECT ",
            next_values!(
                item_id!($dialect),
                "$5",
                "CAST(item.value ->> 'date' AS bigint)",
                as_time!($dialect, "CAST(item.value ->> 'at' AS bigint)"),
                "CAST(item.value ->> 'key' AS bigint)",
                "item.value ->> 'rule'"
            ),
            " FROM ",
            items!($dialect),
            " CROSS JOIN todos AS done WHERE done.id = ",
            as_uuid!($dialect, "item.value ->> 'done'"),
            " AND done.user_id = $1 AND ",
            authorized!(),
            " AND ($6 = 0 OR ",
            used_quota!(),
            " + CAST(item.value ->> 'place' AS bigint) < $6) AND NOT ",
            is_followed!("done", "CAST(item.value ->> 'date' AS bigint)"),
            " ORDER BY item.key",
            unless_taken!()
        )
    };
}

impl Circumstances {
    fn recurring_items(&self, items: &Places) -> Statement {
        const SQL: Text = both!(read);
        self.about(&SQL, items)
    }

    /// The statement of the [`State`] of each item that recurs.
    pub(super) fn states(&self, items: &Places) -> Statement {
        const SQL: Text = both!(states);
        self.about(&SQL, items)
    }

    /// Locks the next occurrences of items.
    pub(super) fn lock_next(&self, items: &Places) -> Statement {
        const SQL: Text = both!(lock);
        self.about(&SQL, items)
    }

    /// Deletes the next occurrences of items that nobody has touched.
    pub(super) fn unmake_next(&self, items: &Places) -> Statement {
        const SQL: Text = both!(unmake);
        self.about(&SQL, items)
    }

    /// Inserts the next occurrences of todos, and returns their ids. One whose day is taken is not
    /// inserted.
    pub(super) fn insert_next(&self, next: &[(TodoId, Next)]) -> Statement {
        const SQL: Text = both!(insert);
        let item = |(place, (done, next)): (usize, &(TodoId, Next))| {
            let value = json!({
                "done": member(*done),
                "place": place,
                "date": next.date(),
                "at": next.at().map(|at| at.0.timestamp_micros()),
                "key": next.key(),
                "rule": next.rule(),
            });
            (member(next.id), value)
        };
        let object: Map<String, Value> = next.iter().enumerate().map(item).collect();
        acting_as(self.caller, SQL.of(self.dialect))
            .bind(Value::Object(object).to_string())
            .bind(Timestamp(self.now))
            .bind(self.max_todos)
    }
}
