//! The hashing queue, which selects the next hash to run. It is fair between networks: they
//! alternate, however many requests of each wait (start-time fair queueing). Networks with recent
//! failures share every fourth hash while others wait. For an account with many failures, from any
//! network, one password is hashed at a time.
//!
//! Its state is in this process's memory. It uses no password, no database and no clock but
//! tokio's.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::error::{Error, Result};

/// Hashes of networks without failures per hash of a network with failures.
const CLEAN_PER_FAILED: u32 = 3;
/// Failures of an account in the last one to two minutes above which its hashes run one at a time.
const MAX_ACCOUNT_FAILURES: u32 = 20;
/// How long a network's failure counts.
const FAILURE_WINDOW: Duration = Duration::from_mins(1);
/// Minimum interval between two removals of expired failures.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of networks, and of accounts, with recorded failures.
const MAX_TRACKED: usize = 16_384;

/// The unit of fairness: an IPv4 /24, an IPv6 /48, or all clients without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4(u32),
    V6(u64),
    None,
}

impl Network {
    pub(crate) fn of(client: Option<IpAddr>) -> Self {
        match client.map(|address| address.to_canonical()) {
            None => Self::None,
            Some(IpAddr::V4(address)) => Self::V4(u32::from(address) >> 8),
            Some(IpAddr::V6(address)) => {
                Self::V6(u64::try_from(u128::from(address) >> 80).unwrap_or_default())
            }
        }
    }
}

/// An account's identity in the queue: its e-mail's hash under a key of this process.
type Account = u64;

/// The queue. Clones share it and are cheap.
#[derive(Clone)]
pub(crate) struct HashQueue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    hasher: RandomState,
}

struct State {
    /// The maximum and the current number of running hashes.
    cores: usize,
    running: usize,
    /// The accounts of the running hashes.
    running_accounts: Vec<Account>,
    entries: Vec<Entry>,
    next_id: u64,
    /// The highest tag that has run, and the last tag of each network.
    virtual_time: u64,
    tags: HashMap<Network, u64>,
    /// Hashes of networks without failures since the last of a network with failures.
    streak: u32,
    failures: Failures,
}

/// An entry of the queue: reserved, or waiting for its permit.
struct Entry {
    id: u64,
    network: Network,
    account: Option<Account>,
    tag: u64,
    waiting: Option<oneshot::Sender<RunPermit>>,
}

/// Recent failures of networks and accounts.
#[derive(Default)]
struct Failures {
    networks: HashMap<Network, Instant>,
    accounts: HashMap<Account, FailureCount>,
    /// The last removal of expired failures.
    pruned: Option<Instant>,
}

/// Failures in the current period and in the previous one.
#[derive(Clone, Copy)]
struct FailureCount {
    since: Instant,
    now: u32,
    before: u32,
}

/// A slot in the queue for one hash. A full queue may give it to a network with fewer slots.
pub(crate) struct QueueSlot {
    queue: HashQueue,
    id: u64,
}

/// A permit to run a hash, released on drop.
pub(crate) struct RunPermit {
    queue: HashQueue,
    account: Option<Account>,
    is_undelivered: bool,
}

impl HashQueue {
    pub(crate) fn new(cores: usize) -> Self {
        let state = State {
            cores,
            running: 0,
            running_accounts: Vec::new(),
            entries: Vec::new(),
            next_id: 0,
            virtual_time: 0,
            tags: HashMap::new(),
            streak: 0,
            failures: Failures::default(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), hasher: RandomState::new() }))
    }

    /// Reserves one of `capacity` slots, or fails at once with [`Error::Busy`]. If all are taken,
    /// the last entry in the order of the queue loses its slot to a request that precedes it.
    pub(crate) fn reserve(
        &self,
        network: Network,
        email: Option<&str>,
        capacity: usize,
    ) -> Result<QueueSlot> {
        let account = email.map(|email| self.0.hasher.hash_one(email));
        let mut state = self.state();
        let tag = state.tag(network);
        if state.entries.len() + state.running >= capacity {
            let has_failed = state.failures.network_failed(network);
            let last = state.entries.iter().enumerate().max_by_key(|(_, entry)| {
                (state.failures.network_failed(entry.network), entry.tag, entry.id)
            });
            let Some((index, last)) = last else { return Err(Error::Busy) };
            if (has_failed, tag) >= (state.failures.network_failed(last.network), last.tag) {
                return Err(Error::Busy);
            }
            // This drops its sender, so the waiting request gets `Busy`.
            state.entries.swap_remove(index);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.tags.insert(network, tag);
        state.entries.push(Entry { id, network, account, tag, waiting: None });
        Ok(QueueSlot { queue: self.clone(), id })
    }

    /// The number of reserved slots and running hashes.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.entries.len() + state.running
    }

    /// Records a failure of this network and this account.
    pub(crate) fn failed(&self, network: Network, email: &str) {
        let account = self.0.hasher.hash_one(email);
        self.state().failures.record(network, account, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends permits to waiting entries while cores are free.
    fn dispatch(&self) {
        let mut gone = Vec::new();
        let mut state = self.state();
        while state.running < state.cores {
            let Some(Entry { account, waiting, .. }) = state.next() else { break };
            let permit = RunPermit { queue: self.clone(), account, is_undelivered: false };
            let Some(waiting) = waiting else { continue };
            match waiting.send(permit) {
                Ok(()) => {
                    state.running += 1;
                    state.running_accounts.extend(account);
                }
                // The receiver is gone. The permit's drop takes the lock, so it is dropped later.
                Err(mut permit) => {
                    permit.is_undelivered = true;
                    gone.push(permit);
                }
            }
        }
        drop(state);
        drop(gone);
    }
}

impl State {
    /// The tag of a network's next entry: one after its last, or the current virtual time.
    fn tag(&mut self, network: Network) -> u64 {
        let now = self.virtual_time;
        self.tags.retain(|_, tag| *tag >= now);
        self.tags.get(&network).map_or(now, |tag| tag + 1)
    }

    /// Removes the next entry to run from the queue.
    fn next(&mut self) -> Option<Entry> {
        let Self { entries, running_accounts, failures, .. } = self;
        let may_run = |entry: &Entry| {
            entry.waiting.is_some()
                && entry.account.is_none_or(|account| {
                    !running_accounts.contains(&account) || !failures.account_is_limited(account)
                })
        };
        let first_of = |has_failed: bool| {
            let ready = entries.iter().enumerate().filter(|(_, entry)| {
                may_run(entry) && failures.network_failed(entry.network) == has_failed
            });
            ready.min_by_key(|(_, entry)| (entry.tag, entry.id)).map(|(index, _)| index)
        };
        let index = match (first_of(false), first_of(true)) {
            (Some(clean), None) => clean,
            (Some(clean), Some(_)) if self.streak < CLEAN_PER_FAILED => {
                self.streak += 1;
                clean
            }
            (_, Some(failed)) => {
                self.streak = 0;
                failed
            }
            (None, None) => return None,
        };
        let entry = self.entries.swap_remove(index);
        self.virtual_time = self.virtual_time.max(entry.tag);
        Some(entry)
    }
}

impl Failures {
    fn record(&mut self, network: Network, account: Account, now: Instant) {
        // At most once per interval, also if the maps stay full.
        let is_full = self.networks.len() >= MAX_TRACKED || self.accounts.len() >= MAX_TRACKED;
        if is_full && self.pruned.is_none_or(|pruned| now.duration_since(pruned) > PRUNE_INTERVAL) {
            self.pruned = Some(now);
            self.networks.retain(|_, failed| now.duration_since(*failed) < FAILURE_WINDOW);
            self.accounts.retain(|_, count| now.duration_since(count.since) < 2 * FAILURE_WINDOW);
        }
        if self.networks.len() < MAX_TRACKED || self.networks.contains_key(&network) {
            self.networks.insert(network, now);
        }
        if self.accounts.len() < MAX_TRACKED || self.accounts.contains_key(&account) {
            let fresh = FailureCount { since: now, now: 0, before: 0 };
            let count = self.accounts.entry(account).or_insert(fresh);
            *count = count.at(now);
            count.now = count.now.saturating_add(1);
        }
    }

    fn network_failed(&self, network: Network) -> bool {
        let now = Instant::now();
        self.networks
            .get(&network)
            .is_some_and(|failed| now.duration_since(*failed) < FAILURE_WINDOW)
    }

    fn account_is_limited(&self, account: Account) -> bool {
        let count = self.accounts.get(&account).map(|count| count.at(Instant::now()));
        count.is_some_and(|count| count.now.saturating_add(count.before) > MAX_ACCOUNT_FAILURES)
    }
}

impl FailureCount {
    /// The count at the time `now`.
    fn at(self, now: Instant) -> Self {
        let age = now.duration_since(self.since);
        if age < FAILURE_WINDOW {
            self
        } else if age < 2 * FAILURE_WINDOW {
            Self { since: self.since + FAILURE_WINDOW, now: 0, before: self.now }
        } else {
            Self { since: now, now: 0, before: 0 }
        }
    }
}

impl QueueSlot {
    /// Waits for the permit; fails with [`Error::Busy`] if the slot was given to another request.
    pub(crate) async fn acquire(self) -> Result<RunPermit> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.queue.state();
            let entry = state.entries.iter_mut().find(|entry| entry.id == self.id);
            entry.ok_or(Error::Busy)?.waiting = Some(sender);
        }
        self.queue.dispatch();
        receiver.await.map_err(|_| Error::Busy)
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        // An entry that got its permit is removed already.
        self.queue.state().entries.retain(|entry| entry.id != self.id);
    }
}

impl RunPermit {
    /// Whether no other hash runs or waits.
    pub(crate) fn is_last(&self) -> bool {
        self.queue.len() <= 1
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        if self.is_undelivered {
            return;
        }
        {
            let mut state = self.queue.state();
            state.running = state.running.saturating_sub(1);
            let accounts = &mut state.running_accounts;
            if let Some(index) = accounts.iter().position(|account| Some(*account) == self.account)
            {
                accounts.swap_remove(index);
            }
        }
        self.queue.dispatch();
    }
}

#[cfg(test)]
mod tests;
