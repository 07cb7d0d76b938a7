//! Limits of connections that are not settings.

use std::time::Duration;

/// Time for requests in progress to finish after a stop signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// Timeout for receiving a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum of concurrent connections to the listener of `METRICS_ADDRESS`.
pub const METRICS_CONNECTIONS: usize = 16;
/// Default of [`Timeouts::write_stall`].
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Connections accepted over the limit, whose requests get a 503. Further ones wait in the backlog.
pub const OVER_CAPACITY_CONNECTIONS: usize = 64;
/// Pause after a failed accept: without a free descriptor, the next would fail at once too.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Timeouts of connections that are the same in every deployment. A program that embeds a server
/// may change them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// Timeout of a response write, during which the client reads nothing. Default: 30 s.
    pub write_stall: Duration,
    /// Time beyond the request timeout that an HTTP/2 connection may be without a request. It is
    /// then shut down, and aborted after twice the sum. Default: 30 s.
    pub idle_margin: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { write_stall: WRITE_STALL, idle_margin: Duration::from_secs(30) }
    }
}
