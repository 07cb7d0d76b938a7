//! The jobs that a process has run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of the attempts of jobs.
#[derive(Debug, Default)]
pub(crate) struct JobCounters {
    is_registered: AtomicBool,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl JobCounters {
    /// Whether this process has not yet inserted the jobs of its version.
    pub(crate) fn needs_registration(&self) -> bool {
        !self.is_registered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_registered(&self) {
        self.is_registered.store(true, Ordering::Relaxed);
    }

    /// Counts an attempt.
    pub(crate) fn count(&self, succeeded: bool) {
        let counter = if succeeded { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts that succeeded, and attempts that failed.
    #[cfg(feature = "http")]
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
