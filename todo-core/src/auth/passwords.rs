//! Hashing passwords: Argon2id, off the async runtime, one a core at a time, behind a bounded queue.
//! A login storm fills the queue and is then told to come back; it takes what the requests of others
//! leave of the cores, and 19 MiB for each.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use argon2::{
    Argon2, Block, Params,
    password_hash::{
        self,
        phc::{Output, PasswordHash, Salt},
    },
};
use tokio::runtime::{self, Handle, Runtime};

use crate::{
    auth::{
        queue::{Network, Place, Queue},
        stored::{LANES, MEMORY_KIB, Stored, Work, todays_params},
        types::Password,
    },
    error::{Cause, Error, Result},
};

/// Hashes that may wait; at some 30 ms each on one core the last waits about four seconds.
const QUEUE: usize = 128;
/// Hashes that may wait at least, however much one takes.
const QUEUE_LEAST: usize = 16;
/// Rounds of bcrypt that take about as long as a hash of today's kind.
const ROUNDS: u64 = 512;
/// No stored password is longer than 128 characters of at most 4 bytes.
const MAX_BYTES: usize = 512;
/// What bcrypt reads of a password, with the zero behind it.
const BCRYPT_BYTES: usize = 72;
/// The salt of what is computed only for the time it takes.
const NOBODYS_SALT: [u8; 16] = *b"todo-nobody-salt";

/// Hashes passwords, one a core at a time.
pub(crate) struct Passwords {
    queue: Queue,
    threads: Threads,
    memory: Arc<Memory>,
    run: Arc<AtomicU64>,
    most: Arc<Mutex<Work>>,
}

/// A place in the queue: good for one password.
pub(crate) struct Ticket {
    place: Place,
    threads: Option<Handle>,
    memory: Arc<Memory>,
    run: Arc<AtomicU64>,
    most: Arc<Mutex<Work>>,
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
#[derive(Default)]
pub(crate) struct Verified {
    pub(crate) matches: bool,
    /// A hash to store instead, where the stored one is of an older kind.
    pub(crate) upgrade: Option<String>,
    /// The stored hash is one that nothing is compared with: of no known kind, or too costly.
    pub(crate) is_unusable: bool,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Where the threads cannot give way, one core stays free for everybody who is logged in.
        let cores = if cfg!(target_os = "linux") { cores } else { (cores - 1).max(1) };
        Self {
            queue: Queue::new(cores),
            threads: Threads::new(cores),
            memory: Arc::default(),
            run: Arc::default(),
            most: Arc::new(Mutex::new(Work::TODAY)),
        }
    }

    /// How many passwords are being hashed, or wait for it.
    #[cfg(feature = "http")]
    pub(crate) fn queued(&self) -> i64 {
        i64::try_from(self.queue.len()).unwrap_or_default()
    }

    /// How many hashes have been computed: for new passwords, for given ones, and for the time that
    /// they take.
    #[cfg(feature = "http")]
    pub(crate) fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Sets what the costliest hash takes that is stored: each refusal takes as much.
    pub(crate) fn set_most(&self, most: Work) {
        *lock(&self.most) = most.max(Work::TODAY);
    }

    /// Takes a place in the queue for a client, who wants into this account if it is named. Fails at
    /// once with [`Error::Busy`].
    pub(crate) fn ticket(&self, client: Option<IpAddr>, email: Option<&str>) -> Result<Ticket> {
        // The last to come waits about as long, whatever a hash takes.
        let times = 1 + usize::try_from(lock(&self.most).bcrypt / ROUNDS).unwrap_or(QUEUE);
        let capacity = (QUEUE / times).max(QUEUE_LEAST);
        Ok(Ticket {
            place: self.queue.place(Network::of(client), email, capacity)?,
            threads: self.threads.0.as_ref().map(|runtime| runtime.handle().clone()),
            memory: Arc::clone(&self.memory),
            run: Arc::clone(&self.run),
            most: Arc::clone(&self.most),
        })
    }

    /// Notes that a client did not know the password of this account.
    pub(crate) fn failed(&self, client: Option<IpAddr>, email: &str) {
        self.queue.failed(Network::of(client), email);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    /// Hashes a new password to a PHC string.
    pub(crate) async fn hash(self, password: Password) -> Result<String> {
        self.run(move |bench| bench.hash(password.as_bytes())).await
    }

    /// Compares a password with a stored hash, or with nobody's. Each refusal takes as long.
    pub(crate) async fn verify(
        self,
        password: Password,
        stored: Option<String>,
    ) -> Result<Verified> {
        let most = Arc::clone(&self.most);
        self.run(move |bench| verify(password.as_bytes(), stored.as_deref(), &most, bench)).await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut Bench<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self { place, threads, memory, run, .. } = self;
        let turn = place.turn().await?;
        let threads = threads.unwrap_or_else(Handle::current);
        let hashing = threads.spawn_blocking(move || {
            // It moves in here: freed with the caller, it would let another hash start beside this
            // one.
            let turn = turn;
            let mut blocks = memory.take();
            let outcome = work(&mut Bench { blocks: &mut blocks, run: &run });
            memory.put_back(blocks, turn.is_last());
            outcome
        });
        hashing.await.map_err(|e| Error::Internal(Cause::new(e)))?
    }
}

/// Hashes a new password here and now, for a command that has no queue.
#[cfg(all(feature = "server", feature = "sqlite", feature = "postgres"))]
pub(crate) fn hash_now(password: &Password) -> Result<String> {
    Bench { blocks: &mut Vec::new(), run: &AtomicU64::new(0) }.hash(password.as_bytes())
}

/// Whatever a password library has to complain of is a fault of ours.
fn fault(error: impl std::fmt::Display) -> Error {
    Error::Internal(Cause::new(error.to_string()))
}

/// Where hashes are computed, and counted.
struct Bench<'b> {
    blocks: &'b mut Vec<Block>,
    run: &'b AtomicU64,
}

impl Bench<'_> {
    /// A new PHC string.
    fn hash(&mut self, password: &[u8]) -> Result<String> {
        let (params, described) = todays_params().ok_or_else(|| fault("bad parameters"))?;
        let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
        let salt = password_hash::try_generate_salt().map_err(fault)?;
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        self.argon2(version, params, password, &salt, &mut output)?;
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: described,
            salt: Some(Salt::new(&salt).map_err(fault)?),
            hash: Some(Output::new(&output).map_err(fault)?),
        };
        Ok(hash.to_string())
    }

    /// Whether a password has this PHC string.
    fn matches(&mut self, password: &[u8], stored: &PasswordHash, params: Params) -> Result<bool> {
        let version = stored.version.map_or(Ok(argon2::Version::default()), TryInto::try_into);
        let salt = stored.salt.as_ref().ok_or_else(|| fault("a hash without a salt"))?;
        let expected = stored.hash.as_ref().ok_or_else(|| fault("a hash without an output"))?;
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..expected.len()).ok_or_else(|| fault("a long output"))?;
        self.argon2(version.map_err(fault)?, params, password, salt, output)?;
        // In constant time.
        Ok(Output::new(output).map_err(fault)? == *expected)
    }

    fn argon2(
        &mut self,
        version: argon2::Version,
        params: Params,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<()> {
        self.run.fetch_add(1, Ordering::Relaxed);
        self.blocks.resize(params.block_count(), Block::default());
        Argon2::new(argon2::Algorithm::Argon2id, version, params)
            .hash_password_into_with_memory(password, salt, output, &mut *self.blocks)
            .map_err(fault)
    }

    fn bcrypt(&mut self, password: &[u8], stored: &str) -> Result<bool> {
        self.run.fetch_add(1, Ordering::Relaxed);
        bcrypt::verify(password, stored).map_err(fault)
    }

    /// Computes this much of either kind, of which nothing is used.
    fn spend(&mut self, password: &[u8], work: Work) -> Result<()> {
        let passes = u32::try_from(work.argon2.div_ceil(u64::from(MEMORY_KIB))).unwrap_or(u32::MAX);
        let memory = work.argon2.checked_div(passes.into()).unwrap_or_default();
        let memory = u32::try_from(memory).unwrap_or(MEMORY_KIB);
        if memory >= Params::MIN_M_COST {
            let params = Params::new(memory, passes, LANES, None).map_err(fault)?;
            let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
            let version = argon2::Version::V0x13;
            self.argon2(version, params, password, &NOBODYS_SALT, &mut output)?;
            std::hint::black_box(output);
        }
        // A sum of powers of two, of which a hash has only one.
        let read = password.get(..BCRYPT_BYTES).unwrap_or(password);
        let read = if read.is_empty() { &[0] } else { read };
        for cost in (4..u64::BITS).filter(|cost| work.bcrypt >> cost & 1 == 1) {
            self.run.fetch_add(1, Ordering::Relaxed);
            std::hint::black_box(bcrypt::bcrypt(cost, NOBODYS_SALT, read));
        }
        Ok(())
    }
}

/// Compares a password with a stored hash. A refusal takes as much work as the costliest hash that is
/// stored: an account of an older kind is not told from others, nor from none.
fn verify(
    password: &[u8],
    stored: Option<&str>,
    most: &Mutex<Work>,
    bench: &mut Bench<'_>,
) -> Result<Verified> {
    let parsed = stored.map(Stored::parse);
    let is_unusable = matches!(parsed, Some(None));
    let parsed = parsed.flatten();
    let mut done = Work::default();
    let is_match = match &parsed {
        Some(Stored::Bcrypt { .. }) => bench.bcrypt(password, stored.unwrap_or_default())?,
        // What is longer than any stored password is not worth hashing.
        Some(Stored::Argon2id { hash, params }) if password.len() <= MAX_BYTES => {
            bench.matches(password, hash, params.clone())?
        }
        _ => false,
    };
    if let Some(parsed) = &parsed
        && (password.len() <= MAX_BYTES || matches!(parsed, Stored::Bcrypt { .. }))
    {
        done = parsed.work();
    }
    if !is_match {
        let least = {
            let mut most = lock(most);
            *most = most.max(done);
            *most
        };
        let rest = Work {
            argon2: least.argon2.saturating_sub(done.argon2),
            bcrypt: least.bcrypt.saturating_sub(done.bcrypt),
        };
        bench.spend(password, rest)?;
        return Ok(Verified { is_unusable, ..Verified::default() });
    }
    // Of 72 bytes and more bcrypt has read the first 72: what was typed behind them may be wrong, and
    // stored as it was typed it would lock the right one out. With 72 the right one may be longer.
    let upgrades = match &parsed {
        Some(Stored::Bcrypt { .. }) => password.len() < BCRYPT_BYTES,
        Some(stored) => stored.is_weaker(),
        None => false,
    };
    let upgrade = if upgrades { Some(bench.hash(password)?) } else { None };
    Ok(Verified { matches: true, upgrade, is_unusable: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &[u8]) -> Result<String> {
        Bench { blocks: &mut Vec::new(), run: &AtomicU64::new(0) }.hash(password)
    }

    fn verify_at(most: Work, password: &[u8], stored: Option<&str>) -> (Verified, u64) {
        let run = AtomicU64::new(0);
        let mut blocks = Vec::new();
        let mut bench = Bench { blocks: &mut blocks, run: &run };
        let verified = super::verify(password, stored, &Mutex::new(most), &mut bench).unwrap();
        (verified, run.into_inner())
    }

    fn verify(password: &[u8], stored: Option<&str>) -> Verified {
        verify_at(Work::TODAY, password, stored).0
    }

    #[test]
    fn hashes_are_phc_strings_of_the_stated_cost() {
        let stored = hash(b"Passw0rd").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(b"Passw0rd", Some(&stored)).matches);
        assert!(!verify(b"passw0rd", Some(&stored)).matches);
        assert_ne!(hash(b"Passw0rd").unwrap(), stored, "the salt is fresh");
    }

    #[test]
    fn nobody_matches_nothing() {
        for password in [&b""[..], &[b'x'; 4096], b"Passw0rd"] {
            let (verified, run) = verify_at(Work::TODAY, password, None);
            assert!(!verified.matches && !verified.is_unusable);
            assert_eq!(run, 1);
        }
    }

    #[test]
    fn a_bcrypt_hash_is_verified_and_upgraded() {
        let stored = bcrypt::hash("Passw0rd", 4).unwrap();
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let stored = stored.replacen("$2b$", kind, 1);
            let verified = verify(b"Passw0rd", Some(&stored));
            assert!(verified.matches);
            assert!(verified.upgrade.unwrap().starts_with("$argon2id$"));
            let wrong = verify(b"wrong", Some(&stored));
            assert!(!wrong.matches && wrong.upgrade.is_none());
        }
    }

    /// bcrypt reads 72 bytes. What is longer may have a wrong end, and what has just 72 may lack one.
    #[test]
    fn what_bcrypt_did_not_read_is_never_stored() {
        for length in [8, 71, 72, 73, 512, 513, 4096] {
            let right = "x".repeat(length);
            let stored = bcrypt::hash(&right, 4).unwrap();
            let cut = &right[..length.min(72)];
            let mut wrong_end = right.clone();
            wrong_end.replace_range(length - 1.., "y");
            for _ in 0..2 {
                for typed in [&*right, cut, &wrong_end, &format!("{right}x")] {
                    let verified = verify(typed.as_bytes(), Some(&stored));
                    let is_right = typed == right;
                    let is_alike = typed.len() >= 72 && length >= 72 && typed[..72] == right[..72];
                    assert_eq!(verified.matches, is_right || is_alike, "{length}: {typed}");
                    assert_eq!(verified.upgrade.is_some(), is_right && length < 72, "{length}");
                }
            }
        }
    }

    #[test]
    fn a_weaker_argon2id_hash_is_upgraded_and_a_stronger_one_stays() {
        for (memory, passes, is_upgraded) in [(64, 3, true), (19_456, 1, true), (19_456, 3, false)]
        {
            let other = Argon2::new(
                argon2::Algorithm::Argon2id,
                argon2::Version::V0x13,
                Params::new(memory, passes, 1, None).unwrap(),
            );
            let stored = argon2::PasswordHasher::hash_password(&other, b"Passw0rd").unwrap();
            let verified = verify(b"Passw0rd", Some(&stored.to_string()));
            assert!(verified.matches);
            assert_eq!(verified.upgrade.is_some(), is_upgraded, "m={memory},t={passes}");
        }
    }

    #[test]
    fn what_costs_too_much_is_not_computed() {
        let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
        for stored in [
            format!("$argon2id$v=19$m=2097152,t=1,p=1${tail}"),
            "$2b$31$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy".into(),
            "Passw0rd".into(),
        ] {
            let (verified, run) = verify_at(Work::TODAY, b"Passw0rd", Some(&stored));
            assert!(!verified.matches && verified.is_unusable, "{stored}");
            assert_eq!(run, 1, "{stored}");
        }
    }

    /// The work of a refusal as it was done, in the units of [`Work`].
    #[test]
    fn each_refusal_is_as_much_work() {
        let today = hash(b"Passw0rd").unwrap();
        let cheap = bcrypt::hash("Passw0rd", 4).unwrap();
        let dear = bcrypt::hash("Passw0rd", 6).unwrap();
        let most = Work { bcrypt: 1 << 6, ..Work::TODAY };
        let hashes = |stored: Option<&str>| verify_at(most, b"wrong", stored).1;
        assert_eq!(hashes(None), 2);
        assert_eq!(hashes(Some(&today)), 2);
        assert_eq!(hashes(Some(&dear)), 2);
        assert_eq!(hashes(Some("unknown")), 2);
        // 16 rounds of its own, then 16 and 32: the 64 of the others.
        assert_eq!(hashes(Some(&cheap)), 4);

        // One that costs more than was known is known from then on.
        let most = Mutex::new(Work::TODAY);
        let (mut blocks, run) = (Vec::new(), AtomicU64::new(0));
        let mut bench = Bench { blocks: &mut blocks, run: &run };
        super::verify(b"wrong", Some(&dear), &most, &mut bench).unwrap();
        assert_eq!(*lock(&most), Work { bcrypt: 1 << 6, ..Work::TODAY });
    }

    /// Compares times, so it wants a machine of its own.
    #[test]
    #[ignore = "compares times"]
    fn each_refusal_takes_as_long() {
        let today = hash(b"Passw0rd").unwrap();
        let [cheap, dear] = [8, 11].map(|cost| bcrypt::hash("Passw0rd", cost).unwrap());
        let most = Work { bcrypt: 1 << 11, ..Work::TODAY };
        let median = |stored: Option<&str>| {
            let mut times: Vec<_> = (0..9)
                .map(|_| {
                    let start = tokio::time::Instant::now();
                    verify_at(most, b"wrong", stored);
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[4]
        };
        let times = [None, Some(&*today), Some(&*cheap), Some(&*dear), Some("x")].map(median);
        let (least, longest) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*longest < *least * 3 / 2, "{times:?}");
    }

    #[test]
    fn what_a_hash_left_behind_does_not_show_in_the_next() {
        let (mut blocks, run) = (Vec::new(), AtomicU64::new(0));
        let mut bench = Bench { blocks: &mut blocks, run: &run };
        let most = Mutex::new(Work::TODAY);
        let stored = bench.hash(b"Passw0rd").unwrap();
        let mut matches = |password: &[u8], stored: &str| {
            super::verify(password, Some(stored), &most, &mut bench).unwrap().matches
        };
        for _ in 0..2 {
            assert!(matches(b"Passw0rd", &stored));
            assert!(!matches(b"Passw0rD", &stored));
        }
        // Another implementation's, of other costs, in the same memory.
        let small = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            Params::new(64, 3, 2, Some(24)).unwrap(),
        );
        let small = argon2::PasswordHasher::hash_password(&small, b"Passw0rd").unwrap().to_string();
        assert!(matches(b"Passw0rd", &small));
        assert!(matches(b"Passw0rd", &stored));
    }

    #[tokio::test]
    async fn memory_is_kept_while_others_wait_and_no_longer() {
        let passwords = Passwords::new();
        let kept = || passwords.memory.0.lock().unwrap().len();
        let ticket = || passwords.ticket(None, None).unwrap();
        let (first, second) = (ticket(), ticket());
        let fill = |bench: &mut Bench<'_>| {
            bench.blocks.resize(1, Block::default());
            Ok(())
        };
        first.run(fill).await.unwrap();
        assert_eq!(kept(), 1);
        assert_eq!(second.run(|bench| Ok(bench.blocks.len())).await.unwrap(), 1, "not the same");
        assert_eq!(kept(), 0);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_finished_hash_leaves_it() {
        let passwords = Passwords::new();
        let ticket = || passwords.ticket(None, None);
        let held: Vec<_> = (0..QUEUE).map(|_| ticket().unwrap()).collect();
        assert!(matches!(ticket(), Err(Error::Busy)));
        drop(held);
        // Where each refusal takes nine times as long, a ninth of the places, and not too few.
        passwords.set_most(Work { bcrypt: 1 << 10, ..Work::default() });
        let held: Vec<_> = (0..QUEUE / 3).map(|_| ticket().unwrap()).collect();
        assert!(matches!(ticket(), Err(Error::Busy)));
        drop(held);
        let password = Password::parse_new("Passw0rd").unwrap();
        ticket().unwrap().hash(password).await.unwrap();
        assert_eq!(passwords.queue.len(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_free_its_core() {
        let passwords = Passwords::new();
        let (started, wait) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let ticket = passwords.ticket(None, None).unwrap();
        let caller = tokio::spawn(ticket.run(move |_| {
            started.send(()).unwrap();
            held.recv().unwrap();
            Ok(())
        }));
        tokio::task::spawn_blocking(move || wait.recv().unwrap()).await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(passwords.queue.len(), 1, "the hash still runs");
        release.send(()).unwrap();
    }
}
