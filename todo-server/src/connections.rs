//! What salvo does not do with connections. For a graceful stop: to close the listener at once, and
//! to let go of connections that have not made a request yet. It waits for every connection to end,
//! its listener open; one that never asked for anything would hold it up for as long as it may. And
//! for HTTP/2: to end those that ask for nothing, which PINGs keep from ever being idle. It also counts
//! them, to know those that are too many, and has a late head answered.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use salvo::{
    async_trait,
    conn::{Accepted, Acceptor, ConnCtrl, Coupler, Holding, tcp::TcpCoupler},
    fuse::{
        ArcConnObserver, ArcFusePolicy, ConnObserver, FuseAction, FuseConfig, FuseInfo, FusePolicy,
    },
};
use todo_core::{
    http::Api,
    server::{ACCEPT_PAUSE, LateHead},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, interval, sleep_until, timeout_at},
};

/// An acceptor that can be closed while its server still drains: a client that connects then is
/// refused, and may try elsewhere, instead of waiting for an answer that never comes.
pub(crate) struct Closable<A> {
    open: Shared<A>,
    api: Api,
    holdings: Vec<Holding>,
    /// When it closes at the latest, once it was asked to; dropped when it has closed.
    closes: Option<watch::Receiver<Option<Instant>>>,
}

/// Locked while a connection is waited for.
type Shared<A> = Arc<tokio::sync::Mutex<Option<A>>>;

/// Closes a [`Closable`].
pub(crate) struct Closer<A> {
    open: Shared<A>,
    ask: watch::Sender<Option<Instant>>,
}

impl<A: Acceptor> Closable<A> {
    /// The acceptor, and what closes it.
    pub(crate) fn new(acceptor: A, api: Api) -> (Self, Closer<A>) {
        let (ask, closes) = watch::channel(None);
        let holdings = acceptor.holdings().to_vec();
        let open = Arc::new(tokio::sync::Mutex::new(Some(acceptor)));
        (Self { open: open.clone(), api, holdings, closes: Some(closes) }, Closer { open, ask })
    }
}

impl<A> Closer<A> {
    /// Closes the acceptor in [`LAST_CALL`] at most, however many still come.
    pub(crate) async fn close(self) {
        let by = Instant::now() + LAST_CALL;
        self.ask.send_replace(Some(by));
        let _ = timeout_at(by, self.ask.closed()).await;
        // At its cap of connections its server does not ask for more, and would never see that.
        if let Ok(mut open) = timeout_at(by + LAST_CALL, self.open.lock()).await {
            *open = None;
        }
    }
}

impl<A: Acceptor<Stream: AsyncRead + AsyncWrite + Unpin>> Acceptor for Closable<A> {
    type Coupler = TcpCoupler<Self::Stream>;
    type Stream = LateHead<A::Stream>;

    fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    async fn accept(
        &mut self,
        policy: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        let mut open = self.open.lock().await;
        if let (Some(acceptor), Some(closes)) = (&mut *open, &mut self.closes) {
            let closing = async {
                // An error is a server that is gone: there is nothing to accept for either.
                let by = closes.wait_for(Option::is_some).await.ok().and_then(|by| *by);
                // What the kernel has let in already is served, and not reset by the close.
                let quiet = Instant::now() + QUIET;
                sleep_until(by.map_or(quiet, |by| by.min(quiet))).await;
            };
            tokio::select! {
                // First: connections may come without an end.
                biased;
                () = closing => {}
                accepted = acceptor.accept(policy) => {
                    // salvo's own rest of 10 ms is a hundred lines of log a second.
                    if accepted.is_err() {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    return accepted.map(|accepted| watched(accepted, &self.api));
                }
            }
        }
        *open = None;
        drop(open);
        self.closes = None;
        std::future::pending().await
    }
}

/// A connection as it was accepted, whose client is told if its head does not come in time.
fn watched<C, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accepted: Accepted<C, S>,
    api: &Api,
) -> Accepted<TcpCoupler<LateHead<S>>, LateHead<S>>
where
    C: Coupler<Stream = S>,
{
    let peer = accepted.remote_addr.clone().into_std().map(|address| address.ip());
    Accepted {
        coupler: TcpCoupler::new(),
        stream: LateHead::new(accepted.stream, api.clone(), peer),
        fuse_config: accepted.fuse_config,
        conn_ctrl: accepted.conn_ctrl,
        local_addr: accepted.local_addr,
        remote_addr: accepted.remote_addr,
        http_scheme: accepted.http_scheme,
    }
}

/// How long no connection has come when those that wait are over.
const QUIET: Duration = Duration::from_millis(5);
/// How long a stop waits for the first request of a connection that has not made one.
const LAST_CALL: Duration = Duration::from_millis(100);

/// How often connections are looked at that may have been without a request for too long.
const ROUND: Duration = Duration::from_secs(5);

/// The connections that have yet to make a request: of HTTP/1 the first, of HTTP/2 the next. By the
/// address they come from.
#[derive(Clone)]
pub(crate) struct Awaited {
    limits: FuseConfig,
    /// How many connections are wanted at most, and how many there are.
    most: usize,
    connected: Arc<AtomicUsize>,
    /// Each with a number of its own: an address can be used again before its last use is over.
    open: Arc<Mutex<HashMap<SocketAddr, Open>>>,
    next: Arc<AtomicU64>,
}

struct Open {
    number: u64,
    control: ConnCtrl,
    has_asked: bool,
    /// Whether there were as many as are wanted before it.
    is_surplus: bool,
    /// When it made its last request, or was opened.
    since: Instant,
}

impl Awaited {
    /// Wants `most` connections, holds every one to `limits` and watches it.
    pub(crate) fn new(most: usize, limits: FuseConfig) -> Self {
        let (connected, open, next) = (Arc::default(), Arc::default(), Arc::default());
        Self { limits, most, connected, open, next }
    }

    /// The connection from `address` makes a request; by its protocol there may be more of them at
    /// once. Whether it is one more than is wanted.
    pub(crate) fn has_asked(&self, address: SocketAddr, multiplexed: bool) -> bool {
        let mut open = self.open();
        if !multiplexed {
            // hyper knows when it is idle.
            return open.remove(&address).is_some_and(|open| open.is_surplus);
        }
        let Some(open) = open.get_mut(&address) else { return false };
        open.has_asked = true;
        open.since = Instant::now();
        open.is_surplus
    }

    /// Ends those that have made no request for `patience`, whatever they still take for twice as long.
    pub(crate) async fn end_idle(self, patience: Duration) {
        let mut rounds = interval(ROUND.min(patience));
        loop {
            rounds.tick().await;
            for open in self.open().values().filter(|open| open.since.elapsed() > patience) {
                // First by a GOAWAY (RFC 9113, section 6.8): an answer may still be on its way.
                if open.since.elapsed() > 2 * patience {
                    open.control.abort();
                } else {
                    open.control.graceful_shutdown();
                }
            }
        }
    }

    /// Closes those that have not asked for anything and do not within a moment.
    pub(crate) async fn close(&self) {
        tokio::time::sleep(LAST_CALL).await;
        for open in self.open().values().filter(|open| !open.has_asked) {
            open.control.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SocketAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FusePolicy for Awaited {
    async fn decide(&self, _: &FuseInfo) -> FuseAction {
        FuseAction::Accept(self.limits)
    }

    fn observe(&self, info: &FuseInfo, control: &ConnCtrl) -> Option<ArcConnObserver> {
        let address = info.remote_addr.clone().into_std()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_surplus = self.connected.fetch_add(1, Ordering::Relaxed) >= self.most;
        let (control, since) = (control.clone(), Instant::now());
        let open = Open { number, control, has_asked: false, is_surplus, since };
        self.open().insert(address, open);
        Some(Arc::new(Watch { awaited: self.clone(), address, number }))
    }
}

/// Lives as long as its connection does, and forgets it then.
struct Watch {
    awaited: Awaited,
    address: SocketAddr,
    number: u64,
}

impl ConnObserver for Watch {}

impl Drop for Watch {
    fn drop(&mut self) {
        self.awaited.connected.fetch_sub(1, Ordering::Relaxed);
        let mut open = self.awaited.open();
        if open.get(&self.address).is_some_and(|open| open.number == self.number) {
            open.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use salvo::conn::tcp::TcpAcceptor;
    use todo_core::{Core, Options, Secret, http::ApiOptions};

    use super::*;

    /// For each connection that it accepts another comes: there is always one that waits.
    struct Flooded(TcpAcceptor, SocketAddr, Vec<TcpStream>);

    impl Acceptor for Flooded {
        type Coupler = <TcpAcceptor as Acceptor>::Coupler;
        type Stream = <TcpAcceptor as Acceptor>::Stream;

        fn holdings(&self) -> &[Holding] {
            self.0.holdings()
        }

        async fn accept(
            &mut self,
            policy: Option<ArcFusePolicy>,
        ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
            while self.2.len() < 64 {
                self.2.push(TcpStream::connect(self.1)?);
            }
            let accepted = self.0.accept(policy).await?;
            drop(self.2.pop());
            Ok(accepted)
        }
    }

    async fn api() -> Api {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        Api::new(core, ApiOptions::default())
    }

    async fn listening() -> (TcpAcceptor, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (TcpAcceptor::try_from(listener).unwrap(), address)
    }

    #[tokio::test]
    async fn it_closes_although_connections_still_come() {
        let (acceptor, address) = listening().await;
        let (mut closable, closer) =
            Closable::new(Flooded(acceptor, address, Vec::new()), api().await);
        let (counted, mut count) = watch::channel(0);
        let serving = tokio::spawn(async move {
            loop {
                closable.accept(None).await.unwrap();
                counted.send_modify(|count| *count += 1);
                // As between two connections of a server: others get their turn.
                tokio::task::yield_now().await;
            }
        });
        count.wait_for(|count| *count > 100).await.unwrap();
        // The closer's own deadlines are over then: much longer is one that did not close.
        tokio::time::timeout(Duration::from_secs(10), closer.close()).await.unwrap();
        TcpStream::connect(address).unwrap_err();
        serving.abort();
    }

    #[tokio::test]
    async fn it_closes_although_nobody_accepts() {
        let (acceptor, address) = listening().await;
        let (closable, closer) = Closable::new(acceptor, api().await);
        TcpStream::connect(address).unwrap();
        closer.close().await;
        TcpStream::connect(address).unwrap_err();
        drop(closable);
    }

    #[tokio::test]
    async fn what_waits_is_accepted_before_it_closes() {
        let (acceptor, address) = listening().await;
        let (mut closable, closer) = Closable::new(acceptor, api().await);
        let waiting: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let closing = tokio::spawn(closer.close());
        let mut accepted = 0;
        let accepting = async {
            loop {
                closable.accept(None).await.unwrap();
                accepted += 1;
            }
        };
        let _ = tokio::time::timeout(LAST_CALL * 5, accepting).await;
        closing.await.unwrap();
        assert_eq!(accepted, waiting.len());
    }
}
