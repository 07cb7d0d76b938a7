//! The connection of a request that changes to another protocol (RFC 9110, section 7.8). A server
//! hands it in, so that this library needs none of its types.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// The connection of an HTTP/1.1 request, for use after the response 101 (Switching Protocols). A
/// server puts it into the extensions of each such request that has an `Upgrade` header. Without
/// it, the API's route of WebSockets responds with 426.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<BoxFuture<'static, io::Result<Upgraded>>>>>);

/// A connection after its upgrade.
pub(crate) struct Upgraded {
    pub(crate) stream: Box<dyn Duplex>,
    /// What the server counts as long as the connection is open.
    pub(crate) held: Box<dyn Send>,
}

/// The bytes of a connection, in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Upgrade {
    /// The connection that `upgrade` yields after the response. `held` is dropped when it is
    /// closed, or if it is not used: a guard that keeps the server's timeouts of idle connections
    /// away, and the permit of the connection.
    pub fn new<S>(
        upgrade: impl Future<Output = io::Result<S>> + Send + 'static,
        held: impl Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = async move {
            let stream: Box<dyn Duplex> = Box::new(upgrade.await?);
            Ok(Upgraded { stream, held: Box::new(held) })
        };
        Self(Arc::new(Mutex::new(Some(Box::pin(upgraded)))))
    }

    /// The future of the connection; none if it was taken before.
    pub(crate) fn take(&self) -> Option<BoxFuture<'static, io::Result<Upgraded>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}
