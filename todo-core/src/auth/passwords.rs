//! Hashing passwords: Argon2id, off the async runtime, a few at a time, behind a bounded queue.
//! A login storm fills the queue and is then told to come back; it cannot take every core or more
//! than a few times 19 MiB.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    auth::types::Password,
    error::{Cause, Error, Result},
};

/// OWASP's first choice for Argon2id (Password Storage Cheat Sheet): KiB, passes, lanes.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes that may wait; at some 30 ms each on one core the last waits about four seconds.
const QUEUE: usize = 128;
/// No stored password is longer than 128 characters of at most 4 bytes.
const MAX_BYTES: usize = 512;
/// Verified against when there is no such account, so that an answer takes as long. The salt and
/// the output are arbitrary; no known password has this output.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$\
                      dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";

/// The hashing queue.
pub(crate) struct Passwords {
    queue: Arc<Semaphore>,
    cores: Arc<Semaphore>,
    threads: Threads,
    run: Arc<AtomicU64>,
}

/// A place in the queue: good for one hash.
pub(crate) struct Ticket {
    place: OwnedSemaphorePermit,
    cores: Arc<Semaphore>,
    threads: Option<Handle>,
    run: Arc<AtomicU64>,
}

/// Threads for hashing only, one for each hash that may run.
///
/// An allocator keeps what a thread has freed for that thread. On the runtime's many blocking
/// threads, hashes that ran one after the other came to hold 19 MiB on each of a dozen threads.
struct Threads(Option<Runtime>);

impl Threads {
    fn new(count: usize) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(count)
            .thread_name("hash")
            .build();
        // It has no driver, whose start is what could fail; without it, any thread will do.
        Self(runtime.ok())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Dropping it would wait for its threads, which is not allowed within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a verification found.
pub(crate) struct Verified {
    pub(crate) matches: bool,
    /// A hash to store instead, where the stored one is of an older kind.
    pub(crate) upgrade: Option<String>,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // One core stays free for everybody who is already logged in.
        let cores = (cores - 1).max(1);
        Self {
            queue: Arc::new(Semaphore::new(QUEUE)),
            cores: Arc::new(Semaphore::new(cores)),
            threads: Threads::new(cores),
            run: Arc::default(),
        }
    }

    /// How many passwords are being hashed, or wait for it.
    #[cfg(feature = "http")]
    pub(crate) fn queued(&self) -> i64 {
        i64::try_from(QUEUE - self.queue.available_permits()).unwrap_or_default()
    }

    /// How many hashes have been computed, for new passwords and given ones.
    #[cfg(feature = "http")]
    pub(crate) fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Takes a place in the queue, or fails at once with [`Error::Busy`].
    pub(crate) fn ticket(&self) -> Result<Ticket> {
        let place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| Error::Busy)?;
        Ok(Ticket {
            place,
            cores: Arc::clone(&self.cores),
            threads: self.threads.0.as_ref().map(|runtime| runtime.handle().clone()),
            run: Arc::clone(&self.run),
        })
    }
}

impl Ticket {
    /// Hashes a new password to a PHC string.
    pub(crate) async fn hash(self, password: Password) -> Result<String> {
        self.run(move || hash(password.as_bytes())).await
    }

    /// Compares a password with a stored hash, or with nobody's in the same time.
    pub(crate) async fn verify(
        self,
        password: Password,
        stored: Option<String>,
    ) -> Result<Verified> {
        self.run(move || verify(password.as_bytes(), stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|e| Error::Internal(Cause::new(e)))?;
        let Self { place, threads, run, .. } = self;
        let threads = threads.unwrap_or_else(Handle::current);
        let hashing = threads.spawn_blocking(move || {
            // Both move in here: freed with the caller, they would let another hash start beside
            // this one.
            let _held = (core, place);
            run.fetch_add(1, Ordering::Relaxed);
            work()
        });
        hashing.await.map_err(|e| Error::Internal(Cause::new(e)))?
    }
}

fn argon2() -> Result<Argon2<'static>> {
    Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map(|params| Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params))
        .map_err(|e| Error::Internal(Cause::new(e.to_string())))
}

fn hash(password: &[u8]) -> Result<String> {
    argon2()?
        .hash_password(password)
        .map(|hash| hash.to_string())
        .map_err(|e| Error::Internal(Cause::new(e.to_string())))
}

fn verify(password: &[u8], stored: Option<&str>) -> Result<Verified> {
    // Hashing what cannot match would only cost; the time is spent on nobody's hash all the same.
    let stored = stored.filter(|stored| is_bcrypt(stored) || password.len() <= MAX_BYTES);
    if let Some(stored) = stored.filter(|stored| is_bcrypt(stored)) {
        let matches = bcrypt::verify(password, stored)
            .map_err(|e| Error::Internal(Cause::new(e.to_string())))?;
        let upgrade = if matches { Some(hash(password)?) } else { None };
        return Ok(Verified { matches, upgrade });
    }
    let parsed = PasswordHash::new(stored.unwrap_or(NOBODY))
        .map_err(|e| Error::Internal(Cause::new(e.to_string())))?;
    let matches = argon2()?.verify_password(password, &parsed).is_ok() && stored.is_some();
    Ok(Verified { matches, upgrade: None })
}

/// What passlib and bcrypt left behind: `$2a$`, `$2b$`, `$2y$`.
fn is_bcrypt(stored: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| stored.starts_with(prefix))
}

/// Whether a stored hash is one that a login can be compared with: bcrypt's or Argon2id's.
#[cfg(all(feature = "server", feature = "sqlite", feature = "postgres"))]
pub(crate) fn is_known(stored: &str) -> bool {
    if is_bcrypt(stored) {
        return stored.len() == 60 && stored.parse::<bcrypt::HashParts>().is_ok();
    }
    stored.starts_with("$argon2id$") && stored.len() <= 255 && PasswordHash::new(stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_phc_strings_of_the_stated_cost() {
        let stored = hash(b"Passw0rd").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(b"Passw0rd", Some(&stored)).unwrap().matches);
        assert!(!verify(b"passw0rd", Some(&stored)).unwrap().matches);
        assert_ne!(hash(b"Passw0rd").unwrap(), stored, "the salt is fresh");
    }

    #[test]
    fn nobody_matches_nothing_but_costs_the_same() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        let (cost, _) = NOBODY.split_once("dG9k").unwrap();
        assert!(hash(b"Passw0rd").unwrap().starts_with(cost), "{cost}");
        assert!(!verify(b"", None).unwrap().matches);
        assert!(!verify(&[b'x'; 4096], None).unwrap().matches);
    }

    #[test]
    fn a_bcrypt_hash_is_verified_and_upgraded() {
        let stored = bcrypt::hash("Passw0rd", 4).unwrap();
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let stored = stored.replacen("$2b$", kind, 1);
            let verified = verify(b"Passw0rd", Some(&stored)).unwrap();
            assert!(verified.matches);
            assert!(verified.upgrade.unwrap().starts_with("$argon2id$"));
            let wrong = verify(b"wrong", Some(&stored)).unwrap();
            assert!(!wrong.matches && wrong.upgrade.is_none());
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_finished_hash_leaves_it() {
        let passwords = Passwords::new();
        let held: Vec<_> = (0..QUEUE).map(|_| passwords.ticket().unwrap()).collect();
        assert!(matches!(passwords.ticket(), Err(Error::Busy)));
        drop(held);
        let password = Password::parse_new("Passw0rd").unwrap();
        passwords.ticket().unwrap().hash(password).await.unwrap();
        assert_eq!(passwords.queue.available_permits(), QUEUE);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_free_its_core() {
        let passwords = Passwords::new();
        let all = passwords.cores.available_permits();
        let (started, wait) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let ticket = passwords.ticket().unwrap();
        let caller = tokio::spawn(ticket.run(move || {
            started.send(()).unwrap();
            held.recv().unwrap();
            Ok(())
        }));
        tokio::task::spawn_blocking(move || wait.recv().unwrap()).await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(passwords.cores.available_permits(), all - 1, "the hash still runs");
        release.send(()).unwrap();
    }
}
