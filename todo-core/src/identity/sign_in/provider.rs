//! A provider: the address of its sign-in page, and what it states about a user, by the code of a
//! redirect. Requests have a deadline each, and there is a limit of those under way: a slow
//! provider must not use up what others need.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    flow::{self, FlowSecrets},
    github::GitHub,
    oidc::OpenIdConnect,
    options::{Protocol, SignInProvider, is_visible_ascii},
    redirect::with_parameters,
};
use crate::{
    clock::Clock,
    identity::http_client::{HttpClient, HttpRequest, HttpResponse},
};

/// Maximum time of a request, and of the wait for a permit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time of all requests of a callback.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum size of a response's body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Maximum number of a provider's starts and callbacks that wait for it at a time.
const MAX_CALLS: usize = 32;
/// Maximum length of a token of the provider, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Maximum length of an error's name in a log line, in bytes.
const MAX_ERROR_BYTES: usize = 50;

/// What a provider states about a user. Of texts, only `subject` is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvedUser {
    pub(crate) issuer: String,
    /// 1 to 255 characters.
    pub(crate) subject: String,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    pub(crate) name: Option<String>,
}

/// The reason why a provider does not state who a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderError {
    /// The code, or what the provider states by it, is not valid. The reason is for the log.
    Rejected(&'static str),
    /// The provider does not answer, or not as agreed. Its cause is logged already.
    Unavailable,
}

/// A provider of a core.
pub(crate) struct Provider {
    options: SignInProvider,
    /// The address of the callback, as it is registered at the provider.
    callback_url: String,
    protocol: State,
    client: Arc<dyn HttpClient>,
    calls: Semaphore,
}

/// The protocol of a provider, with what is known of it.
enum State {
    OpenIdConnect(OpenIdConnect),
    GitHub(GitHub),
}

impl Provider {
    pub(super) fn new(
        options: SignInProvider,
        routes_url: &str,
        client: Arc<dyn HttpClient>,
        clock: &Clock,
    ) -> Self {
        let protocol = match options.protocol.clone() {
            Protocol::OpenIdConnect { issuer } => State::OpenIdConnect(OpenIdConnect::new(
                issuer,
                options.client_id.clone(),
                Arc::clone(&client),
                clock.clone(),
            )),
            Protocol::GitHub { url, api_url } => State::GitHub(GitHub::new(url, api_url)),
        };
        let callback_url = format!("{routes_url}/{}/callback", options.name);
        Self { options, callback_url, protocol, client, calls: Semaphore::new(MAX_CALLS) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.options.name
    }

    pub(crate) fn title(&self) -> &str {
        &self.options.title
    }

    /// The address of the page at which the user signs in (RFC 6749, section 4.1.1; RFC 7636,
    /// section 4.3).
    pub(crate) async fn authorization_url(
        &self,
        state: &str,
        secrets: &FlowSecrets,
    ) -> Result<String, ProviderError> {
        let _permit = self.permit().await?;
        let challenge = flow::challenge(&secrets.verifier);
        let (page, scope) = match &self.protocol {
            State::OpenIdConnect(issuer) => {
                let known = issuer.discovered(&self.requests()).await?;
                (known.authorization_endpoint.clone(), "openid email profile")
            }
            State::GitHub(github) => (github.authorization_url(), "read:user user:email"),
        };
        let parameters = [
            ("response_type", "code"),
            ("client_id", &self.options.client_id),
            ("redirect_uri", &self.callback_url),
            ("scope", scope),
            ("state", state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let nonce = match &self.protocol {
            State::OpenIdConnect(_) => Some(("nonce", &*secrets.nonce)),
            State::GitHub(_) => None,
        };
        Ok(with_parameters(&page, parameters.into_iter().chain(nonce)))
    }

    /// Fails if the redirect that has this `iss` is not of this provider (RFC 9207, section 2.4).
    pub(crate) async fn check_issuer(&self, issuer: Option<&str>) -> Result<(), ProviderError> {
        let State::OpenIdConnect(own) = &self.protocol else { return Ok(()) };
        let is_own = if let Some(issuer) = issuer {
            issuer == own.issuer()
        } else {
            let _permit = self.permit().await?;
            !own.discovered(&self.requests()).await?.promises_issuer
        };
        if is_own { Ok(()) } else { Err(ProviderError::Rejected("another issuer")) }
    }

    /// What the provider states about the user of `code`. All of its tokens are thrown away.
    pub(crate) async fn user(
        &self,
        code: &str,
        secrets: &FlowSecrets,
    ) -> Result<ProvedUser, ProviderError> {
        let _permit = self.permit().await?;
        let requests = self.requests();
        let exchange = Exchange { options: &self.options, callback_url: &self.callback_url, code };
        let user = async {
            match &self.protocol {
                State::OpenIdConnect(issuer) => issuer.user(&requests, exchange, secrets).await,
                State::GitHub(github) => github.user(&requests, exchange, secrets).await,
            }
        };
        timeout(TOTAL_TIMEOUT, user).await.unwrap_or_else(|_| Err(requests.fail("too slow")))
    }

    /// Fetches the discovery document, if the protocol has one, and returns what is wrong with it.
    pub(crate) async fn check(&self) -> Result<(), String> {
        match &self.protocol {
            State::OpenIdConnect(issuer) => timeout(TIMEOUT, issuer.check())
                .await
                .unwrap_or_else(|_| Err("no answer in time".to_owned())),
            State::GitHub(_) => Ok(()),
        }
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, ProviderError> {
        match timeout(TIMEOUT, self.calls.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(self.requests().fail("too many sign-ins wait for it")),
        }
    }

    fn requests(&self) -> Requests<'_> {
        Requests { provider: self.options.name, client: &*self.client }
    }
}

/// Sends requests to a provider.
pub(super) struct Requests<'a> {
    provider: &'static str,
    client: &'a dyn HttpClient,
}

impl Requests<'_> {
    pub(super) fn client(&self) -> &dyn HttpClient {
        self.client
    }

    /// The result of `work`, within the time of a request.
    pub(super) async fn within_time<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, ProviderError> {
        timeout(TIMEOUT, work).await.map_err(|_| self.fail("no answer in time"))
    }

    /// The response to `request`, of any status.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ProviderError> {
        let request = request.header("accept", "application/json");
        let sent = self.within_time(self.client.send(request, MAX_BODY)).await?;
        sent.map_err(|error| self.fail(&error.to_string()))
    }

    /// The JSON of a response to a GET with the provider's access token (RFC 6750, section 2.1).
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        access_token: &str,
    ) -> Result<T, ProviderError> {
        let request = HttpRequest::get(url)
            .header("authorization", format!("Bearer {access_token}"))
            .header("user-agent", USER_AGENT);
        let response = self.send(request).await?;
        if response.status() != 200 {
            return Err(self.fail(&format!("status {} for a user", response.status())));
        }
        self.json(&response)
    }

    fn json<T: DeserializeOwned>(&self, response: &HttpResponse) -> Result<T, ProviderError> {
        // The error may have a part of the text.
        serde_json::from_slice(response.body()).map_err(|_| self.fail("an answer of another shape"))
    }

    /// Logs the cause of a failure, which has no text of the provider that is not checked.
    pub(super) fn fail(&self, cause: &str) -> ProviderError {
        tracing::warn!(provider = self.provider, cause, "sign-in provider unavailable");
        ProviderError::Unavailable
    }
}

/// GitHub requires one.
const USER_AGENT: &str = concat!("todo/", env!("CARGO_PKG_VERSION"));

/// A code to be exchanged for tokens.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    options: &'a SignInProvider,
    callback_url: &'a str,
    code: &'a str,
}

/// How a client authenticates at the token endpoint (OpenID Connect Core 1.0, section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuthentication {
    /// `client_secret_basic`
    Header,
    /// `client_secret_post`
    Body,
}

/// The tokens of a provider. Each is visible ASCII.
pub(super) struct ProviderTokens {
    pub(super) access_token: String,
    pub(super) id_token: Option<String>,
}

/// A token response, or an error (RFC 6749, sections 5.1 and 5.2). GitHub's errors have the status
/// 200.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<String>,
    id_token: Option<String>,
    error: Option<String>,
}

impl Exchange<'_> {
    /// The tokens for the code (RFC 6749, section 4.1.3; RFC 7636, section 4.5).
    pub(super) async fn tokens(
        self,
        requests: &Requests<'_>,
        token_url: &str,
        authentication: ClientAuthentication,
        verifier: &str,
    ) -> Result<ProviderTokens, ProviderError> {
        let request = self.request(token_url, authentication, verifier);
        let response = requests.send(request).await?;
        let tokens: TokenResponse = match response.status() {
            200 | 400..=403 => requests.json(&response)?,
            status => return Err(requests.fail(&format!("status {status} for a code"))),
        };
        match tokens {
            // The second is GitHub's.
            TokenResponse { error: Some(error), .. }
                if matches!(&*error, "invalid_grant" | "bad_verification_code") =>
            {
                Err(ProviderError::Rejected("the provider refuses the code"))
            }
            TokenResponse { error: Some(error), .. } => {
                let is_name = is_visible_ascii(&error, MAX_ERROR_BYTES);
                let error = if is_name { &*error } else { "an error of another shape" };
                Err(requests.fail(error))
            }
            TokenResponse { access_token: Some(access_token), id_token, .. }
                if response.status() == 200
                    && [Some(&access_token), id_token.as_ref()]
                        .into_iter()
                        .flatten()
                        .all(|token| is_visible_ascii(token, MAX_TOKEN_BYTES)) =>
            {
                Ok(ProviderTokens { access_token, id_token })
            }
            TokenResponse { .. } => Err(requests.fail("no token for a code")),
        }
    }

    fn request(
        self,
        token_url: &str,
        authentication: ClientAuthentication,
        verifier: &str,
    ) -> HttpRequest {
        let id = &*self.options.client_id;
        let secret = self.options.client_secret.as_str();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", self.code)
            .append_pair("redirect_uri", self.callback_url)
            .append_pair("code_verifier", verifier);
        if authentication == ClientAuthentication::Body {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        let request = HttpRequest::post(token_url, form.finish().into_bytes())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("user-agent", USER_AGENT);
        match authentication {
            ClientAuthentication::Header => request.header("authorization", basic(id, secret)),
            ClientAuthentication::Body => request,
        }
    }
}

/// The `Authorization` of a client (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &str) -> String {
    let encode =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let pair = format!("{}:{}", encode(id), encode(secret));
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}
