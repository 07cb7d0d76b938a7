//! The caller's own account.

use super::{Caller, Name, User, types::user_columns};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    error::{Error, Result},
};

/// The caller's own account.
///
/// # Errors
/// As [`authenticate`](super::authenticate).
pub async fn current_user(core: &Core, caller: &Caller) -> Result<User> {
    const SQL: &str = concat!(
        "SELECT ",
        user_columns!(),
        " FROM users WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let user: Option<User> = db.fetch(acting_as(caller, SQL)).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Sets the name of the caller's account. No todo and no session changes.
///
/// # Errors
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn rename(core: &Core, caller: &Caller, name: Name) -> Result<User> {
    const SQL: &str = concat!(
        "UPDATE users SET name = $4 WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING ",
        user_columns!()
    );
    caller.require_no_key()?;
    let db = core.db();
    let caller = *caller;
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL).bind(name.as_str());
        let user: Option<User> = db.execute(update).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}
