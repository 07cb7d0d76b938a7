//! Fetches the key set of an issuer, at the address that its options or its discovery document
//! have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    discovery::{DiscoveryError, discover},
    http_client::{HttpClient, HttpRequest},
    jwks::{KeySet, MAX_SET_BYTES, UnusedKey},
    options::IssuerOptions,
};

/// Where the keys of an issuer are.
pub(super) struct KeySource {
    client: Arc<dyn HttpClient>,
    issuer: String,
    configured: Option<String>,
    /// The address of the last fetch that succeeded, if none is configured.
    discovered: Mutex<Option<String>>,
    /// The keys that the last set had in vain, which are logged when they change.
    unused: Mutex<Vec<UnusedKey>>,
}

impl KeySource {
    pub(super) fn new(options: &IssuerOptions, client: Arc<dyn HttpClient>) -> Self {
        Self {
            client,
            issuer: options.issuer().to_owned(),
            configured: options.key_set_url().map(str::to_owned),
            discovered: Mutex::default(),
            unused: Mutex::default(),
        }
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The address of the set: the configured one, or that of the last fetch, if it succeeded.
    pub(super) fn url(&self) -> Option<String> {
        self.configured.clone().or_else(|| self.lock_discovered().clone())
    }

    fn lock_discovered(&self) -> MutexGuard<'_, Option<String>> {
        self.discovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the set. Has no deadline of its own.
    ///
    /// # Errors
    /// The reason, for the log.
    pub(super) async fn fetch(&self) -> Result<KeySet, String> {
        if let Some(url) = &self.configured {
            return self.fetch_from(url).await;
        }
        // Forgotten until this fetch has succeeded: the issuer may have moved the set.
        let known = self.lock_discovered().take();
        let url = match known {
            Some(url) => url,
            None => self.discover().await?,
        };
        let set = self.fetch_from(&url).await?;
        *self.lock_discovered() = Some(url);
        Ok(set)
    }

    async fn discover(&self) -> Result<String, String> {
        match discover(&*self.client, &self.issuer).await {
            Ok(document) => Ok(document.jwks_uri),
            // Better Auth has no document.
            Err(DiscoveryError::Absent) => {
                Ok(format!("{}/api/auth/jwks", self.issuer.trim_end_matches('/')))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn fetch_from(&self, url: &str) -> Result<KeySet, String> {
        let request =
            HttpRequest::get(url).header("accept", "application/jwk-set+json, application/json");
        let response = self.client.send(request, MAX_SET_BYTES).await.map_err(|e| e.to_string())?;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()));
        }
        let set = KeySet::parse(response.body())?;
        self.log_unused(&set.unused);
        Ok(set)
    }

    /// Logs the keys that are not used, unless they are those of the last set.
    fn log_unused(&self, unused: &[UnusedKey]) {
        let mut last = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        for key in unused.iter().filter(|key| !last.contains(key)) {
            let issuer = &self.issuer;
            let kid = key.kid.as_deref();
            let reason = key.reason;
            if key.is_secret() {
                tracing::error!(
                    issuer,
                    kid,
                    reason,
                    "an issuer publishes a secret: replace the key"
                );
            } else {
                tracing::warn!(issuer, kid, reason, "a key of an issuer is not used");
            }
        }
        *last = unused.to_vec();
    }
}
