//! The sign-in of a core: its providers, and the addresses to which it returns.

use std::sync::Arc;

use super::{options::SignInOptions, provider::Provider, redirect::is_listed};
use crate::{clock::Clock, identity::HttpClient};

/// The sign-in with providers of a core.
pub(crate) struct SignIn {
    providers: Vec<Provider>,
    redirects: Vec<String>,
    /// Whether browsers reach the routes by https.
    is_https: bool,
    links_verified_email: bool,
}

impl SignIn {
    pub(crate) fn new(options: SignInOptions, client: &Arc<dyn HttpClient>, clock: &Clock) -> Self {
        let SignInOptions { routes_url, redirects, providers, link_verified_email } = options;
        let provider = |options| Provider::new(options, &routes_url, Arc::clone(client), clock);
        let providers = providers.into_iter().map(provider).collect();
        Self {
            providers,
            redirects,
            is_https: routes_url.starts_with("https:"),
            links_verified_email: link_verified_email,
        }
    }

    pub(crate) fn providers(&self) -> &[Provider] {
        &self.providers
    }

    pub(crate) fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name() == name)
    }

    /// Whether a sign-in may return to this address.
    pub(crate) fn returns_to(&self, address: &str) -> bool {
        is_listed(&self.redirects, address)
    }

    /// Whether a verified address finds the local account that has verified it too.
    pub(crate) fn links_verified_email(&self) -> bool {
        self.links_verified_email
    }

    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }
}
