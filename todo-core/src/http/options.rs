//! The options of the API.

use std::time::Duration;

use crate::http::{Origin, PublicUrl};

/// Options of the API. Start from `ApiOptions::default()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiOptions {
    /// Path prefix of the API's routes. Default: `/api`.
    pub prefix: String,
    /// The path under which the host program serves the API, such as `/todo`. Requests must still
    /// carry it. Default: none.
    pub mount_path: String,
    /// The address under which clients reach the root of the host program, if it is not the one it
    /// listens on. `Location`, the index and the document contain paths below it;
    /// [`ApiOptions::mount_path`] is appended to it. Default: none.
    pub public_url: Option<PublicUrl>,
    /// The API's name in the OpenAPI document and the index. Default: `Todo API`.
    pub name: String,
    /// Origins allowed by CORS. Default: none.
    pub allowed_origins: Vec<Origin>,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted. Default: none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Time limit of a request; beyond it, 504. Default: 30 s.
    pub request_timeout: Duration,
    /// Maximum size of a request body in bytes. Default: 65,536.
    pub max_body_bytes: usize,
    /// Maximum total size in bytes of all bodies in flight, of requests and responses; a quarter of
    /// it for one client address and for one user. Beyond it, 503. At least four times
    /// `max_body_bytes`. Default: 64 MiB.
    pub body_memory_bytes: usize,
    /// Whether plain http is rejected (except for `/health` and the paths below it) and
    /// `Strict-Transport-Security` is sent over https. Default: no.
    pub https_only: bool,
    /// Whether `/metrics` is one of the routes. If not,
    /// [`Api::handle_metrics`](super::Api::handle_metrics) serves it on another listener.
    /// Default: yes.
    pub metrics: bool,
    /// Time after which a silent stream of events sends a comment, so that a proxy does not take
    /// its connection for idle. Default: 15 s.
    pub event_heartbeat: Duration,
    /// Number of log lines that the process has dropped so far, which `/metrics` then reports.
    /// Default: none, and no such metric.
    pub dropped_log_lines: Option<fn() -> u64>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            prefix: "/api".into(),
            mount_path: String::new(),
            public_url: None,
            name: "Todo API".into(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            request_timeout: Duration::from_secs(30),
            max_body_bytes: 65_536,
            body_memory_bytes: 64 << 20,
            https_only: false,
            metrics: true,
            event_heartbeat: Duration::from_secs(15),
            dropped_log_lines: None,
        }
    }
}
