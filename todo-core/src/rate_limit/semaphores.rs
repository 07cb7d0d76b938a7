//! The limit of concurrent attempts of each client and network in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Action, MAX_WAIT};
use crate::error::{Error, Result};

/// Maximum number of references to a client's semaphore, two per running or waiting attempt;
/// further attempts are rejected at once.
pub(super) const MAX_WAITING: usize = 256;

/// Semaphores that bound the concurrent attempts of each client and network in this process; the
/// rest wait here instead of polling the database. The map holds only clients with a running or
/// waiting attempt.
#[derive(Default)]
pub(super) struct ClientSemaphores(pub(super) Mutex<HashMap<Key, Arc<Semaphore>>>);

/// The action, and the client or network.
pub(super) type Key = (Action, String);

/// A semaphore of a client or network, and its permit once it is acquired.
pub(super) struct Permit {
    semaphores: Arc<ClientSemaphores>,
    key: Key,
    semaphore: Option<Arc<Semaphore>>,
    acquired: Option<OwnedSemaphorePermit>,
}

impl ClientSemaphores {
    pub(super) async fn acquire(
        self: &Arc<Self>,
        action: Action,
        client: &str,
        permits: u32,
    ) -> Result<Permit> {
        let key = (action, client.to_owned());
        let semaphore = {
            let mut semaphores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let permits = usize::try_from(permits).unwrap_or(usize::MAX);
            Arc::clone(
                semaphores.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(permits))),
            )
        };
        // Each attempt, waiting or running, holds two of the references.
        if Arc::strong_count(&semaphore) > MAX_WAITING {
            return Err(Error::RateLimited { retry_after: MAX_WAIT });
        }
        let mut permit = Permit {
            semaphores: Arc::clone(self),
            key,
            semaphore: Some(Arc::clone(&semaphore)),
            acquired: None,
        };
        permit.acquired = Some(semaphore.acquire_owned().await.map_err(|_| Error::Busy)?);
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut semaphores = self.semaphores.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped under the lock: the last one to drop finds only the map's reference.
        drop((self.acquired.take(), self.semaphore.take()));
        if semaphores.get(&self.key).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            semaphores.remove(&self.key);
        }
    }
}
