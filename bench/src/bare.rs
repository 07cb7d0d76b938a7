//! What a bare server is told: where to listen, and how many bytes to answer everything with. How it
//! answers is for `bare-hyper` and `bare-salvo`; both answer with these bytes and this media type.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::HeaderValue;

use crate::Failure;

/// What all answers are said to be.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The address to listen on and the body of every answer, from the arguments `PORT SIZE`.
///
/// # Errors
/// How to call the program.
pub fn arguments() -> Result<(SocketAddr, Bytes), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, size] = &arguments[..] else { return Err("usage: PORT SIZE".into()) };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    Ok((address, vec![b' '; size.parse()?].into()))
}
