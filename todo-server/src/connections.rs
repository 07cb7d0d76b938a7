//! What salvo does not do with connections. For a graceful stop: to close the listener at once, and
//! to let go of connections that have not made a request yet. It waits for every connection to end,
//! its listener open; one that never asked for anything would hold it up for as long as it may. And
//! for HTTP/2: to end those that ask for nothing, which PINGs keep from ever being idle, and those that
//! begin requests and reset them. It also knows which are too many, and gives those of HTTP/1 their
//! deadlines.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
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
    server::{ACCEPT_PAUSE, Admission, InProgress, LateHead, Place, Unanswered},
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
    awaited: Awaited,
    keep_alive: Duration,
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
    /// The acceptor, and what closes it. Connections of HTTP/1 are kept without a request for
    /// `keep_alive`.
    pub(crate) fn new(
        acceptor: A,
        api: Api,
        awaited: Awaited,
        keep_alive: Duration,
    ) -> (Self, Closer<A>) {
        let (ask, closes) = watch::channel(None);
        let holdings = acceptor.holdings().to_vec();
        let open = Arc::new(tokio::sync::Mutex::new(Some(acceptor)));
        let closes = Some(closes);
        let closable = Self { open: open.clone(), api, awaited, keep_alive, holdings, closes };
        (closable, Closer { open, ask })
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
                    return accepted.map(|accepted| self.watched(accepted));
                }
            }
        }
        *open = None;
        drop(open);
        self.closes = None;
        std::future::pending().await
    }
}

impl<A> Closable<A> {
    /// A connection as it was accepted, with the deadlines of HTTP/1.
    fn watched<C, S>(
        &self,
        accepted: Accepted<C, S>,
    ) -> Accepted<TcpCoupler<LateHead<S>>, LateHead<S>>
    where
        C: Coupler<Stream = S>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = accepted.remote_addr.clone().into_std();
        let unanswered = address.map(|address| self.awaited.unanswered(address));
        let stream = LateHead::new(
            accepted.stream,
            self.api.clone(),
            address.map(|address| address.ip()),
            self.keep_alive,
            unanswered.unwrap_or_default(),
        );
        Accepted {
            coupler: TcpCoupler::new(),
            stream,
            fuse_config: accepted.fuse_config,
            conn_ctrl: accepted.conn_ctrl,
            local_addr: accepted.local_addr,
            remote_addr: accepted.remote_addr,
            http_scheme: accepted.http_scheme,
        }
    }
}

/// How long no connection has come when those that wait are over.
const QUIET: Duration = Duration::from_millis(5);
/// How long a stop waits for the first request of a connection that has not made one.
const LAST_CALL: Duration = Duration::from_millis(100);

/// How often connections are looked at that may have been without a request for too long.
const ROUND: Duration = Duration::from_secs(5);

/// How many requests a client of HTTP/2 may reset before they are answered, beyond as many as it
/// waits for, before its connection is ended: twice what may be under way at once.
const ABANDONED: u32 = 200;

/// The open connections, by the address they come from: when each was last of use, and whether it is
/// one too many.
#[derive(Clone)]
pub(crate) struct Awaited {
    limits: FuseConfig,
    admission: Admission,
    /// Each with a number of its own: an address can be used again before its last use is over.
    open: Arc<Mutex<HashMap<SocketAddr, Open>>>,
    next: Arc<AtomicU64>,
}

struct Open {
    number: u64,
    control: ConnCtrl,
    place: Option<Place>,
    spoken: Spoken,
    since: Since,
    unanswered: Unanswered,
    resets: Arc<AtomicU32>,
}

/// What a connection has asked for so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Nothing,
    /// Its stream keeps the deadlines.
    Http1,
    Http2,
}

/// When a connection was opened, or made a request, or took a piece of an answer last. Clones share
/// it.
#[derive(Clone)]
pub(crate) struct Since(Arc<Mutex<Instant>>);

impl Since {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A request under way.
pub(crate) struct Asking {
    /// Whether its connection is one more than is wanted.
    pub(crate) is_surplus: bool,
    pub(crate) since: Since,
    pub(crate) in_progress: InProgress,
    /// Over HTTP/2.
    resets: Option<Resets>,
}

impl Asking {
    /// The client has waited for the answer.
    pub(crate) fn is_answered(&mut self) {
        if let Some(resets) = &mut self.resets {
            resets.is_answered = true;
        }
    }
}

/// Counts a request of HTTP/2 that is dropped unanswered, since its client has reset it, and ends the
/// connection of a client that does little else (CVE-2023-44487). h2 has a bound for those that it
/// has not handed on yet; these cost as much as any request.
struct Resets {
    count: Arc<AtomicU32>,
    control: ConnCtrl,
    is_answered: bool,
}

impl Drop for Resets {
    fn drop(&mut self) {
        if self.is_answered {
            let fewer = |count: u32| count.checked_sub(1);
            let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        } else if self.count.fetch_add(1, Ordering::Relaxed) >= ABANDONED {
            tracing::debug!("a client resets its requests");
            self.control.abort();
        }
    }
}

impl Awaited {
    /// Takes connections as `admission` does, holds every one to `limits` and watches it.
    pub(crate) fn new(admission: Admission, limits: FuseConfig) -> Self {
        Self { limits, admission, open: Arc::default(), next: Arc::default() }
    }

    /// The connection from `address` makes a request; by its protocol there may be more of them at
    /// once. `None` if the connection is over.
    pub(crate) fn asks(&self, address: SocketAddr, multiplexed: bool) -> Option<Asking> {
        let mut open = self.open();
        let open = open.get_mut(&address)?;
        open.spoken = if multiplexed { Spoken::Http2 } else { Spoken::Http1 };
        if multiplexed {
            open.since.is_now();
        }
        Some(Asking {
            is_surplus: open.place.as_ref().is_none_or(Place::is_surplus),
            since: open.since.clone(),
            in_progress: open.unanswered.begin(),
            resets: multiplexed.then(|| Resets {
                count: Arc::clone(&open.resets),
                control: open.control.clone(),
                is_answered: false,
            }),
        })
    }

    /// The count of requests of the connection from `address`.
    fn unanswered(&self, address: SocketAddr) -> Unanswered {
        self.open().get(&address).map(|open| open.unanswered.clone()).unwrap_or_default()
    }

    /// Ends those that have made no request and taken nothing of an answer for `patience`; that an
    /// answer is on its way puts that off for as long again.
    pub(crate) async fn end_idle(self, patience: Duration) {
        let mut rounds = interval(ROUND.min(patience));
        loop {
            rounds.tick().await;
            for open in self.open().values().filter(|open| open.spoken != Spoken::Http1) {
                let idle = open.since.elapsed();
                // First by a GOAWAY (RFC 9113, section 6.8): an answer may still be on its way.
                if idle > 2 * patience {
                    open.control.abort();
                } else if idle > patience {
                    open.control.graceful_shutdown();
                }
            }
        }
    }

    /// Closes those that have not asked for anything and do not within a moment.
    pub(crate) async fn close(&self) {
        tokio::time::sleep(LAST_CALL).await;
        for open in self.open().values().filter(|open| open.spoken == Spoken::Nothing) {
            open.control.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SocketAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FusePolicy for Awaited {
    async fn decide(&self, info: &FuseInfo) -> FuseAction {
        let address = info.remote_addr.clone().into_std();
        if address.is_some_and(|address| self.admission.is_closed_to(address.ip())) {
            return FuseAction::Reject;
        }
        FuseAction::Accept(self.limits)
    }

    fn observe(&self, info: &FuseInfo, control: &ConnCtrl) -> Option<ArcConnObserver> {
        let address = info.remote_addr.clone().into_std()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Open {
            number,
            control: control.clone(),
            // It was asked just before; without a place it is told that there is no room.
            place: self.admission.admit(address.ip()),
            spoken: Spoken::Nothing,
            since: Since::new(),
            unanswered: Unanswered::default(),
            resets: Arc::default(),
        };
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
        let mut open = self.awaited.open();
        if open.get(&self.address).is_some_and(|open| open.number == self.number) {
            open.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use salvo::{conn::tcp::TcpAcceptor, fuse::TransProto};
    use todo_core::{Core, Options, Secret, http::ApiOptions, settings::Settings};

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

    async fn closable<A: Acceptor>(acceptor: A) -> (Closable<A>, Closer<A>) {
        Closable::new(acceptor, api().await, awaited(), Duration::from_secs(75))
    }

    async fn listening() -> (TcpAcceptor, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (TcpAcceptor::try_from(listener).unwrap(), address)
    }

    /// A connection of HTTP/2 that has made a request, and who controls it.
    fn asked(awaited: &Awaited) -> (Asking, ConnCtrl, Option<ArcConnObserver>) {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let info = FuseInfo {
            trans_proto: TransProto::Tcp,
            remote_addr: address.into(),
            local_addr: address.into(),
        };
        let control = ConnCtrl::new();
        let observer = awaited.observe(&info, &control);
        (awaited.asks(address, true).unwrap(), control, observer)
    }

    fn awaited() -> Awaited {
        let settings = Settings::from_vars::<&str, &str>([]).unwrap();
        Awaited::new(Admission::new(&settings), FuseConfig::strict())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_answer_steadily_is_let() {
        const PATIENCE: Duration = Duration::from_mins(1);
        let awaited = awaited();
        let (asking, control, observer) = asked(&awaited);
        let ending = tokio::spawn(awaited.clone().end_idle(PATIENCE));
        // As a body does that is taken piece by piece.
        for _ in 0..20 {
            tokio::time::sleep(PATIENCE / 2).await;
            asking.since.is_now();
        }
        assert!(!control.is_graceful_shutdown() && !control.is_aborted());
        tokio::time::sleep(PATIENCE + 2 * ROUND).await;
        assert!(control.is_graceful_shutdown());
        tokio::time::sleep(PATIENCE).await;
        assert!(control.is_aborted());
        drop(observer);
        ending.abort();
    }

    #[tokio::test]
    async fn a_client_that_resets_what_it_asks_for_is_cut_off() {
        let awaited = awaited();
        let (_, control, _observer) = asked(&awaited);
        let ask = || awaited.asks("127.0.0.1:1".parse().unwrap(), true).unwrap();
        // As many resets as answers.
        for _ in 0..10 * ABANDONED {
            ask().is_answered();
            drop(ask());
        }
        assert!(!control.is_aborted());
        for _ in 0..=ABANDONED {
            drop(ask());
        }
        assert!(control.is_aborted());
    }

    #[tokio::test]
    async fn it_closes_although_connections_still_come() {
        let (acceptor, address) = listening().await;
        let (mut closable, closer) = closable(Flooded(acceptor, address, Vec::new())).await;
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
        let (closable, closer) = closable(acceptor).await;
        TcpStream::connect(address).unwrap();
        closer.close().await;
        TcpStream::connect(address).unwrap_err();
        drop(closable);
    }

    #[tokio::test]
    async fn what_waits_is_accepted_before_it_closes() {
        let (acceptor, address) = listening().await;
        let (mut closable, closer) = closable(acceptor).await;
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
