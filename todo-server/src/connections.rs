//! What a graceful stop needs and salvo's does not do: to close the listener at once, and to let go
//! of connections that have not made a request yet. It waits for every connection to end, its
//! listener open; one that never asked for anything would hold it up for as long as it may.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use salvo::{
    async_trait,
    conn::{Accepted, Acceptor, ConnCtrl, Holding},
    fuse::{
        ArcConnObserver, ArcFusePolicy, ConnObserver, FuseAction, FuseConfig, FuseInfo, FusePolicy,
    },
};
use todo_core::server::ACCEPT_PAUSE;
use tokio::sync::oneshot;

/// An acceptor that can be closed while its server still drains: a client that connects then is
/// refused, and may try elsewhere, instead of waiting for an answer that never comes.
pub(crate) struct Closable<A> {
    open: Option<A>,
    holdings: Vec<Holding>,
    asked: oneshot::Receiver<()>,
    closed: Option<oneshot::Sender<()>>,
}

/// Closes a [`Closable`].
pub(crate) struct Closer {
    ask: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
}

impl<A: Acceptor> Closable<A> {
    /// The acceptor, and what closes it.
    pub(crate) fn new(acceptor: A) -> (Self, Closer) {
        let (ask, asked) = oneshot::channel();
        let (closed, is_closed) = oneshot::channel();
        let holdings = acceptor.holdings().to_vec();
        let closable = Self { open: Some(acceptor), holdings, asked, closed: Some(closed) };
        (closable, Closer { ask, closed: is_closed })
    }
}

impl Closer {
    /// Closes the acceptor, or gives up soon: at its cap of connections, nobody polls it.
    pub(crate) async fn close(self) {
        let _ = self.ask.send(());
        let _ = tokio::time::timeout(LAST_CALL, self.closed).await;
    }
}

impl<A: Acceptor> Acceptor for Closable<A> {
    type Coupler = A::Coupler;
    type Stream = A::Stream;

    fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    async fn accept(
        &mut self,
        policy: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<A::Coupler, A::Stream>> {
        if let Some(acceptor) = &mut self.open {
            tokio::select! {
                // What the kernel has let in already is served, and not reset by the close.
                biased;
                accepted = acceptor.accept(policy) => {
                    // salvo's own rest of 10 ms is a hundred lines of log a second.
                    if accepted.is_err() {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    return accepted;
                }
                // An error is a server that is gone: there is nothing to accept for either.
                _ = &mut self.asked => {}
            }
        }
        self.open = None;
        self.closed.take().map(|closed| closed.send(()));
        std::future::pending().await
    }
}

/// How long a stop waits for the first request of a connection that has not made one.
const LAST_CALL: Duration = Duration::from_millis(100);

/// The connections without a request, by the address they come from.
#[derive(Clone, Default)]
pub(crate) struct Unasked {
    limits: FuseConfig,
    /// Each with a number of its own: an address can be used again before its last use is over.
    open: Arc<Mutex<HashMap<SocketAddr, (u64, ConnCtrl)>>>,
    next: Arc<AtomicU64>,
}

impl Unasked {
    /// Holds every connection to `limits` and watches it until it makes a request.
    pub(crate) fn new(limits: FuseConfig) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The connection from `address` makes a request.
    pub(crate) fn has_asked(&self, address: SocketAddr) {
        self.open().remove(&address);
    }

    /// Closes those that do not ask within a moment.
    pub(crate) async fn close(&self) {
        tokio::time::sleep(LAST_CALL).await;
        for (_, (_, connection)) in self.open().drain() {
            connection.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SocketAddr, (u64, ConnCtrl)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FusePolicy for Unasked {
    async fn decide(&self, _: &FuseInfo) -> FuseAction {
        FuseAction::Accept(self.limits)
    }

    fn observe(&self, info: &FuseInfo, connection: &ConnCtrl) -> Option<ArcConnObserver> {
        let address = info.remote_addr.clone().into_std()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(address, (number, connection.clone()));
        Some(Arc::new(Watch { unasked: self.clone(), address, number }))
    }
}

/// Lives as long as its connection does, and forgets it then.
struct Watch {
    unasked: Unasked,
    address: SocketAddr,
    number: u64,
}

impl ConnObserver for Watch {}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut open = self.unasked.open();
        if open.get(&self.address).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.address);
        }
    }
}
