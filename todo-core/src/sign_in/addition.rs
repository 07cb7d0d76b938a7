//! A provider's identity for the account of a user who is logged in. The browser that comes back
//! from the provider gets a code for the app, and nothing is added until the app has sent it with
//! the user's token. So an addition needs no cookie, which an app of another origin could not set,
//! and nobody can make another's browser add an identity to his account.

use std::net::IpAddr;

use super::{
    callback::{refuse, user_of},
    find,
    start::{check, provider_url},
    unavailable, within_limit,
};
use crate::{
    auth::{Caller, Client, Identity, Limited, add_proved_identity, require_fresh_session},
    clock::new_id,
    core::Core,
    error::{Error, Result},
    identity::sign_in::{Flow, FlowLink, LinkCode},
    rate_limit::Action,
};

/// Begins the addition of an identity at the provider `provider` to the caller's account, and
/// returns the address of the provider's page, to which the app sends the browser. It comes back to
/// `redirect_uri` with `code` for [`complete_addition`], or with `error`, and with `state`. Both
/// are as those of [`start`](super::start). The session must have begun within the last 10 minutes.
///
/// # Errors
/// [`Error::NotFound`] if there is no such provider, [`Error::Invalid`],
/// [`Error::ReauthenticationRequired`], [`Error::InsufficientScope`] if the caller has a key;
/// [`Error::Unavailable`] if the provider does not answer; else as
/// [`authenticate`](crate::auth::authenticate).
pub async fn start_addition(
    core: &Core,
    caller: &Caller,
    provider: &str,
    redirect_uri: &str,
    state: Option<&str>,
) -> Result<String> {
    caller.require_no_key()?;
    let (sign_in, provider) = find(core, provider)?;
    check(sign_in, redirect_uri, None, state)?;
    require_fresh_session(core, caller).await?;
    let now = core.now();
    let link = FlowLink::AddTo(caller.user_id().as_uuid());
    let flow = Flow::new(new_id(now), provider.name(), redirect_uri, state, link, now);
    provider_url(core, provider, &flow).await?.ok_or_else(unavailable)
}

/// Adds the identity of the code `grant` to the caller's account, which must have begun the
/// addition, within a minute. An identity that the user has already is returned. The session must
/// have begun within the last 10 minutes. The rate limit is per address of a `client`.
///
/// # Errors
/// [`Error::InvalidGrant`], [`Error::IdentityTaken`] if the identity belongs to another account,
/// [`Error::QuotaExceeded`] if the user has [`MAX_IDENTITIES`](crate::auth::MAX_IDENTITIES),
/// [`Error::ReauthenticationRequired`], [`Error::RateLimited`], [`Error::InsufficientScope`] if the
/// caller has a key; [`Error::Unavailable`] if the provider does not answer; else as
/// [`authenticate`](crate::auth::authenticate).
pub async fn complete_addition(
    core: &Core,
    client: Client,
    caller: &Caller,
    grant: &str,
) -> Result<Identity> {
    complete_addition_limited(core, client.address(), caller, grant).await.result
}

/// As [`complete_addition`], with the state of the rate limit.
pub(crate) async fn complete_addition_limited(
    core: &Core,
    client: Option<IpAddr>,
    caller: &Caller,
    grant: &str,
) -> Limited<Identity> {
    // First, so that neither the provider nor a slot is used for nothing.
    if let Err(error) = require_fresh_session(core, caller).await {
        return Limited::new(Err(error));
    }
    let opened = LinkCode::open(core.tokens(), grant, core.now());
    let own = FlowLink::AddTo(caller.user_id().as_uuid());
    let Some((link, flow, secrets)) = opened.filter(|(_, flow, _)| flow.link == own) else {
        return Limited::new(Err(refuse(client, "another user's addition, or an expired one")));
    };
    let added = async {
        let (_, provider) = find(core, &flow.provider).map_err(|_| Error::InvalidGrant)?;
        let proved = user_of(provider, &link.code, &secrets, client).await?;
        add_proved_identity(core, caller, proved, client).await
    };
    within_limit(core, Action::SignInEnd, client, added).await
}
