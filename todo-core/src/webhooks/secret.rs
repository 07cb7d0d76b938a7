//! The key of the signatures of a webhook.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{BoxError, Error, FieldError, FieldErrors, Result};

/// The prefix of the text of a secret.
const PREFIX: &str = "whsec_";
/// Length of a generated secret in bytes.
const GENERATED: usize = 32;

/// The key of the signatures of a webhook: 24 to 64 bytes. Its text is `whsec_` and their base64.
/// Its `Debug` output is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Parses the text of a secret.
    ///
    /// # Errors
    /// Those of the field `secret`.
    pub fn parse(text: &str) -> Result<Self, FieldErrors> {
        let bytes = text.strip_prefix(PREFIX).and_then(|key| BASE64_STANDARD.decode(key).ok());
        bytes.filter(|bytes| (24..=64).contains(&bytes.len())).map(Self).ok_or_else(|| {
            let message = "Secret must be whsec_ and the base64 of 24 to 64 bytes.";
            FieldError::new("secret", "invalid", message).into()
        })
    }

    /// A random secret of 32 bytes.
    pub(super) fn generate() -> Result<Self> {
        let mut bytes = vec![0; GENERATED];
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(BoxError::new(error)))?;
        Ok(Self(bytes))
    }

    pub(super) fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text of the secret, for its owner.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The signature of a message: the value of `webhook-signature` (Standard Webhooks, *Signature
    /// scheme*). `timestamp` is in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_parsed_back() {
        let secret = WebhookSecret::generate().unwrap();
        assert_eq!(WebhookSecret::parse(&secret.reveal()).unwrap(), secret);
        assert_ne!(WebhookSecret::generate().unwrap(), secret);
        assert!(!format!("{secret:?}").contains(&secret.reveal()[6..]));
        let of = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        assert!(WebhookSecret::parse(&of(24)).is_ok() && WebhookSecret::parse(&of(64)).is_ok());
        for text in
            ["", "whsec_", &of(23), &of(65), &of(32)[6..], "whsec_!!!!", &of(32).to_uppercase()]
        {
            assert!(WebhookSecret::parse(text).is_err(), "{text}");
        }
    }

    /// The example of the specification's libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
