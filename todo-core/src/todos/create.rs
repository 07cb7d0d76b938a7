//! Creation of a todo.

use super::{Description, NewTodo, Todo, todo_columns};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::value::Timestamp,
    error::{Error, Result},
};

/// Creates a todo.
///
/// # Errors
/// [`Error::Unauthenticated`] if the caller's session has ended or the user was deleted; else the
/// errors of every operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn create(core: &Core, caller: &Caller, new: NewTodo) -> Result<Todo> {
    const SQL: &str = concat!(
        "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at) SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9 WHERE ",
        authorized!(),
        " RETURNING ",
        todo_columns!()
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    core.write(caller.user_id(), async move {
        let insert = acting_as(caller, SQL)
            .bind(new_id(now))
            .bind(new.title.as_str())
            .bind(crate::validate::sort_key(new.title.as_str()))
            .bind(new.description.as_ref().map(Description::as_str))
            .bind(new.priority)
            .bind(Timestamp(now));
        match db.execute::<Option<Todo>>(insert).await {
            Ok(todo) => todo.ok_or(Error::Unauthenticated),
            Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}
