//! Sessions and their tokens: verification and logout.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    AuthEvent, Caller, Session, Token, User, UserId,
    credential::{Credential, Known, find, read},
    events,
};
use crate::{
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement},
    error::{Error, Result},
};

/// Ends the session of `token`, or the API key: from now on every replica rejects it. Other
/// sessions of the user stay.
///
/// # Errors
/// [`Error::Unauthenticated`]; else as [`authenticate`].
pub async fn logout(core: &Core, token: &str) -> Result<()> {
    let credential = read(core, token, None)?;
    let known = find(core, credential, None, None).await?;
    log_out(core, known.caller, None).await
}

/// Ends the caller's session. `client` is the address for the log.
pub(crate) async fn log_out(core: &Core, caller: Caller, client: Option<IpAddr>) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
    let db = core.db();
    let streams = core.streams().clone();
    let user_id = caller.user_id();
    core.write_and_log(user_id, async move {
        let end = Statement::new(SQL).of(user_id).bind(caller.session_or_nil()).bind(user_id);
        let ended = match db.execute(end).await {
            Ok(RowsAffected(0)) => Err(Error::Unauthenticated),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.into()),
        };
        match &ended {
            Ok(()) => {
                streams.end_session(user_id, caller.session_or_nil());
                events::succeeded(AuthEvent::Logout, client, user_id);
            }
            Err(error) => {
                events::failed(AuthEvent::Logout, client, Some(user_id), events::reason(error));
            }
        }
        ended
    })
    .await
}

/// Verifies `token`, or an API key, and its session in the database, and returns its caller. See
/// [`Caller`] for the scopes of a key.
///
/// # Errors
/// [`Error::Unauthenticated`]; else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn authenticate(core: &Core, token: &str) -> Result<Caller> {
    let credential = read(core, token, None)?;
    let was_known = matches!(credential, Credential::Known(_));
    let Known { caller, .. } = find(core, credential, None, None).await?;
    if was_known {
        check_session(core, &caller).await?;
    }
    Ok(caller)
}

/// Fails if the caller's session has ended meanwhile. A [trusted](Caller::trusted) caller has no
/// session.
///
/// # Errors
/// As [`authenticate`].
pub async fn check_session(core: &Core, caller: &Caller) -> Result<()> {
    if is_live(core, caller, caller.user_id()).await? {
        Ok(())
    } else {
        Err(Error::Unauthenticated)
    }
}

/// Whether the caller's session is live, or there is none to check. The statement waits in the
/// queue of `queue`.
pub(super) async fn is_live(core: &Core, caller: &Caller, queue: UserId) -> Result<bool> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2)";
    let Some(session) = caller.session() else { return Ok(true) };
    let db = core.db();
    let user_id = caller.user_id();
    core.read(queue, async move {
        let (is_live,): (bool,) =
            db.fetch_one(Statement::new(SQL).bind(session).bind(user_id)).await?;
        Ok(is_live)
    })
    .await
}

/// A new session with its signed token, and its id. It is valid once it is stored.
pub(crate) fn new_session(core: &Core, user: User, now: DateTime<Utc>) -> Result<(Uuid, Session)> {
    let id = new_id(now);
    let expires_at = core.tokens().expiry(now);
    let token = core.tokens().sign(user.id.as_uuid(), id, now, expires_at)?;
    Ok((id, Session { user, token: Token::new(token), expires_at }))
}
