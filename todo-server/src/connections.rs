//! Connection management that salvo lacks. For a graceful shutdown, it closes the listener at once
//! and closes connections without a request: salvo keeps its listener open and waits for every
//! connection, including those that never made a request. For HTTP/2, it closes connections without
//! requests, which PINGs keep from being idle, and those that reset their requests. It also marks
//! connections over capacity and enforces the deadlines of HTTP/1.

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
use todo_core::http::Api;
use todo_runtime::{
    ACCEPT_PAUSE, Admission, ConnectionPermit, HeaderTimeoutStream, InProgress, Unanswered,
    WRITE_STALL,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, interval, sleep_until, timeout_at},
};

/// An acceptor that can be closed while its server still drains: later connections are refused, so
/// clients can connect to another server instead of waiting for a response that never comes.
pub(crate) struct ShutdownAcceptor<A> {
    acceptor: SharedAcceptor<A>,
    api: Api,
    tracker: ConnectionTracker,
    keep_alive: Duration,
    holdings: Vec<Holding>,
    /// Deadline for closing, once requested; dropped when closed.
    close_deadline: Option<watch::Receiver<Option<Instant>>>,
}

/// Locked while waiting for a connection; `None` once closed.
type SharedAcceptor<A> = Arc<tokio::sync::Mutex<Option<A>>>;

/// Closes a [`ShutdownAcceptor`].
pub(crate) struct CloseHandle<A> {
    acceptor: SharedAcceptor<A>,
    deadline: watch::Sender<Option<Instant>>,
}

impl<A: Acceptor> ShutdownAcceptor<A> {
    /// Returns the acceptor and its close handle. `keep_alive` limits the idle time of HTTP/1
    /// connections.
    pub(crate) fn new(
        acceptor: A,
        api: Api,
        tracker: ConnectionTracker,
        keep_alive: Duration,
    ) -> (Self, CloseHandle<A>) {
        let (deadline, close_deadline) = watch::channel(None);
        let holdings = acceptor.holdings().to_vec();
        let acceptor = Arc::new(tokio::sync::Mutex::new(Some(acceptor)));
        let handle = CloseHandle { acceptor: Arc::clone(&acceptor), deadline };
        let close_deadline = Some(close_deadline);
        (Self { acceptor, api, tracker, keep_alive, holdings, close_deadline }, handle)
    }
}

impl<A> CloseHandle<A> {
    /// Closes the acceptor within [`CLOSE_GRACE`], regardless of incoming connections.
    pub(crate) async fn close(self) {
        let deadline = Instant::now() + CLOSE_GRACE;
        self.deadline.send_replace(Some(deadline));
        let _ = timeout_at(deadline, self.deadline.closed()).await;
        // At its connection limit, the server does not call `accept` and so does not see the
        // deadline.
        if let Ok(mut acceptor) = timeout_at(deadline + CLOSE_GRACE, self.acceptor.lock()).await {
            *acceptor = None;
        }
    }
}

impl<A: Acceptor<Stream: AsyncRead + AsyncWrite + Unpin>> Acceptor for ShutdownAcceptor<A> {
    type Coupler = TcpCoupler<Self::Stream>;
    type Stream = HeaderTimeoutStream<A::Stream>;

    fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    async fn accept(
        &mut self,
        policy: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        let mut shared = self.acceptor.lock().await;
        if let (Some(acceptor), Some(close_deadline)) = (&mut *shared, &mut self.close_deadline) {
            let closing = async {
                // An error means that the handle was dropped with its server: this closes as well.
                let deadline = close_deadline
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|deadline| *deadline);
                // Connections in the kernel's backlog are served, not reset by the close.
                let quiet = Instant::now() + ACCEPT_QUIET;
                sleep_until(deadline.map_or(quiet, |deadline| deadline.min(quiet))).await;
            };
            tokio::select! {
                // Polled first: connections may arrive without end.
                biased;
                () = closing => {}
                accepted = acceptor.accept(policy) => {
                    // salvo's own pause of 10 ms would write a hundred log lines per second.
                    if accepted.is_err() {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    return accepted.map(|accepted| self.with_deadlines(accepted));
                }
            }
        }
        *shared = None;
        drop(shared);
        self.close_deadline = None;
        std::future::pending().await
    }
}

impl<A> ShutdownAcceptor<A> {
    /// Adds the deadlines of HTTP/1 to an accepted connection.
    fn with_deadlines<C, S>(
        &self,
        accepted: Accepted<C, S>,
    ) -> Accepted<TcpCoupler<HeaderTimeoutStream<S>>, HeaderTimeoutStream<S>>
    where
        C: Coupler<Stream = S>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = accepted.remote_addr.clone().into_std();
        let unanswered = address.map(|address| self.tracker.unanswered(address));
        let stream = HeaderTimeoutStream::new(
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

/// The backlog counts as drained after this long without an accept.
const ACCEPT_QUIET: Duration = Duration::from_millis(5);
/// How long a shutdown waits for the first request of a connection without one.
const CLOSE_GRACE: Duration = Duration::from_millis(100);

/// How often connections are checked for inactivity.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of HTTP/2 requests that a client may reset before the response, in excess of its
/// completed ones; beyond it, the connection is aborted. Twice the limit of concurrent requests.
const MAX_RESETS: u32 = 200;

/// The open connections by peer address, with the last activity and the admission permit of each.
#[derive(Clone)]
pub(crate) struct ConnectionTracker {
    limits: FuseConfig,
    admission: Admission,
    /// Each has a unique number: an address can be reused before its previous entry is removed.
    connections: Arc<Mutex<HashMap<SocketAddr, Connection>>>,
    next_number: Arc<AtomicU64>,
}

struct Connection {
    number: u64,
    control: ConnCtrl,
    permit: Option<ConnectionPermit>,
    protocol: Protocol,
    last_activity: LastActivity,
    unanswered: Unanswered,
    resets: Arc<AtomicU32>,
}

/// Protocol of the requests that a connection has made so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// No request yet.
    Unknown,
    /// The stream enforces the deadlines.
    Http1,
    Http2,
}

/// Time when a connection was opened, made a request or accepted a chunk of a response, whichever
/// is latest. Clones share the value.
#[derive(Clone)]
pub(crate) struct LastActivity(Arc<Mutex<Instant>>);

impl LastActivity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A request in progress.
pub(crate) struct ActiveRequest {
    /// Whether its connection is over capacity.
    pub(crate) is_over_capacity: bool,
    pub(crate) last_activity: LastActivity,
    pub(crate) in_progress: InProgress,
    pub(crate) write_stall: Duration,
    /// HTTP/2 only.
    reset_guard: Option<ResetGuard>,
}

impl ActiveRequest {
    /// A request of a connection with this activity.
    #[cfg(test)]
    pub(crate) fn of(last_activity: LastActivity, write_stall: Duration) -> Self {
        let in_progress = Unanswered::default().begin();
        let is_over_capacity = false;
        Self { is_over_capacity, last_activity, in_progress, write_stall, reset_guard: None }
    }

    /// Records that the client has waited for the response.
    pub(crate) fn mark_answered(&mut self) {
        if let Some(guard) = &mut self.reset_guard {
            guard.is_answered = true;
        }
    }
}

/// Counts an HTTP/2 request that its client reset before the response, and aborts the connection
/// beyond [`MAX_RESETS`] (CVE-2023-44487). h2 limits resets of requests not yet accepted; the ones
/// counted here cost as much as any request.
struct ResetGuard {
    count: Arc<AtomicU32>,
    control: ConnCtrl,
    is_answered: bool,
}

impl Drop for ResetGuard {
    fn drop(&mut self) {
        if self.is_answered {
            let decrement = |count: u32| count.checked_sub(1);
            let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement);
        } else if self.count.fetch_add(1, Ordering::Relaxed) >= MAX_RESETS {
            tracing::debug!("a client resets too many requests");
            self.control.abort();
        }
    }
}

impl ConnectionTracker {
    /// Creates a tracker that admits connections by `admission` and applies `limits` to each.
    pub(crate) fn new(admission: Admission, limits: FuseConfig) -> Self {
        Self { limits, admission, connections: Arc::default(), next_number: Arc::default() }
    }

    /// Records a request of the connection from `address`, over HTTP/2 if `multiplexed`. `None` if
    /// the connection has ended.
    pub(crate) fn note_request(
        &self,
        address: SocketAddr,
        multiplexed: bool,
    ) -> Option<ActiveRequest> {
        let mut connections = self.connections();
        let connection = connections.get_mut(&address)?;
        connection.protocol = if multiplexed { Protocol::Http2 } else { Protocol::Http1 };
        if multiplexed {
            connection.last_activity.touch();
        }
        Some(ActiveRequest {
            is_over_capacity: connection
                .permit
                .as_ref()
                .is_none_or(ConnectionPermit::is_over_capacity),
            last_activity: connection.last_activity.clone(),
            in_progress: connection.unanswered.begin(),
            write_stall: self.limits.write_stall_timeout.unwrap_or(WRITE_STALL),
            reset_guard: multiplexed.then(|| ResetGuard {
                count: Arc::clone(&connection.resets),
                control: connection.control.clone(),
                is_answered: false,
            }),
        })
    }

    /// The count of unanswered requests of the connection from `address`.
    fn unanswered(&self, address: SocketAddr) -> Unanswered {
        let connections = self.connections();
        connections.get(&address).map(|found| found.unanswered.clone()).unwrap_or_default()
    }

    /// Shuts down connections that made no request and accepted no response data for
    /// `idle_timeout`; aborts them after twice that time, since a response may still be in transit.
    ///
    /// A connection with a request in progress is not idle: its handler has a deadline, and its
    /// response either waits for its source, as a live stream may for long, or for the client,
    /// which the stall guard limits.
    pub(crate) async fn reap_idle(self, idle_timeout: Duration) {
        let mut ticks = interval(REAP_INTERVAL.min(idle_timeout));
        loop {
            ticks.tick().await;
            for connection in self.connections().values() {
                if connection.protocol == Protocol::Http1 {
                    continue;
                }
                if !connection.unanswered.is_zero() {
                    connection.last_activity.touch();
                    continue;
                }
                let idle = connection.last_activity.elapsed();
                // GOAWAY first (RFC 9113, section 6.8): a response may still be in transit.
                if idle > 2 * idle_timeout {
                    connection.control.abort();
                } else if idle > idle_timeout {
                    connection.control.graceful_shutdown();
                }
            }
        }
    }

    /// Aborts connections without a request after [`CLOSE_GRACE`].
    pub(crate) async fn close(&self) {
        tokio::time::sleep(CLOSE_GRACE).await;
        let connections = self.connections();
        for connection in connections.values().filter(|each| each.protocol == Protocol::Unknown) {
            connection.control.abort();
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FusePolicy for ConnectionTracker {
    async fn decide(&self, info: &FuseInfo) -> FuseAction {
        let address = info.remote_addr.clone().into_std();
        if address.is_some_and(|address| self.admission.is_closed_to(address.ip())) {
            return FuseAction::Reject;
        }
        FuseAction::Accept(self.limits)
    }

    fn observe(&self, info: &FuseInfo, control: &ConnCtrl) -> Option<ArcConnObserver> {
        let address = info.remote_addr.clone().into_std()?;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            number,
            control: control.clone(),
            // Checked in `decide` just before; without a permit, requests get an overload response.
            permit: self.admission.admit(address.ip()),
            protocol: Protocol::Unknown,
            last_activity: LastActivity::new(),
            unanswered: Unanswered::default(),
            resets: Arc::default(),
        };
        self.connections().insert(address, connection);
        Some(Arc::new(TrackerGuard { tracker: self.clone(), address, number }))
    }
}

/// Removes its connection from the tracker on drop.
struct TrackerGuard {
    tracker: ConnectionTracker,
    address: SocketAddr,
    number: u64,
}

impl ConnObserver for TrackerGuard {}

impl Drop for TrackerGuard {
    fn drop(&mut self) {
        let mut connections = self.tracker.connections();
        if connections.get(&self.address).is_some_and(|found| found.number == self.number) {
            connections.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests;
