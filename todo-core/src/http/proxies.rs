//! Who a request really comes from. `X-Forwarded-For` and `X-Forwarded-Proto` are anybody's to
//! write: they are believed only from the proxies that the settings name, and read from the right,
//! where the nearest proxy wrote.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The other end of the connection that a request came on. A server puts it into the request's
/// extensions; without one there is no client to rate-limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the connection came from.
    pub address: IpAddr,
    /// Whether the connection is TLS.
    pub https: bool,
}

/// Marks a request, in its extensions, whose connection is one more than the server wants. Unless it
/// asks for the server's health it is answered with 503; over HTTP/1 its connection ends with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surplus;

/// Networks as addresses are compared with them: IPv4 that was written as IPv6 (`::ffff:10.0.0.0/104`)
/// as IPv4, no host's bits, and each once.
pub(crate) fn canonical(networks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
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

/// The client of a request, behind however many trusted proxies.
pub(crate) fn client(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Peer {
    let is_trusted =
        |address: IpAddr| trusted.iter().any(|net| net.contains(&address.to_canonical()));
    if !is_trusted(peer.address) {
        return peer;
    }
    let mut client = peer;
    for hop in from_the_right(headers, "x-forwarded-for") {
        // Beyond something unreadable nothing can be believed.
        let Some(address) = parse_hop(hop) else { break };
        client.address = address.to_canonical();
        if !is_trusted(client.address) {
            break;
        }
    }
    if let Some(proto) = from_the_right(headers, "x-forwarded-proto").next() {
        client.https = proto.eq_ignore_ascii_case("https");
    }
    client
}

/// The elements of a list header, last first, over all its lines.
fn from_the_right<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or("")).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',').map(str::trim))
}

/// An address, which some proxies write with a port or in brackets.
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

    fn ask(peer: &str, forwarded_for: &[&str], proto: Option<&str>) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", proto.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let peer = Peer { address: peer.parse().unwrap(), https: false };
        let client = client(peer, &headers, &trusted);
        (client.address.to_string(), client.https)
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(ask("192.0.2.1", &["1.2.3.4"], Some("https")), ("192.0.2.1".into(), false));
    }

    #[test]
    fn proxies_are_read_from_the_right() {
        let from = |lines: &[&str]| ask("10.0.0.1", lines, None).0;
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
        assert_eq!(ask("::ffff:10.0.0.1", &["1.2.3.4"], None).0, "1.2.3.4", "a mapped proxy");
    }

    #[test]
    fn networks_are_compared_as_addresses_are() {
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
    fn the_nearest_proxy_tells_the_scheme() {
        assert!(ask("::1", &[], Some("HTTPS")).1);
        assert!(!ask("::1", &[], Some("https, http")).1);
        assert!(!ask("::1", &[], None).1);
    }
}
