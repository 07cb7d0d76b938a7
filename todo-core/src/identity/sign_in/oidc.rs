//! A provider of OpenID Connect, by its discovery document.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::{
    flow::FlowSecrets,
    provider::{ClientAuthentication, Exchange, ProvedUser, ProviderError, Requests},
};
use crate::{
    clock::Clock,
    identity::{
        HttpClient, IssuerOptions, SignatureAlgorithm, Verifier, VerifyError,
        discovery::{Discovery, discover},
    },
};

/// How long a document is used before it is fetched again.
const LIFETIME: Duration = Duration::from_hours(1);
/// Time between two attempts to fetch it, if the first fails.
const RETRY: Duration = Duration::from_secs(5);

/// The cause of a failure.
const LACKS_ENDPOINT: &str = "the discovery document lacks an endpoint";

/// A provider of OpenID Connect.
pub(super) struct OpenIdConnect {
    issuer: String,
    client_id: String,
    client: Arc<dyn HttpClient>,
    clock: Clock,
    /// Locked during a fetch: there is one at a time.
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    known: Option<Arc<Known>>,
    /// When the document is fetched again.
    due: Option<Instant>,
}

/// What a provider's document states, and the verifier of its ID tokens.
pub(super) struct Known {
    pub(super) authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    authentication: ClientAuthentication,
    /// Whether its redirects have `iss`.
    pub(super) promises_issuer: bool,
    jwks_uri: String,
    verifier: Arc<Verifier>,
}

/// The claims of the user info endpoint (OpenID Connect Core 1.0, section 5.3.2).
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<String>,
    #[serde(default)]
    email_verified: serde_json::Value,
    name: Option<String>,
}

impl OpenIdConnect {
    pub(super) fn new(
        issuer: String,
        client_id: String,
        client: Arc<dyn HttpClient>,
        clock: Clock,
    ) -> Self {
        Self { issuer, client_id, client, clock, cache: Mutex::default() }
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Fetches the provider's document, and returns what is wrong with it.
    pub(super) async fn check(&self) -> Result<(), String> {
        let document =
            discover(&*self.client, &self.issuer).await.map_err(|error| error.to_string())?;
        if document.authorization_endpoint.is_none() || document.token_endpoint.is_none() {
            return Err(LACKS_ENDPOINT.to_owned());
        }
        Ok(())
    }

    /// What the provider's document states. It is fetched when it is first needed, and then every
    /// hour; the last one is used as long as there is no other.
    pub(super) async fn discovered(
        &self,
        requests: &Requests<'_>,
    ) -> Result<Arc<Known>, ProviderError> {
        let mut cache = self.cache.lock().await;
        if cache.due.is_none_or(|due| due <= Instant::now()) {
            let fetched =
                match requests.within_time(discover(requests.client(), &self.issuer)).await {
                    Ok(Ok(document)) => self.known(document, cache.known.as_deref(), requests),
                    Ok(Err(error)) => Err(requests.fail(&error.to_string())),
                    Err(error) => Err(error),
                };
            cache.due = Some(Instant::now() + if fetched.is_ok() { LIFETIME } else { RETRY });
            if let Ok(known) = fetched {
                cache.known = Some(Arc::new(known));
            }
        }
        cache.known.clone().ok_or(ProviderError::Unavailable)
    }

    fn known(
        &self,
        document: Discovery,
        before: Option<&Known>,
        requests: &Requests<'_>,
    ) -> Result<Known, ProviderError> {
        let Discovery {
            jwks_uri,
            authorization_endpoint: Some(authorization_endpoint),
            token_endpoint: Some(token_endpoint),
            userinfo_endpoint,
            authorization_response_iss_parameter_supported: promises_issuer,
            token_endpoint_auth_methods_supported: methods,
            ..
        } = document
        else {
            return Err(requests.fail(LACKS_ENDPOINT));
        };
        let supports = |method: &str| {
            methods.as_ref().is_some_and(|methods| methods.iter().any(|other| other == method))
        };
        // Without a list, `client_secret_basic` is the default.
        let authentication = if supports("client_secret_post") && !supports("client_secret_basic") {
            ClientAuthentication::Body
        } else {
            ClientAuthentication::Header
        };
        let verifier = match before.filter(|before| before.jwks_uri == jwks_uri) {
            Some(before) => Arc::clone(&before.verifier),
            None => Arc::new(self.verifier(&jwks_uri, requests)?),
        };
        Ok(Known {
            authorization_endpoint,
            token_endpoint,
            userinfo_endpoint,
            authentication,
            promises_issuer,
            jwks_uri,
            verifier,
        })
    }

    /// The verifier of ID tokens for this client.
    fn verifier(&self, jwks_uri: &str, requests: &Requests<'_>) -> Result<Verifier, ProviderError> {
        let options = IssuerOptions::new(&*self.issuer, &*self.client_id)
            .and_then(|options| options.jwks_url(jwks_uri))
            .map_err(|error| requests.fail(&error.to_string()))?;
        let algorithms =
            [SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256, SignatureAlgorithm::EdDsa];
        let options = options.algorithms(algorithms);
        Ok(Verifier::new(&options, Arc::clone(&self.client), self.clock.clone()))
    }

    /// The user of a code, by the ID token (OpenID Connect Core 1.0, section 3.1.3.7) and, if it
    /// has no address, the user info.
    pub(super) async fn user(
        &self,
        requests: &Requests<'_>,
        exchange: Exchange<'_>,
        secrets: &FlowSecrets,
    ) -> Result<ProvedUser, ProviderError> {
        let known = self.discovered(requests).await?;
        let tokens = exchange
            .tokens(requests, &known.token_endpoint, known.authentication, &secrets.verifier)
            .await?;
        let id_token = tokens.id_token.ok_or_else(|| requests.fail("no ID token"))?;
        let claims = match known.verifier.verify(&id_token).await {
            Ok(claims) => claims,
            Err(VerifyError::Rejected(reason)) => return Err(ProviderError::Rejected(reason)),
            Err(VerifyError::Unavailable) => return Err(requests.fail("no keys of ID tokens")),
        };
        if claims.nonce.as_ref() != Some(&secrets.nonce) {
            return Err(ProviderError::Rejected("ID token with another nonce"));
        }
        let is_for_us = match &claims.authorized_party {
            Some(party) => *party == self.client_id,
            None => !claims.has_other_audiences,
        };
        if !is_for_us {
            return Err(ProviderError::Rejected("ID token of another client"));
        }
        let mut user = ProvedUser {
            issuer: claims.issuer,
            subject: claims.subject,
            email: claims.email,
            email_verified: claims.email_verified,
            name: claims.name,
        };
        if let Some(url) = known.userinfo_endpoint.as_ref().filter(|_| user.email.is_none()) {
            let info: UserInfo = requests.get(url, &tokens.access_token).await?;
            if info.sub != user.subject {
                return Err(ProviderError::Rejected("user info of another user"));
            }
            user.email = info.email;
            user.email_verified = info.email_verified == true;
            user.name = user.name.or(info.name);
        }
        Ok(user)
    }
}
