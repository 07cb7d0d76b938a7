//! The address under which clients reach a server if it is not the one it listens on: behind a
//! proxy that has another name, or that strips a path.

use crate::http::Origin;

/// The public origin and path of a server, such as `https://example.com/todo`: http or https, a
/// host, an optional port, and segments of letters, digits and `-._~`. Canonical: scheme and host
/// in lower case, an international name in its ASCII form, no default port, no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    path: String,
}

impl PublicUrl {
    /// The values that [`PublicUrl::parse`] accepts, for error messages.
    pub const ALLOWED: &str = "an http or https address such as https://example.com/todo, without user, query or fragment";

    /// Parses an address. A trailing slash is dropped.
    ///
    /// # Errors
    /// [`PublicUrl::ALLOWED`] for anything else.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        Self::parse_url(text).ok_or(Self::ALLOWED)
    }

    fn parse_url(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = path.strip_suffix('/').unwrap_or(path);
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        if !path.is_empty() && !path.strip_prefix('/')?.split('/').all(is_segment) {
            return None;
        }
        let origin: Origin = format!("{scheme}://{authority}").parse().ok()?;
        let origin = origin.as_str();
        let is_http = origin.starts_with("http://") || origin.starts_with("https://");
        (is_http && !origin.ends_with(":0"))
            .then(|| Self { origin: origin.to_owned(), path: path.to_owned() })
    }

    /// Scheme, host and port, such as `https://example.com`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The path, such as `/todo`; empty if there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it begins with `https:`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }
}

impl std::fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_canonicalised() {
        for (text, canonical) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.COM:443/", "https://example.com"),
            ("http://example.com:80/todo/", "http://example.com/todo"),
            ("http://localhost:8000/a/b-c_d.e~f", "http://localhost:8000/a/b-c_d.e~f"),
            ("https://[::0001]:8443/Todo", "https://[::1]:8443/Todo"),
            ("https://exämple.com/x", "https://xn--exmple-cua.com/x"),
            ("http://127.0.0.1/x", "http://127.0.0.1/x"),
        ] {
            let url = PublicUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), canonical, "{text}");
            assert_eq!(PublicUrl::parse(canonical).unwrap(), url);
        }
    }

    #[test]
    fn other_addresses_are_rejected() {
        for text in [
            "",
            "/todo",
            "example.com/todo",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "https:/example.com",
            "https:example.com",
            "https://",
            "https:///todo",
            "https://user@example.com",
            "https://user:pw@example.com",
            "https://@example.com",
            "https://example.com?x",
            "https://example.com/todo?x=1",
            "https://example.com#x",
            "https://example.com/todo#x",
            "https://example.com/a//b",
            "https://example.com//",
            "https://example.com/../x",
            "https://example.com/./x",
            "https://example.com/a b",
            "https://exa mple.com",
            "https://example.com\\todo",
            "https://example.com/%74odo",
            "https://example.com/tödo",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:x",
            "https://[::1",
            "https://a..b",
            "https://.a",
            "https://:::",
            "https://example.com/a\nb",
            "javascript://example.com",
            "https://*",
            "https://example.com/{id}",
            "https://example.com/\"x",
            "https://a,https://b",
        ] {
            assert_eq!(PublicUrl::parse(text), Err(PublicUrl::ALLOWED), "{text:?}");
        }
    }
}
