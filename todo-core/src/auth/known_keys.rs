//! The API keys that this process has found in the database.
//!
//! The user in a key is a claim until its session is found. The first request with a key looks for
//! the session on behalf of its client's network, not of that user: keys that nobody has created
//! wait in the queue of their sender, and fill no queue and use up no memory of the user that they
//! name. Later requests know that the user is right, since a session's id is the hash of all that
//! the key says. The session may have ended: their statements check it, as that of every caller.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use hashlink::LruCache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{AuthEvent, Caller, events, session::is_live};
use crate::{
    core::Core,
    error::{Error, Result},
    ids::UserId,
    rate_limit::client_key,
};

/// Maximum number of keys; another one replaces the one that was used least recently.
const MAX_KEYS: usize = 10_000;

/// The session ids of keys that were found.
pub(crate) struct KnownKeys(Mutex<LruCache<Uuid, ()>>);

impl KnownKeys {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_KEYS)))
    }

    /// Whether it was found; then it is the one that was used most recently.
    fn has(&self, session: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&session).is_some()
    }

    fn insert(&self, session: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session, ());
    }
}

/// Whether this process has found the key: else its user is a claim.
pub(super) fn is_known(core: &Core, key: Caller) -> bool {
    core.known_keys().has(key.session_or_nil())
}

/// Looks for the session of a key that is not known yet, with one statement, and records its use.
/// `client` is the address that sent it; all senders without one are one network.
///
/// # Errors
/// [`Error::Unauthenticated`] if there is none; [`Error::Busy`], [`Error::Unavailable`],
/// [`Error::Internal`].
pub(super) async fn find_key(core: &Core, key: &Caller, client: Option<IpAddr>) -> Result<()> {
    if !is_live(core, key, queue_of(client)).await? {
        events::failed(AuthEvent::Token, client, None, "no such key");
        return Err(Error::Unauthenticated);
    }
    core.known_keys().insert(key.session_or_nil());
    core.last_uses().record(key.session_or_nil());
    Ok(())
}

/// The name of a network's queue among those of callers.
pub(super) fn queue_of(client: Option<IpAddr>) -> UserId {
    let network = client.map(client_key).unwrap_or_default();
    let hash = Sha256::new().chain_update("todo unknown keys of ").chain_update(network).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id).into()
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        Secret,
        auth::{Client, Signup, signup},
        crypto::api_key,
        scopes::{Scope, Scopes},
    };

    #[tokio::test]
    async fn a_forged_key_does_not_wait_in_the_queue_of_the_user_that_it_names() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let form = Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
        let ann = signup(&core, Client::Trusted, form).await.unwrap().user.id;
        // All that may run at once of ann's, and some that wait.
        let mut held = Vec::new();
        for _ in 0..300 {
            let mut operation = core.read(ann, std::future::pending::<Result<()>>()).boxed();
            assert!(operation.as_mut().now_or_never().is_none());
            held.push(operation);
        }
        let scopes = Scopes::new([Scope::TodosRead]).unwrap();
        let later = core.now() + chrono::TimeDelta::days(1);
        let (_, claims) = api_key::new_key(ann.as_uuid(), scopes, later).unwrap();
        let forged = Caller::of_key(claims);
        let client = Some("192.0.2.7".parse().unwrap());
        let found = timeout(Duration::from_secs(5), find_key(&core, &forged, client)).await;
        assert!(matches!(found, Ok(Err(Error::Unauthenticated))), "{found:?}");
        assert!(!core.known_keys().has(forged.session_or_nil()));
    }

    #[test]
    fn the_least_recently_used_key_is_replaced() {
        let keys = KnownKeys::new();
        for number in 0..MAX_KEYS as u128 {
            keys.insert(Uuid::from_u128(number));
        }
        assert!(keys.has(Uuid::from_u128(0)));
        keys.insert(Uuid::max());
        assert!(keys.has(Uuid::from_u128(0)) && !keys.has(Uuid::from_u128(1)));
    }
}
