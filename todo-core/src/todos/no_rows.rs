//! The reason why a statement on one todo affected no row.

use uuid::Uuid;

use super::{Target, Todo};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    error::{Error, Result},
};

/// Returns the statement's row, or the reason why it affected none.
pub(super) async fn require_row(
    core: &Core,
    caller: Caller,
    target: Target,
    found: Option<Todo>,
) -> Result<Todo> {
    match found {
        Some(todo) => Ok(todo),
        None => Err(Box::pin(explain_no_rows(core, caller, target)).await),
    }
}

/// Returns the reason why a statement on the target affected no row.
pub(super) async fn explain_no_rows(core: &Core, caller: Caller, target: Target) -> Error {
    const SQL: &str =
        concat!("SELECT ", authorized!(), ", (SELECT user_id FROM todos WHERE id = $4)");
    match core
        .db()
        .fetch_one::<(bool, Option<Uuid>)>(acting_as(caller, SQL).bind(target.id()))
        .await
    {
        Err(fault) => fault.into(),
        Ok((false, _)) => Error::Unauthenticated,
        Ok((true, Some(owner))) if owner != caller.user_id().as_uuid() => Error::Forbidden,
        Ok((true, Some(_))) if target.is_conditional() => Error::PreconditionFailed,
        Ok((true, _)) => Error::NotFound,
    }
}
