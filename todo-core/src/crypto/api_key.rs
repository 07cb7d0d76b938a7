//! API keys: `todo_`, 54 characters of base62 (version, scopes, expiry, user, random bytes), and 6
//! characters of base62 (CRC-32 of all before them), by which scanners of secrets recognise a key
//! without a query.
//!
//! Nothing in a key is signed. Its session's id is a hash of the key, so that its values are valid
//! if, and only if, the user has that session. Until a statement has found it, they are claims of
//! the sender.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::{BoxError, Error, Result},
    scopes::Scopes,
};

/// The beginning of every key. No JWT begins like this.
pub(crate) const PREFIX: &str = "todo_";
const VERSION: u8 = 1;
/// The context of the hash that is a session's id.
const SESSION_CONTEXT: &[u8] = b"todo key v1";
const EXPIRY_BYTES: usize = 5;
const RANDOM_BYTES: usize = 16;
/// Version, scopes, expiry, user, random bytes.
const PAYLOAD_BYTES: usize = 1 + 2 + EXPIRY_BYTES + 16 + RANDOM_BYTES;
/// 62^54 > 2^320.
const PAYLOAD_CHARS: usize = 54;
/// 62^6 > 2^32.
const CHECKSUM_CHARS: usize = 6;
const BASE: u32 = 62;
const DIGITS: &[u8; BASE as usize] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The values in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyClaims {
    pub(crate) user_id: Uuid,
    pub(crate) scopes: Scopes,
    /// In seconds since the Unix epoch.
    pub(crate) expires_at: i64,
    /// The id of its session: a hash of the key.
    pub(crate) session: Uuid,
}

/// The reason why a text is no valid key. It is only logged, not sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// The length, the digits or the checksum are wrong.
    Malformed,
    /// It has a version that is unknown here.
    Version,
    Expired,
}

impl KeyError {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed key",
            Self::Version => "unknown version of a key",
            Self::Expired => "key expired",
        }
    }
}

/// Makes a key with new random bytes. It is valid once its session is stored.
///
/// # Errors
/// [`Error::Internal`] if the system has no randomness, or the expiry is out of range.
pub(crate) fn new_key(
    user_id: Uuid,
    scopes: Scopes,
    expires_at: DateTime<Utc>,
) -> Result<(String, KeyClaims)> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|e| Error::Internal(BoxError::new(e)))?;
    let expires_at = expires_at.timestamp();
    encode(user_id, scopes, expires_at, random)
        .ok_or_else(|| Error::Internal(BoxError::new("the expiry of a key is out of range")))
}

fn encode(
    user_id: Uuid,
    scopes: Scopes,
    expires_at: i64,
    random: [u8; RANDOM_BYTES],
) -> Option<(String, KeyClaims)> {
    let expiry = u64::try_from(expires_at).ok()?.to_be_bytes();
    let ([0, 0, 0], expiry) = expiry.split_first_chunk()? else { return None };
    let mut payload = vec![VERSION];
    payload.extend_from_slice(&scopes.bits().to_be_bytes());
    payload.extend_from_slice(expiry);
    payload.extend_from_slice(user_id.as_bytes());
    payload.extend_from_slice(&random);
    let (key, session) = with_checksum(payload);
    Some((key, KeyClaims { user_id, scopes, expires_at, session }))
}

/// The key of a payload, and the id of its session.
fn with_checksum(payload: Vec<u8>) -> (String, Uuid) {
    let mut key = PREFIX.to_owned();
    push_base62(&mut key, payload, PAYLOAD_CHARS);
    let session = session_id(&key);
    let checksum = crc32(key.as_bytes()).to_be_bytes();
    push_base62(&mut key, checksum.into(), CHECKSUM_CHARS);
    (key, session)
}

/// Reads a key at the time `now`. The values are claims until a session with its id is found.
pub(crate) fn read(key: &str, now: DateTime<Utc>) -> Result<KeyClaims, KeyError> {
    let claims = decode(key)?;
    if claims.expires_at <= now.timestamp() { Err(KeyError::Expired) } else { Ok(claims) }
}

fn decode(key: &str) -> Result<KeyClaims, KeyError> {
    let malformed = KeyError::Malformed;
    let (covered, payload) = split(key).ok_or(malformed)?;
    let (&[version], rest) = payload.split_first_chunk().ok_or(malformed)?;
    if version != VERSION {
        return Err(KeyError::Version);
    }
    let (scopes, rest) = rest.split_first_chunk().ok_or(malformed)?;
    let (expiry, rest) = rest.split_first_chunk::<EXPIRY_BYTES>().ok_or(malformed)?;
    let (user_id, _random) = rest.split_first_chunk().ok_or(malformed)?;
    Ok(KeyClaims {
        user_id: Uuid::from_bytes(*user_id),
        scopes: Scopes::from_bits(u16::from_be_bytes(*scopes)),
        expires_at: expiry.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)),
        session: session_id(covered),
    })
}

/// What the checksum of a key covers, and its payload.
fn split(key: &str) -> Option<(&str, [u8; PAYLOAD_BYTES])> {
    const LENGTH: usize = PREFIX.len() + PAYLOAD_CHARS;
    let (covered, checksum) = key.split_at_checked(LENGTH)?;
    let digits = covered.strip_prefix(PREFIX).filter(|_| checksum.len() == CHECKSUM_CHARS)?;
    let checksum = u32::from_be_bytes(from_base62(checksum)?);
    let payload = from_base62(digits)?;
    (checksum == crc32(covered.as_bytes())).then_some((covered, payload))
}

/// A key with another payload and its checksum, for tests.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn forged(key: &str, change: impl FnOnce(&mut [u8; PAYLOAD_BYTES])) -> Option<String> {
    let (_, mut payload) = split(key)?;
    change(&mut payload);
    Some(with_checksum(payload.into()).0)
}

/// The id of the session of a key, of which `covered` is all before the checksum.
fn session_id(covered: &str) -> Uuid {
    let hash = Sha256::new().chain_update(SESSION_CONTEXT).chain_update(covered).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id)
}

/// Appends a big-endian number as `width` digits.
fn push_base62(text: &mut String, mut number: Vec<u8>, width: usize) {
    let mut digits = vec![DIGITS[0]; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / BASE).unwrap_or(u8::MAX);
            remainder = value % BASE;
        }
        *digit = DIGITS.get(remainder as usize).copied().unwrap_or_default();
    }
    text.extend(digits.into_iter().map(char::from));
}

/// The big-endian number of these digits; `None` if it is longer, or if one is not a digit. Each
/// number of `width` digits has one text.
fn from_base62<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let mut number = [0; BYTES];
    for digit in digits.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            b'A'..=b'Z' => u32::from(digit - b'A') + 10,
            b'a'..=b'z' => u32::from(digit - b'a') + 36,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * BASE + carry;
            *byte = value.to_le_bytes()[0];
            carry = value >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

/// CRC-32 of ISO 3309, as in gzip (RFC 1952, section 8).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests;
