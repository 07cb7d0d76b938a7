//! The hashing queue: which of those that wait is hashed next. It is fair between networks: each has
//! one turn, however many of its requests wait (start-time fair queueing). Networks that had failures
//! of late share every fourth turn while others wait. Of an account that has had many failures, from
//! wherever, one password is hashed at a time.
//!
//! It is memory of one process and knows no password, no database and no clock but tokio's.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::error::{Error, Result};

/// Turns of networks without failures before one of the others has a turn.
const SHARE: u32 = 3;
/// Failures of one account in the last one to two minutes from which on its gate is shut.
const SUSPICIOUS: u32 = 20;
/// How long a failure is remembered.
const MEMORY: Duration = Duration::from_mins(1);
/// How often, at most, those are looked for that can be forgotten.
const PRUNE: Duration = Duration::from_secs(1);
/// Networks and accounts whose failures are remembered, each.
const REMEMBERED: usize = 16_384;

/// Who shares a turn: an IPv4 network of /24, an IPv6 network of /48, or all without an address.
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

/// An account as the queue knows it: its e-mail's hash under a key of this process.
type Account = u64;

/// The queue. A cheap clone.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    hasher: RandomState,
}

struct State {
    /// Hashes that may run, and that run.
    cores: usize,
    running: usize,
    /// Of which accounts.
    hashed: Vec<Account>,
    places: Vec<Held>,
    next_id: u64,
    /// The tag of the place that was served last, and the last one of each network.
    turn: u64,
    tags: HashMap<Network, u64>,
    /// Turns of networks without failures since one of the others had one.
    streak: u32,
    failures: Failures,
}

/// A place that is held: reserved, or waiting for its turn.
struct Held {
    id: u64,
    network: Network,
    account: Option<Account>,
    tag: u64,
    waiting: Option<oneshot::Sender<Turn>>,
}

/// Who failed of late.
#[derive(Default)]
struct Failures {
    networks: HashMap<Network, Instant>,
    accounts: HashMap<Account, Count>,
    /// When old ones were last forgotten.
    pruned: Option<Instant>,
}

/// Failures of this period and of the one before.
#[derive(Clone, Copy)]
struct Count {
    since: Instant,
    now: u32,
    before: u32,
}

/// A place in the queue: good for one hash, or lost to somebody who had fewer.
pub(crate) struct Place {
    queue: Queue,
    id: u64,
}

/// The right to hash, until it is dropped.
pub(crate) struct Turn {
    queue: Queue,
    account: Option<Account>,
    is_over: bool,
}

impl Queue {
    pub(crate) fn new(cores: usize) -> Self {
        let state = State {
            cores,
            running: 0,
            hashed: Vec::new(),
            places: Vec::new(),
            next_id: 0,
            turn: 0,
            tags: HashMap::new(),
            streak: 0,
            failures: Failures::default(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), hasher: RandomState::new() }))
    }

    /// Takes a place, of `capacity` that there are, or fails at once with [`Error::Busy`]. If all are
    /// taken, the place of whoever would be served last is given to somebody who would be served
    /// before.
    pub(crate) fn place(
        &self,
        network: Network,
        email: Option<&str>,
        capacity: usize,
    ) -> Result<Place> {
        let account = email.map(|email| self.0.hasher.hash_one(email));
        let mut state = self.state();
        let tag = state.tag(network);
        if state.places.len() + state.running >= capacity {
            let has_failed = state.failures.of_network(network);
            let last = state.places.iter().enumerate().max_by_key(|(_, held)| {
                (state.failures.of_network(held.network), held.tag, held.id)
            });
            let Some((index, last)) = last else { return Err(Error::Busy) };
            if (has_failed, tag) >= (state.failures.of_network(last.network), last.tag) {
                return Err(Error::Busy);
            }
            // Dropped with it, its sender tells.
            state.places.swap_remove(index);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.tags.insert(network, tag);
        state.places.push(Held { id, network, account, tag, waiting: None });
        Ok(Place { queue: self.clone(), id })
    }

    /// How many hold a place or hash.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.places.len() + state.running
    }

    /// Notes a failure of this network, and of the account if there is one.
    pub(crate) fn failed(&self, network: Network, email: &str) {
        let account = self.0.hasher.hash_one(email);
        self.state().failures.note(network, account, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives turns to those that wait, as long as there are cores.
    fn serve(&self) {
        let mut gone = Vec::new();
        let mut state = self.state();
        while state.running < state.cores {
            let Some(Held { account, waiting, .. }) = state.next() else { break };
            let turn = Turn { queue: self.clone(), account, is_over: false };
            let Some(waiting) = waiting else { continue };
            match waiting.send(turn) {
                Ok(()) => {
                    state.running += 1;
                    state.hashed.extend(account);
                }
                // Whoever waited has left. It locks when it is dropped, so that has to wait.
                Err(mut turn) => {
                    turn.is_over = true;
                    gone.push(turn);
                }
            }
        }
        drop(state);
        drop(gone);
    }
}

impl State {
    /// Where a network's next place stands: behind the one that it has, else beside the current turn.
    fn tag(&mut self, network: Network) -> u64 {
        let turn = self.turn;
        self.tags.retain(|_, tag| *tag >= turn);
        self.tags.get(&network).map_or(turn, |tag| tag + 1)
    }

    /// Takes the place that is served next out of the queue.
    fn next(&mut self) -> Option<Held> {
        let Self { places, hashed, failures, .. } = self;
        let may_run = |held: &Held| {
            held.waiting.is_some()
                && held
                    .account
                    .is_none_or(|account| !hashed.contains(&account) || !failures.are_many(account))
        };
        let first_of = |has_failed: bool| {
            let ready = places.iter().enumerate().filter(|(_, held)| {
                may_run(held) && failures.of_network(held.network) == has_failed
            });
            ready.min_by_key(|(_, held)| (held.tag, held.id)).map(|(index, _)| index)
        };
        let index = match (first_of(false), first_of(true)) {
            (Some(good), None) => good,
            (Some(good), Some(_)) if self.streak < SHARE => {
                self.streak += 1;
                good
            }
            (_, Some(failed)) => {
                self.streak = 0;
                failed
            }
            (None, None) => return None,
        };
        let held = self.places.swap_remove(index);
        self.turn = self.turn.max(held.tag);
        Some(held)
    }
}

impl Failures {
    fn note(&mut self, network: Network, account: Account, now: Instant) {
        // Not at each failure, however full it is.
        let is_full = self.networks.len() >= REMEMBERED || self.accounts.len() >= REMEMBERED;
        if is_full && self.pruned.is_none_or(|pruned| now.duration_since(pruned) > PRUNE) {
            self.pruned = Some(now);
            self.networks.retain(|_, failed| now.duration_since(*failed) < MEMORY);
            self.accounts.retain(|_, count| now.duration_since(count.since) < 2 * MEMORY);
        }
        if self.networks.len() < REMEMBERED || self.networks.contains_key(&network) {
            self.networks.insert(network, now);
        }
        if self.accounts.len() < REMEMBERED || self.accounts.contains_key(&account) {
            let fresh = Count { since: now, now: 0, before: 0 };
            let count = self.accounts.entry(account).or_insert(fresh);
            *count = count.at(now);
            count.now = count.now.saturating_add(1);
        }
    }

    fn of_network(&self, network: Network) -> bool {
        let now = Instant::now();
        self.networks.get(&network).is_some_and(|failed| now.duration_since(*failed) < MEMORY)
    }

    fn are_many(&self, account: Account) -> bool {
        let count = self.accounts.get(&account).map(|count| count.at(Instant::now()));
        count.is_some_and(|count| count.now.saturating_add(count.before) > SUSPICIOUS)
    }
}

impl Count {
    /// The same count as it stands at `now`.
    fn at(self, now: Instant) -> Self {
        let age = now.duration_since(self.since);
        if age < MEMORY {
            self
        } else if age < 2 * MEMORY {
            Self { since: self.since + MEMORY, now: 0, before: self.now }
        } else {
            Self { since: now, now: 0, before: 0 }
        }
    }
}

impl Place {
    /// Waits for the turn; [`Error::Busy`] if the place was given to somebody else.
    pub(crate) async fn turn(self) -> Result<Turn> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.queue.state();
            let held = state.places.iter_mut().find(|held| held.id == self.id);
            held.ok_or(Error::Busy)?.waiting = Some(sender);
        }
        self.queue.serve();
        receiver.await.map_err(|_| Error::Busy)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // One that has had its turn is not there any more.
        self.queue.state().places.retain(|held| held.id != self.id);
    }
}

impl Turn {
    /// Whether nobody else hashes or waits.
    pub(crate) fn is_last(&self) -> bool {
        self.queue.len() <= 1
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        {
            let mut state = self.queue.state();
            state.running = state.running.saturating_sub(1);
            let hashed = &mut state.hashed;
            if let Some(index) = hashed.iter().position(|hashed| Some(*hashed) == self.account) {
                hashed.swap_remove(index);
            }
        }
        self.queue.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ALL: usize = 128;

    fn network(n: u32) -> Network {
        Network::V4(n)
    }

    /// Waits in the queue, and says when it has had its turn.
    fn wait(place: Place, name: &'static str, done: &mpsc::Sender<&'static str>) {
        let done = done.clone();
        tokio::spawn(async move {
            if let Ok(turn) = place.turn().await {
                let _ = done.send(name);
                drop(turn);
            }
        });
    }

    async fn settle() {
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }

    /// One core that is taken, so that others queue up.
    async fn busy() -> (Queue, Turn) {
        let queue = Queue::new(1);
        let turn = queue.place(Network::None, None, ALL).unwrap().turn().await.unwrap();
        (queue, turn)
    }

    #[test]
    fn a_network_is_a_24_or_a_48() {
        let of = |text: &str| Network::of(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), of("192.0.2.200"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::9"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    #[tokio::test]
    async fn networks_take_turns_however_many_of_each_wait() {
        let (queue, held) = busy().await;
        let (done, order) = mpsc::channel();
        for _ in 0..10 {
            wait(queue.place(network(1), None, ALL).unwrap(), "many", &done);
        }
        settle().await;
        wait(queue.place(network(2), None, ALL).unwrap(), "one", &done);
        wait(queue.place(network(3), None, ALL).unwrap(), "other", &done);
        settle().await;
        drop(held);
        settle().await;
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order.len(), 12);
        assert_eq!(order[..4], ["many", "one", "other", "many"], "{order:?}");
    }

    #[tokio::test]
    async fn a_full_queue_makes_room_for_who_has_less_in_it() {
        let (queue, _held) = busy().await;
        let many: Vec<_> = (1..4).map(|_| queue.place(network(1), None, 4).unwrap()).collect();
        assert_eq!(queue.len(), 4);
        assert!(matches!(queue.place(network(1), None, 4), Err(Error::Busy)));
        let one = queue.place(network(2), None, 4).unwrap();
        assert_eq!(queue.len(), 4, "it took the place of the last of the others");
        // Two networks with places before the last of the first one.
        let two = queue.place(network(3), None, 4).unwrap();
        assert!(matches!(queue.place(network(4), None, 4), Err(Error::Busy)), "one each is left");
        let mut lost = 0;
        for place in many {
            let waits = tokio::time::timeout(Duration::from_millis(10), place.turn()).await;
            lost += usize::from(matches!(waits, Ok(Err(Error::Busy))));
        }
        assert_eq!(lost, 2);
        drop((one, two));
        assert_eq!(queue.len(), 1);
    }

    #[tokio::test]
    async fn who_has_not_failed_has_most_of_the_turns_and_gets_a_place() {
        let (queue, held) = busy().await;
        let (done, order) = mpsc::channel();
        for n in 0..8 {
            queue.failed(network(n), "a@b.co");
            wait(queue.place(network(n), None, ALL).unwrap(), "failed", &done);
        }
        settle().await;
        for n in 100..108 {
            wait(queue.place(network(n), None, ALL).unwrap(), "good", &done);
        }
        settle().await;
        let full = queue.len();
        let late = queue.place(network(200), None, full).unwrap();
        assert_eq!(queue.len(), full, "one that failed has lost its place to it");
        drop(late);
        drop(held);
        settle().await;
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order[..4], ["good", "good", "good", "failed"], "{order:?}");
        assert_eq!(order.len(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_with_many_failures_is_hashed_once_at_a_time() {
        let queue = Queue::new(4);
        let email = "ada@example.com";
        let at_once = async |queue: &Queue| {
            let mut turns = Vec::new();
            for n in 0..4 {
                let place = queue.place(network(n), Some(email), ALL).unwrap();
                let turn = tokio::time::timeout(Duration::from_millis(1), place.turn()).await;
                turns.extend(turn.ok());
            }
            turns.len()
        };
        for _ in 0..SUSPICIOUS {
            queue.failed(network(9), email);
        }
        assert_eq!(at_once(&queue).await, 4);
        queue.failed(network(9), email);
        assert_eq!(at_once(&queue).await, 1);
        // Others are not held up, and a minute or two later it is forgotten.
        let turn = queue.place(network(1), Some(email), ALL).unwrap().turn().await.unwrap();
        queue.place(network(1), Some("other@b.co"), ALL).unwrap().turn().await.unwrap();
        drop(turn);
        tokio::time::advance(2 * MEMORY).await;
        assert_eq!(at_once(&queue).await, 4);
    }

    /// Its owner, who is elsewhere, is next when the gate opens.
    #[tokio::test]
    async fn the_gate_of_an_account_lets_its_owner_pass_first() {
        let (queue, held) = busy().await;
        let (done, order) = mpsc::channel();
        let email = "ada@example.com";
        for n in 0..30 {
            queue.failed(network(n), email);
            wait(queue.place(network(n), Some(email), ALL).unwrap(), "attacker", &done);
        }
        settle().await;
        wait(queue.place(network(100), Some(email), ALL).unwrap(), "owner", &done);
        settle().await;
        drop(held);
        settle().await;
        assert_eq!(order.try_iter().next(), Some("owner"));
    }

    #[tokio::test]
    async fn who_leaves_while_waiting_leaves_nothing() {
        let (queue, held) = busy().await;
        let place = queue.place(network(1), Some("a@b.co"), ALL).unwrap();
        let waiting = tokio::spawn(place.turn());
        settle().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(queue.len(), 1);
        drop(held);
        assert_eq!(queue.len(), 0);
        assert!(queue.state().hashed.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for n in 0..2 * u32::try_from(REMEMBERED).unwrap() {
            failures.note(network(n), n.into(), now);
        }
        assert_eq!((failures.networks.len(), failures.accounts.len()), (REMEMBERED, REMEMBERED));
        failures.note(network(u32::MAX), u64::MAX, now + 2 * MEMORY);
        assert_eq!((failures.networks.len(), failures.accounts.len()), (1, 1));
    }
}
