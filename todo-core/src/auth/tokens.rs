//! What this installation seals with its secret: access tokens (JWT, RFC 7519, one HMAC algorithm)
//! and opaque cursors. Nothing here asks the database; whether a token's session still lives is for
//! the statement that does the work.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    error::{Cause, Error, Result},
    secret::{Algorithm, Secret},
};

/// Who issues the tokens, and for whom.
const ISSUER: &str = "todo";
/// Ours are some 350 bytes; a longer text is not worth decoding.
const MAX_TOKEN_BYTES: usize = 2048;
/// Tokens that are remembered: some 2 MB, if there are so many.
const SEEN: usize = 4096;
/// Bytes of a cursor's seal: 128 bits.
const SEAL: usize = 16;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    user_id: Uuid,
    jti: Uuid,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    iss: String,
    aud: String,
}

/// What a good token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) user_id: Uuid,
    pub(crate) session: Uuid,
}

/// What a token says under our signature, whatever the time.
#[derive(Clone, Copy)]
struct Signed {
    proven: Proven,
    exp: i64,
    nbf: Option<i64>,
}

impl TryFrom<Claims> for Signed {
    type Error = Rejected;

    fn try_from(claims: Claims) -> Result<Self, Rejected> {
        if claims.sub != claims.user_id {
            return Err(Rejected::Claims);
        }
        let proven = Proven { user_id: claims.user_id, session: claims.jti };
        Ok(Self { proven, exp: claims.exp, nbf: claims.nbf })
    }
}

/// Tokens whose signature was found good, which never changes: decoding one anew is a tenth of what a
/// read costs. One for each place, which the next of the same hash takes.
struct Seen {
    places: Vec<Mutex<Place>>,
    hasher: RandomState,
}

type Place = Option<Box<(String, Signed)>>;

impl Seen {
    fn new() -> Self {
        let places = std::iter::repeat_with(Mutex::default).take(SEEN).collect();
        Self { places, hasher: RandomState::new() }
    }

    fn recall(&self, token: &str) -> Option<Signed> {
        self.place(token)?.as_deref().filter(|(seen, _)| seen == token).map(|(_, signed)| *signed)
    }

    fn keep(&self, token: &str, signed: Signed) -> Signed {
        if let Some(mut place) = self.place(token) {
            *place = Some(Box::new((token.to_owned(), signed)));
        }
        signed
    }

    fn place(&self, token: &str) -> Option<MutexGuard<'_, Place>> {
        let hash = usize::try_from(self.hasher.hash_one(token) % SEEN as u64).ok()?;
        let place = self.places.get(hash)?;
        Some(place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a token is refused: for the log, the client is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Longer than any of ours.
    TooLong,
    /// No JWT, or one whose claims are not of our shape.
    Malformed,
    /// Not exactly our header; another algorithm, for one.
    Header,
    /// Not signed by us, or altered since.
    Signature,
    /// Signed by us and not for this: another issuer or audience, a claim missing.
    Claims,
    /// Good once, for this user.
    Expired(Uuid),
    /// Good later, for this user.
    NotYet(Uuid),
}

impl Rejected {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "token too long",
            Self::Malformed => "malformed token",
            Self::Header => "foreign header",
            Self::Signature => "bad signature",
            Self::Claims => "wrong claims",
            Self::Expired(_) => "token expired",
            Self::NotYet(_) => "token not valid yet",
        }
    }

    /// Whose token it is, if it is surely one of ours.
    pub(crate) fn user_id(self) -> Option<Uuid> {
        match self {
            Self::Expired(user_id) | Self::NotYet(user_id) => Some(user_id),
            _ => None,
        }
    }
}

impl From<jsonwebtoken::errors::Error> for Rejected {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Self::Header,
            ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::InvalidClaimFormat(_)
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience
            | ErrorKind::InvalidSubject => Self::Claims,
            _ => Self::Malformed,
        }
    }
}

/// Makes and checks tokens and cursors.
pub(crate) struct Tokens {
    header: Header,
    validation: Validation,
    signing: EncodingKey,
    /// The current key first, then those it replaced.
    keys: Vec<Keys>,
    seen: Seen,
    lifetime: Duration,
}

struct Keys {
    token: DecodingKey,
    cursor: Hmac<Sha256>,
}

impl Tokens {
    pub(crate) fn new(
        algorithm: Algorithm,
        secret: &Secret,
        previous: &[Secret],
        lifetime: Duration,
    ) -> Self {
        let algorithm = algorithm.into();
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        // Times are checked below, against our clock and not the library's.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let keys = std::iter::once(secret).chain(previous).map(Keys::new).collect();
        Self {
            header: Header::new(algorithm),
            validation,
            signing: EncodingKey::from_secret(secret.as_bytes()),
            keys,
            seen: Seen::new(),
            lifetime,
        }
    }

    /// When a session opened at `now` ends, in whole seconds as `exp` has it.
    pub(crate) fn expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let end = now + self.lifetime;
        DateTime::from_timestamp(end.timestamp(), 0).unwrap_or(end)
    }

    /// Signs a token for `session` of `user_id`.
    pub(crate) fn sign(
        &self,
        user_id: Uuid,
        session: Uuid,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<String> {
        let claims = Claims {
            sub: user_id,
            user_id,
            jti: session,
            iat: now.timestamp(),
            exp: expires_at.timestamp(),
            nbf: None,
            iss: ISSUER.into(),
            aud: ISSUER.into(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing)
            .map_err(|e| Error::Internal(Cause::new(e)))
    }

    /// What `token` proves, if it is one of ours and good at `now`: exactly our header (one
    /// algorithm, no key or extension of the sender's choosing, RFC 8725), our signature, our
    /// issuer and audience, not expired and not ahead of its time, without leeway.
    pub(crate) fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Proven, Rejected> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejected::TooLong);
        }
        let signed = match self.seen.recall(token) {
            Some(signed) => signed,
            None => self.seen.keep(token, self.claims(token)?.try_into()?),
        };
        let now = now.timestamp();
        if signed.exp <= now {
            return Err(Rejected::Expired(signed.proven.user_id));
        }
        if signed.nbf.is_some_and(|nbf| nbf > now) {
            return Err(Rejected::NotYet(signed.proven.user_id));
        }
        Ok(signed.proven)
    }

    /// The claims under one of our signatures, whatever the time.
    fn claims(&self, token: &str) -> Result<Claims, Rejected> {
        let mut rejected = Rejected::Signature;
        for keys in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, &keys.token, &self.validation) {
                Ok(data) if data.header == self.header => return Ok(data.claims),
                Ok(_) => rejected = Rejected::Header,
                Err(error) => match error.into() {
                    // Another key may have signed it.
                    Rejected::Signature => {}
                    other => rejected = other,
                },
            }
        }
        Err(rejected)
    }

    /// Seals `payload` for `context`, as text that is safe in a URL.
    pub(crate) fn seal(&self, payload: &[u8], context: &[u8]) -> String {
        let Some(keys) = self.keys.first() else { return String::new() };
        let mut bytes = payload.to_vec();
        bytes.extend_from_slice(&keys.seal(payload, context).finalize().into_bytes()[..SEAL]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The payload of what [`Tokens::seal`] made for the same context.
    pub(crate) fn open(&self, sealed: &str, context: &[u8]) -> Option<Vec<u8>> {
        let mut payload = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let seal = payload.split_off(payload.len().checked_sub(SEAL)?);
        self.keys
            .iter()
            .any(|keys| keys.seal(&payload, context).verify_truncated_left(&seal).is_ok())
            .then_some(payload)
    }
}

impl Keys {
    fn new(secret: &Secret) -> Self {
        let keyed = |key: &[u8]| {
            Hmac::<Sha256>::new_from_slice(key)
                .unwrap_or_else(|_| unreachable!("any length will do"))
        };
        // A key of its own, derived from the secret, so that no cursor can pass for a token's MAC.
        let mut derive = keyed(secret.as_bytes());
        derive.update(b"todo list cursor v1");
        Self {
            token: DecodingKey::from_secret(secret.as_bytes()),
            cursor: keyed(&derive.finalize().into_bytes()),
        }
    }

    fn seal(&self, payload: &[u8], context: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.cursor.clone();
        // The context has one length, so the two cannot run into each other.
        mac.update(context);
        mac.update(payload);
        mac
    }
}

#[cfg(test)]
pub(crate) fn test_tokens() -> Tokens {
    let secret = Secret::new("a test secret of more than 32 bytes").unwrap();
    Tokens::new(Algorithm::Hs256, &secret, &[], Duration::days(7))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn signed(claims: &Value, header: &Header) -> String {
        let key = EncodingKey::from_secret(b"a test secret of more than 32 bytes");
        jsonwebtoken::encode(header, claims, &key).unwrap()
    }

    fn claims() -> Value {
        let user = Uuid::from_u128(1);
        json!({
            "sub": user, "user_id": user, "jti": Uuid::from_u128(2),
            "iat": 1_000, "exp": 2_000, "iss": "todo", "aud": "todo",
        })
    }

    #[test]
    fn a_token_is_good_until_its_last_second() {
        let tokens = test_tokens();
        let (user_id, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let expires_at = tokens.expiry(at(1_000));
        let token = tokens.sign(user_id, session, at(1_000), expires_at).unwrap();
        let last = expires_at - Duration::seconds(1);
        assert_eq!(tokens.verify(&token, last), Ok(Proven { user_id, session }));
        assert_eq!(tokens.verify(&token, expires_at), Err(Rejected::Expired(user_id)));
    }

    /// What is remembered of a token is its signature, and of no other text.
    #[test]
    fn a_token_that_is_known_is_still_asked_for_its_times() {
        let tokens = test_tokens();
        let (user_id, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let expires_at = tokens.expiry(at(1));
        let token = tokens.sign(user_id, session, at(1), expires_at).unwrap();
        for _ in 0..2 {
            assert_eq!(tokens.verify(&token, at(1)), Ok(Proven { user_id, session }));
            assert_eq!(tokens.verify(&token, expires_at), Err(Rejected::Expired(user_id)));
        }
        let known = tokens.seen.place(&token).unwrap().clone();
        let (signed, _) = token.rsplit_once('.').unwrap();
        for other in [format!("{signed}."), format!("{signed}.AAAA"), format!("{token}A")] {
            // Where the hashes of the two meet it is the text that counts.
            tokens.seen.place(&other).unwrap().clone_from(&known);
            assert!(tokens.verify(&other, at(1)).is_err(), "{other}");
        }
    }

    #[test]
    fn claims_are_exact() {
        let tokens = test_tokens();
        let header = Header::new(jsonwebtoken::Algorithm::HS256);
        assert!(tokens.verify(&signed(&claims(), &header), at(1_500)).is_ok());
        let bad = [
            ("exp", json!("2000")),
            ("exp", json!(1_500)),
            ("exp", json!(-1)),
            ("exp", Value::Null),
            ("exp", json!(2000.5)),
            ("nbf", json!(1_501)),
            ("nbf", json!("0")),
            ("sub", json!(Uuid::from_u128(3))),
            ("sub", json!("")),
            ("user_id", Value::Null),
            ("jti", json!("x")),
            ("jti", Value::Null),
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("aud", json!(["todo", "other"])),
            ("iat", json!("now")),
        ];
        for (name, value) in bad {
            let mut claims = claims();
            claims[name] = value.clone();
            assert_eq!(
                tokens.verify(&signed(&claims, &header), at(1_500)).ok(),
                None,
                "{name} {value}"
            );
            claims.as_object_mut().unwrap().remove(name);
            if name != "nbf" {
                let token = signed(&claims, &header);
                assert_eq!(tokens.verify(&token, at(1_500)).ok(), None, "no {name}");
            }
        }
    }

    #[test]
    fn the_header_is_exact() {
        let tokens = test_tokens();
        let base = Header::new(jsonwebtoken::Algorithm::HS256);
        let mut headers = vec![
            Header { typ: None, ..base.clone() },
            Header { typ: Some("at+jwt".into()), ..base.clone() },
            Header { kid: Some("1".into()), ..base.clone() },
            Header { jku: Some("https://example.com".into()), ..base.clone() },
            Header { crit: Some(vec!["exp".into()]), ..base.clone() },
            Header { alg: jsonwebtoken::Algorithm::HS384, ..base.clone() },
            Header { alg: jsonwebtoken::Algorithm::HS512, ..base.clone() },
        ];
        let mut extra = base;
        extra.extras.insert("b64", false);
        headers.push(extra);
        for header in headers {
            let verified = tokens.verify(&signed(&claims(), &header), at(1_500));
            assert_eq!(verified, Err(Rejected::Header), "{header:?}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let tokens = test_tokens();
        let header = Header::new(jsonwebtoken::Algorithm::HS256);
        let user = Uuid::from_u128(1);
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            tokens.verify(&signed(&claims, &header), at(1_500)).err()
        };
        assert_eq!(with("exp", json!(1_500)), Some(Rejected::Expired(user)));
        assert_eq!(with("nbf", json!(1_501)), Some(Rejected::NotYet(user)));
        assert_eq!(with("aud", json!("other")), Some(Rejected::Claims));
        assert_eq!(with("jti", json!("x")), Some(Rejected::Malformed));
        let rejected = |token: &str| tokens.verify(token, at(1_500)).err();
        let good = signed(&claims(), &header);
        assert_eq!(rejected(&good), None);
        let (signed_part, _) = good.rsplit_once('.').unwrap();
        assert_eq!(rejected(&format!("{signed_part}.AAAA")), Some(Rejected::Signature));
        assert_eq!(rejected("x"), Some(Rejected::Malformed));
        assert_eq!(rejected(&"x".repeat(3000)), Some(Rejected::TooLong));
        let foreign = Header { kid: Some("1".into()), ..header.clone() };
        assert_eq!(rejected(&signed(&claims(), &foreign)), Some(Rejected::Header));
        let foreign = Header::new(jsonwebtoken::Algorithm::HS512);
        assert_eq!(rejected(&signed(&claims(), &foreign)), Some(Rejected::Header));
    }

    #[test]
    fn a_replaced_secret_still_verifies_and_opens() {
        let old = Secret::new("the old secret, of at least 32 bytes").unwrap();
        let new = Secret::new("the new secret, of at least 32 bytes").unwrap();
        let week = Duration::days(7);
        let before = Tokens::new(Algorithm::Hs256, &old, &[], week);
        let after = Tokens::new(Algorithm::Hs256, &new, std::slice::from_ref(&old), week);
        let gone = Tokens::new(Algorithm::Hs256, &new, &[], week);
        let id = Uuid::from_u128(7);
        let token = before.sign(id, id, at(0), at(10)).unwrap();
        assert!(after.verify(&token, at(1)).is_ok() && gone.verify(&token, at(1)).is_err());
        let cursor = before.seal(b"x", b"c");
        assert!(after.open(&cursor, b"c").is_some() && gone.open(&cursor, b"c").is_none());
        let token = after.sign(id, id, at(0), at(10)).unwrap();
        assert!(before.verify(&token, at(1)).is_err(), "the new secret signs");
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_refused(bit in any::<prop::sample::Index>()) {
            let tokens = test_tokens();
            let mut token = tokens.sign(Uuid::from_u128(1), Uuid::from_u128(2), at(0), at(9)).unwrap().into_bytes();
            let bit = bit.index(token.len() * 7);
            token[bit / 7] ^= 1 << (bit % 7);
            let token = String::from_utf8(token).unwrap();
            prop_assert_eq!(tokens.verify(&token, at(1)).ok(), None);
        }

        #[test]
        fn noise_is_refused(noise in "[a-zA-Z0-9_.-]{0,300}") {
            prop_assert_eq!(test_tokens().verify(&noise, at(1)).ok(), None);
        }
    }
}
