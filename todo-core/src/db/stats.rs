//! Statistics of connections and of the calls that wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The state of a database's connections.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolStats {
    /// Idle connections, and borrowed ones.
    pub(crate) idle: i64,
    pub(crate) used: i64,
    /// Calls waiting for a connection, and the total wait of all calls.
    pub(crate) waiting: i64,
    pub(crate) waited_micros: i64,
    /// 1 while the circuit breaker is open.
    pub(crate) breaker_open: i64,
}

/// Counts the calls that wait for a connection or for a permit before it, and their total wait.
#[derive(Default)]
pub(crate) struct WaitStats {
    now: AtomicI64,
    micros: AtomicI64,
}

/// One waiting call; the wait ends on drop.
pub(crate) struct WaitGuard {
    waits: Arc<WaitStats>,
    since: tokio::time::Instant,
}

impl WaitStats {
    pub(crate) fn begin(this: Arc<Self>) -> WaitGuard {
        this.now.fetch_add(1, Ordering::Relaxed);
        WaitGuard { waits: this, since: tokio::time::Instant::now() }
    }

    /// The statistics of a pool with these waits, `size` connections and `idle` of them not
    /// borrowed.
    #[cfg(feature = "http")]
    pub(crate) fn stats(&self, size: usize, idle: usize) -> PoolStats {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        PoolStats {
            idle: count(idle),
            used: count(size.saturating_sub(idle)),
            waiting: self.now.load(Ordering::Relaxed),
            waited_micros: self.micros.load(Ordering::Relaxed),
            ..PoolStats::default()
        }
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let micros = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.waits.now.fetch_sub(1, Ordering::Relaxed);
        self.waits.micros.fetch_add(micros, Ordering::Relaxed);
    }
}
