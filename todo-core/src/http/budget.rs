//! A budget in bytes for the bodies in flight, of requests and of answers, over all connections. It
//! bounds the memory that clients can fill, however many requests they begin or answers they leave
//! unread. It knows sizes and who is charged, and nothing of what the bytes are.

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
use uuid::Uuid;

/// The part of the budget that one client network, or one user, may hold: a quarter.
pub(crate) const SHARES: usize = 4;
/// What a head, a body or an answer may have without being charged. Most have less.
pub(crate) const FREE: usize = 4 << 10;
/// How long an answer waits for budget, and how many may wait at once.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_WAITING: usize = 64;

/// Bytes that may be in flight at once. A cheap clone.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    /// The most bytes in all, and for each payer.
    most: usize,
    share: usize,
    ledger: Mutex<Ledger>,
    freed: Notify,
    waiting: Semaphore,
    refused: AtomicU64,
}

#[derive(Default)]
struct Ledger {
    held: usize,
    /// By whom; nobody is kept who holds nothing.
    by: HashMap<Account, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Account {
    Network(IpAddr),
    User(Uuid),
}

/// Who is charged: the network of the client's address (an IPv6 /64), and the user once known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Payer {
    network: Option<IpAddr>,
    user: Option<Uuid>,
}

impl Payer {
    pub(crate) fn new(client: Option<IpAddr>, user: Option<Uuid>) -> Self {
        Self { network: client.map(network), user }
    }

    fn accounts(self) -> impl Iterator<Item = Account> {
        [self.network.map(Account::Network), self.user.map(Account::User)].into_iter().flatten()
    }
}

/// The network that counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Bytes that are held until this is dropped.
pub(crate) struct Held {
    budget: Budget,
    payer: Payer,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            share: most / SHARES,
            ledger: Mutex::default(),
            freed: Notify::new(),
            waiting: Semaphore::new(MOST_WAITING),
            refused: AtomicU64::new(0),
        }))
    }

    /// Takes so many bytes, if there are so many for this payer now.
    pub(crate) fn take(&self, payer: Payer, bytes: usize) -> Option<Held> {
        let mut held = Held { budget: self.clone(), payer, bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// As [`Budget::take`], where there is another way without it: this is not counted as a refusal.
    pub(crate) fn try_take(&self, payer: Payer, bytes: usize) -> Option<Held> {
        let mut held = Held { budget: self.clone(), payer, bytes: 0 };
        held.try_grow(bytes).then_some(held)
    }

    /// As [`Budget::take`], but waits a moment for what others give back.
    pub(crate) async fn take_soon(&self, payer: Payer, bytes: usize) -> Option<Held> {
        let mut held = Held { budget: self.clone(), payer, bytes: 0 };
        // Each of them is woken whenever anything is given back.
        let waiting = self.0.waiting.try_acquire();
        let taken = async {
            if waiting.is_err() {
                return held.try_grow(bytes);
            }
            loop {
                // Before the attempt: what is given back in between is noticed.
                let freed = self.0.freed.notified();
                if held.try_grow(bytes) {
                    return true;
                }
                freed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, taken).await.unwrap_or(false) {
            return Some(held);
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.ledger().held
    }

    /// How often there was not enough.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes more, to `bytes` in all, if there is so much; else what is held stays as it is.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let has_grown = self.try_grow(bytes);
        if !has_grown {
            self.budget.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        has_grown
    }

    fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Inner { most, share, .. } = *self.budget.0;
        let mut ledger = self.budget.ledger();
        let has_room = ledger.held + more <= most
            && self.payer.accounts().all(|account| {
                ledger.by.get(&account).copied().unwrap_or_default() + more <= share
            });
        if has_room && more > 0 {
            ledger.held += more;
            for account in self.payer.accounts() {
                *ledger.by.entry(account).or_default() += more;
            }
            drop(ledger);
            self.bytes = bytes;
        }
        has_room
    }

    /// `bytes` that hold this as long as they, or a part of them, are there.
    pub(crate) fn by(self: &Arc<Self>, bytes: impl Into<Bytes>) -> Bytes {
        struct Charged {
            bytes: Bytes,
            _held: Arc<Held>,
        }

        impl AsRef<[u8]> for Charged {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }

        Bytes::from_owner(Charged { bytes: bytes.into(), _held: Arc::clone(self) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut ledger = self.budget.ledger();
        ledger.held = ledger.held.saturating_sub(self.bytes);
        for account in self.payer.accounts() {
            if let Some(held) = ledger.by.get_mut(&account) {
                *held = held.saturating_sub(self.bytes);
                if *held == 0 {
                    ledger.by.remove(&account);
                }
            }
        }
        // A burst of many clients is not to be paid for ever after.
        if ledger.by.is_empty() && ledger.by.capacity() > 1024 {
            ledger.by.shrink_to_fit();
        }
        drop(ledger);
        self.budget.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(address: &str, user: u128) -> Payer {
        let user = (user > 0).then(|| Uuid::from_u128(user));
        Payer::new(Some(address.parse().unwrap()), user)
    }

    #[test]
    fn nobody_holds_more_than_a_share_and_all_no_more_than_the_budget() {
        let budget = Budget::new(400);
        let ann = budget.take(payer("10.0.0.1", 1), 100).unwrap();
        assert!(budget.take(payer("10.0.0.1", 2), 1).is_none(), "the address has its share");
        assert!(budget.take(payer("10.0.0.2", 1), 1).is_none(), "the user has her share");
        let others: Vec<_> = (2_u32..5)
            .map(|n| budget.take(payer(&format!("10.0.0.{n}"), n.into()), 100).unwrap())
            .collect();
        assert!(budget.take(payer("10.0.0.9", 9), 1).is_none(), "all is held");
        assert_eq!((budget.held(), budget.refused()), (400, 3));
        drop(ann);
        let mut bob = budget.take(payer("10.0.0.9", 9), 60).unwrap();
        assert!(!bob.grow(101) && bob.grow(100) && bob.grow(50));
        drop((bob, others));
        assert_eq!(budget.held(), 0);
        assert!(budget.ledger().by.is_empty());
    }

    #[test]
    fn a_network_is_one_client() {
        let budget = Budget::new(400);
        let _held = budget.take(payer("2001:db8::1", 0), 100).unwrap();
        assert!(budget.take(payer("2001:db8::ffff:2", 0), 1).is_none());
        assert!(budget.take(payer("2001:db8:0:1::1", 0), 100).is_some());
        let _held = budget.take(payer("::ffff:10.0.0.1", 0), 100).unwrap();
        assert!(budget.take(payer("10.0.0.1", 0), 1).is_none());
    }

    #[test]
    fn bytes_are_held_until_their_last_part_is_gone() {
        let budget = Budget::new(400);
        let held = Arc::new(budget.take(Payer::default(), 300).unwrap());
        let mut bytes = held.by(vec![1; 8]);
        drop(held);
        let part = bytes.split_to(2);
        drop(bytes);
        assert_eq!(budget.held(), 300);
        drop(part);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn an_answer_waits_a_moment_for_what_is_given_back() {
        let budget = Budget::new(100);
        let held = budget.take(Payer::default(), 100).unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take_soon(Payer::default(), 100).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
        tokio::time::pause();
        let _held = budget.take(Payer::default(), 100).unwrap();
        assert!(budget.take_soon(Payer::default(), 1).await.is_none());
    }
}
