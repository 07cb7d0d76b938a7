//! The client of webhooks: a POST over https to a public address.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use rustls::RootCertStore;
use tower_service::Service;

use super::{
    HttpError, HttpRequest,
    public_address::is_public,
    tls::{self, USER_AGENT},
};
use crate::error::ErrorChain;

/// Maximum size of a response's head, of which hyper may read up to twice as much.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A client of HTTP, for webhooks.
pub trait WebhookClient: Send + Sync {
    /// Sends a POST to a URL that a user has chosen, and returns the status of the response, whose
    /// body it ignores. It follows no redirect and connects to public addresses only: it checks
    /// those that it connects to, not those of an earlier look-up of the name. The future is
    /// dropped after 5 seconds.
    fn post(&self, request: HttpRequest) -> PostFuture<'_>;
}

/// The future of [`WebhookClient::post`].
pub type PostFuture<'a> = Pin<Box<dyn Future<Output = Result<u16, HttpError>> + Send + 'a>>;

/// A [`WebhookClient`] on hyper: HTTP/1.1 (RFC 9112) over TLS, with Mozilla's certificate
/// authorities. Each request has its own connection. It uses no proxy.
#[derive(Clone, Debug)]
pub struct PublicClient(Checked<GaiResolver>);

/// Whether the client may connect to an address.
type Rule = fn(IpAddr) -> bool;

impl PublicClient {
    /// A client that trusts Mozilla's certificate authorities.
    #[must_use]
    pub fn new() -> Self {
        Self::over(tls::webpki_roots(), is_public)
    }

    /// A client that connects to every address, and trusts the certificates of `pem` too: for
    /// tests, whose servers are on loopback.
    ///
    /// # Errors
    /// [`HttpError`] if a certificate is invalid, or there is none.
    #[cfg(test)]
    fn for_tests(pem: &[u8]) -> Result<Self, HttpError> {
        Ok(Self::over(tls::more_roots(pem)?, |_| true))
    }

    fn over(roots: RootCertStore, is_allowed: Rule) -> Self {
        Self(Checked::new(GaiResolver::new(), roots, is_allowed))
    }
}

/// A client that connects to the addresses that its resolver finds, if the rule allows them.
#[derive(Clone, Debug)]
struct Checked<R> {
    client: Client<HttpsConnector<HttpConnector<CheckedResolver<R>>>, Full<Bytes>>,
    is_allowed: Rule,
}

impl<R> Checked<R>
where
    R: Service<Name, Error = io::Error> + Clone + Send + Sync + 'static,
    R::Response: Iterator<Item = SocketAddr>,
    R::Future: Send + 'static,
{
    fn new(resolver: R, roots: RootCertStore, is_allowed: Rule) -> Self {
        let resolver = CheckedResolver { resolver, is_allowed };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(roots))
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            // An idle connection would outlive the check of its address.
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        Self { client, is_allowed }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<u16, HttpError> {
        let uri: Uri = request.url().parse().map_err(|_| HttpError::new("invalid address"))?;
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // The connector does not resolve an address.
        if host.parse().is_ok_and(|address| !(self.is_allowed)(address)) {
            return Err(NotPublic.into());
        }
        let mut head = Request::builder().method("POST").uri(uri).header("user-agent", USER_AGENT);
        for (name, value) in request.headers() {
            head = head.header(name, value);
        }
        let body = Full::from(request.body().to_vec());
        let request = head.body(body).map_err(|_| HttpError::new("invalid header"))?;
        match self.client.request(request).await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) if is_not_public(&error) => Err(NotPublic.into()),
            Err(error) => Err(HttpError::new(ErrorChain(&error).to_string())),
        }
    }
}

impl Default for PublicClient {
    fn default() -> Self {
        Self::new()
    }
}

impl WebhookClient for PublicClient {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        Box::pin(self.0.exchange(request))
    }
}

/// The host has an address that is not public.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address of the host is not public")
    }
}

impl StdError for NotPublic {}

impl From<NotPublic> for HttpError {
    fn from(error: NotPublic) -> Self {
        Self::new(error.to_string())
    }
}

fn is_not_public(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<NotPublic>()
        || inner.is_some_and(|inner| inner.downcast_ref::<NotPublic>().is_some())
        || error.source().is_some_and(is_not_public)
}

/// A resolver that fails unless each address of a name is allowed. The connector connects to the
/// addresses that it returns.
#[derive(Clone, Debug)]
struct CheckedResolver<R> {
    resolver: R,
    is_allowed: Rule,
}

impl<R> Service<Name> for CheckedResolver<R>
where
    R: Service<Name, Error = io::Error>,
    R::Response: Iterator<Item = SocketAddr>,
    R::Future: Send + 'static,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.resolver.call(name);
        let is_allowed = self.is_allowed;
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolving.await?.collect();
            if addresses.iter().all(|address| is_allowed(address.ip())) {
                Ok(addresses.into_iter())
            } else {
                Err(io::Error::other(NotPublic))
            }
        })
    }
}

#[cfg(test)]
mod tests;
