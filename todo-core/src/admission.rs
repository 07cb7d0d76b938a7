//! Which connections a server takes: so many in all, and of those a share for each address, so that
//! one client cannot hold every connection.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;

use crate::{http::proxies, server::SURPLUS, settings::Settings};

/// How many connections beyond the shares of their addresses are held at once, to answer each with
/// 503. What comes beyond these is closed unanswered. Fewer than [`SURPLUS`], so that one address
/// does not take those places from the others.
const OVER_SHARE: usize = SURPLUS / 2;

/// The connections of one server, counted in all and by address. A cheap clone; clones share the
/// counts.
///
/// An IPv6 client has a /64, which counts as one address. Proxies that the settings trust have no
/// share, since they bring the connections of many.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    most: usize,
    share: usize,
    exempt: Vec<IpNet>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Of connections within the share of their address.
    within: usize,
    over: usize,
    /// Of all connections, by address; only where shares matter.
    of: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Takes at most `MAX_CONNECTIONS` and, of one address, `MAX_CONNECTIONS_PER_ADDRESS`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self(Arc::new(Inner {
            most: settings.max_connections,
            share: settings.max_connections_per_address,
            exempt: proxies::canonical(settings.trusted_proxies.iter().copied()),
            counts: Mutex::default(),
        }))
    }

    /// A place for a connection from `address`, until it is dropped; `None` if the connection is to
    /// be closed at once.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Place> {
        let network = self.network(address);
        let mut counts = self.counts();
        let held = network.and_then(|network| counts.of.get(&network)).copied().unwrap_or_default();
        let is_over = network.is_some() && held >= self.0.share;
        if is_over && counts.over >= OVER_SHARE {
            return None;
        }
        let is_surplus = is_over || counts.within >= self.0.most;
        if is_over {
            counts.over += 1;
        } else {
            counts.within += 1;
        }
        if let Some(network) = network {
            counts.of.insert(network, held + 1);
        }
        drop(counts);
        Some(Place { admission: self.clone(), network, is_over, is_surplus })
    }

    /// Whether a connection from `address` would be closed at once.
    #[must_use]
    pub fn is_closed_to(&self, address: IpAddr) -> bool {
        let Some(network) = self.network(address) else { return false };
        let counts = self.counts();
        counts.over >= OVER_SHARE
            && counts.of.get(&network).is_some_and(|held| *held >= self.0.share)
    }

    /// What an address counts as, if it has a share.
    fn network(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.0.share >= self.0.most || self.0.exempt.iter().any(|net| net.contains(&address)) {
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

/// The place of one connection.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    network: Option<IpAddr>,
    is_over: bool,
    is_surplus: bool,
}

impl Place {
    /// Whether the connection is one too many: its requests are answered as those of
    /// [`Surplus`](crate::http::Surplus).
    #[must_use]
    pub fn is_surplus(&self) -> bool {
        self.is_surplus
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        if self.is_over {
            counts.over -= 1;
        } else {
            counts.within -= 1;
        }
        if let Some(network) = self.network
            && let Some(held) = counts.of.get_mut(&network)
        {
            *held -= 1;
            if *held == 0 {
                counts.of.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: &str, share: &str) -> Admission {
        let settings = Settings::from_vars([
            ("MAX_CONNECTIONS", most),
            ("MAX_CONNECTIONS_PER_ADDRESS", share),
            ("TRUSTED_PROXIES", "10.0.0.0/8, ::ffff:172.16.0.0/108"),
        ]);
        Admission::new(&settings.unwrap())
    }

    fn places(admission: &Admission, address: &str, wanted: usize) -> Vec<Place> {
        let address = address.parse().unwrap();
        (0..wanted).map_while(|_| admission.admit(address)).collect()
    }

    #[test]
    fn an_address_has_a_share_and_leaves_the_rest_to_others() {
        let admission = admission("10", "4");
        let mine = places(&admission, "192.0.2.1", 1000);
        assert_eq!(mine.len(), 4 + OVER_SHARE);
        let surplus: Vec<_> = mine.iter().map(Place::is_surplus).collect();
        assert_eq!(surplus.iter().filter(|is| !**is).count(), 4);
        assert!(surplus[4..].iter().all(|is| *is));
        assert!(admission.is_closed_to("192.0.2.1".parse().unwrap()));
        assert!(!admission.is_closed_to("192.0.2.2".parse().unwrap()));
        // What one has beyond its share is not taken from the 10.
        let others = places(&admission, "192.0.2.2", 4);
        assert!(others.iter().all(|place| !place.is_surplus()));
        let third = places(&admission, "192.0.2.3", 3);
        assert_eq!(third.iter().filter(|place| place.is_surplus()).count(), 1, "10 in all");
        drop(mine);
        assert!(!places(&admission, "192.0.2.1", 1)[0].is_surplus());
        drop((others, third));
        let counts = admission.counts();
        assert!(counts.of.is_empty());
        assert_eq!((counts.within, counts.over), (0, 0));
    }

    #[test]
    fn a_64_is_one_address_and_a_mapped_one_is_that_of_ipv4() {
        let admission = admission("10", "1");
        let one = places(&admission, "2001:db8::1", 1);
        let same = places(&admission, "2001:db8::ffff:0:0:1", 1);
        let other = places(&admission, "2001:db8:0:1::1", 1);
        let mapped = places(&admission, "::ffff:192.0.2.1", 1);
        let v4 = places(&admission, "192.0.2.1", 1);
        let surplus = [one, same, other, mapped, v4].map(|places| places[0].is_surplus());
        assert_eq!(surplus, [false, true, false, false, true]);
    }

    #[test]
    fn a_trusted_proxy_has_no_share() {
        let admission = admission("10", "1");
        let surplus: Vec<_> =
            places(&admission, "10.1.2.3", 12).iter().map(Place::is_surplus).collect();
        assert_eq!(surplus.iter().filter(|is| **is).count(), 2, "{surplus:?}");
        let mapped = places(&admission, "172.16.0.1", 1);
        assert_eq!(mapped[0].network, None, "a proxy that is written as mapped");
    }
}
