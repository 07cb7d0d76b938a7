//! The signing secret and the algorithm it is used with.

use std::fmt;

/// Phrases of example secrets, in lower case and without punctuation. A random base64 text of 43
/// characters contains one with a probability of some 10^-10; hexadecimal text contains none.
const PHRASES: [&str; 26] = [
    "appsecret",
    "asdfghjk",
    "changein",
    "changeit",
    "changeme",
    "changethis",
    "devsecret",
    "donotuse",
    "examplekey",
    "examplesecret",
    "insecure",
    "jwtsecret",
    "keygoeshere",
    "localsecret",
    "mysecret",
    "notasecret",
    "passwordpassword",
    "placeholder",
    "qwertyui",
    "replaceme",
    "replacethis",
    "replacewith",
    "secrethere",
    "secretkey",
    "supersecret",
    "yoursecret",
];
/// Words of example secrets. Too short for [`PHRASES`], so they count only as whole words, in a
/// secret with letters of one case.
const WORDS: [&str; 5] = ["dummy", "example", "sample", "your", "yours"];

/// Minimum of distinct bytes. 32 random hexadecimal digits have fewer with a probability of 10^-12.
const MIN_DISTINCT: usize = 6;

/// The key for signing tokens and cursors: at least 32 bytes (RFC 7518, section 3.2). Its `Debug`
/// output is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Minimum length in bytes.
    pub const MIN_BYTES: usize = 32;

    /// A secret from its bytes.
    ///
    /// # Errors
    /// [`SecretError`] if it is shorter than 32 bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let secret = secret.into();
        if secret.len() < Self::MIN_BYTES {
            return Err(SecretError(()));
        }
        Ok(Self(secret))
    }

    /// Why the secret is easy to guess, if it is: it looks like an example from documentation, has
    /// fewer than six distinct bytes, repeats itself, or is a sequence. 16 or more random bytes,
    /// raw, in hexadecimal or in base64, have no such weakness.
    ///
    /// ```
    /// use todo_core::Secret;
    ///
    /// let weakness = |text: &str| Secret::new(text).map(|secret| secret.weakness());
    /// assert!(weakness("change-me-to-a-random-text-of-32-bytes-or-more")?.is_some());
    /// assert_eq!(weakness("e3b0c44298fc1c149afbf4c8996fb924")?, None);
    /// # Ok::<(), todo_core::SecretError>(())
    /// ```
    #[must_use]
    pub fn weakness(&self) -> Option<&'static str> {
        let mut seen = [false; 256];
        self.0.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        if seen.into_iter().filter(|seen| *seen).count() < MIN_DISTINCT {
            return Some("it has too few different characters");
        }
        if is_repeated(&self.0) {
            return Some("it repeats itself");
        }
        if is_sequence(&self.0) {
            return Some("it is a sequence of characters");
        }
        is_example(&String::from_utf8_lossy(&self.0)).then_some("it looks like an example")
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether the bytes are repetitions of a prefix of at most half their length.
fn is_repeated(bytes: &[u8]) -> bool {
    (1..=bytes.len() / 2).any(|period| {
        bytes.iter().zip(bytes.iter().skip(period)).all(|(byte, later)| byte == later)
    })
}

/// Whether more than three quarters of the steps between neighbouring bytes are at most 1.
fn is_sequence(bytes: &[u8]) -> bool {
    let steps = bytes.iter().zip(bytes.iter().skip(1));
    let small = steps.filter(|(byte, next)| byte.abs_diff(**next) <= 1).count();
    small * 4 > bytes.len().saturating_sub(1) * 3
}

fn is_example(text: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let all = letters(text);
    let is_one_case = !text.contains(|c: char| c.is_ascii_uppercase())
        || !text.contains(|c: char| c.is_ascii_lowercase());
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).map(letters);
    PHRASES.iter().any(|phrase| all.contains(phrase))
        || is_one_case && words.any(|word| WORDS.contains(&&*word))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret must be at least {} bytes", Secret::MIN_BYTES)]
pub struct SecretError(());

/// HMAC algorithm for signing tokens (RFC 7518, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose};
    use proptest::prelude::*;

    use super::*;

    fn weakness(text: impl Into<Vec<u8>>) -> Option<&'static str> {
        Secret::new(text).unwrap().weakness()
    }

    #[test]
    fn published_examples_are_weak() {
        for text in [
            "change-me-to-a-random-text-of-32-bytes-or-more",
            "your-secret-key-here-min-32-characters-long",
            "your-super-secret-key-change-this-in-production",
            "your-secret-key-here-change-in-production",
            "dev-secret-key-change-in-production",
            "your-super-secret-key-change-in-production",
            "CHANGE_ME_TO_SOMETHING_LONG_AND_RANDOM",
            "Change Me To Something Random, Please!!",
            "changeme1234567890changeme1234567",
            "replace_with_output_of_openssl_rand_hex_32",
            "replace-this-with-32-random-characters",
            "this-is-not-a-secret-use-your-own-one",
            "an-example-of-some-32-characters-or-more",
            "put-your-own-random-value-in-this-place",
            "django-insecure-#7k2^m!p@v9x_q4z8w1c6b3n5t0",
            "MyVerySuperSecretKeyForJwtTokens2024",
            "jwt_secret_for_development_only_12345",
            "<placeholder for a random key of 32 bytes>",
            "qwertyuiopasdfghjklzxcvbnm123456",
        ] {
            assert_eq!(weakness(text), Some("it looks like an example"), "{text}");
        }
    }

    #[test]
    fn secrets_with_little_variety_are_weak() {
        for text in [
            &*"x".repeat(40),
            &"ab".repeat(20),
            &"12345".repeat(8),
            &"0123456789".repeat(4),
            "0123456789abcdef0123456789abcdef",
            "correct horse correct horse correct horse",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef",
            "zyxwvutsrqponmlkjihgfedcba987654",
            "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffff",
            "00000000000000000000000000000001",
        ] {
            let weakness = weakness(text).unwrap_or_else(|| panic!("{text} is accepted"));
            assert_ne!(weakness, "it looks like an example", "{text}");
        }
    }

    #[test]
    fn passphrases_and_keys_of_other_programs_are_not_weak() {
        for text in [
            "correct horse battery staple, and a tractor",
            "6b1f0a0d9b3c4e5f8a7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a392817",
            "018f4c2e-9a7b-7d31-b6c4-52e0f1a98d73",
            "50298471630592847160395827164039",
        ] {
            assert_eq!(weakness(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// As the output of `openssl rand`, raw, `-hex` and `-base64`, for 16 (in hexadecimal) to
        /// 64 bytes.
        #[test]
        fn random_secrets_are_not_weak(bytes in proptest::collection::vec(any::<u8>(), 16..=64)) {
            let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            prop_assert_eq!(weakness(hex.to_uppercase()), None);
            prop_assert_eq!(weakness(hex), None);
            if bytes.len() >= 24 {
                for engine in
                    [general_purpose::STANDARD, general_purpose::URL_SAFE_NO_PAD]
                {
                    prop_assert_eq!(weakness(engine.encode(&bytes)), None);
                }
            }
            if bytes.len() >= 32 {
                prop_assert_eq!(weakness(bytes), None);
            }
        }
    }
}
