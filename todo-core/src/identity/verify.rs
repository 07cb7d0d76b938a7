//! Verification of an issuer's tokens (RFC 7519, RFC 8725).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{http_client::HttpClient, options::IssuerOptions};
use crate::clock::Clock;

/// The claims of a valid token of another issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignClaims {
    /// `iss`: the configured issuer.
    pub(crate) issuer: String,
    /// `sub`, 1 to 255 characters without control characters.
    pub(crate) subject: String,
    /// `iat`, in seconds since the Unix epoch.
    pub(crate) issued_at: i64,
    /// `exp`, in seconds since the Unix epoch.
    pub(crate) expires_at: i64,
    /// `email`, of any syntax.
    pub(crate) email: Option<String>,
    /// Whether `email_verified` or `emailVerified` is `true`.
    pub(crate) email_verified: bool,
    /// `name`, of any length and characters.
    pub(crate) name: Option<String>,
    /// `nonce` (OpenID Connect Core 1.0, section 2).
    pub(crate) nonce: Option<String>,
    /// `azp` (OpenID Connect Core 1.0, section 2).
    pub(crate) authorized_party: Option<String>,
    /// Whether `aud` names others beside the configured audience.
    pub(crate) has_other_audiences: bool,
    /// The key of the signature.
    pub(crate) key: KeyId,
}

/// The identity of a public key: a hash of its id and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(pub(super) [u8; 32]);

/// The reason why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// The token is invalid: 401. The reason is for the log and the metric.
    Rejected(&'static str),
    /// The token cannot be judged, since the issuer does not answer: 503, and a later attempt.
    Unavailable,
}

/// Verifies the tokens of one issuer.
pub(crate) struct Verifier {
    options: IssuerOptions,
    client: Arc<dyn HttpClient>,
    clock: Clock,
}

impl Verifier {
    pub(crate) fn new(options: &IssuerOptions, client: Arc<dyn HttpClient>, clock: Clock) -> Self {
        Self { options: options.clone(), client, clock }
    }

    /// The options of the issuer.
    pub(crate) fn issuer(&self) -> &IssuerOptions {
        &self.options
    }

    /// Whether a verified address of the issuer finds the local account that has verified it too.
    pub(crate) fn links_verified_email(&self) -> bool {
        self.options.links_verified_email()
    }

    /// Verifies a token: header, key, signature and claims.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub(crate) async fn verify(&self, token: &str) -> Result<ForeignClaims, VerifyError> {
        Err(VerifyError::Unavailable)
    }

    /// Whether the issuer still publishes the key, as far as is known without waiting. If not, the
    /// token must be verified again.
    pub(crate) fn still_has_key(&self, key: &KeyId) -> bool {
        false
    }
}

/// Whether the token's header has a `kid`: those of this installation have none, so each token has
/// one verifier only.
pub(crate) fn is_foreign(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    header_of(header).is_some_and(|header| header.contains_key("kid"))
}

fn header_of(encoded: &str) -> Option<Map<String, Value>> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
    serde_json::from_slice(&json).ok()
}
