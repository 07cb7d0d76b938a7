//! The caller's own account.

use super::{Caller, Name, TimeZone, User, types::user_columns};
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

/// A change of an account, which leaves the fields that are `None` unchanged (RFC 7396).
///
/// ```
/// use todo_core::auth::ProfileChange;
///
/// let change = ProfileChange::new().time_zone(None).reminder_mail(true);
/// assert!(change.name.is_none());
/// assert_eq!(change.time_zone, Some(None), "the time zone is cleared");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileChange {
    /// A new name.
    pub name: Option<Name>,
    /// `Some(None)` clears the time zone.
    pub time_zone: Option<Option<TimeZone>>,
    /// Whether the user is reminded of todos by mail.
    pub reminder_mail: Option<bool>,
}

impl ProfileChange {
    /// A change of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the name.
    #[must_use]
    pub fn name(mut self, name: Name) -> Self {
        self.name = Some(name);
        self
    }

    /// Changes the time zone; `None` clears it.
    #[must_use]
    pub fn time_zone(mut self, time_zone: impl Into<Option<TimeZone>>) -> Self {
        self.time_zone = Some(time_zone.into());
        self
    }

    /// Changes whether the user is reminded of todos by mail.
    #[must_use]
    pub fn reminder_mail(mut self, reminder_mail: bool) -> Self {
        self.reminder_mail = Some(reminder_mail);
        self
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the caller's account and returns it. No todo and no session changes.
///
/// # Errors
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn update_profile(core: &Core, caller: &Caller, change: ProfileChange) -> Result<User> {
    const SQL: &str = concat!(
        "UPDATE users SET name = coalesce($4, name), \
         time_zone = CASE WHEN $5 THEN $6 ELSE time_zone END, \
         reminder_mail = CASE WHEN $7 THEN $8 ELSE reminder_mail END \
         WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING ",
        user_columns!()
    );
    caller.require_no_key()?;
    if change.is_empty() {
        return current_user(core, caller).await;
    }
    let ProfileChange { name, time_zone, reminder_mail } = change;
    let db = core.db();
    let caller = *caller;
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL)
            .bind(name.as_ref().map(Name::as_str))
            .bind(time_zone.is_some())
            .bind(time_zone.flatten().as_ref().map(TimeZone::as_str))
            .bind(reminder_mail.is_some())
            .bind(reminder_mail.unwrap_or_default());
        let user: Option<User> = db.execute(update).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Sets the name of the caller's account, as [`update_profile`].
///
/// # Errors
/// As [`update_profile`].
pub async fn rename(core: &Core, caller: &Caller, name: Name) -> Result<User> {
    update_profile(core, caller, ProfileChange::new().name(name)).await
}
