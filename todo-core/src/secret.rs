//! The signing secret and the algorithm it is used with.

use std::fmt;

use crate::error::FieldError;

/// Texts that documentation and templates show where a secret belongs.
const EXAMPLES: [&str; 3] = [
    "change-me-to-a-random-text-of-32-bytes-or-more",
    "your-secret-key-here-min-32-characters-long",
    "your-super-secret-key-change-this-in-production",
];

/// What tokens and cursors are signed with: at least 32 bytes (RFC 7518, section 3.2). Its `Debug`
/// shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The least number of bytes.
    pub const MIN_BYTES: usize = 32;

    /// Takes a secret.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `SECRET_KEY`, if it is shorter than 32 bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self, FieldError> {
        let secret = secret.into();
        if secret.len() < Self::MIN_BYTES {
            let message = "must be at least 32 bytes";
            return Err(FieldError::new("SECRET_KEY", "too_short", message));
        }
        Ok(Self(secret))
    }

    /// Whether it is a text that documentation shows where a secret belongs, or one character over
    /// and over: not a secret at all.
    #[must_use]
    pub fn is_example(&self) -> bool {
        EXAMPLES.iter().any(|example| example.as_bytes() == self.0)
            || self.0.iter().all(|byte| Some(byte) == self.0.first())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The HMAC that signs tokens (RFC 7518, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::Hs384 => Self::HS384,
            Algorithm::Hs512 => Self::HS512,
        }
    }
}
