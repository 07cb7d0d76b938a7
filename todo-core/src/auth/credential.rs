//! The credential of a request: what it proves without the database, and its caller.

use std::net::IpAddr;

use super::{
    AuthEvent, Caller, events,
    known_keys::{find_key, is_known},
};
use crate::{
    core::Core,
    crypto::{api_key, tokens::VerifiedToken},
    error::{Error, Result},
};

/// A credential whose form, signature and times are valid.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Credential {
    /// Its user is right. Its session may have ended: only the operations, whose statements check
    /// the session, may take the caller.
    Caller(Caller),
    /// An API key that this process has not found yet: its user is a claim.
    UnknownKey(Caller),
}

impl Credential {
    /// The caller, if its user is right.
    pub(crate) fn caller(self) -> Option<Caller> {
        match self {
            Self::Caller(caller) => Some(caller),
            Self::UnknownKey(_) => None,
        }
    }
}

/// Verifies the signature and the times of `token`, or the form and the expiry of an API key, and
/// records the use of a session that is known. `client` is the address for the log.
///
/// # Errors
/// [`Error::Unauthenticated`].
pub(crate) fn read(core: &Core, token: &str, client: Option<IpAddr>) -> Result<Credential> {
    let refuse = |user_id, reason| {
        events::failed(AuthEvent::Token, client, user_id, reason);
        Err(Error::Unauthenticated)
    };
    if token.starts_with(api_key::PREFIX) {
        let key = match api_key::read(token, core.now()) {
            Ok(key) => Caller::of_key(key),
            Err(rejected) => return refuse(None, rejected.reason()),
        };
        if !is_known(core, key) {
            return Ok(Credential::UnknownKey(key));
        }
        core.last_uses().record(key.session_or_nil());
        return Ok(Credential::Caller(key));
    }
    match core.tokens().verify(token, core.now()) {
        Ok(VerifiedToken { user_id, session, expires_at }) => {
            core.last_uses().record(session);
            Ok(Credential::Caller(Caller::of_session(user_id.into(), session, expires_at)))
        }
        Err(rejected) => refuse(rejected.user_id().map(Into::into), rejected.reason()),
    }
}

/// The caller of a credential; looks for the session of a key that is not known yet. `client` is
/// the address that sent it.
///
/// # Errors
/// As [`find_key`].
pub(crate) async fn find(
    core: &Core,
    credential: Credential,
    client: Option<IpAddr>,
) -> Result<Caller> {
    match credential {
        Credential::Caller(caller) => Ok(caller),
        Credential::UnknownKey(key) => {
            find_key(core, &key, client).await?;
            Ok(key)
        }
    }
}
