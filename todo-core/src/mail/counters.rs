//! Counters of the mails that this process has tried to send.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::MailKind;

/// The result of an attempt to send a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailResult {
    /// The next system has it.
    Sent,
    /// It is sent again later.
    Retried,
    /// It is not sent again: the recipient's system refuses it.
    Rejected,
    /// It is not sent again: its time ended.
    Expired,
    /// Nothing is sent for now: a setting has to be corrected.
    Misconfigured,
    /// There is no account with the address.
    Dropped,
}

impl MailResult {
    pub(crate) const ALL: [Self; 6] = [
        Self::Sent,
        Self::Retried,
        Self::Rejected,
        Self::Expired,
        Self::Misconfigured,
        Self::Dropped,
    ];

    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "a label of metrics"))]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Retried => "retried",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Misconfigured => "misconfigured",
            Self::Dropped => "dropped",
        }
    }
}

/// Attempts by kind and result, in the order of [`MailKind::ALL`] and [`MailResult::ALL`].
pub(crate) type MailTotals = [[u64; MailResult::ALL.len()]; MailKind::ALL.len()];

#[derive(Debug, Default)]
pub(crate) struct MailCounters {
    attempts: [[AtomicU64; MailResult::ALL.len()]; MailKind::ALL.len()],
    oldest_unsent: AtomicI64,
}

impl MailCounters {
    pub(crate) fn count(&self, kind: MailKind, result: MailResult) {
        if let Some(counter) =
            self.attempts.get(kind as usize).and_then(|results| results.get(result as usize))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sets the age in seconds of the oldest mail that is still to be sent; 0 if there is none.
    pub(crate) fn set_oldest_unsent(&self, seconds: i64) {
        self.oldest_unsent.store(seconds, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for metrics"))]
    pub(crate) fn totals(&self) -> (MailTotals, i64) {
        let totals =
            self.attempts.each_ref().map(|of| of.each_ref().map(|n| n.load(Ordering::Relaxed)));
        (totals, self.oldest_unsent.load(Ordering::Relaxed))
    }
}
