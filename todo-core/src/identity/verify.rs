//! Verification of an issuer's tokens (RFC 7519, RFC 8725): header, key, signature, claims.
//!
//! The header is parsed here: jsonwebtoken reads none with an algorithm that it does not know, such
//! as ES512, and an operator needs the reason.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    claims::{ForeignClaims, read_claims},
    http_client::HttpClient,
    jwks::{Candidates, KeyId, MAX_KID_BYTES, printable},
    key_cache::{KeyCache, UNKNOWN_KEY},
    key_source::KeySource,
    options::{IssuerOptions, SignatureAlgorithm},
};
use crate::clock::Clock;

/// Maximum size of a token, in bytes. Those of Better Auth have 600, and more with a long address
/// of an image.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Interval between two log lines about the same reason.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// Members of a header that choose a key or change the meaning of the token (RFC 7515, section
/// 4.1).
const REFUSED_MEMBERS: [&str; 5] = ["crit", "jku", "jwk", "x5u", "x5c"];
const UNKNOWN_ALGORITHM: VerifyError = VerifyError::Rejected("algorithm not accepted");

/// The reason why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// The token is invalid: 401. The reason is for the log and the metric.
    Rejected(&'static str),
    /// The token cannot be judged, since the issuer does not answer: 503, and a later attempt.
    Unavailable,
}

/// Verifies the tokens of one issuer.
pub(crate) struct Verifier {
    options: IssuerOptions,
    keys: KeyCache,
    clock: Clock,
    /// The last log line about a reason, and the number of refusals since.
    logged: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl Verifier {
    /// Fetches nothing yet.
    pub(crate) fn new(options: &IssuerOptions, client: Arc<dyn HttpClient>, clock: Clock) -> Self {
        let source = KeySource::new(options, client);
        let keys = KeyCache::new(source, clock.clone());
        Self { options: options.clone(), keys, clock, logged: Mutex::default() }
    }

    /// The options of the issuer.
    pub(crate) fn issuer(&self) -> &IssuerOptions {
        &self.options
    }

    /// Verifies a token: header, key, signature and claims. Waits at most 3 seconds for the
    /// issuer, and only if it has to be asked for the key.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub(crate) async fn verify(&self, token: &str) -> Result<ForeignClaims, VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::Rejected("token too long"));
        }
        let mut parts = token.split('.');
        let [Some(header), Some(payload), Some(signature), None] =
            std::array::from_fn(|_| parts.next())
        else {
            return Err(MALFORMED);
        };
        let header = Header::parse(header).inspect_err(|e| self.log(*e, "", None))?;
        let kid = header.kid.as_str();
        let accepted = header.algorithm().filter(|algorithm| self.options.accepts(*algorithm));
        let algorithm = accepted.ok_or(UNKNOWN_ALGORITHM).inspect_err(|e| {
            self.log(*e, kid, Some(&header.algorithm));
        })?;
        let set = self.keys.find(kid, algorithm).await.inspect_err(|e| self.log(*e, kid, None))?;
        let Candidates::Keys(keys) = set.candidates(kid, algorithm) else {
            return Err(UNKNOWN_KEY);
        };
        let message = &token[..token.len() - signature.len() - 1];
        let key = keys
            .into_iter()
            .find(|key| key.verifies(algorithm, message, signature))
            .ok_or(VerifyError::Rejected("bad signature"))?;
        let payload = json(payload).ok_or(MALFORMED)?;
        let now = self.clock.now().timestamp();
        read_claims(&payload, &self.options, now, key.id).map_err(VerifyError::Rejected)
    }

    /// Whether the issuer still publishes the key, as far as is known without waiting. If not, the
    /// token must be verified again.
    pub(crate) fn still_has_key(&self, key: &KeyId) -> bool {
        self.keys.has(key)
    }

    /// Logs a refusal that can be a mistake of the operator or the issuer, once a minute for each
    /// reason: a sender of invalid tokens must not fill the log.
    fn log(&self, error: VerifyError, kid: &str, algorithm: Option<&str>) {
        let VerifyError::Rejected(reason) = error else { return };
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let suppressed = match logged.get_mut(reason) {
            Some((at, since)) if now.duration_since(*at) < LOG_INTERVAL => {
                *since += 1;
                return;
            }
            other => other.map_or(0, |(_, since)| *since),
        };
        logged.insert(reason, (now, 0));
        drop(logged);
        tracing::warn!(
            issuer = self.options.issuer(),
            kid = printable(kid),
            algorithm = algorithm.map(printable),
            reason,
            suppressed,
            "a token of an issuer is not accepted"
        );
    }
}

/// Whether the token's header has a `kid`: those of this installation have none, so each token has
/// one verifier only.
pub(crate) fn is_foreign(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    header.len() <= MAX_TOKEN_BYTES && json(header).is_some_and(|json| json.contains_key("kid"))
}

const MALFORMED: VerifyError = VerifyError::Rejected("malformed token");

/// A header whose members are acceptable.
struct Header {
    kid: String,
    /// As the sender wrote it.
    algorithm: String,
}

impl Header {
    fn parse(encoded: &str) -> Result<Self, VerifyError> {
        let header = json(encoded).ok_or(MALFORMED)?;
        if REFUSED_MEMBERS.iter().any(|member| header.contains_key(*member)) {
            return Err(VerifyError::Rejected("header with its own key or extension"));
        }
        if !header.get("typ").is_none_or(is_access_token) {
            return Err(VerifyError::Rejected("token of another type"));
        }
        let kid = header.get("kid").and_then(Value::as_str);
        let kid = kid.filter(|kid| (1..=MAX_KID_BYTES).contains(&kid.len()));
        let kid = kid.ok_or(VerifyError::Rejected("invalid key id"))?.to_owned();
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(MALFORMED)?.to_owned();
        Ok(Self { kid, algorithm })
    }

    fn algorithm(&self) -> Option<SignatureAlgorithm> {
        self.algorithm.parse().ok()
    }
}

/// Whether `typ` is that of a JWT (RFC 7519, section 5.1) or of an access token (RFC 9068, section
/// 4), so that no logout token or proof is one.
fn is_access_token(typ: &Value) -> bool {
    typ.as_str().is_some_and(|typ| {
        let typ = typ.to_ascii_lowercase();
        matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
    })
}

/// A part of a token.
fn json(encoded: &str) -> Option<Map<String, Value>> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests;
