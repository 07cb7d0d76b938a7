//! The reason why a statement on one todo affected no row.

use uuid::Uuid;

use super::{Target, Todo};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    error::{Error, Result},
};

/// Returns the row of a read, or the reason why there is none.
pub(super) async fn require_row(
    core: &Core,
    caller: Caller,
    target: Target,
    found: Option<Todo>,
) -> Result<Todo> {
    match found {
        Some(todo) => Ok(todo),
        None => Err(Box::pin(find_reason(core, caller, target)).await),
    }
}

/// Returns the row of a write, or the reason why it changed none.
pub(super) async fn require_change<T>(
    core: &Core,
    caller: Caller,
    target: Target,
    changed: Option<T>,
) -> Result<T> {
    if let Some(row) = changed {
        return Ok(row);
    }
    let reason = async { Err(find_reason(core, caller, target).await) };
    Box::pin(core.read_in_write(caller.user_id(), reason)).await
}

async fn find_reason(core: &Core, caller: Caller, target: Target) -> Error {
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
