//! The time between two attempts of background work.

use chrono::TimeDelta;

/// A delay that doubles with each failed attempt, up to a maximum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// The time until the second attempt.
    pub(crate) first: TimeDelta,
    pub(crate) max: TimeDelta,
}

impl Backoff {
    /// The time until the next attempt, after this number of attempts.
    pub(crate) fn after(self, attempts: i64) -> TimeDelta {
        let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or_default();
        self.first.checked_mul(1 << doublings).map_or(self.max, |delay| delay.min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_maximum() {
        let backoff = Backoff { first: TimeDelta::seconds(5), max: TimeDelta::minutes(10) };
        let seconds: Vec<i64> = (0..12).map(|n| backoff.after(n).num_seconds()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
        assert_eq!(backoff.after(i64::MAX), backoff.max);
    }
}
