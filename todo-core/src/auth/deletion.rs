//! The deletion of an account by its user. It takes effect at once; the rows of the user are
//! deleted by [`delete_left_rows`](super::delete_left_rows) afterwards.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    AuthEvent, Caller, Client, Password, check_session, events,
    limited::Limited,
    reauthentication::{RECENT, Reauthenticated, is_recent, reauthenticate},
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::value::Timestamp,
    error::{Error, Result},
    rate_limit::RateLimitState,
    validate,
};

/// Deletes the caller's account, for good. From now on every replica rejects all tokens and API
/// keys of the user, and the address is free for a new account. The todos and everything else of
/// the user are deleted by the jobs of [`jobs::run_due`](crate::jobs::run_due), in small pieces.
///
/// Wrong passwords count for the address of a `client`, as those of logins, and for the user.
///
/// # Errors
/// [`Error::InvalidCredentials`] if the password is wrong, [`Error::InsufficientScope`] if the
/// caller has a key, [`Error::RateLimited`], [`Error::Busy`]; else as
/// [`authenticate`](super::authenticate).
pub async fn delete_account(
    core: &Core,
    caller: &Caller,
    client: Client,
    password: Password,
) -> Result<()> {
    delete_account_limited(core, caller, client.address(), password).await.result
}

/// As [`delete_account`], with the state of the rate limit.
pub(crate) async fn delete_account_limited(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
    password: Password,
) -> Limited<()> {
    let work = core.clone();
    let caller = *caller;
    let outcome = core.anonymous(async move {
        let mut state = None;
        let deleted = delete(&work, caller, client, password, &mut state).await;
        if deleted.is_ok() {
            events::succeeded(AuthEvent::AccountDeletion, client, caller.user_id());
        }
        Ok((deleted, state))
    });
    Limited::new(outcome.await)
}

/// As [`delete_account`], of an account without a password: one that was created by a sign-in with
/// another issuer. In place of the password it requires that the caller's session began within the
/// last 10 minutes. A [trusted](Caller::trusted) caller has no session, and needs none.
///
/// # Errors
/// [`Error::Invalid`] with the code `missing` of the field `password` if the account has one;
/// [`Error::ReauthenticationRequired`] if the session is older, [`Error::InsufficientScope`] if the
/// caller has a key; else as [`authenticate`](super::authenticate).
pub async fn delete_account_without_password(
    core: &Core,
    caller: &Caller,
    client: Client,
) -> Result<()> {
    caller.require_no_key()?;
    let work = core.clone();
    let caller = *caller;
    let client = client.address();
    core.write_and_log(caller.user_id(), async move {
        let deleted = delete_without_password(&work, caller).await;
        match &deleted {
            Ok(()) => events::succeeded(AuthEvent::AccountDeletion, client, caller.user_id()),
            Err(error @ Error::ReauthenticationRequired) => {
                let reason = events::reason(error);
                events::failed(AuthEvent::AccountDeletion, client, Some(caller.user_id()), reason);
            }
            Err(_) => {}
        }
        deleted
    })
    .await
}

async fn delete_without_password(core: &Core, caller: Caller) -> Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO account_deletions (user_id, password_hash, deleted_at, notice_id) \
         SELECT id, password_hash, $4, $5 FROM users \
         WHERE id = $1 AND password_hash = '!' AND deleted_at IS NULL AND ",
        is_recent!("$6"),
        " RETURNING user_id"
    );
    const REASON: &str = concat!(
        "SELECT password_hash = '!', id FROM users WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    let now = core.now();
    let insert = acting_as(caller, SQL)
        .bind(Timestamp(now))
        .bind(core.notice_id(now))
        .bind(Timestamp(now - RECENT));
    let deleted: Option<(Uuid,)> = core.db().execute(insert).await?;
    if deleted.is_some() {
        core.streams().end_user(caller.user_id());
        return Ok(());
    }
    let found: Option<(bool, Uuid)> = core.db().fetch(acting_as(caller, REASON)).await?;
    match found {
        None => Err(Error::Unauthenticated),
        Some((false, _)) => Err(validate::missing("password").into()),
        Some((true, _)) => Err(Error::ReauthenticationRequired),
    }
}

async fn delete(
    core: &Core,
    caller: Caller,
    client: Option<IpAddr>,
    password: Password,
    state: &mut Option<RateLimitState>,
) -> Result<()> {
    // A view, whose trigger locks the account on PostgreSQL: a login that has checked the password
    // meanwhile creates its session before, and this ends it, or creates none.
    const SQL: &str = concat!(
        "INSERT INTO account_deletions (user_id, password_hash, deleted_at, notice_id) \
         SELECT id, password_hash, $5, $6 FROM users \
         WHERE id = $1 AND password_hash = $4 AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING user_id"
    );
    caller.require_no_key()?;
    let Reauthenticated { password_hash, .. } =
        reauthenticate(core, &caller, client, password, state).await?;
    let now = core.now();
    let insert =
        acting_as(caller, SQL).bind(password_hash).bind(Timestamp(now)).bind(core.notice_id(now));
    let deleted: Option<(Uuid,)> = core.db().execute(insert).await?;
    if deleted.is_none() {
        // The session has ended meanwhile, with the account for example, or the password was
        // changed.
        check_session(core, &caller).await?;
        return Err(Error::InvalidCredentials);
    }
    core.streams().end_user(caller.user_id());
    Ok(())
}
