//! Origins in the form of the `Origin` header, so that configured origins can be compared with it.

use std::{fmt, str::FromStr};

use url::{Host, Url};

use crate::error::FieldError;

/// Schemes whose documents have an opaque origin (`null`), and schemes that load no documents.
const WITHOUT_ORIGIN: [&str; 9] =
    ["about", "blob", "data", "file", "filesystem", "ftp", "javascript", "ws", "wss"];

/// An allowed CORS origin, or all of them, in the form that browsers send (RFC 6454, section 6.2,
/// and the HTML standard's serialisation): scheme and host in lower case, an international name in
/// punycode, no default port.
///
/// ```
/// use todo_core::http::Origin;
///
/// let origin: Origin = "https://Example.com:443/".parse()?;
/// assert_eq!(origin.as_str(), "https://example.com");
/// # Ok::<(), todo_core::FieldError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// All origins, `*`.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether this is `*`.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a header contains this origin. Scheme and host are case-insensitive; some browsers
    /// keep the case of an extension's id.
    pub(crate) fn is(&self, header: &[u8]) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(header)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = FieldError;

    /// Parses `scheme://host`, `scheme://host:port` or `*`; a trailing slash is dropped. Custom
    /// schemes such as `capacitor`, `tauri` or `chrome-extension` are valid.
    ///
    /// # Errors
    /// [`FieldError`] if no browser can send it: a path, a user, a wildcard in a host, a port above
    /// 65535, a scheme without origins, such as `file`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text == "*" {
            return Ok(Self::any());
        }
        canonical(text).map(Self).ok_or_else(|| {
            let message = "An origin must be such as https://example.com, without a path.";
            FieldError::new("origin", "invalid", message)
        })
    }
}

impl TryFrom<&str> for Origin {
    type Error = FieldError;

    fn try_from(text: &str) -> Result<Self, FieldError> {
        text.parse()
    }
}

fn canonical(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    // A URL parser would drop some of these, and end the host at others.
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || r"/\?#@%*".contains(c);
    if authority.is_empty() || authority.contains(is_forbidden) {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "http" || scheme == "https" {
        let url = Url::parse(&format!("{scheme}://{authority}")).ok()?;
        let is_valid = match url.host()? {
            Host::Domain(name) => is_name(name.strip_suffix('.').unwrap_or(name)),
            Host::Ipv4(_) | Host::Ipv6(_) => true,
        };
        return is_valid.then(|| url.origin().ascii_serialization());
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !WITHOUT_ORIGIN.contains(&&*scheme);
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    if !is_scheme || !is_name(&host) {
        return None;
    }
    match port {
        None => Some(format!("{scheme}://{host}")),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(format!("{scheme}://{host}:{}", port.parse::<u16>().ok()?))
        }
        Some(_) => None,
    }
}

/// Whether a host is a sequence of labels separated by dots.
fn is_name(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_~".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_canonicalised_as_by_browsers() {
        for (text, canonical) in [
            ("https://example.com", "https://example.com"),
            ("https://Example.COM", "https://example.com"),
            ("HTTPS://example.com", "https://example.com"),
            ("https://example.com/", "https://example.com"),
            ("https://example.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("https://example.com:80", "https://example.com:80"),
            ("https://example.com:", "https://example.com"),
            ("https://example.com:08443", "https://example.com:8443"),
            ("https://example.com.", "https://example.com."),
            ("https://my_host:3000", "https://my_host:3000"),
            ("https://Bücher.example", "https://xn--bcher-kva.example"),
            ("https://例え.jp", "https://xn--r8jz45g.jp"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://127.1", "http://127.0.0.1"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[2001:DB8:0:0::1]", "http://[2001:db8::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("Capacitor://LocalHost", "capacitor://localhost"),
            ("ionic://localhost", "ionic://localhost"),
            ("tauri://localhost", "tauri://localhost"),
            ("http://tauri.localhost", "http://tauri.localhost"),
            ("app://-", "app://-"),
            ("app://obsidian.md:8080", "app://obsidian.md:8080"),
            (
                "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
                "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
            ),
            (
                "moz-extension://2C127FA4-62C7-7E4F-90E5-472B45EECFDC",
                "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc",
            ),
            ("*", "*"),
        ] {
            assert_eq!(Origin::try_from(text).map(|it| it.0).as_deref(), Ok(canonical), "{text}");
            assert_eq!(Origin::try_from(canonical).map(|it| it.0).as_deref(), Ok(canonical));
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_rejected() {
        for text in [
            "",
            "example.com",
            "localhost:3000",
            "null",
            "https://",
            "https:///",
            "https:///example.com",
            "https:example.com",
            "https://:::",
            "https://:443",
            "https://example.com:99999",
            "https://example.com:http",
            "https://example.com:-1",
            "https://example.com/path",
            "https://example.com//",
            "https://example.com?x",
            "https://example.com#x",
            "https://ann:hunter2@example.com",
            "https://*.example.com",
            "https://*",
            "https://exa mple.com",
            "https://exa%6dple.com",
            "https://exa\tmple.com",
            "https://example..com",
            "https://.example.com",
            "https://[::1",
            "https://::1",
            "https://256.256.256.256",
            "https://xn--zzzzzz--.example^",
            "https://https://example.com",
            "file://",
            "file://localhost",
            "data://x",
            "blob://x",
            "ws://example.com",
            "wss://example.com",
            "://example.com",
            "1a://example.com",
            "a b://example.com",
            "capacitor://",
            "capacitor://localhost/index.html",
            "capacitor://localhost:x",
            "capacitor://localhost:99999",
            "capacitor://localhost:+1",
            "tauri://Bücher",
            "tauri://[::1]",
        ] {
            assert!(Origin::try_from(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_matches_an_origin_in_any_case() {
        let origin: Origin = "moz-extension://2c127fa4".parse().unwrap();
        assert!(origin.is(b"moz-extension://2C127FA4") && !origin.is(b"moz-extension://2c127fa"));
        assert!(!Origin::any().is(b"https://example.com"), "`is_any` is the check for that");
    }
}
