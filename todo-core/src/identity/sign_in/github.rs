//! GitHub, which has OAuth and no OpenID Connect: a user is the number that its API states.

use serde::Deserialize;

use super::{
    flow::FlowSecrets,
    provider::{ClientAuthentication, Exchange, ProvedUser, ProviderError, Requests},
};

/// GitHub, at the address of its pages and of its API.
pub(super) struct GitHub {
    url: String,
    api_url: String,
}

/// A user of the API.
#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

/// An address of a user.
#[derive(Deserialize)]
struct Address {
    email: String,
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    verified: bool,
}

impl GitHub {
    pub(super) fn new(url: String, api_url: String) -> Self {
        Self { url, api_url }
    }

    pub(super) fn authorization_url(&self) -> String {
        format!("{}/login/oauth/authorize", self.url)
    }

    /// The user of a code.
    pub(super) async fn user(
        &self,
        requests: &Requests<'_>,
        exchange: Exchange<'_>,
        secrets: &FlowSecrets,
    ) -> Result<ProvedUser, ProviderError> {
        let token_url = format!("{}/login/oauth/access_token", self.url);
        let authentication = ClientAuthentication::Body;
        let tokens =
            exchange.tokens(requests, &token_url, authentication, &secrets.verifier).await?;
        let token = &*tokens.access_token;
        let user: User = requests.get(&format!("{}/user", self.api_url), token).await?;
        let addresses: Vec<Address> =
            requests.get(&format!("{}/user/emails", self.api_url), token).await?;
        // The address of the public profile need not be verified.
        let primary = addresses.into_iter().find(|address| address.primary && address.verified);
        Ok(ProvedUser {
            issuer: self.url.clone(),
            subject: user.id.to_string(),
            email_verified: primary.is_some(),
            email: primary.map(|address| address.email),
            name: user.name.filter(|name| !name.is_empty()).or(Some(user.login)),
        })
    }
}
