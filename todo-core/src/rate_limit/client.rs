//! The rate-limit identity of an address.

use std::net::{IpAddr, Ipv6Addr};

/// The rate-limit identity of an address.
pub(super) struct Client {
    /// An IPv4 host, or an IPv6 /64, the smallest network of a subscriber (RFC 6177).
    pub(super) key: String,
    /// The /56 and the /48 around it, the networks of a household and a site; none for IPv4.
    pub(super) prefixes: Option<[String; 2]>,
}

impl Client {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { key: address.to_string(), prefixes: None },
            IpAddr::V6(address) => {
                let prefix = |length: u8| {
                    let network = u128::from(address) >> (128 - length) << (128 - length);
                    format!("{}/{length}", Ipv6Addr::from(network))
                };
                Self { key: prefix(64), prefixes: Some([prefix(56), prefix(48)]) }
            }
        }
    }
}
