//! The end of a sign-in at the provider: from its page back to the app.

use std::net::IpAddr;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Redirection, cookie, find, unavailable, with_error, within_limit};
use crate::{
    auth::{
        Client, Limited, NewIds, ProvedIdentity,
        events::{self, AuthEvent},
        found_or_new, found_or_new_columns,
    },
    clock::new_id,
    core::Core,
    db::{Statement, value::Timestamp},
    error::{Error, Result},
    identity::sign_in::{
        CallbackState, Flow, FlowLink, FlowSecrets, LinkCode, ProvedUser, Provider, ProviderError,
        SignIn, is_visible_ascii, seal_code, with_parameters,
    },
    rate_limit::Action,
};

/// How long an app may take to exchange a code.
const CODE_LIFETIME: TimeDelta = TimeDelta::minutes(1);
/// Maximum length of a provider's code, in bytes.
const MAX_CODE_BYTES: usize = 2048;
/// The errors of a provider that its user has caused (RFC 6749, section 4.1.2.1; OpenID Connect
/// Core 1.0, section 3.1.2.6).
const DENIALS: [&str; 5] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "login_required",
];

/// The query with which a provider sends a browser to [`callback`] (RFC 6749, sections 4.1.2 and
/// 4.1.2.1; RFC 9207).
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ProviderRedirect {
    /// `state`
    pub state: Option<String>,
    /// `code`
    pub code: Option<String>,
    /// `iss`
    pub iss: Option<String>,
    /// `error`. Its description is of no use here: it is not shown, since anyone can write one.
    pub error: Option<String>,
}

impl std::fmt::Debug for ProviderRedirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderRedirect").finish_non_exhaustive()
    }
}

/// Takes a browser that comes back from the provider `provider`, with the values of its `Cookie`
/// fields, on to the app: with `code` for [`exchange`](super::exchange), or with `error`, and with
/// the app's `state`. An error is `access_denied`, `temporarily_unavailable` or, if the address
/// that the provider has verified is that of an account which is not linked to it,
/// `account_exists`. The rate limit is per address of a `client`.
///
/// A new user gets an account. Its address is the one that the provider has verified; without one,
/// or if the address is that of an account already linked otherwise, the account has an address of
/// `users.invalid`.
///
/// # Errors
/// [`Error::InvalidGrant`] if the sign-in was not begun by this browser, has expired, or its code
/// or what the provider states by it is not valid: then the browser must not go to an app.
/// [`Error::NotFound`] if there is no such provider, [`Error::RateLimited`]; else [`Error::Busy`],
/// [`Error::Unavailable`], [`Error::Internal`].
pub async fn callback<'a>(
    core: &Core,
    client: Client,
    provider: &str,
    redirect: ProviderRedirect,
    cookies: impl IntoIterator<Item = &'a str>,
) -> Result<Redirection> {
    callback_limited(core, client.address(), provider, redirect, cookies).await.result
}

/// As [`callback`], with the state of the rate limit.
pub(crate) async fn callback_limited<'a>(
    core: &Core,
    client: Option<IpAddr>,
    provider: &str,
    redirect: ProviderRedirect,
    cookies: impl IntoIterator<Item = &'a str>,
) -> Limited<Redirection> {
    let found = match find(core, provider) {
        Ok(found) => found,
        Err(error) => return Limited::new(Err(error)),
    };
    let (sign_in, provider) = found;
    let cookies = cookie::values(cookies, sign_in.is_https());
    let Some(returned) = Returned::open(core, provider, &redirect, cookies) else {
        return Limited::new(Err(refuse(client, "another browser's sign-in, or an expired one")));
    };
    let ended = returned.end(core, client, sign_in, provider, redirect);
    within_limit(core, Action::SignInEnd, client, ended).await
}

/// A browser that has come back.
enum Returned {
    SignIn { flow: Flow, challenge: String, secrets: FlowSecrets },
    Addition(Flow),
}

impl Returned {
    /// Opens the flow of a redirect. A sign-in is valid in the browser that has begun it: else
    /// somebody could make another's browser sign in as himself (RFC 6749, section 10.12).
    fn open<'a>(
        core: &Core,
        provider: &Provider,
        redirect: &ProviderRedirect,
        mut cookies: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let tokens = core.tokens();
        let now = core.now();
        let returned = match CallbackState::open(tokens, redirect.state.as_deref()?, now)? {
            CallbackState::AddIdentity(flow) => Self::Addition(flow),
            CallbackState::SignIn(id) => {
                let opened =
                    cookies.find_map(|cookie| Flow::open_cookie(tokens, cookie, id, now))?;
                let (flow, secrets) = opened;
                let FlowLink::SignIn(challenge) = flow.link.clone() else { return None };
                Self::SignIn { flow, challenge, secrets }
            }
        };
        (returned.flow().provider == provider.name()).then_some(returned)
    }

    fn flow(&self) -> &Flow {
        match self {
            Self::SignIn { flow, .. } | Self::Addition(flow) => flow,
        }
    }

    async fn end(
        self,
        core: &Core,
        client: Option<IpAddr>,
        sign_in: &SignIn,
        provider: &Provider,
        redirect: ProviderRedirect,
    ) -> Result<Redirection> {
        let set_cookie = match self {
            Self::SignIn { .. } => Some(cookie::delete(sign_in.is_https())),
            // Another sign-in of the browser may be under way.
            Self::Addition(_) => None,
        };
        let flow = self.flow().clone();
        let Flow { redirect_uri, state, .. } = &flow;
        let url = match self.code(core, client, sign_in, provider, redirect).await? {
            Ok(grant) => {
                let state = state.as_deref().map(|state| ("state", state));
                with_parameters(redirect_uri, [("code", &*grant)].into_iter().chain(state))
            }
            Err(error) => with_error(redirect_uri, error, state.as_deref()),
        };
        Ok(Redirection { url, set_cookie })
    }

    /// The code for the app, or the name of an error for it.
    async fn code(
        self,
        core: &Core,
        client: Option<IpAddr>,
        sign_in: &SignIn,
        provider: &Provider,
        redirect: ProviderRedirect,
    ) -> Result<Result<String, &'static str>> {
        let ProviderRedirect { state, code: grant, iss, error } = redirect;
        let state = state.unwrap_or_default();
        match provider.check_issuer(iss.as_deref()).await {
            Ok(()) => {}
            Err(ProviderError::Unavailable) => return Ok(Err("temporarily_unavailable")),
            Err(ProviderError::Rejected(reason)) => return Err(refuse(client, reason)),
        }
        if let Some(error) = error {
            let is_denial = DENIALS.contains(&&*error);
            return Ok(Err(if is_denial { "access_denied" } else { "temporarily_unavailable" }));
        }
        let grant = grant.filter(|grant| is_visible_ascii(grant, MAX_CODE_BYTES));
        let grant = grant.ok_or_else(|| refuse(client, "no code"))?;
        let (flow, challenge, secrets) = match self {
            Self::SignIn { flow, challenge, secrets } => (flow, challenge, secrets),
            // The client that adds the identity has to be asked first.
            Self::Addition(_) => {
                return Ok(Ok(LinkCode::seal(core.tokens(), &state, &grant, core.now())));
            }
        };
        let user = match provider.user(&grant, &secrets).await {
            Ok(user) => proved(user),
            Err(ProviderError::Unavailable) => return Ok(Err("temporarily_unavailable")),
            Err(ProviderError::Rejected(reason)) => return Err(refuse(client, reason)),
        };
        let links = sign_in.links_verified_email();
        let stored = store(core, client, user, links, challenge, flow.redirect_uri).await?;
        Ok(stored.map(|id| seal_code(core.tokens(), id)).ok_or("account_exists"))
    }
}

/// The identity of a provider's user.
pub(super) fn proved(user: ProvedUser) -> ProvedIdentity {
    let ProvedUser { issuer, subject, email, email_verified, name } = user;
    ProvedIdentity::new(issuer, subject, email.as_deref(), email_verified, name.as_deref())
}

/// The user that a provider states for `code`.
///
/// # Errors
/// [`Error::InvalidGrant`], [`Error::Unavailable`].
pub(super) async fn user_of(
    provider: &Provider,
    code: &str,
    secrets: &FlowSecrets,
    client: Option<IpAddr>,
) -> Result<ProvedIdentity> {
    match provider.user(code, secrets).await {
        Ok(user) => Ok(proved(user)),
        Err(ProviderError::Unavailable) => Err(unavailable()),
        Err(ProviderError::Rejected(reason)) => Err(refuse(client, reason)),
    }
}

/// Logs a failure; the client gets the same error for all reasons.
pub(super) fn refuse(client: Option<IpAddr>, reason: &'static str) -> Error {
    events::failed(AuthEvent::SignIn, client, None, reason);
    Error::InvalidGrant
}

/// Stores a code of a user, with the identity and the user if they are new, and returns its id;
/// `None` if the address is that of another account.
async fn store(
    core: &Core,
    client: Option<IpAddr>,
    proved: ProvedIdentity,
    links: bool,
    challenge: String,
    redirect_uri: String,
) -> Result<Option<Uuid>> {
    // A view, whose trigger does the look-ups again on PostgreSQL, once it has the locks of the
    // identity and the user, since another request may create them meanwhile. An address that the
    // provider has not verified is not looked up: the answer would state whether it has an account.
    const SQL: &str = concat!(
        "INSERT INTO oauth_sign_ins (id, ",
        found_or_new_columns!(),
        ", challenge, redirect_uri, created_at, expires_at) SELECT $1, ",
        found_or_new!(),
        ", $12, $13, $14, $15 \
         WHERE EXISTS (SELECT 1 FROM identities WHERE issuer = $2 AND subject = $3) OR NOT EXISTS \
         (SELECT 1 FROM users WHERE $5 AND email = $4 AND NOT ($8 AND email_verified_at IS NOT NULL)) \
         RETURNING user_id, identity_id"
    );
    let now = core.now();
    let id = new_id(now);
    let new_ids = NewIds::new(now);
    let insert = new_ids
        .bind(Statement::new(SQL).bind(id), &proved, links, core.notice_id(now))
        .bind(&*challenge)
        .bind(&*redirect_uri)
        .bind(Timestamp(now))
        .bind(Timestamp(now + CODE_LIFETIME));
    let db = core.db();
    core.anonymous(async move {
        let stored: Option<(Uuid, Uuid)> = db.execute(insert).await?;
        let Some((user_id, identity)) = stored else {
            let reason = "the address has an account that is not linked";
            events::failed(AuthEvent::SignIn, client, None, reason);
            return Ok(None);
        };
        new_ids.log_created(user_id, identity, client);
        Ok(Some(id))
    })
    .await
}
