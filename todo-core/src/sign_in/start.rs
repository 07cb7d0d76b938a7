//! The start of a sign-in: from an app to the provider.

use std::net::IpAddr;

use super::{Redirection, cookie, find, with_error, within_limit};
use crate::{
    auth::{Client, Limited},
    clock::new_id,
    core::Core,
    error::{BoxError, Error, FieldError, FieldErrors, Result},
    identity::sign_in::{Flow, FlowLink, Provider, SignIn},
    rate_limit::Action,
};

/// Maximum length of an app's `state`, in characters.
const MAX_STATE_CHARS: usize = 200;

/// A sign-in that an app asks for. [`start`] checks its values.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct NewSignIn {
    redirect_uri: String,
    code_challenge: String,
    state: Option<String>,
}

impl NewSignIn {
    /// A sign-in that returns to `redirect_uri`, one of [`SignInOptions::redirects`], with a code
    /// for the app that has the verifier of `code_challenge`: the base64url of the SHA-256 of the
    /// verifier (RFC 7636, section 4.2, `S256`).
    ///
    /// [`SignInOptions::redirects`]: super::SignInOptions::redirects
    pub fn new(redirect_uri: impl Into<String>, code_challenge: impl Into<String>) -> Self {
        let code_challenge = code_challenge.into();
        Self { redirect_uri: redirect_uri.into(), code_challenge, state: None }
    }

    /// Sets the app's `state`, of 1 to 200 ASCII characters that are printable, which the app gets
    /// back (RFC 6749, section 4.1.1).
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }
}

/// Begins a sign-in with the provider `provider`: the browser goes to its page, with a cookie. If
/// the provider does not answer, the browser goes back to the app, with `error` =
/// `temporarily_unavailable`. The rate limit is per address of a `client`.
///
/// # Errors
/// [`Error::NotFound`] if there is no such provider, [`Error::Invalid`], [`Error::RateLimited`];
/// else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`]. The browser is not sent to an
/// address that is not listed.
pub async fn start(
    core: &Core,
    client: Client,
    provider: &str,
    new: NewSignIn,
) -> Result<Redirection> {
    start_limited(core, client.address(), provider, new).await.result
}

/// As [`start`], with the state of the rate limit.
pub(crate) async fn start_limited(
    core: &Core,
    client: Option<IpAddr>,
    provider: &str,
    new: NewSignIn,
) -> Limited<Redirection> {
    let checked = find(core, provider).and_then(|(sign_in, provider)| {
        check(sign_in, &new.redirect_uri, Some(&new.code_challenge), new.state.as_deref())?;
        Ok((sign_in, provider))
    });
    match checked {
        Err(error) => Limited::new(Err(error)),
        Ok((sign_in, provider)) => {
            let begun = begin(core, sign_in, provider, new);
            within_limit(core, Action::SignInStart, client, begun).await
        }
    }
}

async fn begin(
    core: &Core,
    sign_in: &SignIn,
    provider: &Provider,
    new: NewSignIn,
) -> Result<Redirection> {
    let NewSignIn { redirect_uri, code_challenge, state } = new;
    let link = FlowLink::SignIn(code_challenge);
    let now = core.now();
    let flow = Flow::new(new_id(now), provider.name(), &redirect_uri, state.as_deref(), link, now);
    if let Some(url) = provider_url(core, provider, &flow).await? {
        let set_cookie = Some(cookie::set(&flow.cookie(core.tokens()), sign_in.is_https()));
        return Ok(Redirection { url, set_cookie });
    }
    let url = with_error(&redirect_uri, "temporarily_unavailable", state.as_deref());
    Ok(Redirection { url, set_cookie: None })
}

/// The address of the provider's page for a flow; `None` if the provider does not answer.
pub(super) async fn provider_url(
    core: &Core,
    provider: &Provider,
    flow: &Flow,
) -> Result<Option<String>> {
    let tokens = core.tokens();
    let secrets = flow.secrets(tokens);
    let secrets = secrets.ok_or_else(|| Error::Internal(BoxError::new("there is no key")))?;
    Ok(provider.authorization_url(&flow.provider_state(tokens), &secrets).await.ok())
}

/// Checks the values of a request; `challenge` is absent where there is no second leg.
pub(super) fn check(
    sign_in: &SignIn,
    redirect_uri: &str,
    challenge: Option<&str>,
    state: Option<&str>,
) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::none();
    if !sign_in.returns_to(redirect_uri) {
        let message = "Redirect uri must be one of the addresses that the service allows.";
        errors.push(FieldError::new("redirect_uri", "not_allowed", message));
    }
    if challenge.is_some_and(|challenge| !is_challenge(challenge)) {
        let message = "Code challenge must have 43 to 128 letters, digits, or the characters -._~.";
        errors.push(FieldError::new("code_challenge", "invalid", message));
    }
    let is_state = |state: &str| {
        (1..=MAX_STATE_CHARS).contains(&state.len())
            && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    if state.is_some_and(|state| !is_state(state)) {
        let message = "State must have 1 to 200 printable ASCII characters.";
        errors.push(FieldError::new("state", "invalid", message));
    }
    errors.into_result(|| ())
}

/// Whether the text is a code challenge (RFC 7636, section 4.2).
fn is_challenge(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
