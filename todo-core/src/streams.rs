//! The open streams of changes: which users and sessions they belong to, their limits, and what
//! wakes or ends them. This module does not read changes: [`crate::todos::follow`] does.
//!
//! A write wakes its user's streams in this process after its commit. A poll finds the changes and
//! the ended sessions of other processes: one statement a second for all streams, while there are
//! any.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, Serializer};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use uuid::Uuid;

use crate::{
    authz::Caller,
    db::{Db, DbError, Dialect, Statement},
    error::{Error, Result},
    ids::UserId,
};

/// Maximum number of open streams of a process.
pub(crate) const MAX_STREAMS: usize = 2000;
/// Time between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time without a successful poll after which all streams end: their sessions may have ended.
pub(crate) const MAX_OUTAGE: Duration = Duration::from_secs(5);

/// Why a stream of changes has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The caller's session has ended, by a logout for example, or the account was deleted.
    SessionEnded,
    /// The caller's token has expired.
    Expired,
    /// The log no longer reaches back to the stream's position: list all todos again.
    CursorExpired,
    /// The stream has reached its maximum age. Continue from the last cursor.
    MaxAge,
    /// The server stops. Continue from the last cursor, at another server.
    Draining,
    /// The database is unavailable, or the server is overloaded. Continue from the last cursor
    /// after a pause.
    Unavailable,
}

impl EndReason {
    /// The name of the reason, such as `session_ended`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionEnded => "session_ended",
            Self::Expired => "expired",
            Self::CursorExpired => "cursor_expired",
            Self::MaxAge => "max_age",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Serialize for EndReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The form in which a stream is delivered, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
pub(crate) enum StreamKind {
    Library,
    ServerSentEvents,
    WebSocket,
}

impl StreamKind {
    /// All kinds, in the order of their numbers.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
    pub(crate) const ALL: [Self; 3] = [Self::Library, Self::ServerSentEvents, Self::WebSocket];

    /// The label of the kind.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::ServerSentEvents => "sse",
            Self::WebSocket => "websocket",
        }
    }
}

/// The open streams of a core. A cheap clone.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Inner>);

struct Inner {
    db: Db,
    /// Zero is no limit.
    max_per_user: usize,
    /// The number of open streams: without any, a write has nothing else to look up.
    open: AtomicUsize,
    /// The number of [`Connected`] guards.
    connected: AtomicUsize,
    by_kind: [AtomicUsize; 3],
    registry: Mutex<Registry>,
    all_closed: Notify,
}

#[derive(Default)]
struct Registry {
    by_user: HashMap<UserId, Vec<Arc<Signal>>>,
    is_polling: bool,
}

/// What the rest of the process tells one stream.
struct Signal {
    session: Option<Uuid>,
    /// The number of the last change that the stream has read.
    position: AtomicI64,
    end: OnceLock<EndReason>,
    /// Holds at most one permit, so that a wake-up during a read is not lost.
    wake: Notify,
}

impl Signal {
    fn end(&self, reason: EndReason) {
        // The first reason counts.
        let _ = self.end.set(reason);
        self.wake.notify_one();
    }
}

/// The place of one open stream, which is free again when this is dropped.
pub(crate) struct StreamSlot {
    streams: Streams,
    user: UserId,
    kind: StreamKind,
    signal: Arc<Signal>,
}

/// Wakes the streams of a user when it is dropped.
pub(crate) struct WakeOnDrop {
    streams: Streams,
    user: UserId,
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.streams.wake(self.user);
    }
}

impl Streams {
    pub(crate) fn new(db: Db, max_per_user: u32) -> Self {
        Self(Arc::new(Inner {
            db,
            max_per_user: usize::try_from(max_per_user).unwrap_or(usize::MAX),
            open: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            by_kind: Default::default(),
            registry: Mutex::default(),
            all_closed: Notify::new(),
        }))
    }

    /// Takes a place for a stream of `caller`. From now on its wake-ups are kept.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`] if the user has as many as is allowed, [`Error::Busy`] if the
    /// process has.
    pub(crate) fn open(&self, caller: &Caller, kind: StreamKind) -> Result<StreamSlot> {
        let user = caller.user_id();
        let max = self.0.max_per_user;
        let signal = Arc::new(Signal {
            session: caller.session(),
            position: AtomicI64::new(0),
            end: OnceLock::new(),
            wake: Notify::new(),
        });
        let mut registry = self.registry();
        if self.0.open.load(Ordering::SeqCst) >= MAX_STREAMS {
            return Err(Error::Busy);
        }
        let open = registry.by_user.get(&user).map_or(0, Vec::len);
        if max > 0 && open >= max {
            return Err(Error::TooManyStreams { limit: max as u64 });
        }
        registry.by_user.entry(user).or_default().push(Arc::clone(&signal));
        self.0.open.fetch_add(1, Ordering::SeqCst);
        self.of_kind(kind).fetch_add(1, Ordering::Relaxed);
        if !registry.is_polling {
            registry.is_polling = true;
            tokio::spawn(Polling { streams: self.clone(), is_done: false }.run());
        }
        drop(registry);
        Ok(StreamSlot { streams: self.clone(), user, kind, signal })
    }

    /// Wakes the streams of `user` when the returned guard is dropped: after a write.
    pub(crate) fn wake_later(&self, user: UserId) -> WakeOnDrop {
        WakeOnDrop { streams: self.clone(), user }
    }

    fn wake(&self, user: UserId) {
        if self.0.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        for signal in self.registry().by_user.get(&user).into_iter().flatten() {
            signal.wake.notify_one();
        }
    }

    /// Ends the streams of one session.
    pub(crate) fn end_session(&self, user: UserId, session: Uuid) {
        for signal in self.registry().by_user.get(&user).into_iter().flatten() {
            if signal.session == Some(session) {
                signal.end(EndReason::SessionEnded);
            }
        }
    }

    /// Ends all streams of a user, whose sessions have all ended.
    pub(crate) fn end_user(&self, user: UserId) {
        for signal in self.registry().by_user.get(&user).into_iter().flatten() {
            signal.end(EndReason::SessionEnded);
        }
    }

    /// Ends all streams.
    pub(crate) fn end_all(&self, reason: EndReason) {
        for signal in self.registry().by_user.values().flatten() {
            signal.end(reason);
        }
    }

    /// The number of open streams by kind.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
    pub(crate) fn counts(&self) -> [i64; 3] {
        StreamKind::ALL.map(|kind| {
            i64::try_from(self.of_kind(kind).load(Ordering::Relaxed)).unwrap_or(i64::MAX)
        })
    }

    /// Counts a connection that a server does not count as a request, until the guard is dropped.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
    pub(crate) fn connected(&self) -> Connected {
        self.0.connected.fetch_add(1, Ordering::SeqCst);
        Connected(self.clone())
    }

    /// Completes when no stream is open and no connection of one.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
    pub(crate) async fn until_all_closed(&self) {
        loop {
            let closed = self.0.all_closed.notified();
            let counts = [&self.0.open, &self.0.connected];
            if counts.into_iter().all(|count| count.load(Ordering::SeqCst) == 0) {
                return;
            }
            closed.await;
        }
    }

    fn of_kind(&self, kind: StreamKind) -> &AtomicUsize {
        let [library, events, websocket] = &self.0.by_kind;
        match kind {
            StreamKind::Library => library,
            StreamKind::ServerSentEvents => events,
            StreamKind::WebSocket => websocket,
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamSlot {
    /// Completes when there may be changes, or when the stream must end.
    pub(crate) async fn woken(&self) {
        self.signal.wake.notified().await;
    }

    /// The reason why the stream must end, if it must.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.signal.end.get().copied()
    }

    /// Sets the number of the last change that the stream has read.
    pub(crate) fn set_position(&self, number: i64) {
        self.signal.position.store(number, Ordering::Relaxed);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut registry = self.streams.registry();
        if let Some(signals) = registry.by_user.get_mut(&self.user) {
            signals.retain(|signal| !Arc::ptr_eq(signal, &self.signal));
            if signals.is_empty() {
                registry.by_user.remove(&self.user);
            }
        }
        // Frees the map's memory after many streams.
        if registry.by_user.is_empty() {
            registry.by_user.shrink_to_fit();
        }
        drop(registry);
        self.streams.of_kind(self.kind).fetch_sub(1, Ordering::Relaxed);
        if self.streams.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.streams.0.all_closed.notify_waiters();
        }
    }
}

/// A connection of a stream, which may be open for a moment after the stream's end.
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for HTTP"))]
pub(crate) struct Connected(Streams);

impl Drop for Connected {
    fn drop(&mut self) {
        if self.0.0.connected.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.all_closed.notify_waiters();
        }
    }
}

/// The task that polls, while there are streams.
struct Polling {
    streams: Streams,
    is_done: bool,
}

/// The users and the sessions of all streams.
struct Watched {
    users: Vec<Uuid>,
    sessions: HashSet<Uuid>,
}

impl Polling {
    async fn run(mut self) {
        let mut succeeded = Instant::now();
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is now: a stream has just read its first page.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let Some(watched) = self.watched() else { return };
            let db = &self.streams.0.db;
            let rows = db.fetch::<Vec<(Uuid, Option<i64>)>>(statement(db, &watched));
            let error = match timeout_at(succeeded + MAX_OUTAGE, rows).await {
                Ok(Ok(rows)) => {
                    succeeded = Instant::now();
                    self.apply(&watched, rows);
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => DbError::Timeout,
            };
            if succeeded.elapsed() < MAX_OUTAGE {
                tracing::debug!(%error, "the poll of the streams of changes failed");
            } else {
                tracing::warn!(%error, "streams of changes end: their sessions are not known");
                self.streams.end_all(EndReason::Unavailable);
                // Streams that are opened later have the same time.
                succeeded = Instant::now();
            }
        }
    }

    /// The users and sessions to poll; without any, the polling has ended.
    fn watched(&mut self) -> Option<Watched> {
        let mut registry = self.streams.registry();
        if registry.by_user.is_empty() {
            // By now, unless the lock is held, another one may be polling.
            self.is_done = true;
            registry.is_polling = false;
            return None;
        }
        let signals = registry.by_user.values().flatten();
        let sessions = signals.filter_map(|signal| signal.session).collect();
        let users = registry.by_user.keys().map(|user| user.as_uuid()).collect();
        Some(Watched { users, sessions })
    }

    /// Wakes the streams whose user has changes, and ends those whose session or user is gone.
    fn apply(&self, watched: &Watched, rows: Vec<(Uuid, Option<i64>)>) {
        let mut last = HashMap::with_capacity(watched.users.len());
        let mut live = HashSet::with_capacity(watched.sessions.len());
        for (id, number) in rows {
            match number {
                Some(number) => drop(last.insert(id, number)),
                None => drop(live.insert(id)),
            }
        }
        let users: HashSet<Uuid> = watched.users.iter().copied().collect();
        for (user, signals) in &self.streams.registry().by_user {
            let user = user.as_uuid();
            // A stream that was opened since is not in the rows.
            let is_gone = users.contains(&user) && !last.contains_key(&user);
            for signal in signals {
                let has_ended = signal.session.is_some_and(|session| {
                    watched.sessions.contains(&session) && !live.contains(&session)
                });
                if is_gone || has_ended {
                    signal.end(EndReason::SessionEnded);
                } else if last
                    .get(&user)
                    // After a restored backup, the last change may be before the position.
                    .is_some_and(|number| *number != signal.position.load(Ordering::Relaxed))
                {
                    signal.wake.notify_one();
                }
            }
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        // The runtime has ended before the streams.
        if !self.is_done {
            self.streams.registry().is_polling = false;
        }
    }
}

/// The statement that returns each user that exists with the number of its last change, and each
/// session that exists with null.
fn statement(db: &Db, watched: &Watched) -> Statement {
    const SQLITE: &str = "SELECT user_id, seq FROM todo_counts \
         WHERE user_id IN (SELECT unhex(value) FROM json_each($1)) \
         UNION ALL SELECT id, NULL FROM sessions \
         WHERE id IN (SELECT unhex(value) FROM json_each($2))";
    const POSTGRES: &str = "SELECT user_id, seq FROM todo_counts WHERE user_id = ANY ($1) \
         UNION ALL SELECT id, NULL FROM sessions WHERE id = ANY ($2)";
    let sql = match db.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let sessions: Vec<Uuid> = watched.sessions.iter().copied().collect();
    Statement::new(sql).bind(watched.users.clone()).bind(sessions)
}

/// A random number up to `max`, to spread what many clients would do at once.
pub(crate) fn jitter(max: u64) -> u64 {
    RandomState::new().hash_one(max) % (max + 1)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
