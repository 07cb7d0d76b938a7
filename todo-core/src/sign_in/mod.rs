//! Sign-in with a provider of OpenID Connect, or with GitHub, as async functions over plain values:
//! a program that serves them needs two addresses for browsers, those of [`start`] and
//! [`callback`].
//!
//! There are two legs, and PKCE (RFC 7636) protects each. An app makes a verifier, and sends the
//! browser to [`start`] with the challenge of it. The browser goes on to the provider, and comes
//! back to [`callback`], which sends it to the app with a code. The app exchanges that for a
//! session by [`exchange`], with its verifier. The provider's own code and tokens do not leave this
//! library.
//!
//! Until the provider has stated who the user is, nothing is stored: the state of a sign-in is in a
//! cookie, which binds it to the browser and authenticates nobody.
//!
//! [`start_addition`] and [`complete_addition`] add an identity to the account of a user who is
//! logged in.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

pub(crate) use self::{
    addition::complete_addition_limited, callback::callback_limited, start::start_limited,
};
pub use self::{
    addition::{complete_addition, start_addition},
    callback::{ProviderRedirect, callback},
    exchange::exchange,
    start::{NewSignIn, start},
};
pub use crate::identity::sign_in::{
    ClientSecret, SignInOptions, SignInOptionsError, SignInProvider,
};
use crate::{
    auth::{Limited, take_slot},
    clock::Clock,
    core::Core,
    error::{BoxError, Error, Result},
    identity::{
        HttpClient,
        sign_in::{Provider, SignIn, with_parameters},
    },
    rate_limit::{Action, RateLimitState},
};

mod addition;
mod callback;
mod cookie;
mod exchange;
mod start;

/// A provider with which users can sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// The name in the paths of the routes: `google`, `github` or `oidc`.
    pub name: String,
    /// The name for users.
    pub title: String,
}

impl ProviderInfo {
    fn of(provider: &Provider) -> Self {
        Self { name: provider.name().to_owned(), title: provider.title().to_owned() }
    }
}

/// An answer to a browser: it goes on to another address. The `Debug` output has neither the
/// address nor the cookie, which may have codes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redirection {
    /// The address.
    pub url: String,
    /// The value of the `Set-Cookie` field (RFC 6265, section 4.1), if there is one.
    pub set_cookie: Option<String>,
}

impl fmt::Debug for Redirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirection").finish_non_exhaustive()
    }
}

/// The providers of the core, in the order of its options.
#[must_use]
pub fn providers(core: &Core) -> Vec<ProviderInfo> {
    let sign_in = core.identity().sign_in.as_ref();
    let providers = sign_in.map(SignIn::providers).unwrap_or_default().iter();
    providers.map(ProviderInfo::of).collect()
}

/// Fetches the discovery document of each provider that has one, by `client`, and returns what is
/// wrong with the others: for an operator, before a start.
pub async fn check_providers(
    options: SignInOptions,
    client: Arc<dyn HttpClient>,
) -> Vec<(ProviderInfo, Result<(), ProviderCheckError>)> {
    let sign_in = SignIn::new(options, &client, &Clock::system());
    let mut checked = Vec::new();
    for provider in sign_in.providers() {
        let result = provider.check().await.map_err(ProviderCheckError);
        checked.push((ProviderInfo::of(provider), result));
    }
    checked
}

/// The reason why a provider cannot be used, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProviderCheckError(String);

/// The sign-in of the core, and its provider `name`.
///
/// # Errors
/// [`Error::NotFound`].
fn find<'c>(core: &'c Core, name: &str) -> Result<(&'c SignIn, &'c Provider)> {
    let sign_in = core.identity().sign_in.as_ref().ok_or(Error::NotFound)?;
    Ok((sign_in, sign_in.provider(name).ok_or(Error::NotFound)?))
}

/// Takes a slot of the client's limit.
async fn take(
    core: &Core,
    action: Action,
    client: Option<IpAddr>,
) -> Result<Option<RateLimitState>> {
    let work = core.clone();
    core.anonymous(async move {
        let mut state = None;
        // It counts, so it need not be held until the provider has answered.
        let _attempt = take_slot(&work, action, client, &mut state).await?;
        Ok(state)
    })
    .await
}

/// The result of `work`, which begins once a slot of the client's limit is taken.
async fn within_limit<T>(
    core: &Core,
    action: Action,
    client: Option<IpAddr>,
    work: impl Future<Output = Result<T>>,
) -> Limited<T> {
    Limited::new(match take(core, action, client).await {
        Ok(state) => Ok((work.await, state)),
        Err(error) => Err(error),
    })
}

/// The error of an operation whose provider does not answer.
fn unavailable() -> Error {
    Error::Unavailable(BoxError::new("the sign-in provider does not answer"))
}

/// An app's address with an error, by its name (RFC 6749, section 4.1.2.1), and the app's `state`.
fn with_error(redirect_uri: &str, error: &str, state: Option<&str>) -> String {
    let state = state.map(|state| ("state", state));
    with_parameters(redirect_uri, [("error", error)].into_iter().chain(state))
}
