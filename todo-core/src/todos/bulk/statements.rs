//! The statements of a bulk: each is about all items, which are the members of one JSON object in
//! `$4`. The name of a member is the item's id in hexadecimal digits; an array would not do, since
//! PostgreSQL's `json_each` reads objects only.
//!
//! The texts differ between the databases in how the object and an id are read, in that PostgreSQL
//! locks rows, and where one of them would be slow: see [`Dialect`]. A bulk locks all its rows
//! first, in one order for all bulks, and the counter of the user after them, so that two bulks do
//! not wait for each other.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::{
    authz::{Caller, acting_as, authorized},
    db::{
        Dialect, Statement,
        value::{OneMicrosecond, Timestamp},
    },
    ids::TodoId,
    todos::{
        Description, NewTodo, Todo, TodoPatch,
        change::{bind_patch, completed_columns, next_updated_at, patched_columns, refolded},
        create::{new_todo, used_quota},
        details::{self, Columns, allows_details, detail_columns, is_own_list, patched_details},
        fold,
        todo::todo_columns,
        trash::{kept_columns, kept_values},
    },
    validate::sort_key,
};

/// SQL table of the items.
macro_rules! items {
    (Sqlite) => {
        "json_each($4) AS item"
    };
    (Postgres) => {
        "json_each(CAST($4 AS json)) AS item"
    };
}
pub(in crate::todos) use items;

/// SQL expression for the id of an item.
macro_rules! item_id {
    (Sqlite) => {
        "unhex(item.key)"
    };
    (Postgres) => {
        "CAST(item.key AS uuid)"
    };
}
pub(in crate::todos) use item_id;

/// SQL expression for an id in hexadecimal digits.
macro_rules! as_uuid {
    (Sqlite, $text:literal) => {
        concat!("unhex(", $text, ")")
    };
    (Postgres, $text:literal) => {
        concat!("CAST(", $text, " AS uuid)")
    };
}
pub(in crate::todos) use as_uuid;

/// SQL expression for a time in microseconds since 1970.
macro_rules! as_time {
    (Sqlite, $micros:literal) => {
        $micros
    };
    (Postgres, $micros:literal) => {
        concat!("CAST('epoch' AS timestamptz) + ", $micros, " * interval '1 microsecond'")
    };
}
pub(in crate::todos) use as_time;

/// The end of a SELECT from a table, which locks its rows.
macro_rules! for_update {
    (Sqlite, $table:literal) => {
        ""
    };
    (Postgres, $table:literal) => {
        concat!(" FOR UPDATE OF ", $table)
    };
}
pub(in crate::todos) use for_update;

/// SQL expression for the value of an item that is a number, its place.
macro_rules! place {
    () => {
        "CAST(CAST(item.value AS text) AS bigint)"
    };
}

/// SQL condition that an id is an item's.
macro_rules! is_item {
    ($dialect:ident) => {
        concat!("id IN (SELECT ", item_id!($dialect), " FROM ", items!($dialect), ")")
    };
}
pub(in crate::todos) use is_item;

/// SQL condition that a row, found by its id, is the caller's. No index serves it: a plan that uses
/// one which begins with the user would read all rows of the user for the few that are items.
macro_rules! is_callers_row {
    (Sqlite) => {
        "+user_id = $1"
    };
    (Postgres) => {
        "(user_id = $1) IS TRUE"
    };
}
pub(in crate::todos) use is_callers_row;

/// SQL condition of the caller's todos that are items.
macro_rules! are_items {
    ($dialect:ident) => {
        concat!(is_callers_row!($dialect), " AND ", is_item!($dialect), " AND ", authorized!())
    };
}
pub(in crate::todos) use are_items;

/// SQL query of the rows of a table that are items, which locks them. For each item: whether the
/// caller is authorized, the item's id, whether it was found, the owner of the row if another user
/// may have it, the number of the caller's todos, whether the row recurs, and whether it is
/// completed.
///
/// SQLite has one writer: it locks nothing, and looks for each item by its id.
macro_rules! survey {
    (Sqlite, $table:literal, $condition:literal, $order:literal, $owner:literal) => {
        concat!(
            "SELECT ",
            authorized!(),
            ", wanted_id, EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE id = wanted_id AND user_id = $1",
            $condition,
            "), ",
            $owner,
            ", ",
            used_quota!(),
            ", EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE id = wanted_id AND user_id = $1 AND rule IS NOT NULL), EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE id = wanted_id AND user_id = $1 AND completed) FROM (SELECT ",
            item_id!(Sqlite),
            " AS wanted_id FROM ",
            items!(Sqlite),
            ")"
        )
    };
    (Postgres, $table:literal, $condition:literal, $order:literal, $owner:literal) => {
        concat!(
            "WITH locked AS MATERIALIZED (SELECT id, rule IS NOT NULL AS recurs, completed FROM ",
            $table,
            " WHERE ",
            are_items!(Postgres),
            $condition,
            " ORDER BY ",
            $order,
            for_update!(Postgres, $table),
            "), wanted AS MATERIALIZED (SELECT ",
            item_id!(Postgres),
            " AS wanted_id FROM ",
            items!(Postgres),
            ") SELECT ",
            authorized!(),
            ", wanted_id, locked.id IS NOT NULL, ",
            $owner,
            ", ",
            used_quota!(),
            ", coalesce(recurs, FALSE), coalesce(completed, FALSE) FROM wanted LEFT JOIN locked ON locked.id = wanted_id"
        )
    };
}

/// A text for each database.
pub(in crate::todos) struct Text {
    pub(in crate::todos) sqlite: &'static str,
    pub(in crate::todos) postgres: &'static str,
}

impl Text {
    pub(in crate::todos) fn of(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        }
    }
}

/// A [`Text`] from a macro with the dialect as its parameter.
macro_rules! both {
    ($text:ident) => {
        $crate::todos::bulk::Text { sqlite: $text!(Sqlite), postgres: $text!(Postgres) }
    };
}
pub(in crate::todos) use both;

macro_rules! survey_todos {
    ($dialect:ident) => {
        survey!(
            $dialect,
            "todos",
            "",
            "id",
            "(SELECT user_id FROM todos WHERE todos.id = wanted_id)"
        )
    };
}

macro_rules! survey_trash {
    ($dialect:ident) => {
        survey!(
            $dialect,
            "trash",
            " AND deleted_at > $5",
            "deleted_at, id",
            "CASE WHEN FALSE THEN wanted_id END"
        )
    };
}

/// SQL expressions for [`detail_columns!`] of an item that is a new todo.
macro_rules! item_details {
    ($dialect:ident) => {
        concat!(
            "item.value ->> 'tags', ",
            as_uuid!($dialect, "item.value ->> 'list_id'"),
            ", CAST(item.value ->> 'due_date' AS bigint), \
             CAST(item.value ->> 'due_minute' AS bigint), item.value ->> 'due_zone', ",
            as_time!($dialect, "CAST(item.value ->> 'due_at' AS bigint)"),
            ", item.value ->> 'due_date' IS NULL, CAST(item.value ->> 'due_key' AS bigint), \
             item.value ->> 'rule', CAST(item.value ->> 'rule_from' AS smallint), ",
            as_uuid!($dialect, "item.value ->> 'series_id'"),
            ", CAST(item.value ->> 'occurrence' AS bigint), item.value ->> 'reminders'"
        )
    };
}
pub(in crate::todos) use item_details;

macro_rules! create {
    ($dialect:ident) => {
        concat!(
            "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
             created_at, updated_at, search, ",
            detail_columns!(),
            ") SELECT ",
            item_id!($dialect),
            ", $1, item.value ->> 'title', item.value ->> 'title_key', \
             item.value ->> 'description', CAST(item.value ->> 'priority' AS smallint), FALSE, \
             $5, $5, item.value ->> 'search', ",
            item_details!($dialect),
            " FROM ",
            items!($dialect),
            " WHERE ",
            authorized!(),
            " AND ($6 = 0 OR ",
            used_quota!(),
            " + CAST(item.value ->> 'place' AS bigint) < $6) ORDER BY item.key RETURNING ",
            todo_columns!()
        )
    };
}

/// SQL assignments of the fields that every todo has.
macro_rules! columns {
    ($dialect:ident) => {
        patched_columns!(
            $dialect,
            "$5",
            "$6",
            "$7",
            "$8",
            "$9",
            "$10",
            "$11",
            ("$12", "$13", "$14")
        )
    };
}
macro_rules! patch {
    ($dialect:ident) => {
        concat!(
            "UPDATE todos SET ",
            columns!($dialect),
            " WHERE ",
            are_items!($dialect),
            " RETURNING ",
            todo_columns!()
        )
    };
}

macro_rules! patch_details {
    ($dialect:ident) => {
        concat!(
            "UPDATE todos SET ",
            columns!($dialect),
            ", ",
            patched_details!(
                "$15",
                "$16",
                "$17",
                "$18",
                "$19",
                "$20",
                "$21",
                "$22",
                "$23",
                "$24",
                "$25",
                "$26",
                "$27",
                concat!(
                    " OR (($16 OR other.due_date = todos.due_date) AND other.",
                    is_item!($dialect),
                    ")"
                )
            ),
            " WHERE ",
            are_items!($dialect),
            " AND ",
            allows_details!("$16", "$17", "$22", "$23", "$25", "$27"),
            " RETURNING ",
            todo_columns!()
        )
    };
}

macro_rules! read {
    ($dialect:ident) => {
        concat!("SELECT ", todo_columns!(), " FROM todos WHERE ", are_items!($dialect))
    };
}

macro_rules! complete {
    ($dialect:ident) => {
        concat!(
            "UPDATE todos SET ",
            completed_columns!("$5", "$6", "$7"),
            " WHERE ",
            are_items!($dialect),
            " RETURNING ",
            todo_columns!()
        )
    };
}

// The trigger of `deletions` moves a todo: see `delete`. PostgreSQL moves all at once, which takes
// a tenth of the time; the log has them in the order of their ids on both.
macro_rules! move_to_trash {
    (Sqlite) => {
        concat!(
            "INSERT INTO deletions (id, user_id, deleted_at) SELECT ",
            item_id!(Sqlite),
            ", $1, $5 FROM ",
            items!(Sqlite),
            " WHERE ",
            authorized!(),
            " ORDER BY item.key RETURNING id"
        )
    };
    (Postgres) => {
        concat!(
            "WITH gone AS (DELETE FROM todos WHERE ",
            are_items!(Postgres),
            " RETURNING *) INSERT INTO trash SELECT gone.*, $5 FROM gone RETURNING id"
        )
    };
}

macro_rules! delete {
    ($dialect:ident) => {
        concat!("DELETE FROM todos WHERE ", are_items!($dialect), " RETURNING id")
    };
}

// A trigger takes the todos out of the trash.
macro_rules! restore {
    ($dialect:ident) => {
        concat!(
            "WITH wanted AS MATERIALIZED (SELECT ",
            item_id!($dialect),
            " AS wanted_id, ",
            place!(),
            " AS place FROM ",
            items!($dialect),
            ") INSERT INTO todos (",
            kept_columns!(),
            ", updated_at) SELECT ",
            kept_values!(
                // Of those that are restored together, the first has the day.
                "row_number() OVER (PARTITION BY trash.series_id, trash.occurrence ORDER BY id) > 1"
            ),
            ", ",
            next_updated_at!("$5", "$6"),
            // SQLite reads the first table of a CROSS JOIN first, not all items for each row.
            " FROM wanted CROSS JOIN trash \
             WHERE id = wanted_id AND user_id = $1 AND deleted_at > $7 AND ",
            authorized!(),
            " AND ($8 = 0 OR ",
            used_quota!(),
            " + place < $8) ORDER BY id RETURNING ",
            todo_columns!()
        )
    };
}

/// The time, and the settings, of a bulk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) caller: Caller,
    pub(super) dialect: Dialect,
    pub(super) now: DateTime<Utc>,
    /// Todos in the trash were deleted after this time.
    pub(super) oldest: DateTime<Utc>,
    /// Without a trash, a deletion is permanent.
    pub(super) keeps_trash: bool,
    /// Maximum number of todos; 0 for none.
    pub(super) max_todos: i64,
    /// Maximum number of different tags; 0 for none.
    pub(super) max_tags: u32,
    /// Maximum number of reminders that have not fired; 0 for none.
    pub(super) max_reminders: u32,
}

/// Items by their id, each with its place: the number of items before it.
pub(super) type Places = Vec<(TodoId, i64)>;

impl Circumstances {
    /// The statement of a survey of todos. Its row is [`Surveyed`](super::script::Surveyed).
    pub(super) fn survey_todos(&self, items: &Places) -> Statement {
        const SQL: Text = both!(survey_todos);
        self.about(&SQL, items)
    }

    /// As [`Circumstances::survey_todos`], of todos in the trash.
    pub(super) fn survey_trash(&self, items: &Places) -> Statement {
        const SQL: Text = both!(survey_trash);
        self.about(&SQL, items).bind(Timestamp(self.oldest))
    }

    /// Creates todos, one of each item, of which each is there if the quota exceeds the present
    /// number plus its place. Returns them.
    pub(super) fn create<'a>(
        &self,
        new: impl Iterator<Item = &'a NewTodo>,
        items: &Places,
    ) -> Statement {
        const SQL: Text = both!(create);
        let object: Map<String, Value> = items
            .iter()
            .zip(new)
            .map(|((id, place), new)| {
                let todo = Todo { id: *id, ..new_todo(self.caller, new.clone(), self.now) };
                let mut item = new_item(&todo);
                item["place"] = json!(place);
                (member(*id), item)
            })
            .collect();
        acting_as(self.caller, SQL.of(self.dialect))
            .bind(Value::Object(object).to_string())
            .bind(Timestamp(self.now))
            .bind(self.max_todos)
    }

    /// Updates todos, and returns them; an empty patch only reads them.
    pub(super) fn patch(&self, patch: &TodoPatch, items: &Places) -> Statement {
        const PLAIN: Text = both!(patch);
        const DETAILED: Text = both!(patch_details);
        const READ: Text = both!(read);
        if patch.is_empty() {
            return self.about(&READ, items);
        }
        if patch.details.is_empty() {
            return bind_patch(self.about(&PLAIN, items), patch, self.now);
        }
        let update = bind_patch(self.about(&DETAILED, items), patch, self.now);
        details::bind_patch(update, &patch.details)
    }

    /// Completes or reopens todos, and returns them.
    pub(super) fn complete(&self, completed: bool, items: &Places) -> Statement {
        const SQL: Text = both!(complete);
        self.about(&SQL, items).bind(completed).bind(Timestamp(self.now)).bind(OneMicrosecond)
    }

    /// Deletes todos, and returns their ids.
    pub(super) fn delete(&self, items: &Places) -> Statement {
        const TRASH: Text = both!(move_to_trash);
        const DELETE: Text = both!(delete);
        if self.keeps_trash {
            self.about(&TRASH, items).bind(Timestamp(self.now))
        } else {
            self.about(&DELETE, items)
        }
    }

    /// Restores todos, of which each is there if the quota exceeds the present number plus its
    /// place. Returns them.
    pub(super) fn restore(&self, items: &Places) -> Statement {
        const SQL: Text = both!(restore);
        self.about(&SQL, items)
            .bind(Timestamp(self.now))
            .bind(OneMicrosecond)
            .bind(Timestamp(self.oldest))
            .bind(self.max_todos)
    }

    pub(super) fn about(&self, text: &Text, items: &Places) -> Statement {
        let object: Map<String, Value> =
            items.iter().map(|(id, place)| (member(*id), json!(place))).collect();
        acting_as(self.caller, text.of(self.dialect)).bind(Value::Object(object).to_string())
    }
}

/// A new todo as an item, for [`item_details!`] and the columns before those.
pub(in crate::todos) fn new_item(todo: &Todo) -> Value {
    let columns = Columns::of(todo);
    json!({
        "title": todo.title.as_str(),
        "title_key": sort_key(todo.title.as_str()),
        "description": todo.description.as_ref().map(Description::as_str),
        "priority": todo.priority.rank(),
        "search": fold::todo(&todo.title, &todo.tags, todo.description.as_ref()),
        "tags": todo.tags.to_stored(),
        "list_id": todo.list_id.map(|list| list.as_uuid().simple().to_string()),
        "due_date": columns.due_date,
        "due_minute": columns.due_minute,
        "due_zone": columns.due_zone,
        "due_at": columns.due_at.map(|at| at.0.timestamp_micros()),
        "due_key": columns.due_key,
        "rule": columns.rule,
        "rule_from": columns.rule_from,
        "series_id": columns.series_id.map(|series| series.simple().to_string()),
        "occurrence": columns.occurrence,
        "reminders": todo.reminders.to_stored(),
    })
}

/// The name of an item in the object.
pub(in crate::todos) fn member(id: TodoId) -> String {
    id.as_uuid().simple().to_string()
}
