//! A memory budget for all request and response bodies in flight, over all connections. It bounds
//! the memory that clients can fill, however many requests they start or responses they leave
//! unread. It tracks sizes and payers, not contents.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use crate::ids::UserId;

/// One client network, or one user, may hold this fraction of the budget: a quarter.
pub(crate) const SHARE_DIVISOR: usize = 4;
/// Heads and bodies up to this size are not charged. Most are smaller.
pub(crate) const UNCHARGED_BYTES: usize = 4 << 10;
/// How long a response waits for budget, and how many may wait at once.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_WAITING: usize = 64;

/// The budget of bytes in flight. A cheap clone.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    /// The limit in bytes: in total, and for each account.
    max: usize,
    share: usize,
    ledger: Mutex<Ledger>,
    freed: Notify,
    waiting: Semaphore,
    refused: AtomicU64,
}

#[derive(Default)]
struct Ledger {
    reserved: usize,
    /// Bytes per account; an account without any is removed.
    by_account: HashMap<Account, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Account {
    Network(IpAddr),
    User(UserId),
}

/// The accounts to charge: the network of the client's address (an IPv6 /64), and the user once
/// authenticated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Payer {
    network: Option<IpAddr>,
    user: Option<UserId>,
}

impl Payer {
    pub(crate) fn new(client: Option<IpAddr>, user: Option<UserId>) -> Self {
        Self { network: client.map(client_network), user }
    }

    fn accounts(self) -> impl Iterator<Item = Account> {
        [self.network.map(Account::Network), self.user.map(Account::User)].into_iter().flatten()
    }
}

/// The network of an address, which counts as one client: an IPv6 /64 or an IPv4 address.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// There is no memory for a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exhausted;

/// Reserved bytes, released on drop.
pub(crate) struct Reservation {
    budget: Budget,
    payer: Payer,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            share: max / SHARE_DIVISOR,
            ledger: Mutex::default(),
            freed: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            refused: AtomicU64::new(0),
        }))
    }

    /// Reserves `bytes` for `payer`; `None`, counted as a refusal, if they are not available now.
    pub(crate) fn reserve(&self, payer: Payer, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), payer, bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Like [`Budget::reserve`], but not counted as a refusal: the caller has a fallback.
    pub(crate) fn try_reserve(&self, payer: Payer, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), payer, bytes: 0 };
        reservation.try_grow(bytes).then_some(reservation)
    }

    /// Charges a body of `bytes`: as [`Budget::reserve_or_wait`], unless it is so small that it is
    /// not charged.
    pub(crate) async fn charge_or_wait(
        &self,
        payer: Payer,
        bytes: usize,
    ) -> Result<Option<Reservation>, Exhausted> {
        if bytes <= UNCHARGED_BYTES {
            return Ok(None);
        }
        self.reserve_or_wait(payer, bytes).await.map(Some).ok_or(Exhausted)
    }

    /// Like [`Budget::reserve`], but waits up to [`MAX_WAIT`] for bytes to be released.
    pub(crate) async fn reserve_or_wait(&self, payer: Payer, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), payer, bytes: 0 };
        // The number is limited because every release wakes all waiters.
        let waiting = self.0.waiting.try_acquire();
        let taken = async {
            if waiting.is_err() {
                return reservation.try_grow(bytes);
            }
            loop {
                // Registered before the attempt, so that no release in between is missed.
                let freed = self.0.freed.notified();
                if reservation.try_grow(bytes) {
                    return true;
                }
                freed.await;
            }
        };
        if tokio::time::timeout(MAX_WAIT, taken).await.unwrap_or(false) {
            return Some(reservation);
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Bytes reserved now.
    pub(crate) fn reserved(&self) -> usize {
        self.ledger().reserved
    }

    /// The number of refusals.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Grows the reservation to `bytes` in total if they are available; else it stays as it is.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let has_grown = self.try_grow(bytes);
        if !has_grown {
            self.budget.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        has_grown
    }

    fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Inner { max, share, .. } = *self.budget.0;
        let mut ledger = self.budget.ledger();
        let has_room = ledger.reserved + more <= max
            && self.payer.accounts().all(|account| {
                ledger.by_account.get(&account).copied().unwrap_or_default() + more <= share
            });
        if has_room && more > 0 {
            ledger.reserved += more;
            for account in self.payer.accounts() {
                *ledger.by_account.entry(account).or_default() += more;
            }
            drop(ledger);
            self.bytes = bytes;
        }
        has_room
    }

    /// Shrinks the reservation to `bytes`, or grows it to them if they are available.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.try_grow(bytes);
        } else {
            self.release(self.bytes - bytes);
        }
    }

    /// Gives back this number of the reserved bytes.
    fn release(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut ledger = self.budget.ledger();
        ledger.reserved = ledger.reserved.saturating_sub(bytes);
        for account in self.payer.accounts() {
            if let Some(held) = ledger.by_account.get_mut(&account) {
                *held = held.saturating_sub(bytes);
                if *held == 0 {
                    ledger.by_account.remove(&account);
                }
            }
        }
        // Frees the map's memory after a burst of many clients.
        if ledger.by_account.is_empty() && ledger.by_account.capacity() > 1024 {
            ledger.by_account.shrink_to_fit();
        }
        drop(ledger);
        self.budget.0.freed.notify_waiters();
    }

    /// Attaches the reservation to `bytes`: it is released with the last slice of them.
    pub(crate) fn attach_to(self: &Arc<Self>, bytes: impl Into<Bytes>) -> Bytes {
        struct Charged {
            bytes: Bytes,
            _reservation: Arc<Reservation>,
        }

        impl AsRef<[u8]> for Charged {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }

        Bytes::from_owner(Charged { bytes: bytes.into(), _reservation: Arc::clone(self) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(address: &str, user: u128) -> Payer {
        let user = (user > 0).then(|| uuid::Uuid::from_u128(user).into());
        Payer::new(Some(address.parse().unwrap()), user)
    }

    #[test]
    fn one_payer_is_limited_to_a_share_and_all_to_the_budget() {
        let budget = Budget::new(400);
        let ann = budget.reserve(payer("10.0.0.1", 1), 100).unwrap();
        assert!(
            budget.reserve(payer("10.0.0.1", 2), 1).is_none(),
            "the address has used its share"
        );
        assert!(budget.reserve(payer("10.0.0.2", 1), 1).is_none(), "the user has used her share");
        let others: Vec<_> = (2_u32..5)
            .map(|n| budget.reserve(payer(&format!("10.0.0.{n}"), n.into()), 100).unwrap())
            .collect();
        assert!(budget.reserve(payer("10.0.0.9", 9), 1).is_none(), "the budget is exhausted");
        assert_eq!((budget.reserved(), budget.refused()), (400, 3));
        drop(ann);
        let mut bob = budget.reserve(payer("10.0.0.9", 9), 60).unwrap();
        assert!(!bob.grow(101) && bob.grow(100) && bob.grow(50));
        drop((bob, others));
        assert_eq!(budget.reserved(), 0);
        assert!(budget.ledger().by_account.is_empty());
    }

    #[test]
    fn addresses_of_one_network_share_a_limit() {
        let budget = Budget::new(400);
        let _reservation = budget.reserve(payer("2001:db8::1", 0), 100).unwrap();
        assert!(budget.reserve(payer("2001:db8::ffff:2", 0), 1).is_none());
        assert!(budget.reserve(payer("2001:db8:0:1::1", 0), 100).is_some());
        let _reservation = budget.reserve(payer("::ffff:10.0.0.1", 0), 100).unwrap();
        assert!(budget.reserve(payer("10.0.0.1", 0), 1).is_none());
    }

    #[test]
    fn bytes_stay_reserved_until_their_last_slice_is_dropped() {
        let budget = Budget::new(400);
        let held = Arc::new(budget.reserve(Payer::default(), 300).unwrap());
        let mut bytes = held.attach_to(vec![1; 8]);
        drop(held);
        let part = bytes.split_to(2);
        drop(bytes);
        assert_eq!(budget.reserved(), 300);
        drop(part);
        assert_eq!(budget.reserved(), 0);
    }

    #[tokio::test]
    async fn a_response_waits_a_moment_for_released_bytes() {
        let budget = Budget::new(100);
        let held = budget.reserve(Payer::default(), 100).unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve_or_wait(Payer::default(), 100).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
        tokio::time::pause();
        let _reservation = budget.reserve(Payer::default(), 100).unwrap();
        assert!(budget.reserve_or_wait(Payer::default(), 1).await.is_none());
    }
}
