//! Password hashing: Argon2id, off the async runtime, one hash per core, behind a bounded queue. A
//! login storm fills the queue, then gets [`Error::Busy`]. Hashes run at a low priority, below
//! other requests, and take 19 MiB per core.

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
    auth::Password,
    crypto::{
        hash_queue::{HashQueue, Network, QueueSlot},
        stored_hash::{LANES, MEMORY_KIB, StoredHash, Work, current_params},
    },
    error::{BoxError, Error, Result},
};

/// Capacity of the queue: at about 30 ms per hash on one core the last waits about four seconds.
const MAX_QUEUED: usize = 128;
/// Minimum capacity, however much a hash costs.
const MIN_QUEUED: usize = 16;
/// Rounds of bcrypt that take about as long as a hash with the current parameters.
const BCRYPT_ROUNDS: u64 = 512;
/// Maximum length of a stored password: 128 characters of at most 4 bytes.
const MAX_PASSWORD_BYTES: usize = 512;
/// The bytes of a password that bcrypt reads, with the terminating zero.
const BCRYPT_BYTES: usize = 72;
/// The salt of dummy hashes, which only equalise response times.
const DUMMY_SALT: [u8; 16] = *b"todo-nobody-salt";

/// Hashes passwords, one per core at a time.
pub(crate) struct Hasher {
    queue: HashQueue,
    threads: HashThreads,
    memory: Arc<MemoryPool>,
    hashes_total: Arc<AtomicU64>,
    max_work: Arc<Mutex<Work>>,
}

/// A slot in the queue, for one password.
pub(crate) struct HashPermit {
    slot: QueueSlot,
    threads: Option<Handle>,
    memory: Arc<MemoryPool>,
    hashes_total: Arc<AtomicU64>,
    max_work: Arc<Mutex<Work>>,
}

/// Argon2 work memory, reused while hashes are queued, then returned to the system. Fresh memory
/// costs 5,000 page faults per hash.
#[derive(Default)]
struct MemoryPool(Mutex<Vec<Vec<Block>>>);

impl MemoryPool {
    /// Blocks of 1 KiB, more than 32 MiB in all; untouched pages take no memory. glibc takes
    /// smaller allocations from its heaps, which grew to ten times this size.
    const RESERVED_BLOCKS: usize = 33 << 10;

    fn take(&self) -> Vec<Block> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(Self::RESERVED_BLOCKS))
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

/// Dedicated hashing threads, one per concurrent hash.
///
/// An allocator keeps freed memory per thread: on the runtime's many blocking threads, successive
/// hashes held 19 MiB on each of a dozen threads.
struct HashThreads(Option<Runtime>);

impl HashThreads {
    fn new(count: usize) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(count)
            .thread_name("hash")
            .on_thread_start(lower_priority)
            .build();
        // Only the start of a driver can fail, and it has none. Fallback: the caller's runtime.
        Self(runtime.ok())
    }
}

/// Lowers the priority of the current thread below the threads that serve requests: those run
/// first, and hashing gets the remaining time. It still gets a tenth of a saturated core, so that
/// logins work on a busy server.
fn lower_priority() {
    // Only Linux has a priority per thread; elsewhere this would change the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "cannot lower the priority of a hashing thread");
    }
}

impl Drop for HashThreads {
    fn drop(&mut self) {
        // A plain drop waits for its threads, which panics within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The result of a verification.
#[derive(Default)]
pub(crate) struct Verified {
    pub(crate) matches: bool,
    /// A hash to replace the stored one, if that has older parameters.
    pub(crate) upgrade: Option<String>,
    /// The stored hash was not compared: its format is unsupported, or it costs too much.
    pub(crate) is_unusable: bool,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Without thread priorities, one core is reserved for other requests.
        let cores = if cfg!(target_os = "linux") { cores } else { (cores - 1).max(1) };
        Self {
            queue: HashQueue::new(cores),
            threads: HashThreads::new(cores),
            memory: Arc::default(),
            hashes_total: Arc::default(),
            max_work: Arc::new(Mutex::new(Work::CURRENT)),
        }
    }

    /// The number of hashes that run or wait.
    #[cfg(feature = "http")]
    pub(crate) fn queued(&self) -> i64 {
        i64::try_from(self.queue.len()).unwrap_or_default()
    }

    /// The number of hashes computed: for new passwords, for logins, and dummy ones.
    #[cfg(feature = "http")]
    pub(crate) fn hashes_total(&self) -> u64 {
        self.hashes_total.load(Ordering::Relaxed)
    }

    /// Sets the cost of the costliest stored hash: each failed login costs as much.
    pub(crate) fn set_max_work(&self, max_work: Work) {
        *lock(&self.max_work) = max_work.max(Work::CURRENT);
    }

    /// Reserves a slot in the queue for a client, for a login to the account `email` if it is
    /// given. Fails at once with [`Error::Busy`].
    pub(crate) fn permit(&self, client: Option<IpAddr>, email: Option<&str>) -> Result<HashPermit> {
        // Costlier hashes shrink the queue, so the last one always waits about as long.
        let times =
            1 + usize::try_from(lock(&self.max_work).bcrypt / BCRYPT_ROUNDS).unwrap_or(MAX_QUEUED);
        let capacity = (MAX_QUEUED / times).max(MIN_QUEUED);
        Ok(HashPermit {
            slot: self.queue.reserve(Network::of(client), email, capacity)?,
            threads: self.threads.0.as_ref().map(|runtime| runtime.handle().clone()),
            memory: Arc::clone(&self.memory),
            hashes_total: Arc::clone(&self.hashes_total),
            max_work: Arc::clone(&self.max_work),
        })
    }

    /// Records a login of this client with a wrong password for this account.
    pub(crate) fn failed(&self, client: Option<IpAddr>, email: &str) {
        self.queue.failed(Network::of(client), email);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HashPermit {
    /// Hashes a new password to a PHC string.
    pub(crate) async fn hash(self, password: Password) -> Result<String> {
        self.run(move |context| context.hash(password.as_bytes())).await
    }

    /// Compares a password with a stored hash, or with a dummy one. All failures take the same
    /// time.
    pub(crate) async fn verify(
        self,
        password: Password,
        stored: Option<String>,
    ) -> Result<Verified> {
        let max_work = Arc::clone(&self.max_work);
        self.run(move |context| verify(password.as_bytes(), stored.as_deref(), &max_work, context))
            .await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut HashContext<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self { slot, threads, memory, hashes_total, .. } = self;
        let permit = slot.acquire().await?;
        let threads = threads.unwrap_or_else(Handle::current);
        let hashing = threads.spawn_blocking(move || {
            // Moved into this thread: dropped with a cancelled caller, it would let another hash
            // start while this one still runs.
            let permit = permit;
            let mut blocks = memory.take();
            let outcome =
                work(&mut HashContext { blocks: &mut blocks, hashes_total: &hashes_total });
            memory.put_back(blocks, permit.is_last());
            outcome
        });
        hashing.await.map_err(|e| Error::Internal(BoxError::new(e)))?
    }
}

/// Hashes a new password on the current thread, for a command without a queue.
#[cfg(feature = "admin")]
pub(crate) fn hash_blocking(password: &Password) -> Result<String> {
    HashContext { blocks: &mut Vec::new(), hashes_total: &AtomicU64::new(0) }
        .hash(password.as_bytes())
}

/// Errors of the password libraries are internal errors.
fn fault(error: impl std::fmt::Display) -> Error {
    Error::Internal(BoxError::new(error.to_string()))
}

/// Work memory and counter for the computation of hashes.
struct HashContext<'b> {
    blocks: &'b mut Vec<Block>,
    hashes_total: &'b AtomicU64,
}

impl HashContext<'_> {
    /// Hashes a password to a new PHC string.
    fn hash(&mut self, password: &[u8]) -> Result<String> {
        let (params, described) = current_params().ok_or_else(|| fault("bad parameters"))?;
        let algorithm = argon2::Algorithm::Argon2id;
        let version = argon2::Version::V0x13;
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

    /// Compares a password with this PHC string.
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
        self.hashes_total.fetch_add(1, Ordering::Relaxed);
        self.blocks.resize(params.block_count(), Block::default());
        Argon2::new(argon2::Algorithm::Argon2id, version, params)
            .hash_password_into_with_memory(password, salt, output, &mut *self.blocks)
            .map_err(fault)
    }

    fn bcrypt(&mut self, password: &[u8], stored: &str) -> Result<bool> {
        self.hashes_total.fetch_add(1, Ordering::Relaxed);
        bcrypt::verify(password, stored).map_err(fault)
    }

    /// Computes dummy hashes of this cost; the results are unused.
    fn dummy_work(&mut self, password: &[u8], work: Work) -> Result<()> {
        let passes = u32::try_from(work.argon2.div_ceil(u64::from(MEMORY_KIB))).unwrap_or(u32::MAX);
        let memory = work.argon2.checked_div(passes.into()).unwrap_or_default();
        let memory = u32::try_from(memory).unwrap_or(MEMORY_KIB);
        if memory >= Params::MIN_M_COST {
            let params = Params::new(memory, passes, LANES, None).map_err(fault)?;
            let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
            let version = argon2::Version::V0x13;
            self.argon2(version, params, password, &DUMMY_SALT, &mut output)?;
            std::hint::black_box(output);
        }
        // The bcrypt cost is a sum of powers of two; one hash per power.
        let read = password.get(..BCRYPT_BYTES).unwrap_or(password);
        let read = if read.is_empty() { &[0] } else { read };
        for cost in (4..u64::BITS).filter(|cost| work.bcrypt >> cost & 1 == 1) {
            self.hashes_total.fetch_add(1, Ordering::Relaxed);
            std::hint::black_box(bcrypt::bcrypt(cost, DUMMY_SALT, read));
        }
        Ok(())
    }
}

/// Compares a password with a stored hash. A failure costs as much as the costliest stored hash, so
/// accounts with older hashes, other accounts and missing ones are indistinguishable.
fn verify(
    password: &[u8],
    stored: Option<&str>,
    max_work: &Mutex<Work>,
    context: &mut HashContext<'_>,
) -> Result<Verified> {
    let parsed = stored.map(StoredHash::parse);
    let is_unusable = matches!(parsed, Some(None));
    let parsed = parsed.flatten();
    let mut done = Work::default();
    let is_match = match &parsed {
        Some(StoredHash::Bcrypt { .. }) => context.bcrypt(password, stored.unwrap_or_default())?,
        // A longer one cannot match: no stored password is longer.
        Some(StoredHash::Argon2id { hash, params }) if password.len() <= MAX_PASSWORD_BYTES => {
            context.matches(password, hash, params.clone())?
        }
        _ => false,
    };
    if let Some(parsed) = &parsed
        && (password.len() <= MAX_PASSWORD_BYTES || matches!(parsed, StoredHash::Bcrypt { .. }))
    {
        done = parsed.work();
    }
    if !is_match {
        let target = {
            let mut max_work = lock(max_work);
            *max_work = max_work.max(done);
            *max_work
        };
        let rest = Work {
            argon2: target.argon2.saturating_sub(done.argon2),
            bcrypt: target.bcrypt.saturating_sub(done.bcrypt),
        };
        context.dummy_work(password, rest)?;
        return Ok(Verified { is_unusable, ..Verified::default() });
    }
    // bcrypt reads only the first 72 bytes. The rest of a longer password may be wrong, and a new
    // hash of it would lock the right one out. With exactly 72 bytes the right one may be longer.
    let upgrades = match &parsed {
        Some(StoredHash::Bcrypt { .. }) => password.len() < BCRYPT_BYTES,
        Some(stored) => stored.is_weaker(),
        None => false,
    };
    let upgrade = if upgrades { Some(context.hash(password)?) } else { None };
    Ok(Verified { matches: true, upgrade, is_unusable: false })
}

#[cfg(test)]
mod tests;
