//! The claims of an issuer's tokens (RFC 7519, section 4.1).

use serde_json::{Map, Value};

use super::{jwks::KeyId, options::IssuerOptions};

/// Tolerated difference between the clocks, in seconds.
pub(crate) const CLOCK_SKEW_SECONDS: i64 = 30;
/// Maximum length of a subject, in characters.
const MAX_SUBJECT_CHARS: usize = 255;
/// The end of the year 9999, in seconds since the Unix epoch. Later times cannot be stored.
const MAX_TIME: i64 = 253_402_300_799;

/// The claims of a valid token of another issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignClaims {
    /// `iss`: the configured issuer.
    pub(crate) issuer: String,
    /// `sub`, 1 to 255 characters without control characters.
    pub(crate) subject: String,
    /// `iat`, in seconds since the Unix epoch.
    pub(crate) issued_at: i64,
    /// `exp`, in seconds since the Unix epoch.
    pub(crate) expires_at: i64,
    /// `email`, of any syntax.
    pub(crate) email: Option<String>,
    /// Whether `email_verified` or `emailVerified` is `true`.
    pub(crate) email_verified: bool,
    /// `name`, of any length and characters.
    pub(crate) name: Option<String>,
    /// `nonce` (OpenID Connect Core 1.0, section 2).
    pub(crate) nonce: Option<String>,
    /// `azp` (OpenID Connect Core 1.0, section 2).
    pub(crate) authorized_party: Option<String>,
    /// Whether `aud` names others beside the configured audience.
    pub(crate) has_other_audiences: bool,
    /// The key of the signature.
    pub(crate) key: KeyId,
}

/// Checks the claims at the time `now`, in seconds since the Unix epoch.
///
/// # Errors
/// The reason for which the token is rejected.
pub(super) fn read_claims(
    claims: &Map<String, Value>,
    options: &IssuerOptions,
    now: i64,
    key: KeyId,
) -> Result<ForeignClaims, &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(options.issuer()) {
        return Err("wrong issuer");
    }
    let audiences = claims.get("aud").and_then(audiences).ok_or("wrong audience")?;
    if !audiences.contains(&options.audience()) {
        return Err("wrong audience");
    }
    let subject = text("sub").filter(|subject| is_subject(subject)).ok_or("invalid subject")?;
    let expires_at = claims.get("exp").and_then(seconds).ok_or("invalid expiry")?;
    let issued_at = claims.get("iat").and_then(seconds).ok_or("invalid time of issue")?;
    let not_before = match claims.get("nbf") {
        Some(time) => seconds(time).ok_or("invalid start")?,
        None => issued_at,
    };
    if expires_at <= now.saturating_sub(CLOCK_SKEW_SECONDS) {
        return Err("token expired");
    }
    if issued_at.max(not_before) > now.saturating_add(CLOCK_SKEW_SECONDS) {
        return Err("token not valid yet");
    }
    let is_true = |name: &str| claims.get(name) == Some(&Value::Bool(true));
    Ok(ForeignClaims {
        issuer: options.issuer().to_owned(),
        subject: subject.to_owned(),
        issued_at,
        expires_at,
        email: text("email").map(str::to_owned),
        email_verified: is_true("email_verified") || is_true("emailVerified"),
        name: text("name").map(str::to_owned),
        nonce: text("nonce").map(str::to_owned),
        authorized_party: text("azp").map(str::to_owned),
        has_other_audiences: audiences.iter().any(|other| *other != options.audience()),
        key,
    })
}

/// The members of `aud`, a string or a list of strings.
fn audiences(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(audience) => Some(vec![audience]),
        Value::Array(audiences) => audiences.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn is_subject(subject: &str) -> bool {
    !subject.contains(char::is_control)
        && (1..=MAX_SUBJECT_CHARS).contains(&subject.chars().count())
}

/// A time in seconds since the Unix epoch, which may have a fraction, until the year 9999.
fn seconds(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked; `as` saturates")]
    let time = value.as_i64().or_else(|| value.as_f64().map(|time| time as i64))?;
    (0..=MAX_TIME).contains(&time).then_some(time)
}
