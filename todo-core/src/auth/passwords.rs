//! Hashing passwords: Argon2id, off the async runtime, one a core at a time, behind a bounded queue.
//! A login storm fills the queue and is then told to come back; it takes what the requests of others
//! leave of the cores, and 19 MiB for each.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use argon2::{
    Argon2, Block, Params,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
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
    memory: Arc<Memory>,
    run: Arc<AtomicU64>,
}

/// A place in the queue: good for one hash.
pub(crate) struct Ticket {
    place: OwnedSemaphorePermit,
    queue: Arc<Semaphore>,
    cores: Arc<Semaphore>,
    threads: Option<Handle>,
    memory: Arc<Memory>,
    run: Arc<AtomicU64>,
}

/// What hashes are computed in: kept from one to the next while there is a next, and then given back
/// to the system. Fresh memory for each would cost it 5,000 page faults.
#[derive(Default)]
struct Memory(Mutex<Vec<Vec<Block>>>);

impl Memory {
    /// Blocks of 1 KiB. More than 32 MiB, of which what is not touched does not count: glibc hands
    /// what is smaller out of heaps, which in the end held this ten times over.
    const RESERVED: usize = 33 << 10;

    fn take(&self) -> Vec<Block> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(Self::RESERVED))
    }

    fn put_back(&self, memory: Vec<Block>, is_last: bool) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_last {
            kept.clear();
        } else {
            kept.push(memory);
        }
    }
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
            .on_thread_start(give_way)
            .build();
        // It has no driver, whose start is what could fail; without it, any thread will do.
        Self(runtime.ok())
    }
}

/// Has the thread give way to those that answer requests: they run at once when there is something to
/// do, and it takes what they leave. It keeps a tenth of a core that is never idle, so that people can
/// log in to a busy server.
fn give_way() {
    // Of a thread, on Linux alone; elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "hashing has the priority of everything else");
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
        // Where the threads cannot give way, one core stays free for everybody who is logged in.
        let cores = if cfg!(target_os = "linux") { cores } else { (cores - 1).max(1) };
        Self {
            queue: Arc::new(Semaphore::new(QUEUE)),
            cores: Arc::new(Semaphore::new(cores)),
            threads: Threads::new(cores),
            memory: Arc::default(),
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
            queue: Arc::clone(&self.queue),
            cores: Arc::clone(&self.cores),
            memory: Arc::clone(&self.memory),
            threads: self.threads.0.as_ref().map(|runtime| runtime.handle().clone()),
            run: Arc::clone(&self.run),
        })
    }
}

impl Ticket {
    /// Hashes a new password to a PHC string.
    pub(crate) async fn hash(self, password: Password) -> Result<String> {
        self.run(move |memory| hash(password.as_bytes(), memory)).await
    }

    /// Compares a password with a stored hash, or with nobody's in the same time.
    pub(crate) async fn verify(
        self,
        password: Password,
        stored: Option<String>,
    ) -> Result<Verified> {
        self.run(move |memory| verify(password.as_bytes(), stored.as_deref(), memory)).await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut Vec<Block>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|e| Error::Internal(Cause::new(e)))?;
        let Self { place, queue, threads, memory, run, .. } = self;
        let threads = threads.unwrap_or_else(Handle::current);
        let hashing = threads.spawn_blocking(move || {
            // Both move in here: freed with the caller, they would let another hash start beside
            // this one.
            let _held = (core, place);
            run.fetch_add(1, Ordering::Relaxed);
            let mut blocks = memory.take();
            let outcome = work(&mut blocks);
            // This one's own place is not given back yet.
            memory.put_back(blocks, queue.available_permits() + 1 >= QUEUE);
            outcome
        });
        hashing.await.map_err(|e| Error::Internal(Cause::new(e)))?
    }
}

/// Whatever a password library has to complain of is a fault of ours.
fn fault(error: impl std::fmt::Display) -> Error {
    Error::Internal(Cause::new(error.to_string()))
}

/// A new PHC string.
fn hash(password: &[u8], memory: &mut Vec<Block>) -> Result<String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(fault)?;
    let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
    let salt = password_hash::try_generate_salt().map_err(fault)?;
    let described = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(&params).map_err(fault)?,
        salt: Some(Salt::new(&salt).map_err(fault)?),
        hash: None,
    };
    let output = compute(password, &described, Params::DEFAULT_OUTPUT_LEN, memory)?;
    Ok(PasswordHash { hash: Some(output), ..described }.to_string())
}

/// The Argon2 output of a password as `described`: its algorithm, costs and salt.
fn compute(
    password: &[u8],
    described: &PasswordHash,
    length: usize,
    memory: &mut Vec<Block>,
) -> Result<Output> {
    let algorithm = argon2::Algorithm::try_from(described.algorithm.as_str()).map_err(fault)?;
    let version = described.version.map_or(Ok(argon2::Version::default()), TryInto::try_into);
    let params = Params::try_from(described).map_err(fault)?;
    let salt = described.salt.as_ref().ok_or_else(|| fault("a hash without a salt"))?;
    memory.resize(params.block_count(), Block::default());
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..length).ok_or_else(|| fault("a hash that is too long"))?;
    Argon2::new(algorithm, version.map_err(fault)?, params)
        .hash_password_into_with_memory(password, salt, output, memory)
        .map_err(fault)?;
    Output::new(output).map_err(fault)
}

fn verify(password: &[u8], stored: Option<&str>, memory: &mut Vec<Block>) -> Result<Verified> {
    // Hashing what cannot match would only cost; the time is spent on nobody's hash all the same.
    let stored = stored.filter(|stored| is_bcrypt(stored) || password.len() <= MAX_BYTES);
    if let Some(stored) = stored.filter(|stored| is_bcrypt(stored)) {
        let matches = bcrypt::verify(password, stored).map_err(fault)?;
        let upgrade = if matches { Some(hash(password, memory)?) } else { None };
        return Ok(Verified { matches, upgrade });
    }
    let parsed = PasswordHash::new(stored.unwrap_or(NOBODY)).map_err(fault)?;
    let expected = parsed.hash.as_ref().ok_or_else(|| fault("a stored hash without its output"))?;
    // Outputs are compared in constant time.
    let is_equal = compute(password, &parsed, expected.len(), memory)? == *expected;
    Ok(Verified { matches: is_equal && stored.is_some(), upgrade: None })
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

    fn hash(password: &[u8]) -> Result<String> {
        super::hash(password, &mut Vec::new())
    }

    fn verify(password: &[u8], stored: Option<&str>) -> Result<Verified> {
        super::verify(password, stored, &mut Vec::new())
    }

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

    #[test]
    fn what_a_hash_left_behind_does_not_show_in_the_next() {
        let mut memory = Vec::new();
        let stored = super::hash(b"Passw0rd", &mut memory).unwrap();
        for _ in 0..2 {
            assert!(super::verify(b"Passw0rd", Some(&stored), &mut memory).unwrap().matches);
            assert!(!super::verify(b"Passw0rD", Some(&stored), &mut memory).unwrap().matches);
        }
        // Another implementation's, of other costs, in the same memory.
        let small = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            Params::new(64, 3, 2, Some(24)).unwrap(),
        );
        let small = argon2::PasswordHasher::hash_password(&small, b"Passw0rd").unwrap().to_string();
        assert!(super::verify(b"Passw0rd", Some(&small), &mut memory).unwrap().matches);
        assert!(super::verify(b"Passw0rd", Some(&stored), &mut memory).unwrap().matches);
    }

    #[tokio::test]
    async fn memory_is_kept_while_others_wait_and_no_longer() {
        let passwords = Passwords::new();
        let kept = || passwords.memory.0.lock().unwrap().len();
        let (first, second) = (passwords.ticket().unwrap(), passwords.ticket().unwrap());
        let fill = |memory: &mut Vec<Block>| {
            memory.resize(1, Block::default());
            Ok(())
        };
        first.run(fill).await.unwrap();
        assert_eq!(kept(), 1);
        assert_eq!(second.run(|memory| Ok(memory.len())).await.unwrap(), 1, "not the same");
        assert_eq!(kept(), 0);
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
        let caller = tokio::spawn(ticket.run(move |_| {
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
