//! The credential of a request: what it proves without the database, and its caller.

use std::{net::IpAddr, sync::Arc};

use super::{
    AuthEvent, Caller, SessionLabel, events,
    known_keys::{find_key, is_known},
};
#[cfg(feature = "identity")]
use crate::{auth::external, identity::is_foreign};
use crate::{
    core::Core,
    crypto::{api_key, tokens::VerifiedToken},
    error::{Error, Result},
};

/// A credential of a request.
#[derive(Debug)]
pub(crate) enum Credential {
    /// Its form, signature and times are valid, and its user is right. Its session may have ended:
    /// only the operations, whose statements check the session, may take the caller.
    Known(Known),
    /// An API key that this process has not found yet: its user is a claim.
    UnknownKey(Caller),
    /// A token that says to be of another issuer, and that this process has not verified yet.
    #[cfg(feature = "identity")]
    UnknownToken(Box<str>),
}

/// The caller of a credential.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) caller: Caller,
    /// The user's id at the issuer of a token of another issuer: it may stand for the user's id in
    /// a path.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "there are no paths"))]
    pub(crate) subject: Option<Arc<str>>,
}

#[cfg(feature = "http")]
impl Known {
    /// Whether the caller is the user of a path that has the id at the issuer, percent-encoded (RFC
    /// 3986, section 2.1).
    pub(crate) fn is_named(&self, user: &str) -> bool {
        let decoded = percent_encoding::percent_decode_str(user);
        self.subject.as_deref().is_some_and(|subject| decoded.eq(subject.bytes()))
    }
}

impl From<Caller> for Known {
    fn from(caller: Caller) -> Self {
        Self { caller, subject: None }
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
    let known = if token.starts_with(api_key::PREFIX) {
        let key = match api_key::read(token, core.now()) {
            Ok(key) => Caller::of_key(key),
            Err(rejected) => return refuse(None, rejected.reason()),
        };
        if !is_known(core, key) {
            return Ok(Credential::UnknownKey(key));
        }
        key.into()
    } else {
        #[cfg(feature = "identity")]
        let foreign = match &core.identity().verifier {
            Some(_) if is_foreign(token) => match external::recall(core, token) {
                None => return Ok(Credential::UnknownToken(token.into())),
                known => known,
            },
            _ => None,
        };
        #[cfg(not(feature = "identity"))]
        let foreign: Option<Known> = None;
        match foreign {
            Some(known) => known,
            None => match core.tokens().verify(token, core.now()) {
                Ok(VerifiedToken { user_id, session, expires_at }) => {
                    Caller::of_session(user_id.into(), session, expires_at).into()
                }
                Err(rejected) => {
                    return refuse(rejected.user_id().map(Into::into), rejected.reason());
                }
            },
        }
    };
    core.last_uses().record(known.caller.session_or_nil());
    Ok(Credential::Known(known))
}

/// The caller of a credential; verifies a token of another issuer, or looks for the session of a
/// key, that is not known yet. `client` is the address that sent it, and `label` the program.
///
/// # Errors
/// [`Error::Unauthenticated`]; else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
#[cfg_attr(not(feature = "identity"), expect(unused_variables, reason = "of first requests"))]
pub(crate) async fn find(
    core: &Core,
    credential: Credential,
    client: Option<IpAddr>,
    label: Option<SessionLabel>,
) -> Result<Known> {
    match credential {
        Credential::Known(known) => Ok(known),
        Credential::UnknownKey(key) => {
            find_key(core, &key, client).await?;
            Ok(key.into())
        }
        #[cfg(feature = "identity")]
        Credential::UnknownToken(token) => external::first_sight(core, &token, client, label).await,
    }
}
