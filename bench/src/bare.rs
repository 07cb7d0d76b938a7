//! Arguments of the bare servers, port and response size, and the media type of their responses.
//! `bare-hyper` and `bare-salvo` contain the servers.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::HeaderValue;

use crate::Failure;

/// Media type of all responses.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Parses the arguments `PORT SIZE`: the address to listen on and the body of every response.
///
/// # Errors
/// Usage of the program.
pub fn arguments() -> Result<(SocketAddr, Bytes), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, size] = &arguments[..] else { return Err("usage: PORT SIZE".into()) };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    Ok((address, vec![b' '; size.parse()?].into()))
}
