//! A check of an issuer's key set, for operators.

use std::{sync::Arc, time::Duration};

use super::{
    http_client::HttpClient,
    key_source::KeySource,
    options::{IssuerOptions, SignatureAlgorithm},
};

/// Timeout of a check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What an issuer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct IssuerReport {
    key_set_url: String,
    keys: usize,
    unused_keys: usize,
    algorithms: Vec<SignatureAlgorithm>,
}

impl IssuerReport {
    /// The address of the key set.
    #[must_use]
    pub fn key_set_url(&self) -> &str {
        &self.key_set_url
    }

    /// The number of keys that can verify tokens. 0 is no error: some issuers make a key for their
    /// first token.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The number of keys that are not used: they are of another type or for another use, or
    /// invalid. The log has the reason of each.
    #[must_use]
    pub fn unused_keys(&self) -> usize {
        self.unused_keys
    }

    /// The algorithms that the keys are for and the options accept.
    #[must_use]
    pub fn algorithms(&self) -> &[SignatureAlgorithm] {
        &self.algorithms
    }
}

/// An issuer's keys cannot be fetched. The text has no part of a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot fetch the keys of {issuer}: {reason}")]
pub struct IssuerCheckError {
    issuer: String,
    reason: String,
}

/// Fetches the keys of an issuer once, within 5 seconds.
///
/// # Errors
/// [`IssuerCheckError`].
pub async fn check_issuer(
    options: &IssuerOptions,
    client: Arc<dyn HttpClient>,
) -> Result<IssuerReport, IssuerCheckError> {
    let source = KeySource::new(options, client);
    let fetched = tokio::time::timeout(TIMEOUT, source.fetch()).await;
    let set = fetched.unwrap_or_else(|_| Err("no answer within 5 s".to_owned()));
    let set =
        set.map_err(|reason| IssuerCheckError { issuer: options.issuer().to_owned(), reason })?;
    let mut algorithms = set.algorithms();
    algorithms.retain(|algorithm| options.accepts(*algorithm));
    Ok(IssuerReport {
        key_set_url: source.url().unwrap_or_default(),
        keys: set.len(),
        unused_keys: set.unused.len(),
        algorithms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::test_support::{Answer, FakeIssuer, KEYS_URL, TestKey};

    fn options() -> IssuerOptions {
        let options = IssuerOptions::new("https://login.example.com", "todo").unwrap();
        options.jwks_url(KEYS_URL).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_has_what_can_be_used() {
        let issuer = FakeIssuer::new();
        let rsa = TestKey::new("a", SignatureAlgorithm::Rs256);
        let mut other = TestKey::ed("b");
        other.jwk["use"] = "enc".into();
        issuer.publish(&[&rsa, &TestKey::ed("c"), &other]);
        let accepted = [SignatureAlgorithm::EdDsa, SignatureAlgorithm::Rs256];
        let report = check_issuer(&options().algorithms(accepted), issuer.clone()).await.unwrap();
        assert_eq!((report.key_set_url(), report.keys(), report.unused_keys()), (KEYS_URL, 2, 1));
        assert_eq!(report.algorithms(), accepted);
        assert_eq!(issuer.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_has_no_part_of_the_response() {
        for (answer, expected) in [
            (Answer::Raw(500, b"SECRET".to_vec()), "status 500"),
            (Answer::Raw(200, b"SECRET".to_vec()), "a response that is no key set"),
            (Answer::Error, "connection reset"),
            (Answer::Never, "no answer within 5 s"),
        ] {
            let issuer = FakeIssuer::new();
            issuer.answer(KEYS_URL, answer);
            let error = check_issuer(&options(), issuer).await.unwrap_err().to_string();
            let start = "cannot fetch the keys of https://login.example.com: ";
            assert_eq!(error, format!("{start}{expected}"));
        }
    }
}
