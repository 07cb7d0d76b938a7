//! What is counted, for `/metrics` in Prometheus' text format. Every label comes from a set that is
//! fixed when the program is built: route patterns, methods, statuses; never a path or an id.
//!
//! The registry belongs to its [`Api`](super::Api): two in one process count apart. That is why this
//! is the `prometheus` crate and not the `metrics` facade, whose recorder is the process's.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode};
use prometheus::{
    Counter, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::{
    core::Load,
    http::{budget::Budget, problem::Failure},
};

/// Answers that were waited for by a person, and those that a database made slow.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The label of a request that matched no route.
pub(crate) const UNMATCHED: &str = "unmatched";

/// The counters of one API.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
    failed_logins: IntCounter,
    connections: IntGaugeVec,
    pool_waiting: IntGauge,
    pool_waits: Counter,
    breaker_open: IntGauge,
    hashing: IntGauge,
    hashed: IntCounter,
    body_memory: IntGauge,
    body_memory_refusals: IntCounter,
    #[cfg(feature = "server")]
    log_dropped: IntCounter,
    scraping: Mutex<()>,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests answered"),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from request to answer")
                .buckets(BUCKETS.to_vec()),
            &["method", "route"],
        )?;
        let failed_logins =
            IntCounter::new("failed_logins_total", "Logins with wrong credentials")?;
        let connections = IntGaugeVec::new(
            Opts::new("database_connections", "Connections of the pool"),
            &["state"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(failed_logins.clone()))?;
        let hashed = IntCounter::new("password_hashes_total", "Password hashes computed")?;
        let pool_waits = Counter::new(
            "database_wait_seconds_total",
            "Time that calls have waited for a connection, all of them together",
        )?;
        let build = IntGaugeVec::new(
            Opts::new("todo_build_info", "Always 1; its label is the version that runs"),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(hashed.clone()))?;
        let body_memory_refusals = IntCounter::new(
            "body_memory_refusals_total",
            "Bodies refused for the memory of those in flight",
        )?;
        registry.register(Box::new(body_memory_refusals.clone()))?;
        registry.register(Box::new(pool_waits.clone()))?;
        registry.register(Box::new(build))?;
        #[cfg(feature = "server")]
        let log_dropped = IntCounter::new(
            "log_lines_dropped_total",
            "Log lines that were dropped because standard error was not read in time",
        )?;
        #[cfg(feature = "server")]
        registry.register(Box::new(log_dropped.clone()))?;
        Ok(Self {
            in_flight: gauge("http_requests_in_flight", "Requests being worked on")?,
            pool_waiting: gauge("database_calls_waiting", "Calls waiting for a connection")?,
            pool_waits,
            breaker_open: gauge(
                "database_breaker_open",
                "1 while the database is known to be away and calls fail at once",
            )?,
            hashing: gauge("password_hashes_queued", "Passwords being hashed or waiting for it")?,
            hashed,
            body_memory: gauge("body_memory_bytes", "Memory held by bodies in flight")?,
            body_memory_refusals,
            #[cfg(feature = "server")]
            log_dropped,
            scraping: Mutex::new(()),
            registry,
            requests,
            durations,
            failed_logins,
            connections,
        })
    }

    /// A request began; it is in flight until what this returns is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let method = method_label(method);
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.durations.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// A request failed; a login that did is counted.
    pub(crate) fn failed(&self, failure: &Failure) {
        if matches!(failure, Failure::Core(crate::Error::InvalidCredentials)) {
            self.failed_logins.inc();
        }
    }

    /// All of it as text (Prometheus exposition format 0.0.4).
    pub(crate) fn text(&self, load: Load, budget: &Budget) -> Result<String, prometheus::Error> {
        self.connections.with_label_values(&["idle"]).set(load.idle);
        self.connections.with_label_values(&["used"]).set(load.used);
        self.pool_waiting.set(load.waiting);
        self.breaker_open.set(load.breaker_open);
        self.hashing.set(load.hashing);
        self.body_memory.set(i64::try_from(budget.held()).unwrap_or(i64::MAX));
        {
            // Counted where it happens; two scrapes at once must not add the same twice.
            let _one = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
            self.hashed.inc_by(load.hashed.saturating_sub(self.hashed.get()));
            let refused = budget.refused().saturating_sub(self.body_memory_refusals.get());
            self.body_memory_refusals.inc_by(refused);
            #[cfg(feature = "server")]
            {
                let dropped = crate::log::dropped_lines();
                self.log_dropped.inc_by(dropped.saturating_sub(self.log_dropped.get()));
            }
            let waited = Duration::from_micros(load.waited_micros.try_into().unwrap_or_default());
            let more = waited.as_secs_f64() - self.pool_waits.get();
            self.pool_waits.inc_by(more.max(0.0));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A request under way.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The methods of the contract; a client can make up any number of others.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
