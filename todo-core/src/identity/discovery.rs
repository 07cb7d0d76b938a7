//! The discovery document of an issuer (RFC 8414; OpenID Connect Discovery 1.0, section 4).

use serde::Deserialize;

use super::{
    http_client::{HttpClient, HttpRequest},
    options::is_endpoint,
};

/// Maximum size of a document, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The members of a discovery document that are used here. All addresses are `https`, or `http`
/// with a loopback host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Discovery {
    issuer: String,
    pub(crate) jwks_uri: String,
    #[serde(default)]
    pub(crate) authorization_endpoint: Option<String>,
    #[serde(default)]
    pub(crate) token_endpoint: Option<String>,
    #[serde(default)]
    pub(crate) userinfo_endpoint: Option<String>,
    /// Whether a response of the authorization endpoint has `iss` (RFC 9207).
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
    /// How a client authenticates at the token endpoint; if absent, `client_secret_basic`.
    #[serde(default)]
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The reason why there is no discovery document. It is logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryError {
    /// The issuer has none: its answer is a 4xx, or no JSON.
    #[error("the issuer has no discovery document")]
    Absent,
    /// The document must not be used.
    #[error("the issuer's discovery document has {0}")]
    Invalid(&'static str),
    /// The issuer does not answer, or with another status.
    #[error("no discovery document: {0}")]
    Unavailable(String),
}

/// Fetches `{issuer}/.well-known/openid-configuration`, whose `issuer` must equal `issuer`. Has no
/// deadline of its own.
///
/// # Errors
/// [`DiscoveryError`].
pub(crate) async fn discover(
    client: &dyn HttpClient,
    issuer: &str,
) -> Result<Discovery, DiscoveryError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let request = HttpRequest::get(url).header("accept", "application/json");
    let response = client.send(request, MAX_BYTES).await;
    let response = response.map_err(|e| DiscoveryError::Unavailable(e.to_string()))?;
    match response.status() {
        200 => parse(response.body(), issuer),
        // The next attempt may find the document.
        status @ (408 | 425 | 429) => Err(DiscoveryError::Unavailable(format!("status {status}"))),
        400..=499 => Err(DiscoveryError::Absent),
        status => Err(DiscoveryError::Unavailable(format!("status {status}"))),
    }
}

fn parse(body: &[u8], issuer: &str) -> Result<Discovery, DiscoveryError> {
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| DiscoveryError::Absent)?;
    // Of JSON with a wrong type, only the kind of error is known here.
    let document: Discovery = serde_json::from_value(json)
        .map_err(|_| DiscoveryError::Invalid("missing members or members of wrong types"))?;
    if document.issuer != issuer {
        return Err(DiscoveryError::Invalid("another issuer"));
    }
    let may_be_http = issuer.starts_with("http://");
    let is_allowed = |url: &str| is_endpoint(url) && (may_be_http || url.starts_with("https://"));
    let endpoints =
        [&document.authorization_endpoint, &document.token_endpoint, &document.userinfo_endpoint];
    let are_allowed = endpoints.into_iter().flatten().all(|url| is_allowed(url));
    if !are_allowed || !is_allowed(&document.jwks_uri) {
        return Err(DiscoveryError::Invalid("an address that is not https"));
    }
    Ok(document)
}
