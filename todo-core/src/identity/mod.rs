//! Users of other issuers: the verification of their tokens by the issuer's published keys (RFC
//! 7519, RFC 7517), and the HTTP client for it.
//!
//! [`CoreBuilder::issuer`](crate::CoreBuilder::issuer) sets the one issuer whose tokens are
//! accepted beside this installation's own. [`HyperClient`] fetches its keys. A program that has an
//! HTTP client implements [`HttpClient`] with it, and passes it to
//! [`CoreBuilder::http_client`](crate::CoreBuilder::http_client):
//!
//! ```
//! use std::sync::Arc;
//!
//! use todo_core::{
//!     CoreBuilder,
//!     identity::{HttpClient, HttpError, HttpFuture, HttpRequest, HttpResponse, IssuerOptions},
//! };
//!
//! struct AppClient;
//!
//! impl HttpClient for AppClient {
//!     fn send(&self, request: HttpRequest, max_body: usize) -> HttpFuture<'_> {
//!         Box::pin(async move {
//!             // Send `request.method()` to `request.url()` with `request.headers()` and
//!             // `request.body()`, follow no redirect, and stop after `max_body` bytes.
//!             let body = br#"{"keys":[]}"#.to_vec();
//!             if body.len() > max_body {
//!                 return Err(HttpError::new("body too large"));
//!             }
//!             Ok(HttpResponse::new(200, body).header("content-type", "application/json"))
//!         })
//!     }
//! }
//!
//! fn configure(builder: CoreBuilder) -> Result<CoreBuilder, Box<dyn std::error::Error>> {
//!     let issuer = IssuerOptions::new("https://login.example.com", "https://todo.example.com")?;
//!     Ok(builder.issuer(issuer).http_client(Arc::new(AppClient)))
//! }
//! ```

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

pub(crate) use self::claims::CLOCK_SKEW_SECONDS;
use self::sign_in::{SignIn, SignInOptions};
pub use self::{
    check::{IssuerCheckError, IssuerReport, check_issuer},
    options::{IssuerOptions, IssuerOptionsError, SignatureAlgorithm, UnknownAlgorithm},
};
pub(crate) use self::{
    claims::ForeignClaims,
    jwks::KeyId,
    verify::{Verifier, VerifyError, is_foreign},
};
pub use crate::http_client::{
    HttpClient, HttpError, HttpFuture, HttpRequest, HttpResponse, HyperClient,
};
use crate::{clock::Clock, http_client};

mod check;
mod claims;
pub(crate) mod discovery;
mod jwks;
mod key_cache;
mod key_source;
mod options;
pub(crate) mod sign_in;
mod verify;

#[cfg(test)]
mod test_support;

/// The options of a [`Core`](crate::Core) for users of other issuers.
#[derive(Clone, Default)]
pub(crate) struct IdentityOptions {
    pub(crate) issuer: Option<IssuerOptions>,
    pub(crate) sign_in: Option<SignInOptions>,
    pub(crate) client: Option<Arc<dyn HttpClient>>,
}

impl fmt::Debug for IdentityOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityOptions")
            .field("issuer", &self.issuer)
            .field("sign_in", &self.sign_in)
            .finish_non_exhaustive()
    }
}

/// The state of a core for users of other issuers.
pub(crate) struct IdentityServices {
    client: OnceLock<Arc<dyn HttpClient>>,
    /// `None`: only this installation's own tokens are accepted.
    pub(crate) verifier: Option<Verifier>,
    /// `None`: no provider is configured.
    pub(crate) sign_in: Option<SignIn>,
}

impl IdentityServices {
    pub(crate) fn new(options: IdentityOptions, clock: &Clock) -> Self {
        let client = options.client.map(OnceLock::from).unwrap_or_default();
        let mut services = Self { client, verifier: None, sign_in: None };
        services.verifier =
            options.issuer.map(|issuer| Verifier::new(&issuer, services.client(), clock.clone()));
        services.sign_in =
            options.sign_in.map(|options| SignIn::new(options, &services.client(), clock));
        services
    }

    /// The HTTP client; the default one is made when it is first needed.
    pub(crate) fn client(&self) -> Arc<dyn HttpClient> {
        Arc::clone(self.client.get_or_init(|| Arc::new(HyperClient::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_made_only_if_it_is_needed() {
        let clock = Clock::system();
        let services = IdentityServices::new(IdentityOptions::default(), &clock);
        assert!(services.client.get().is_none() && services.verifier.is_none());
        let issuer = IssuerOptions::new("https://login.example.com", "todo").unwrap();
        let options = IdentityOptions { issuer: Some(issuer), ..IdentityOptions::default() };
        let services = IdentityServices::new(options, &clock);
        assert!(services.client.get().is_some() && services.verifier.is_some());
    }
}
