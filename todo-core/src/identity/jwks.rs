//! Key sets of issuers (RFC 7517): which of their keys may verify which signatures.

use std::collections::{HashMap, HashSet};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::options::SignatureAlgorithm;

/// Maximum size of a set, in bytes.
pub(super) const MAX_SET_BYTES: usize = 256 * 1024;
/// Maximum length of a key's id, in bytes.
pub(super) const MAX_KID_BYTES: usize = 256;
/// Maximum number of keys of a set.
const MAX_KEYS: usize = 100;
/// Sizes of RSA moduli, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Maximum number of characters of a key's id in a log line.
const MAX_LOGGED_CHARS: usize = 64;

/// The identity of a public key: a hash of its id, its type and its value. A key with an old id and
/// another value is another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyId([u8; 32]);

#[cfg(test)]
impl KeyId {
    /// The id of no key.
    pub(crate) fn test() -> Self {
        Self([0; 32])
    }
}

/// A public key that may verify signatures.
pub(super) struct Key {
    pub(super) id: KeyId,
    algorithms: &'static [SignatureAlgorithm],
    value: DecodingKey,
}

impl Key {
    /// Whether the signature, in base64url, is one of `message`.
    pub(super) fn verifies(
        &self,
        algorithm: SignatureAlgorithm,
        message: &str,
        signature: &str,
    ) -> bool {
        let algorithm = match algorithm {
            SignatureAlgorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            SignatureAlgorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            SignatureAlgorithm::Es384 => jsonwebtoken::Algorithm::ES384,
            SignatureAlgorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            SignatureAlgorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        };
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.value, algorithm)
            .unwrap_or(false)
    }
}

/// The keys of an issuer.
#[derive(Default)]
pub(super) struct KeySet {
    by_kid: HashMap<String, Vec<Key>>,
    ids: HashSet<KeyId>,
    /// The keys that are not used.
    pub(super) unused: Vec<UnusedKey>,
}

/// The keys for a signature.
pub(super) enum Candidates<'a> {
    /// The keys with this id and algorithm, at least one.
    Keys(Vec<&'a Key>),
    /// There are keys with this id, but of other algorithms.
    OtherAlgorithms,
    /// There is no key with this id.
    Unknown,
}

impl KeySet {
    /// Parses `{"keys":[…]}`. Unusable keys do not spoil the set (RFC 7517, section 5); of more
    /// than 100, the first ones are used.
    ///
    /// # Errors
    /// The reason, if it is no key set.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        if json.len() > MAX_SET_BYTES {
            return Err("a key set of more than 256 KiB");
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|_| "a response that is no key set")?;
        let mut set = Self::default();
        for key in document.keys.iter().take(MAX_KEYS) {
            let parsed = key.as_object().ok_or(Unusable("no object")).and_then(parse_key);
            match parsed {
                Ok((kid, key)) => {
                    set.ids.insert(key.id);
                    set.by_kid.entry(kid).or_default().push(key);
                }
                Err(reason) => set.unused.push(UnusedKey::new(key, reason)),
            }
        }
        if document.keys.len() > MAX_KEYS {
            set.unused.push(UnusedKey::new(&Value::Null, Unusable("one of more than 100 keys")));
        }
        Ok(set)
    }

    /// The keys for a signature: by id and algorithm, since keys of different types may have the
    /// same id (RFC 7517, section 4.5).
    pub(super) fn candidates(&self, kid: &str, algorithm: SignatureAlgorithm) -> Candidates<'_> {
        let Some(named) = self.by_kid.get(kid) else { return Candidates::Unknown };
        let keys: Vec<&Key> =
            named.iter().filter(|key| key.algorithms.contains(&algorithm)).collect();
        if keys.is_empty() { Candidates::OtherAlgorithms } else { Candidates::Keys(keys) }
    }

    /// The number of usable keys.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The algorithms of its keys, in the order of [`SignatureAlgorithm::ALL`].
    pub(super) fn algorithms(&self) -> Vec<SignatureAlgorithm> {
        let has = |algorithm: &SignatureAlgorithm| {
            self.by_kid.values().flatten().any(|key| key.algorithms.contains(algorithm))
        };
        SignatureAlgorithm::ALL.into_iter().filter(has).collect()
    }

    /// Whether it has the key.
    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.ids.contains(id)
    }

    /// Whether it has a key that `other` does not have.
    pub(super) fn adds_to(&self, other: &Self) -> bool {
        !self.ids.is_subset(&other.ids)
    }
}

/// A key that is not used. Both texts are for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnusedKey {
    pub(super) kid: Option<String>,
    pub(super) reason: &'static str,
}

impl UnusedKey {
    fn new(key: &Value, Unusable(reason): Unusable) -> Self {
        Self { kid: key.get("kid").and_then(Value::as_str).map(printable), reason }
    }

    /// Whether the issuer publishes a secret.
    pub(super) fn is_secret(&self) -> bool {
        self.reason == SECRET.0
    }
}

/// A text of a stranger, for a log line: at most 64 characters, control characters escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(MAX_LOGGED_CHARS).flat_map(char::escape_debug).collect()
}

/// The reason why a key is not used.
struct Unusable(&'static str);

/// The issuer of such a key has lost its secret. No further key of its is known to be safe, but it
/// may replace this one.
const SECRET: Unusable = Unusable("a private or secret key");
const MALFORMED: Unusable = Unusable("malformed");
const OTHER_TYPE: Unusable = Unusable("another type or curve");

/// Members that are secret (RFC 7518, section 6; RFC 8037, section 2).
const SECRET_MEMBERS: [&str; 8] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth"];

/// Parses a key and its id. Its type and curve determine its algorithms, of which its `alg` may
/// name one. Members that are not needed, for instance certificates, are not read: one of a wrong
/// type has no effect.
fn parse_key(jwk: &Map<String, Value>) -> Result<(String, Key), Unusable> {
    use SignatureAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
    if SECRET_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(SECRET);
    }
    let kid = text(jwk, "kid").ok_or(Unusable("without an id"))?;
    if !(1..=MAX_KID_BYTES).contains(&kid.len()) {
        return Err(Unusable("an id that is empty or too long"));
    }
    if !may_verify(jwk) {
        return Err(Unusable("for another use"));
    }
    let kty = text(jwk, "kty").ok_or(MALFORMED)?;
    // Symmetric keys (`oct`) would accept signatures that anyone can make.
    let (algorithms, material, value): (&'static [SignatureAlgorithm], _, _) =
        match (kty, text(jwk, "crv")) {
            ("OKP", Some("Ed25519")) => {
                let x = bytes(jwk, "x", 32)?;
                (&[EdDsa], x.clone(), DecodingKey::from_ed_der(&x))
            }
            ("EC", Some("P-256")) => {
                let point = point(jwk, 32)?;
                (&[Es256], point.clone(), DecodingKey::from_ec_der(&point))
            }
            ("EC", Some("P-384")) => {
                let point = point(jwk, 48)?;
                (&[Es384], point.clone(), DecodingKey::from_ec_der(&point))
            }
            ("RSA", _) => {
                let n = number(jwk, "n")?;
                let e = number(jwk, "e")?;
                if !RSA_BYTES.contains(&n.len()) {
                    return Err(Unusable("of less than 2048 or more than 8192 bits"));
                }
                let value = DecodingKey::from_rsa_raw_components(&n, &e);
                (&[Rs256, Ps256], [n, e].concat(), value)
            }
            _ => return Err(OTHER_TYPE),
        };
    let algorithms = match jwk.get("alg") {
        None => algorithms,
        Some(alg) => {
            let named = algorithms.iter().position(|known| alg == known.as_str());
            named.map(|at| &algorithms[at..=at]).ok_or(Unusable("for another algorithm"))?
        }
    };
    let id = KeyId(
        Sha256::new()
            .chain_update((kid.len() as u64).to_be_bytes())
            .chain_update(kid)
            .chain_update(algorithms[0].as_str())
            .chain_update(material)
            .finalize()
            .into(),
    );
    Ok((kid.to_owned(), Key { id, algorithms, value }))
}

/// Whether `use` and `key_ops` allow to verify signatures (RFC 7517, sections 4.2 and 4.3).
fn may_verify(jwk: &Map<String, Value>) -> bool {
    let is_for_signatures = jwk.get("use").is_none_or(|usage| usage == "sig");
    let has_verify = |ops: &Value| ops.as_array().is_some_and(|ops| ops.contains(&"verify".into()));
    is_for_signatures && jwk.get("key_ops").is_none_or(has_verify)
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member)?.as_str()
}

fn decoded(jwk: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Unusable> {
    let encoded = text(jwk, member).ok_or(MALFORMED)?;
    BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| MALFORMED)
}

/// A value of this length.
fn bytes(jwk: &Map<String, Value>, member: &str, length: usize) -> Result<Vec<u8>, Unusable> {
    decoded(jwk, member).and_then(
        |bytes| {
            if bytes.len() == length { Ok(bytes) } else { Err(MALFORMED) }
        },
    )
}

/// A point of a curve, uncompressed (SEC 1, section 2.3.3).
fn point(jwk: &Map<String, Value>, coordinate: usize) -> Result<Vec<u8>, Unusable> {
    Ok([vec![4], bytes(jwk, "x", coordinate)?, bytes(jwk, "y", coordinate)?].concat())
}

/// A number without leading zeros.
fn number(jwk: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Unusable> {
    let bytes = decoded(jwk, member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

#[cfg(test)]
mod tests;
