//! The options of the sign-in with providers, which are valid once they are constructed.

use std::fmt;

use super::redirect::is_redirect;
use crate::identity::options::{endpoint, is_endpoint};

/// Maximum length of a client's id and of its secret, in bytes.
const MAX_CLIENT_BYTES: usize = 500;
/// Maximum length of a title, in characters.
const MAX_TITLE_CHARS: usize = 100;
/// The issuer of Google.
const GOOGLE: &str = "https://accounts.google.com";
/// The address of GitHub, and that of its API.
const GITHUB: &str = "https://github.com";
const GITHUB_API: &str = "https://api.github.com";

/// The secret of a client at a provider (RFC 6749, section 2.3.1). Its `Debug` output is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// A secret of 1 to 500 printable ASCII characters (RFC 6749, appendix A.2).
    ///
    /// # Errors
    /// [`SignInOptionsError::ClientSecret`].
    pub fn new(secret: impl Into<String>) -> Result<Self, SignInOptionsError> {
        let secret = secret.into();
        if !is_printable(&secret, MAX_CLIENT_BYTES) {
            return Err(SignInOptionsError::ClientSecret);
        }
        Ok(Self(secret))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// A provider at which users sign in, with this installation's registration there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SignInProvider {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) protocol: Protocol,
    pub(super) client_id: String,
    pub(super) client_secret: ClientSecret,
}

/// The protocol of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OpenID Connect, by the discovery document of this issuer.
    OpenIdConnect { issuer: String },
    /// The OAuth of GitHub, at the address of its pages and of its API.
    GitHub { url: String, api_url: String },
}

impl SignInProvider {
    /// Google, with the name `google`. `client_id` has 1 to 500 printable ASCII
    /// characters (RFC 6749, appendix A.1).
    ///
    /// # Errors
    /// [`SignInOptionsError::ClientId`].
    pub fn google(
        client_id: impl Into<String>,
        client_secret: ClientSecret,
    ) -> Result<Self, SignInOptionsError> {
        let protocol = Protocol::OpenIdConnect { issuer: GOOGLE.to_owned() };
        Self::new("google", "Google", protocol, client_id.into(), client_secret)
    }

    /// GitHub, with the name `github`. `client_id` is as that of [`SignInProvider::google`].
    ///
    /// # Errors
    /// [`SignInOptionsError::ClientId`].
    pub fn github(
        client_id: impl Into<String>,
        client_secret: ClientSecret,
    ) -> Result<Self, SignInOptionsError> {
        let protocol = Protocol::GitHub { url: GITHUB.to_owned(), api_url: GITHUB_API.to_owned() };
        Self::new("github", "GitHub", protocol, client_id.into(), client_secret)
    }

    /// As [`SignInProvider::github`], for a GitHub Enterprise Server at `url`, whose API is at
    /// `{url}/api/v3`: an address of at most 500 bytes without user, query or fragment, `https`, or
    /// `http` with a loopback host. A slash at its end is dropped.
    ///
    /// # Errors
    /// [`SignInOptionsError::ClientId`], [`SignInOptionsError::Address`].
    pub fn github_at(
        url: &str,
        client_id: impl Into<String>,
        client_secret: ClientSecret,
    ) -> Result<Self, SignInOptionsError> {
        let url = url.trim_end_matches('/');
        if url == GITHUB {
            return Self::github(client_id, client_secret);
        }
        if !is_plain(url) {
            return Err(SignInOptionsError::Address);
        }
        let protocol = Protocol::GitHub { url: url.to_owned(), api_url: format!("{url}/api/v3") };
        Self::new("github", "GitHub", protocol, client_id.into(), client_secret)
    }

    /// A provider of OpenID Connect with a discovery document (OpenID Connect Discovery 1.0), with
    /// the name `oidc`. `issuer` is an address as that of [`SignInProvider::github_at`], byte by
    /// byte as the provider states it. `client_id` is as that of [`SignInProvider::google`].
    ///
    /// # Errors
    /// [`SignInOptionsError::ClientId`], [`SignInOptionsError::Address`].
    pub fn oidc(
        issuer: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: ClientSecret,
    ) -> Result<Self, SignInOptionsError> {
        let issuer = issuer.into();
        if !is_plain(&issuer) {
            return Err(SignInOptionsError::Address);
        }
        let protocol = Protocol::OpenIdConnect { issuer };
        Self::new("oidc", "OpenID Connect", protocol, client_id.into(), client_secret)
    }

    fn new(
        name: &'static str,
        title: &str,
        protocol: Protocol,
        client_id: String,
        client_secret: ClientSecret,
    ) -> Result<Self, SignInOptionsError> {
        if !is_printable(&client_id, MAX_CLIENT_BYTES) {
            return Err(SignInOptionsError::ClientId);
        }
        Ok(Self { name, title: title.to_owned(), protocol, client_id, client_secret })
    }

    /// Sets the name that users see, of 1 to 100 characters, none of them a control character.
    /// Default: `Google`, `GitHub` or `OpenID Connect`.
    ///
    /// # Errors
    /// [`SignInOptionsError::Title`].
    pub fn title(mut self, title: impl Into<String>) -> Result<Self, SignInOptionsError> {
        self.title = title.into();
        let is_title = (1..=MAX_TITLE_CHARS).contains(&self.title.chars().count())
            && !self.title.contains(char::is_control);
        if is_title { Ok(self) } else { Err(SignInOptionsError::Title) }
    }

    /// The name: the segment of the routes' paths.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }
}

/// The sign-in with providers of a core ([`CoreBuilder::sign_in`](crate::CoreBuilder::sign_in)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SignInOptions {
    pub(super) routes_url: String,
    pub(super) redirects: Vec<String>,
    pub(super) providers: Vec<SignInProvider>,
    pub(super) link_verified_email: bool,
}

impl SignInOptions {
    /// Sign-in whose routes browsers reach below `routes_url`, such as
    /// `https://todo.example.com/api/auth/oauth`: at a provider, `{routes_url}/{name}/callback` has
    /// to be registered. It is an address of at most 500 bytes without user, query or fragment,
    /// `https`, or `http` with a loopback host.
    ///
    /// # Errors
    /// [`SignInOptionsError::RoutesUrl`].
    pub fn new(routes_url: impl Into<String>) -> Result<Self, SignInOptionsError> {
        let routes_url = routes_url.into();
        if !is_plain(&routes_url) || routes_url.ends_with('/') {
            return Err(SignInOptionsError::RoutesUrl);
        }
        let redirects = Vec::new();
        Ok(Self { routes_url, redirects, providers: Vec::new(), link_verified_email: false })
    }

    /// Adds the addresses of apps to which a sign-in may return, each of at most 500 visible ASCII
    /// characters without a fragment or backslash: `https`, a private scheme with a dot
    /// (`com.example.app:/signed-in`; RFC 8252, section 7.1), or `http` with a loopback host. They
    /// are compared as texts, byte by byte (RFC 9700, section 2.1), except that an address with
    /// `http://127.0.0.1` or `http://[::1]` and no port also allows any port (RFC 8252, section
    /// 7.3).
    ///
    /// # Errors
    /// [`SignInOptionsError::Redirect`].
    pub fn redirects<I>(mut self, redirects: I) -> Result<Self, SignInOptionsError>
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.redirects.extend(redirects.into_iter().map(Into::into));
        if self.redirects.iter().all(|redirect| is_redirect(redirect)) {
            Ok(self)
        } else {
            Err(SignInOptionsError::Redirect)
        }
    }

    /// Sets whether a new user of a provider is the local user with the same e-mail address, if
    /// both sides have verified it. Default: no, and such a sign-in fails.
    pub fn link_verified_email(mut self, link: bool) -> Self {
        self.link_verified_email = link;
        self
    }

    /// Adds a provider, in place of one with the same name.
    pub fn provider(mut self, provider: SignInProvider) -> Self {
        self.providers.retain(|other| other.name != provider.name);
        self.providers.push(provider);
        self
    }
}

/// The reason why [`SignInOptions`] are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInOptionsError {
    /// The address of a provider.
    #[error(
        "a provider has an https address (http only with a loopback host) of at most 500 bytes, \
         without user, query or fragment"
    )]
    Address,
    /// The id of the client.
    #[error("a client's id has 1 to 500 printable ASCII characters")]
    ClientId,
    /// The secret of the client.
    #[error("a client's secret has 1 to 500 printable ASCII characters")]
    ClientSecret,
    /// The title of a provider.
    #[error("a title has 1 to 100 characters, none of them a control character")]
    Title,
    /// The address of the routes.
    #[error(
        "the routes have an https address (http only with a loopback host) of at most 500 bytes, \
         without user, query, fragment or slash at its end"
    )]
    RoutesUrl,
    /// An address to which a sign-in may return.
    #[error(
        "an app's address is https, a private scheme with a dot, or http with a loopback host, \
         of at most 500 visible ASCII characters without fragment or backslash"
    )]
    Redirect,
}

/// Whether the text is an address that requests are sent to, without a query.
fn is_plain(url: &str) -> bool {
    is_endpoint(url) && endpoint(url).is_some_and(|url| url.query().is_none())
}

/// Whether the text has 1 to `max` characters, all of them ASCII and none a control character.
fn is_printable(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Whether the text has 1 to `max` characters, all of them visible ASCII.
pub(crate) fn is_visible_ascii(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let secret = || ClientSecret::new("s3cret").unwrap();
        assert!(!format!("{:?}", SignInProvider::google("id", secret())).contains("s3cret"));
        assert_eq!(ClientSecret::new(""), Err(SignInOptionsError::ClientSecret));
        assert_eq!(SignInProvider::google("a\nb", secret()), Err(SignInOptionsError::ClientId));
        for invalid in
            ["http://a.example", "https://a.example?x", "a.example", "https://u@a.example"]
        {
            let error = SignInOptionsError::Address;
            assert_eq!(SignInProvider::oidc(invalid, "id", secret()), Err(error), "{invalid}");
            assert_eq!(SignInProvider::github_at(invalid, "id", secret()), Err(error), "{invalid}");
            let routes = SignInOptions::new(invalid);
            assert_eq!(routes, Err(SignInOptionsError::RoutesUrl), "{invalid}");
        }
        let same = SignInProvider::github_at("https://github.com/", "id", secret());
        assert_eq!(same, SignInProvider::github("id", secret()));
        let own = SignInProvider::github_at("http://127.0.0.1:4000/", "id", secret()).unwrap();
        let Protocol::GitHub { api_url, .. } = own.protocol else { panic!() };
        assert_eq!(api_url, "http://127.0.0.1:4000/api/v3");
        let google = SignInProvider::google("id", secret()).unwrap();
        assert_eq!(google.clone().title("a\nb"), Err(SignInOptionsError::Title));
        assert_eq!(google.title("Our login").unwrap().title, "Our login");
    }
}
