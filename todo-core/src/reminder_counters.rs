//! The reminders that a process has fired, and their deliveries.

use std::sync::atomic::{AtomicU64, Ordering};

/// The result of an attempt to deliver a reminder to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "webhook"), allow(dead_code, reason = "a label of metrics"))]
pub(crate) enum DeliveryResult {
    /// The receiver has it.
    Delivered,
    /// It is sent again later.
    Failed,
    /// It is not sent again: its day is over.
    Dropped,
    /// The webhook has failed for a day, and is off.
    Off,
}

impl DeliveryResult {
    pub(crate) const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Dropped, Self::Off];

    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "a label of metrics"))]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Off => "off",
        }
    }
}

/// Counters of reminders and deliveries.
#[derive(Debug, Default)]
pub(crate) struct ReminderCounters {
    fired: AtomicU64,
    failed: AtomicU64,
    deliveries: [AtomicU64; DeliveryResult::ALL.len()],
}

/// The values of [`ReminderCounters`].
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for metrics"))]
pub(crate) struct ReminderTotals {
    /// Reminders that have fired.
    pub(crate) fired: u64,
    /// Failed attempts to fire those of a user.
    pub(crate) failed: u64,
    /// In the order of [`DeliveryResult::ALL`].
    pub(crate) deliveries: [u64; DeliveryResult::ALL.len()],
}

impl ReminderCounters {
    pub(crate) fn count_fired(&self, reminders: u64) {
        self.fired.fetch_add(reminders, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "webhook"), allow(dead_code, reason = "there are no deliveries"))]
    pub(crate) fn count_delivery(&self, result: DeliveryResult) {
        if let Some(counter) = self.deliveries.get(result as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for metrics"))]
    pub(crate) fn totals(&self) -> ReminderTotals {
        ReminderTotals {
            fired: self.fired.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            deliveries: self.deliveries.each_ref().map(|n| n.load(Ordering::Relaxed)),
        }
    }
}
