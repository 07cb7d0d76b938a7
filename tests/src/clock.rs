//! A clock that runs fast, for what takes minutes.

use chrono::{DateTime, TimeDelta, Utc};
use todo_core::Clock;

/// A clock that shows `epoch` (seconds since 1970) at that time, and runs `speed` times as fast
/// since. Processes with the same numbers have the same time.
///
/// # Panics
/// When `epoch` is out of range.
pub fn fast_clock(epoch: i64, speed: i32) -> Clock {
    let begin: DateTime<Utc> = DateTime::from_timestamp(epoch, 0).expect("a time");
    let system = Clock::system();
    Clock::from_fn(move || {
        let passed: TimeDelta = system.now() - begin;
        begin + passed * speed
    })
}
