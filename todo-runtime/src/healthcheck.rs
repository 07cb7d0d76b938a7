//! A health check of a running server, as a client. Its one request is written by hand: an HTTP
//! client would be the largest dependency of the minimal server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{ServeError, Settings};

/// Timeout of a health check.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests `/health` from the server of these settings, over plain HTTP, for at most
/// [`HEALTHCHECK_TIMEOUT`]. Uses the loopback address if the server listens on all addresses.
///
/// # Errors
/// [`ServeError::Health`] if there is no response, or its status is not 200.
pub async fn healthcheck(settings: &Settings) -> Result<(), ServeError> {
    let address = health_address(settings);
    let check = async { check_health(TcpStream::connect(address).await?).await };
    with_health_timeout(address, check).await
}

/// The address for a health check.
#[must_use]
pub fn health_address(settings: &Settings) -> SocketAddr {
    let host = match settings.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, settings.port)
}

/// Runs a health check of `address` with its timeout; errors name the address.
///
/// # Errors
/// [`ServeError::Health`].
pub async fn with_health_timeout(
    address: SocketAddr,
    check: impl Future<Output = io::Result<()>>,
) -> Result<(), ServeError> {
    let outcome = tokio::time::timeout(HEALTHCHECK_TIMEOUT, check).await;
    outcome
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no response within 3 s")))
        .map_err(|cause| ServeError::Health { address, cause })
}

/// Requests `/health` on a connection and requires the status 200.
///
/// # Errors
/// I/O errors, and any other status.
pub async fn check_health(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match &status {
        b"HTTP/1.1 200" | b"HTTP/1.0 200" => Ok(()),
        _ => Err(io::Error::other("the response status is not 200")),
    }
}
