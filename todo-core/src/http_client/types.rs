//! The interface of an HTTP client, with types of its own: no client's types are in the public API.

use std::fmt;
#[cfg(feature = "identity")]
use std::{future::Future, pin::Pin};

/// A client of HTTP, for requests to issuers and providers.
#[cfg(feature = "identity")]
pub trait HttpClient: Send + Sync {
    /// Sends a request and returns the response, of any status. Follows no redirect: its target is
    /// not the address that an operator configured. A body of more than `max_body` bytes is an
    /// error, and is not read to its end. The future is dropped at the end of the request's time, a
    /// few seconds.
    fn send(&self, request: HttpRequest, max_body: usize) -> HttpFuture<'_>;
}

/// The future of [`HttpClient::send`].
#[cfg(feature = "identity")]
pub type HttpFuture<'a> =
    Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

/// A request. The `Debug` output has no header's value, no body and no query, which may have
/// secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl HttpRequest {
    #[cfg(feature = "identity")]
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self { method: "GET", url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn post(url: impl Into<String>, body: Vec<u8>) -> Self {
        Self { method: "POST", url: url.into(), headers: Vec::new(), body }
    }

    /// Adds a header; its name is in lower case.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// `GET` or `POST`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method
    }

    /// The absolute address: `https`, or `http` with a loopback host.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The header fields, their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The body; empty for a `GET`.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &url)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// A response. The `Debug` output has its status only.
#[cfg(feature = "identity")]
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct HttpResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[cfg(feature = "identity")]
impl HttpResponse {
    /// A response with this status code and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header field.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of the header field `name`, in any letter case.
    #[must_use]
    pub fn header_value(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(feature = "identity")]
impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The reason why there is no response. It is logged, so it must contain no part of the request or
/// the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HttpError(String);

impl HttpError {
    /// Maximum number of characters of the reason.
    const MAX_CHARS: usize = 200;

    /// An error with this reason, of which the first 200 characters are kept. Control characters
    /// become spaces.
    pub fn new(reason: impl AsRef<str>) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Self(reason.as_ref().chars().take(Self::MAX_CHARS).map(printable).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let request =
            HttpRequest::post("https://a.example/token?code=SECRET#SECRET", b"SECRET".to_vec())
                .header("authorization", "SECRET");
        let text = format!("{request:?}");
        assert!(
            text.contains("https://a.example/token") && text.contains("authorization"),
            "{text}"
        );
        assert!(!text.contains("SECRET"), "{text}");
        let response = HttpResponse::new(200, "SECRET").header("set-cookie", "SECRET");
        assert_eq!(response.header_value("Set-Cookie"), Some("SECRET"));
        assert!(!format!("{response:?}").contains("SECRET"));
    }

    #[test]
    fn a_reason_is_bounded_and_printable() {
        let error = HttpError::new(format!("a\nb\u{1b}{}", "x".repeat(1_000)));
        assert!(error.to_string().starts_with("a b xx"));
        assert_eq!(error.to_string().len(), HttpError::MAX_CHARS);
    }
}
