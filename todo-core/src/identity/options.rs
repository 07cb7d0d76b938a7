//! The options of an issuer, which are valid once they are constructed.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Url};

/// Maximum length of an address, in bytes.
const MAX_URL_BYTES: usize = 500;
/// Maximum length of an audience, in bytes.
const MAX_AUDIENCE_BYTES: usize = 500;

/// An issuer of tokens that are accepted beside this installation's own, for instance Better Auth,
/// Keycloak or Rauthy: its name, its keys and its algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct IssuerOptions {
    issuer: String,
    audience: String,
    jwks_url: Option<String>,
    algorithms: Vec<SignatureAlgorithm>,
    link_verified_email: bool,
}

impl IssuerOptions {
    /// The issuer whose tokens have exactly `issuer` as their `iss` claim (compared byte by byte,
    /// so a slash at its end counts) and `audience` as an `aud` (RFC 7519, section 4.1).
    ///
    /// `issuer` is an address of at most 500 bytes without user, query or fragment: `https`, or
    /// `http` with a loopback host (`localhost`, `127.0.0.0/8`, `[::1]`). `audience` has 1 to 500
    /// bytes and no control characters.
    ///
    /// # Errors
    /// [`IssuerOptionsError::Issuer`], [`IssuerOptionsError::Audience`].
    pub fn new(
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Result<Self, IssuerOptionsError> {
        let issuer = issuer.into();
        if !is_issuer(&issuer) {
            return Err(IssuerOptionsError::Issuer);
        }
        let audience = audience.into();
        let is_audience = (1..=MAX_AUDIENCE_BYTES).contains(&audience.len())
            && !audience.contains(char::is_control);
        if !is_audience {
            return Err(IssuerOptionsError::Audience);
        }
        let algorithms = SignatureAlgorithm::ALL.to_vec();
        Ok(Self { issuer, audience, jwks_url: None, algorithms, link_verified_email: false })
    }

    /// Sets the address of the key set (RFC 7517, section 5), of at most 500 bytes, `https` or
    /// `http` with a loopback host. Default: the `jwks_uri` of the discovery document at
    /// `{issuer}/.well-known/openid-configuration`; if the issuer has none,
    /// `{issuer}/api/auth/jwks`, as Better Auth.
    ///
    /// # Errors
    /// [`IssuerOptionsError::JwksUrl`].
    pub fn jwks_url(mut self, url: impl Into<String>) -> Result<Self, IssuerOptionsError> {
        let url = url.into();
        if !is_endpoint(&url) {
            return Err(IssuerOptionsError::JwksUrl);
        }
        self.jwks_url = Some(url);
        Ok(self)
    }

    /// Sets the algorithms of the tokens' signatures. Default: [`SignatureAlgorithm::ALL`]. An
    /// empty list accepts no token.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = SignatureAlgorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets whether a new user of the issuer is the local user with the same e-mail address, if
    /// both sides have verified it. Default: no.
    pub fn link_verified_email(mut self, link: bool) -> Self {
        self.link_verified_email = link;
        self
    }

    /// The value of `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The value of `aud`.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Whether [`IssuerOptions::link_verified_email`] is set.
    #[must_use]
    pub fn links_verified_email(&self) -> bool {
        self.link_verified_email
    }

    pub(crate) fn key_set_url(&self) -> Option<&str> {
        self.jwks_url.as_deref()
    }

    pub(crate) fn accepts(&self, algorithm: SignatureAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// The reason why [`IssuerOptions`] are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerOptionsError {
    /// The issuer.
    #[error(
        "an issuer is an https address (http only with a loopback host) of at most 500 bytes, \
         without user, query or fragment"
    )]
    Issuer,
    /// The audience.
    #[error("an audience has 1 to 500 bytes and no control characters")]
    Audience,
    /// The address of the key set.
    #[error(
        "a key set has an https address (http only with a loopback host) of at most 500 bytes, \
         without user or fragment"
    )]
    JwksUrl,
}

/// An algorithm of asymmetric signatures (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of 2048 to 8192 bits.
    Rs256,
    /// RSASSA-PSS with SHA-256, keys of 2048 to 8192 bits.
    Ps256,
}

impl SignatureAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Rs256, Self::Ps256];

    /// The name in `alg`, such as `EdDSA`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    /// Parses the name in `alg`, in its own letter case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.as_str() == name).ok_or(UnknownAlgorithm)
    }
}

/// The name of an algorithm is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an algorithm is one of EdDSA, ES256, ES384, RS256, PS256")]
pub struct UnknownAlgorithm;

/// Whether requests may be sent to this address: `https`, or `http` with a loopback host.
pub(super) fn is_endpoint(text: &str) -> bool {
    endpoint(text).is_some()
}

/// Whether it is the address of an issuer (RFC 8414, section 2).
fn is_issuer(text: &str) -> bool {
    endpoint(text).is_some_and(|url| url.query().is_none())
}

/// The address, if it is an endpoint.
pub(super) fn endpoint(text: &str) -> Option<Url> {
    // The parser drops spaces at the ends, and tabs and newlines anywhere.
    let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if text.len() > MAX_URL_BYTES || !text.bytes().all(is_visible) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_allowed = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url.host()?),
        _ => false,
    };
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_allowed && is_plain).then_some(url)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_or_loopback() {
        for valid in [
            "https://login.example.com",
            "https://login.example.com/realms/a/",
            "http://localhost:3000",
            "http://127.0.0.2:3000/a",
            "http://[::1]:3000",
        ] {
            assert!(IssuerOptions::new(valid, "a").is_ok(), "{valid}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL_BYTES));
        for invalid in [
            "",
            "login.example.com",
            "http://login.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "https://u:p@login.example.com",
            "https://u@login.example.com",
            "https://login.example.com?a",
            "https://login.example.com#a",
            " https://login.example.com",
            "https://login.example.com\n",
            "https:\\\\login.example.com",
            "file:///etc/passwd",
            &long,
        ] {
            let error = IssuerOptions::new(invalid, "a").unwrap_err();
            assert_eq!(error, IssuerOptionsError::Issuer, "{invalid}");
        }
    }

    #[test]
    fn audiences_and_key_sets_are_checked() {
        for invalid in ["", "a\nb", &"x".repeat(501)] {
            let error = IssuerOptions::new("https://a.example", invalid).unwrap_err();
            assert_eq!(error, IssuerOptionsError::Audience);
        }
        let options = || IssuerOptions::new("https://a.example", "a").unwrap();
        assert!(options().jwks_url("https://b.example/keys?v=1").is_ok());
        for invalid in ["http://b.example/keys", "/keys", "https://b.example/#keys"] {
            assert_eq!(options().jwks_url(invalid), Err(IssuerOptionsError::JwksUrl));
        }
    }

    #[test]
    fn names_of_algorithms_are_exact() {
        for known in SignatureAlgorithm::ALL {
            assert_eq!(known.to_string().parse(), Ok(known));
            assert!(UnknownAlgorithm.to_string().contains(known.as_str()));
        }
        for unknown in ["none", "HS256", "ES512", "eddsa", ""] {
            assert_eq!(unknown.parse::<SignatureAlgorithm>(), Err(UnknownAlgorithm), "{unknown}");
        }
    }
}
