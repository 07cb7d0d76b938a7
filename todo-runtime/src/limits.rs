//! Limits of connections that are not settings.

use std::time::Duration;

/// Time for requests in progress to finish after a stop signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// Timeout for receiving a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum of concurrent connections to the listener of `METRICS_ADDRESS`.
pub const METRICS_CONNECTIONS: usize = 16;
/// Timeout of a response write during which the client reads nothing.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Connections accepted over the limit, whose requests get a 503. Further ones wait in the backlog.
pub const OVER_CAPACITY_CONNECTIONS: usize = 64;
/// Pause after a failed accept: without a free descriptor, the next would fail at once too.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
