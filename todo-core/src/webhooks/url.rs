//! The address of a webhook.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

use crate::{
    error::{FieldError, FieldErrors},
    http_client::is_public,
    parsed::{impl_as_str, impl_parse},
};

/// The address of a webhook: `https`, with a host and any port, without a user and a fragment. Its
/// `Debug` output has the host only: a path or a query may have secrets.
///
/// A host that is an address must be a public one. The addresses of a name are checked when a
/// reminder is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 2000;

    /// Parses an address (WHATWG URL).
    ///
    /// # Errors
    /// Those of the field `url`.
    pub fn parse(text: &str) -> Result<Self, FieldErrors> {
        let error = |code, message| FieldErrors::from(FieldError::new("url", code, message));
        if text.len() > Self::MAX_CHARS {
            return Err(error("too_long", "URL must have at most 2000 characters."));
        }
        let invalid = || error("invalid", "URL must be an https address without a user.");
        let url = Url::parse(text).map_err(|_| invalid())?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        if url.scheme() != "https" || !is_plain || url.fragment().is_some() {
            return Err(invalid());
        }
        let is_allowed = match url.host() {
            Some(Host::Domain(name)) => !name.is_empty(),
            Some(Host::Ipv4(address)) => is_public(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => is_public(IpAddr::V6(address)),
            None => false,
        };
        if !is_allowed {
            return Err(error("not_public", "URL must have a host with a public address."));
        }
        // Percent-encoding makes it longer.
        if url.as_str().len() > Self::MAX_CHARS {
            return Err(error("too_long", "URL must have at most 2000 characters."));
        }
        Ok(Self(url.into()))
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_parse!(WebhookUrl, FieldErrors);
impl_as_str!(WebhookUrl);

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.split('/').nth(2).unwrap_or_default();
        f.debug_tuple("WebhookUrl").field(&host).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_and_public() {
        for (text, expected) in [
            ("https://a.example/hook?x=1", "https://a.example/hook?x=1"),
            ("HTTPS://A.example:8443", "https://a.example:8443/"),
            ("https://1.1.1.1/", "https://1.1.1.1/"),
            ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ] {
            assert_eq!(WebhookUrl::parse(text).unwrap().as_str(), expected);
        }
        for (text, code) in [
            ("", "invalid"),
            ("a.example", "invalid"),
            ("http://a.example/", "invalid"),
            ("ftp://a.example/", "invalid"),
            ("https://user@a.example/", "invalid"),
            ("https://:secret@a.example/", "invalid"),
            ("https://a.example/#f", "invalid"),
            ("https://", "invalid"),
            ("https://127.0.0.1/", "not_public"),
            ("https://2130706433/", "not_public"),
            ("https://0x7f.1/", "not_public"),
            ("https://0177.0.0.1/", "not_public"),
            ("https://169.254.169.254/latest/meta-data", "not_public"),
            ("https://10.1.2.3:8443/", "not_public"),
            ("https://[::1]/", "not_public"),
            ("https://[::ffff:127.0.0.1]/", "not_public"),
            ("https://[fd00:ec2::254]/", "not_public"),
            (&*format!("https://a.example/{}", "x".repeat(2000)), "too_long"),
            (&*format!("https://a.example/{}", "\u{e9}".repeat(900)), "too_long"),
        ] {
            let errors = WebhookUrl::parse(text).unwrap_err();
            let codes: Vec<_> = errors.iter().map(|error| (&*error.field, error.code)).collect();
            assert_eq!(codes, [("url", code)], "{text}");
        }
    }

    #[test]
    fn debug_output_has_no_path() {
        let url = WebhookUrl::parse("https://a.example/SECRET?key=SECRET").unwrap();
        let text = format!("{url:?}");
        assert!(text.contains("a.example") && !text.contains("SECRET"), "{text}");
    }
}
