//! Access tokens (JWT, RFC 7519, one HMAC algorithm) and opaque cursors, authenticated with this
//! installation's secret. Nothing here queries the database: each operation's statement checks that
//! the token's session still exists.

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
    error::{BoxError, Error, Result},
    secret::{Algorithm, Secret},
};

/// The issuer and the audience of the tokens.
const ISSUER: &str = "todo";
/// Longer tokens are rejected before decoding; valid ones have about 350 bytes.
const MAX_TOKEN_BYTES: usize = 2048;
/// Slots of the cache of verified tokens: about 2 MB when all are used.
const CACHE_SLOTS: usize = 4096;
/// Length of a cursor's MAC: 128 bits.
const SEAL_BYTES: usize = 16;

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

/// The user and the session of a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedToken {
    pub(crate) user_id: Uuid,
    pub(crate) session: Uuid,
    /// `exp`, in seconds since the Unix epoch.
    pub(crate) expires_at: i64,
}

/// Claims with a valid signature; their times are not checked yet.
#[derive(Clone, Copy)]
struct SignedClaims {
    verified: VerifiedToken,
    nbf: Option<i64>,
}

impl TryFrom<Claims> for SignedClaims {
    type Error = TokenError;

    fn try_from(claims: Claims) -> Result<Self, TokenError> {
        if claims.sub != claims.user_id {
            return Err(TokenError::Claims);
        }
        let verified =
            VerifiedToken { user_id: claims.user_id, session: claims.jti, expires_at: claims.exp };
        Ok(Self { verified, nbf: claims.nbf })
    }
}

/// Cache of tokens with a valid signature, which stays valid: to decode one again costs a tenth of
/// a read. Each slot holds one token; another token with the same hash replaces it.
struct VerifiedTokenCache {
    slots: Vec<Mutex<Slot>>,
    hasher: RandomState,
}

type Slot = Option<Box<(String, SignedClaims)>>;

impl VerifiedTokenCache {
    fn new() -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(CACHE_SLOTS).collect();
        Self { slots, hasher: RandomState::new() }
    }

    fn get(&self, token: &str) -> Option<SignedClaims> {
        self.slot(token)?.as_deref().filter(|(seen, _)| seen == token).map(|(_, signed)| *signed)
    }

    fn insert(&self, token: &str, signed: SignedClaims) -> SignedClaims {
        if let Some(mut slot) = self.slot(token) {
            *slot = Some(Box::new((token.to_owned(), signed)));
        }
        signed
    }

    fn slot(&self, token: &str) -> Option<MutexGuard<'_, Slot>> {
        let hash = usize::try_from(self.hasher.hash_one(token) % CACHE_SLOTS as u64).ok()?;
        let slot = self.slots.get(hash)?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The reason why a token is rejected. It is only logged, not sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Not a JWT, or its claims have the wrong shape.
    Malformed,
    /// The header differs from ours, for example in its algorithm.
    Header,
    /// The signature is invalid.
    Signature,
    /// The signature is valid, but the issuer or audience is wrong or a claim is missing.
    Claims,
    /// This user's token has expired.
    Expired(Uuid),
    /// This user's token is not valid yet.
    NotYet(Uuid),
}

impl TokenError {
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

    /// The token's user, if the signature was valid.
    pub(crate) fn user_id(self) -> Option<Uuid> {
        match self {
            Self::Expired(user_id) | Self::NotYet(user_id) => Some(user_id),
            _ => None,
        }
    }
}

impl From<jsonwebtoken::errors::Error> for TokenError {
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

/// Creates and verifies tokens and cursors.
pub(crate) struct Tokens {
    header: Header,
    validation: Validation,
    signing: EncodingKey,
    /// The current key first, then the previous ones.
    keys: Vec<SigningKey>,
    cache: VerifiedTokenCache,
    lifetime: Duration,
}

struct SigningKey {
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
        let algorithm = match algorithm {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Hs384 => jsonwebtoken::Algorithm::HS384,
            Algorithm::Hs512 => jsonwebtoken::Algorithm::HS512,
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        // `verify` checks the times: the library would use its own clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let keys = std::iter::once(secret).chain(previous).map(SigningKey::new).collect();
        Self {
            header: Header::new(algorithm),
            validation,
            signing: EncodingKey::from_secret(secret.as_bytes()),
            keys,
            cache: VerifiedTokenCache::new(),
            lifetime,
        }
    }

    /// The expiry of a session created at `now`, in whole seconds like `exp`.
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
            .map_err(|e| Error::Internal(BoxError::new(e)))
    }

    /// Verifies `token` at the time `now`: the header equals ours (one algorithm, no key or
    /// extension chosen by the sender, RFC 8725), signature, issuer and audience match, and `exp`
    /// and `nbf` hold, without leeway.
    pub(crate) fn verify(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<VerifiedToken, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let signed = match self.cache.get(token) {
            Some(signed) => signed,
            None => self.cache.insert(token, self.claims(token)?.try_into()?),
        };
        let now = now.timestamp();
        if signed.verified.expires_at <= now {
            return Err(TokenError::Expired(signed.verified.user_id));
        }
        if signed.nbf.is_some_and(|nbf| nbf > now) {
            return Err(TokenError::NotYet(signed.verified.user_id));
        }
        Ok(signed.verified)
    }

    /// Decodes the claims with each key in turn; times are not checked.
    fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        let mut rejected = TokenError::Signature;
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, &key.token, &self.validation) {
                Ok(data) if data.header == self.header => return Ok(data.claims),
                Ok(_) => rejected = TokenError::Header,
                Err(error) => match error.into() {
                    // Signed with another key, perhaps.
                    TokenError::Signature => {}
                    other => rejected = other,
                },
            }
        }
        Err(rejected)
    }

    /// Appends a MAC over `context` and `payload`, and encodes both as base64url. The payload is
    /// authenticated, not encrypted.
    pub(crate) fn seal(&self, payload: &[u8], context: &[u8]) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let mut bytes = payload.to_vec();
        bytes.extend_from_slice(&key.seal(payload, context).finalize().into_bytes()[..SEAL_BYTES]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the payload that [`Tokens::seal`] sealed with the same context.
    pub(crate) fn unseal(&self, sealed: &str, context: &[u8]) -> Option<Vec<u8>> {
        self.open(sealed, context).map(|(_, payload)| payload)
    }

    /// As [`Tokens::unseal`], with the key that sealed it.
    fn open(&self, sealed: &str, context: &[u8]) -> Option<(&SigningKey, Vec<u8>)> {
        let mut payload = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let seal = payload.split_off(payload.len().checked_sub(SEAL_BYTES)?);
        let key = self
            .keys
            .iter()
            .find(|key| key.seal(&payload, context).verify_truncated_left(&seal).is_ok())?;
        Some((key, payload))
    }
}

#[cfg(feature = "identity")]
impl Tokens {
    /// The key of new seals, for [`SealingKey::derive`].
    pub(crate) fn sealing_key(&self) -> Option<SealingKey<'_>> {
        self.keys.first().map(SealingKey)
    }

    /// As [`Tokens::unseal`], with the key that sealed it.
    pub(crate) fn unseal_with_key(
        &self,
        sealed: &str,
        context: &[u8],
    ) -> Option<(SealingKey<'_>, Vec<u8>)> {
        self.open(sealed, context).map(|(key, payload)| (SealingKey(key), payload))
    }
}

/// A key of seals, from which secrets are derived that belong to something sealed.
#[cfg(feature = "identity")]
#[derive(Clone, Copy)]
pub(crate) struct SealingKey<'t>(&'t SigningKey);

#[cfg(feature = "identity")]
impl SealingKey<'_> {
    /// A secret of 32 bytes for `payload`, the same each time. The context has the length of those
    /// of seals, and is none of them.
    pub(crate) fn derive(self, payload: &[u8], context: &[u8]) -> [u8; 32] {
        self.0.seal(payload, context).finalize().into_bytes().into()
    }
}

impl SigningKey {
    fn new(secret: &Secret) -> Self {
        let new_mac = |key: &[u8]| {
            Hmac::<Sha256>::new_from_slice(key)
                .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
        };
        // A separate key, derived from the secret: no cursor MAC can be valid as a token's.
        let mut derive = new_mac(secret.as_bytes());
        derive.update(b"todo list cursor v1");
        Self {
            token: DecodingKey::from_secret(secret.as_bytes()),
            cursor: new_mac(&derive.finalize().into_bytes()),
        }
    }

    fn seal(&self, payload: &[u8], context: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.cursor.clone();
        // The context has a fixed length, so the concatenation is unambiguous.
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
mod tests;
