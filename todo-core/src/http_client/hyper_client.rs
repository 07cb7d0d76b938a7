//! An [`HttpClient`] on hyper: HTTP/1.1, with TLS by rustls.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::RootCertStore;

use super::{
    tls::{self, USER_AGENT},
    types::{HttpClient, HttpError, HttpFuture, HttpRequest, HttpResponse},
};
use crate::error::ErrorChain;

/// Idle connections are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of idle connections to a host.
const MAX_IDLE: usize = 2;
/// Maximum size of a response's head, of which hyper may read up to twice as much.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A client of HTTP/1.1 (RFC 9112) for `https` addresses, and `http` ones with a loopback host.
/// Certificates must be of one of Mozilla's authorities, or of the operator's
/// ([`HyperClient::with_roots`]). Idle connections, at most 2 to a host, are closed after 30
/// seconds. It uses no proxy.
#[derive(Clone, Debug)]
pub struct HyperClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HyperClient {
    /// A client that trusts Mozilla's certificate authorities.
    #[must_use]
    pub fn new() -> Self {
        Self::over(tls::webpki_roots())
    }

    /// A client that trusts the certificates of `pem` (RFC 7468) too, for an issuer with a private
    /// authority.
    ///
    /// # Errors
    /// [`HttpError`] if a certificate is invalid, or there is none.
    pub fn with_roots(pem: &[u8]) -> Result<Self, HttpError> {
        Ok(Self::over(tls::more_roots(pem)?))
    }

    fn over(roots: RootCertStore) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(roots))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        Self(client)
    }

    async fn exchange(
        &self,
        request: HttpRequest,
        max_body: usize,
    ) -> Result<HttpResponse, HttpError> {
        let uri: Uri = request.url().parse().map_err(|_| HttpError::new("invalid address"))?;
        if !is_allowed(&uri) {
            return Err(HttpError::new("neither https nor a loopback address"));
        }
        let mut head = Request::builder().method(request.method()).uri(uri);
        if request.headers().all(|(name, _)| name != "user-agent") {
            head = head.header("user-agent", USER_AGENT);
        }
        for (name, value) in request.headers() {
            head = head.header(name, value);
        }
        let body = Full::from(request.body().to_vec());
        let request = head.body(body).map_err(|_| HttpError::new("invalid header"))?;
        let (parts, mut body) = self.0.request(request).await.map_err(failure)?.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(failure)?.into_data() else { continue };
            if data.len() > max_body - bytes.len() {
                return Err(HttpError::new(format!("a body of more than {max_body} bytes")));
            }
            bytes.extend_from_slice(&data);
        }
        let mut response = HttpResponse::new(parts.status.as_u16(), bytes);
        for (name, value) in &parts.headers {
            // A value that is no text is of no use.
            if let Ok(value) = value.to_str() {
                response = response.header(name.as_str(), value);
            }
        }
        Ok(response)
    }
}

impl Default for HyperClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient for HyperClient {
    fn send(&self, request: HttpRequest, max_body: usize) -> HttpFuture<'_> {
        Box::pin(self.exchange(request, max_body))
    }
}

fn failure(error: impl std::error::Error + 'static) -> HttpError {
    HttpError::new(ErrorChain(&error).to_string())
}

/// Whether the scheme is `https`, or `http` with a loopback host.
fn is_allowed(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => {
            host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
