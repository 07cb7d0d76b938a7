//! The statements of imports.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{draft::Item, sink::FileList};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    db::{DbError, Dialect, FromRows, Row, Statement, value::Timestamp},
    ids::{ListId, TodoId},
    todos::{
        IdempotencyKey, Todo,
        bulk::{
            Text, as_time, as_uuid, both, is_callers_row, item_details, item_id, items, member,
            new_item,
        },
        create::{Limits, used_quota},
        details::{detail_columns, is_below_tag_quota, is_own_list},
        idempotency::KEY_LIFETIME,
        reminder_quota::open_reminders,
    },
};

/// SQL condition that `$count` more lists are within `$limit`; 0 is no limit.
macro_rules! is_below_list_quota {
    ($limit:literal, $count:literal) => {
        concat!(
            "(",
            $limit,
            " = 0 OR (SELECT count(*) FROM lists AS own WHERE own.user_id = $1 \
             AND own.deleted_at IS NULL) + ",
            $count,
            " <= ",
            $limit,
            ")"
        )
    };
}

macro_rules! insert_lists {
    ($dialect:ident) => {
        concat!(
            "INSERT INTO lists (id, user_id, name, color, created_at, updated_at) SELECT ",
            item_id!($dialect),
            ", $1, item.value ->> 'name', item.value ->> 'color', $5, $5 FROM ",
            items!($dialect),
            " WHERE ",
            authorized!(),
            " AND ",
            is_below_list_quota!("$6", "$7"),
            " AND NOT EXISTS (SELECT 1 FROM lists AS own WHERE own.user_id = $1 \
             AND own.deleted_at IS NULL AND own.name = item.value ->> 'name') ORDER BY item.key"
        )
    };
}

macro_rules! insert_todos {
    ($dialect:ident) => {
        concat!(
            "INSERT INTO todos (id, user_id, title, title_key, description, priority, search, ",
            detail_columns!(),
            ", completed, completed_at, created_at, updated_at, position, ical) SELECT ",
            item_id!($dialect),
            ", $1, item.value ->> 'title', item.value ->> 'title_key', \
             item.value ->> 'description', CAST(item.value ->> 'priority' AS smallint), \
             item.value ->> 'search', ",
            item_details!($dialect),
            ", item.value ->> 'completed_at' IS NOT NULL, ",
            as_time!($dialect, "CAST(item.value ->> 'completed_at' AS bigint)"),
            ", ",
            as_time!($dialect, "CAST(item.value ->> 'created_at' AS bigint)"),
            ", ",
            as_time!($dialect, "CAST(item.value ->> 'updated_at' AS bigint)"),
            ", item.value ->> 'position', item.value ->> 'ical' FROM ",
            items!($dialect),
            " WHERE ",
            authorized!(),
            " AND ($5 = 0 OR ",
            used_quota!(),
            " + $6 <= $5) AND ",
            is_own_list!(as_uuid!($dialect, "item.value ->> 'list_id'")),
            " AND ",
            is_below_tag_quota!($dialect, "$7", "$8"),
            " AND ($9 = 0 OR $10 = 0 OR ",
            open_reminders!(""),
            " + $9 <= $10) ORDER BY item.key"
        )
    };
}

/// SQL condition of the reminders of the caller's todos that are items.
macro_rules! are_of_items {
    ($dialect:ident) => {
        concat!(
            is_callers_row!($dialect),
            " AND todo_id IN (SELECT ",
            item_id!($dialect),
            " FROM ",
            items!($dialect),
            ") AND ",
            authorized!()
        )
    };
}

macro_rules! drop_past_reminders {
    ($dialect:ident) => {
        concat!(
            "DELETE FROM reminders WHERE (fire_at IS NULL OR fire_at <= $5) AND ",
            are_of_items!($dialect)
        )
    };
}

macro_rules! date_reminders {
    ($dialect:ident) => {
        concat!(
            "UPDATE reminders SET written_at = $5 WHERE fire_at IS NULL AND ",
            are_of_items!($dialect)
        )
    };
}

/// What a user has, as far as an import depends on it: the rows of [`Owned::find`].
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    pub(super) is_authorized: bool,
    /// The number of todos; `None` if the account does not exist.
    pub(super) todos: Option<i64>,
    pub(super) tags: BTreeSet<String>,
    /// The oldest list of each name.
    pub(super) lists: BTreeMap<String, ListId>,
    /// The number of lists.
    pub(super) list_count: usize,
    /// The number of reminders that have not fired.
    pub(super) reminders: i64,
}

impl Owned {
    /// The statement of its rows, at least one.
    pub(super) fn find(caller: Caller) -> Statement {
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            " AS is_authorized, ",
            used_quota!(),
            " AS used, tag, list, name, ",
            open_reminders!(""),
            " FROM (\
             SELECT NULL AS list, tag, NULL AS name FROM tags WHERE user_id = $1 \
             UNION ALL SELECT id, NULL, name FROM lists \
             WHERE user_id = $1 AND deleted_at IS NULL \
             UNION ALL SELECT NULL, NULL, NULL) AS known"
        );
        acting_as(caller, SQL)
    }
}

impl FromRows for Owned {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        self.todos = row.get(1)?;
        self.tags.extend(row.get::<Option<String>>(2)?);
        let list = row.get::<Option<Uuid>>(3)?.map(ListId::from);
        if let (Some(id), Some(name)) = (list, row.get::<Option<String>>(4)?) {
            self.list_count += 1;
            // Ids ascend with the time of the creation.
            self.lists.entry(name).and_modify(|first| *first = id.min(*first)).or_insert(id);
        }
        self.reminders = row.get(5)?;
        Ok(())
    }
}

/// The keys of the pieces of a request that were stored, with their fingerprints.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredPieces(pub(super) Vec<(String, Vec<u8>)>);

impl StoredPieces {
    pub(super) fn find(caller: Caller, key: &IdempotencyKey, now: DateTime<Utc>) -> Statement {
        // A space, and the character after it.
        const SQL: &str = concat!(
            "SELECT key, fingerprint FROM idempotency \
             WHERE user_id = $1 AND key > $4 AND key < $5 AND made_at >= $6 AND ",
            authorized!()
        );
        acting_as(caller, SQL)
            .bind(format!("{} ", key.as_str()))
            .bind(format!("{}!", key.as_str()))
            .bind(Timestamp(now - KEY_LIFETIME))
    }
}

impl FromRows for StoredPieces {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.0.push((row.get(0)?, row.get(1)?));
        Ok(())
    }
}

/// The statement that makes other writers of the user's todos and lists wait, so that the next one
/// sees what they have; `None` on SQLite, which has one writer.
pub(super) fn lock_counts(caller: Caller, dialect: Dialect) -> Option<Statement> {
    const SQL: &str = "SELECT 1 FROM todo_counts WHERE user_id = $1 FOR UPDATE";
    match dialect {
        Dialect::Sqlite => None,
        Dialect::Postgres => Some(Statement::new(SQL).bind(caller.user_id())),
    }
}

/// The statement that creates lists, if the caller has none of their names.
pub(super) fn insert_lists(
    caller: Caller,
    dialect: Dialect,
    lists: &[FileList],
    now: DateTime<Utc>,
    limit: u32,
) -> Statement {
    const SQL: Text = both!(insert_lists);
    let mut ids: Vec<Uuid> = lists.iter().map(|_| new_id(now)).collect();
    ids.sort_unstable();
    let object: Map<String, Value> = ids
        .iter()
        .zip(lists)
        .map(|(id, list)| {
            (id.simple().to_string(), json!({ "name": list.name, "color": list.color }))
        })
        .collect();
    acting_as(caller, SQL.of(dialect))
        .bind(Value::Object(object).to_string())
        .bind(Timestamp(now))
        .bind(i64::from(limit))
        .bind(i64::try_from(lists.len()).unwrap_or(i64::MAX))
}

/// The todos of a piece, with their ids and lists.
pub(super) struct Piece<'a> {
    pub(super) items: &'a [Item],
    /// As many, in ascending order.
    pub(super) ids: &'a [TodoId],
    pub(super) lists: &'a BTreeMap<String, ListId>,
}

impl Piece<'_> {
    /// The statement that creates all of them, or none if they exceed a quota.
    pub(super) fn insert(
        &self,
        caller: Caller,
        dialect: Dialect,
        limits: Limits,
        now: DateTime<Utc>,
    ) -> Statement {
        const SQL: Text = both!(insert_todos);
        let mut object = Map::new();
        let mut tags = BTreeSet::new();
        let mut reminders = 0;
        for (item, id) in self.items.iter().zip(self.ids) {
            tags.extend(item.tags.iter());
            reminders += item.open_reminders(now);
            object.insert(member(*id), self.column_values(caller, item, *id));
        }
        let tags: Vec<_> = tags.into_iter().map(super::super::tags::Tag::as_str).collect();
        acting_as(caller, SQL.of(dialect))
            .bind(Value::Object(object).to_string())
            .bind(i64::from(limits.todos))
            .bind(i64::try_from(self.items.len()).unwrap_or(i64::MAX))
            .bind(json!(tags).to_string())
            .bind(i64::from(limits.tags))
            .bind(i64::try_from(reminders).unwrap_or(i64::MAX))
            .bind(i64::from(limits.reminders))
    }

    /// The statements after which no reminder fires whose time was past before the import. The
    /// triggers compare the time with that of the last change, which may be long ago in a file.
    pub(super) fn forget_past_reminders(
        &self,
        caller: Caller,
        dialect: Dialect,
        now: DateTime<Utc>,
    ) -> Vec<Statement> {
        const PAST: Text = both!(drop_past_reminders);
        const DATES: Text = both!(date_reminders);
        // The time of a day that may be to come is computed later, and depends on the user.
        let is_date = |item: &Item| {
            let has_time = item.due.as_ref().is_some_and(|due| due.at().is_some());
            !has_time && item.open_reminders(now) > 0
        };
        let statement = |text: &Text, are_dates: bool| {
            let items = self.items.iter().zip(self.ids);
            let items = items
                .filter(|(item, _)| item.may_remind() && is_date(item) == are_dates)
                .map(|(_, id)| (member(*id), Value::Null));
            let object: Map<String, Value> = items.collect();
            (!object.is_empty()).then(|| {
                let statement = acting_as(caller, text.of(dialect));
                statement.bind(Value::Object(object).to_string()).bind(Timestamp(now))
            })
        };
        [statement(&PAST, false), statement(&DATES, true)].into_iter().flatten().collect()
    }

    fn column_values(&self, caller: Caller, item: &Item, id: TodoId) -> Value {
        let list_id = item.list.as_ref().and_then(|name| self.lists.get(name)).copied();
        let todo = Todo {
            id,
            user_id: caller.user_id(),
            title: item.title.clone(),
            description: item.description.clone(),
            priority: item.priority,
            completed: item.completed_at.is_some(),
            created_at: item.created_at,
            updated_at: item.updated_at,
            completed_at: item.completed_at,
            tags: item.tags.clone(),
            due: item.due.clone(),
            recurrence: item.recurrence.clone(),
            reminders: item.reminders.clone(),
            list_id,
        };
        let mut values = new_item(&todo);
        values["created_at"] = json!(item.created_at.timestamp_micros());
        values["updated_at"] = json!(item.updated_at.timestamp_micros());
        values["completed_at"] = json!(item.completed_at.map(|at| at.timestamp_micros()));
        values["position"] = json!(item.position);
        values["ical"] = json!(item.ical);
        values
    }
}
