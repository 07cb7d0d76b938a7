//! The statement that assigns keys to todos.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    authz::{Caller, acting_as, authorized},
    db::{Dialect, Statement},
    todos::{
        bulk::{Text, both, is_callers_row, item_id, items, member},
        order_key::OrderKey,
    },
};

/// Maximum number of todos that get keys in one transaction: these changes are in one index, and
/// not in the log.
pub(super) const PIECE: i64 = 500;

/// A todo, its present key, and its new one.
pub(super) type Assignment = (Uuid, Option<String>, OrderKey);

/// The statement that assigns keys to todos that still have the present one. It changes no
/// `updated_at`, since no client has the keys, and the order stays as it is.
pub(super) fn assign(
    caller: Caller,
    dialect: Dialect,
    keys: impl IntoIterator<Item = Assignment>,
) -> Statement {
    macro_rules! assign {
        ($dialect:ident) => {
            concat!(
                "UPDATE todos SET position = new_position FROM (SELECT ",
                item_id!($dialect),
                " AS item_id, item.value ->> 'new' AS new_position, \
                 item.value ->> 'old' AS old_position FROM ",
                items!($dialect),
                ") AS assigned WHERE todos.id = item_id AND ",
                is_callers_row!($dialect),
                " AND position IS NOT DISTINCT FROM old_position AND ",
                authorized!()
            )
        };
    }
    const SQL: Text = both!(assign);
    let item = |(id, old, new): Assignment| {
        (member(id.into()), json!({ "old": old, "new": new.to_stored() }))
    };
    let object: Map<String, Value> = keys.into_iter().map(item).collect();
    acting_as(caller, SQL.of(dialect)).bind(Value::Object(object).to_string())
}
