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
