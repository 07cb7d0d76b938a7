//! Admission control of connections: a limit for the server, and one per client address, so that
//! one client cannot hold all connections.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use todo_core::http;

use crate::{Settings, limits::OVER_CAPACITY_CONNECTIONS};

/// Limit of open connections over the limit of their address, whose requests get a 503. Further
/// ones are closed without a response. Less than [`OVER_CAPACITY_CONNECTIONS`], so that one address
/// cannot use up that capacity.
const MAX_OVER_SHARE: usize = OVER_CAPACITY_CONNECTIONS / 2;

/// Counts of one server's connections, total and by address. Cloning is cheap; clones share the
/// counts.
///
/// An IPv6 client has a /64, which counts as one address. Trusted proxies have no
/// limit per address, since they forward many clients.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    max_connections: usize,
    max_per_address: usize,
    exempt: Vec<IpNet>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Connections within the limit of their address, and over it.
    within_share: usize,
    over_share: usize,
    /// All connections by address, for addresses with a limit.
    by_address: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Admits at most `MAX_CONNECTIONS`, and `MAX_CONNECTIONS_PER_ADDRESS` per address.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self(Arc::new(Inner {
            max_connections: settings.max_connections,
            max_per_address: settings.max_connections_per_address,
            exempt: http::canonical_networks(settings.trusted_proxies.iter().copied()),
            counts: Mutex::default(),
        }))
    }

    /// A permit for a connection from `address`; `None` if the connection must be closed at once.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let network = self.network(address);
        let mut counts = self.counts();
        let held = network.and_then(|network| counts.by_address.get(&network)).copied();
        let held = held.unwrap_or_default();
        let is_over_share = network.is_some() && held >= self.0.max_per_address;
        if is_over_share && counts.over_share >= MAX_OVER_SHARE {
            return None;
        }
        let is_over_capacity = is_over_share || counts.within_share >= self.0.max_connections;
        if is_over_share {
            counts.over_share += 1;
        } else {
            counts.within_share += 1;
        }
        if let Some(network) = network {
            counts.by_address.insert(network, held + 1);
        }
        drop(counts);
        Some(ConnectionPermit { admission: self.clone(), network, is_over_share, is_over_capacity })
    }

    /// Whether a connection from `address` would be closed at once.
    #[must_use]
    pub fn is_closed_to(&self, address: IpAddr) -> bool {
        let Some(network) = self.network(address) else { return false };
        let counts = self.counts();
        counts.over_share >= MAX_OVER_SHARE
            && counts.by_address.get(&network).is_some_and(|held| *held >= self.0.max_per_address)
    }

    /// The key of an address in the counts, if it has a limit.
    fn network(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.0.max_per_address >= self.0.max_connections
            || self.0.exempt.iter().any(|net| net.contains(&address))
        {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

/// The permit of one connection, released on drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    admission: Admission,
    network: Option<IpAddr>,
    is_over_share: bool,
    is_over_capacity: bool,
}

impl ConnectionPermit {
    /// Whether the connection is over a limit: its requests get the response for
    /// [`OverCapacity`](todo_core::http::OverCapacity).
    #[must_use]
    pub fn is_over_capacity(&self) -> bool {
        self.is_over_capacity
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        if self.is_over_share {
            counts.over_share -= 1;
        } else {
            counts.within_share -= 1;
        }
        if let Some(network) = self.network
            && let Some(held) = counts.by_address.get_mut(&network)
        {
            *held -= 1;
            if *held == 0 {
                counts.by_address.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_connections: &str, max_per_address: &str) -> Admission {
        let settings = Settings::from_vars([
            ("MAX_CONNECTIONS", max_connections),
            ("MAX_CONNECTIONS_PER_ADDRESS", max_per_address),
            ("TRUSTED_PROXIES", "10.0.0.0/8, ::ffff:172.16.0.0/108"),
        ]);
        Admission::new(&settings.unwrap())
    }

    fn permits(admission: &Admission, address: &str, wanted: usize) -> Vec<ConnectionPermit> {
        let address = address.parse().unwrap();
        (0..wanted).map_while(|_| admission.admit(address)).collect()
    }

    #[test]
    fn one_address_cannot_use_up_the_connections_of_others() {
        let admission = admission("10", "4");
        let mine = permits(&admission, "192.0.2.1", 1000);
        assert_eq!(mine.len(), 4 + MAX_OVER_SHARE);
        let over_capacity: Vec<_> = mine.iter().map(ConnectionPermit::is_over_capacity).collect();
        assert_eq!(over_capacity.iter().filter(|is| !**is).count(), 4);
        assert!(over_capacity[4..].iter().all(|is| *is));
        assert!(admission.is_closed_to("192.0.2.1".parse().unwrap()));
        assert!(!admission.is_closed_to("192.0.2.2".parse().unwrap()));
        // Connections over the limit of an address do not count towards the 10.
        let others = permits(&admission, "192.0.2.2", 4);
        assert!(others.iter().all(|permit| !permit.is_over_capacity()));
        let third = permits(&admission, "192.0.2.3", 3);
        assert_eq!(third.iter().filter(|permit| permit.is_over_capacity()).count(), 1, "10 in all");
        drop(mine);
        assert!(!permits(&admission, "192.0.2.1", 1)[0].is_over_capacity());
        drop((others, third));
        let counts = admission.counts();
        assert!(counts.by_address.is_empty());
        assert_eq!((counts.within_share, counts.over_share), (0, 0));
    }

    #[test]
    fn an_ipv6_64_is_one_address_and_a_mapped_address_is_the_ipv4_one() {
        let admission = admission("10", "1");
        let one = permits(&admission, "2001:db8::1", 1);
        let same = permits(&admission, "2001:db8::ffff:0:0:1", 1);
        let other = permits(&admission, "2001:db8:0:1::1", 1);
        let mapped = permits(&admission, "::ffff:192.0.2.1", 1);
        let v4 = permits(&admission, "192.0.2.1", 1);
        let over_capacity =
            [one, same, other, mapped, v4].map(|permits| permits[0].is_over_capacity());
        assert_eq!(over_capacity, [false, true, false, false, true]);
    }

    #[test]
    fn a_trusted_proxy_has_no_limit_per_address() {
        let admission = admission("10", "1");
        let proxied = permits(&admission, "10.1.2.3", 12);
        let over_capacity: Vec<_> =
            proxied.iter().map(ConnectionPermit::is_over_capacity).collect();
        assert_eq!(over_capacity.iter().filter(|is| **is).count(), 2, "{over_capacity:?}");
        let mapped = permits(&admission, "172.16.0.1", 1);
        assert_eq!(mapped[0].network, None, "a proxy configured as a mapped address");
    }
}
