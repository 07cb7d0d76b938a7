//! The client of a request behind proxies. `X-Forwarded-For` and `X-Forwarded-Proto` are
//! client-controlled: they are trusted only from the configured proxies, and read from the right,
//! where the nearest proxy appends.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The other end of a request's connection. A server puts it into the request's extensions; without
/// it there is no client to rate-limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The remote address.
    pub address: IpAddr,
    /// Whether the connection is TLS.
    pub is_tls: bool,
}

impl Peer {
    /// The other end at `address`; `is_tls` is whether the connection is TLS.
    #[must_use]
    pub fn new(address: IpAddr, is_tls: bool) -> Self {
        Self { address, is_tls }
    }
}

/// Marks a request, in its extensions, whose connection is above the server's limit. The response
/// is 503, except for health probes; over HTTP/1 the connection is then closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverCapacity;

/// Networks in the form that addresses are compared with: IPv4-mapped IPv6 networks
/// (`::ffff:10.0.0.0/104`) as IPv4, no host bits, no duplicates.
#[must_use]
pub fn canonical(networks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut canonical = Vec::new();
    for network in networks {
        let as_ipv4 = || {
            let address = network.network().to_canonical();
            let length = network.prefix_len().checked_sub(96)?;
            IpNet::new(address, length).ok().filter(|_| address.is_ipv4())
        };
        let network = match network {
            IpNet::V4(_) => network,
            IpNet::V6(_) => as_ipv4().unwrap_or(network),
        };
        let network = network.trunc();
        if !canonical.contains(&network) {
            canonical.push(network);
        }
    }
    canonical
}

/// The client of a request, behind any number of trusted proxies.
pub(crate) fn client(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Peer {
    let is_trusted =
        |address: IpAddr| trusted.iter().any(|net| net.contains(&address.to_canonical()));
    if !is_trusted(peer.address) {
        return peer;
    }
    let mut client = peer;
    for hop in from_the_right(headers, "x-forwarded-for") {
        // Nothing to the left of an unreadable hop can be trusted.
        let Some(address) = parse_hop(hop) else { break };
        client.address = address.to_canonical();
        if !is_trusted(client.address) {
            break;
        }
    }
    if let Some(proto) = from_the_right(headers, "x-forwarded-proto").next() {
        client.is_tls = proto.eq_ignore_ascii_case("https");
    }
    client
}

/// The elements of a list header, last first, over all its field lines.
fn from_the_right<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or("")).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',').map(str::trim))
}

/// Parses an address, which some proxies write with a port or in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| {
        let socket: Option<std::net::SocketAddr> = hop.parse().ok();
        socket
            .map(|socket| socket.ip())
            .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, forwarded_for: &[&str], proto: Option<&str>) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", proto.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let peer = Peer { address: peer.parse().unwrap(), is_tls: false };
        let client = client(peer, &headers, &trusted);
        (client.address.to_string(), client.is_tls)
    }

    #[test]
    fn headers_of_an_untrusted_peer_are_ignored() {
        assert_eq!(resolve("192.0.2.1", &["1.2.3.4"], Some("https")), ("192.0.2.1".into(), false));
    }

    #[test]
    fn proxies_are_read_from_the_right() {
        let from = |lines: &[&str]| resolve("10.0.0.1", lines, None).0;
        assert_eq!(from(&[]), "10.0.0.1");
        assert_eq!(from(&["1.2.3.4"]), "1.2.3.4");
        assert_eq!(from(&["6.6.6.6, 1.2.3.4"]), "1.2.3.4", "the left was written by the client");
        assert_eq!(from(&["6.6.6.6, 1.2.3.4, 10.9.9.9"]), "1.2.3.4");
        assert_eq!(from(&["6.6.6.6", "1.2.3.4", "10.9.9.9"]), "1.2.3.4", "over several lines");
        assert_eq!(from(&["6.6.6.6, nonsense, 10.9.9.9"]), "10.9.9.9");
        assert_eq!(from(&["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
        assert_eq!(from(&["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(from(&["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(from(&["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(resolve("::ffff:10.0.0.1", &["1.2.3.4"], None).0, "1.2.3.4", "a mapped proxy");
    }

    #[test]
    fn networks_are_canonicalised_like_addresses() {
        for (written, compared) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("2001:db8::7/32", "2001:db8::/32"),
        ] {
            let compared: IpNet = compared.parse().unwrap();
            assert_eq!(canonical([written.parse().unwrap(), compared]), [compared], "{written}");
        }
    }

    #[test]
    fn the_nearest_proxy_determines_the_scheme() {
        assert!(resolve("::1", &[], Some("HTTPS")).1);
        assert!(!resolve("::1", &[], Some("https, http")).1);
        assert!(!resolve("::1", &[], None).1);
    }
}
