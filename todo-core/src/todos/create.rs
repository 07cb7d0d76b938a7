//! Creation of a todo.

use chrono::{DateTime, Utc};

use super::{Description, NewTodo, Todo};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
};

/// SQL expression for the number of the caller's todos, which the quota limits.
macro_rules! used_quota {
    () => {
        "(SELECT pending + completed FROM todo_counts WHERE user_id = $1)"
    };
}
pub(super) use used_quota;

/// SQL condition that the caller may have another todo: `$limit` is the quota, 0 for none.
macro_rules! is_below_quota {
    ($limit:literal) => {
        concat!("(", $limit, " = 0 OR ", used_quota!(), " < ", $limit, ")")
    };
}
pub(super) use is_below_quota;

/// Creates a todo.
///
/// # Errors
/// [`Error::Unauthenticated`] if the caller's session has ended or the user was deleted,
/// [`Error::QuotaExceeded`] if the user has as many todos as
/// [`CoreBuilder::max_todos`](crate::CoreBuilder::max_todos) allows; else the errors of every
/// operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn create(core: &Core, caller: &Caller, new: NewTodo) -> Result<Todo> {
    // Without RETURNING: all columns are known, and reading them took a tenth of the statement.
    const SQL: &str = concat!(
        "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at) SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9 WHERE ",
        authorized!(),
        " AND ",
        is_below_quota!("$10")
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let limit = core.max_todos();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let todo = new_todo(caller, new, now);
        let insert = acting_as(caller, SQL)
            .bind(todo.id)
            .bind(todo.title.as_str())
            .bind(crate::validate::sort_key(todo.title.as_str()))
            .bind(todo.description.as_ref().map(Description::as_str))
            .bind(todo.priority)
            .bind(Timestamp(now))
            .bind(i64::from(limit));
        match db.execute::<RowsAffected>(insert).await {
            Ok(RowsAffected(0)) => Err(Box::pin(explain_no_insert(&work, caller, limit)).await),
            Ok(_) => Ok(todo),
            Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}

/// The todo that is inserted: as a later read returns it.
pub(super) fn new_todo(caller: Caller, new: NewTodo, now: DateTime<Utc>) -> Todo {
    Todo {
        id: new_id(now).into(),
        user_id: caller.user_id(),
        title: new.title,
        description: new.description,
        priority: new.priority,
        completed: false,
        created_at: now,
        updated_at: now,
        completed_at: None,
    }
}

/// Returns whether the caller is authorized, and the number of the caller's todos, if the account
/// exists.
pub(super) fn count_todos(caller: Caller) -> Statement {
    const SQL: &str = concat!("SELECT ", authorized!(), ", ", used_quota!());
    acting_as(caller, SQL)
}

/// The reason why no todo was inserted.
pub(super) async fn explain_no_insert(core: &Core, caller: Caller, limit: u32) -> Error {
    let used = async { Ok(core.db().fetch_one(count_todos(caller)).await?) };
    match core.read_in_write::<(bool, Option<i64>)>(caller.user_id(), used).await {
        Err(error) => error,
        // A todo that was deleted meanwhile made room.
        Ok((true, Some(used))) => quota_error(limit, used).unwrap_or(Error::Busy),
        // The session has ended, or a trusted caller's account does not exist.
        Ok(_) => Error::Unauthenticated,
    }
}

/// The error of a user with `used` todos, if no more are allowed.
pub(super) fn quota_error(limit: u32, used: i64) -> Option<Error> {
    let (limit, used) = (u64::from(limit), used.unsigned_abs());
    (limit > 0 && used >= limit).then_some(Error::QuotaExceeded { limit, used })
}
