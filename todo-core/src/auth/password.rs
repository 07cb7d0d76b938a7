//! The change of a password by its user.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    AuthEvent, Caller, Client, Password, Session, SessionLabel, common_passwords, events,
    limited::Limited,
    reauthentication::{Reauthenticated, reauthenticate},
    session::new_session,
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::value::Timestamp,
    error::{Error, Result},
    rate_limit::{RateLimitState, client_key},
};

/// A new password, by a user who knows the present one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PasswordChange {
    /// The present password.
    pub current: Password,
    /// The new password.
    pub new: Password,
    /// Whether the user's API keys end too. Default: no.
    pub end_keys: bool,
    /// The label of the new session.
    pub label: Option<SessionLabel>,
}

impl PasswordChange {
    /// A change from `current`, which need not meet the rules of today, to `new`. API keys stay.
    #[must_use]
    pub fn new(current: Password, new: Password) -> Self {
        Self { current, new, end_keys: false, label: None }
    }
}

/// Changes the password of the caller's user, ends all of its sessions, the caller's own too, and
/// creates a new one. Links that were mailed to reset the password, or to change the address, are
/// invalid from now on. A login that is under way with the old password creates no session.
///
/// Wrong passwords count for the address of a `client`, as those of logins, and for the user.
///
/// # Errors
/// [`Error::InvalidCredentials`] if the present password is wrong, [`Error::Invalid`] if the new
/// one is among those that are tried first, [`Error::InsufficientScope`] if the caller has a key,
/// [`Error::RateLimited`], [`Error::Busy`]; else as [`authenticate`](super::authenticate).
pub async fn change_password(
    core: &Core,
    caller: &Caller,
    client: Client,
    change: PasswordChange,
) -> Result<Session> {
    change_password_limited(core, caller, client.address(), change).await.result
}

/// As [`change_password`], with the state of the rate limit.
pub(crate) async fn change_password_limited(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
    change: PasswordChange,
) -> Limited<Session> {
    let work = core.clone();
    let caller = *caller;
    let outcome = core.anonymous(async move {
        let mut state = None;
        let session = change_to(&work, caller, client, change, &mut state).await;
        if session.is_ok() {
            events::succeeded(AuthEvent::PasswordChange, client, caller.user_id());
        }
        Ok((session, state))
    });
    Limited::new(outcome.await)
}

async fn change_to(
    core: &Core,
    caller: Caller,
    client: Option<IpAddr>,
    change: PasswordChange,
    state: &mut Option<RateLimitState>,
) -> Result<Session> {
    // A view. Its trigger sets the hash first, and ends the sessions that it finds then.
    const SQL: &str = concat!(
        "INSERT INTO password_changes (user_id, old_hash, new_hash, end_keys, session_id, label, \
         client, changed_at, expires_at, mail_id) \
         SELECT id, password_hash, $5, $6, $7, $8, $9, $10, $11, $12 FROM users \
         WHERE id = $1 AND password_hash = $4 AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING session_id"
    );
    caller.require_no_key()?;
    let PasswordChange { current, new, end_keys, label } = change;
    let Reauthenticated { user, password_hash } =
        reauthenticate(core, &caller, client, current, state).await?;
    common_passwords::check(&new, "new_password", &user.email, core.service_name())?;
    let new_hash = core.hasher().permit(client, None)?.hash(new).await?;
    let now = core.now();
    let (id, session) = new_session(core, user, now)?;
    let insert = acting_as(caller, SQL)
        .bind(password_hash)
        .bind(new_hash)
        .bind(end_keys)
        .bind(id)
        .bind(label.as_ref().map(SessionLabel::as_str))
        .bind(client.map(client_key))
        .bind(Timestamp(now))
        .bind(Timestamp(session.expires_at))
        .bind(core.notice_id(now));
    let changed: Option<(Uuid,)> = core.db().execute(insert).await?;
    if changed.is_none() {
        // The session has ended meanwhile, or the password was changed.
        super::check_session(core, &caller).await?;
        return Err(Error::InvalidCredentials);
    }
    core.streams().end_session(caller.user_id(), caller.session_or_nil());
    Ok(session)
}
