//! Work on many todos of a user, in pieces: each is a transaction of its own, and other writers run
//! in between.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Maximum number of todos that a piece changes: so many take SQLite's writer about 10 ms.
pub(super) const PIECE: i64 = 200;
/// Maximum number of pieces in a row that change nothing, since others change the same todos.
pub(super) const MAX_IDLE_PIECES: u32 = 10;
/// Maximum pause after a piece.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Pauses for as long as a piece took, so that the work uses at most half of SQLite's writer.
pub(super) async fn pause(began: Instant) {
    sleep(began.elapsed().min(MAX_PAUSE)).await;
}
