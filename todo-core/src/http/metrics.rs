//! Metrics for `/metrics` in Prometheus' text format. Every label comes from a set that is fixed at
//! build time: route patterns, methods, statuses; never a path or an id.
//!
//! Each [`Api`](super::Api) has its own registry: two in one process count separately. Therefore
//! this uses the `prometheus` crate and not the `metrics` facade, whose recorder is process-wide.

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
    core::Stats,
    http::{budget::Budget, problem::ApiError},
    mail::{MailKind, MailResult},
    reminder_counters::DeliveryResult,
    streams::StreamKind,
};

/// Upper bounds in seconds, from fast responses to those that wait for a slow database.
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
    streams: IntGaugeVec,
    pool_waiting: IntGauge,
    pool_waits: Counter,
    breaker_open: IntGauge,
    hashing: IntGauge,
    hashed: IntCounter,
    jobs: IntCounterVec,
    mails: IntCounterVec,
    reminders: IntCounterVec,
    webhook_deliveries: IntCounterVec,
    foreign_tokens: IntCounterVec,
    oldest_mail: IntGauge,
    body_memory: IntGauge,
    body_memory_refusals: IntCounter,
    /// The metric of dropped log lines, and the source of their number.
    log_dropped: Option<(IntCounter, fn() -> u64)>,
    scrape_lock: Mutex<()>,
}

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "a list of the metrics")]
    pub(crate) fn new(dropped_log_lines: Option<fn() -> u64>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests completed"),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from request to response")
                .buckets(BUCKETS.to_vec()),
            &["method", "route"],
        )?;
        let failed_logins =
            IntCounter::new("failed_logins_total", "Logins with wrong credentials")?;
        let connections = IntGaugeVec::new(
            Opts::new("database_connections", "Connections of the pool"),
            &["state"],
        )?;
        let streams =
            IntGaugeVec::new(Opts::new("change_streams", "Open streams of changes"), &["kind"])?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(failed_logins.clone()))?;
        let hashed = IntCounter::new("password_hashes_total", "Password hashes computed")?;
        let pool_waits = Counter::new(
            "database_wait_seconds_total",
            "Total time that calls have waited for a connection",
        )?;
        let build = IntGaugeVec::new(
            Opts::new("todo_build_info", "Always 1; the label is the running version"),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(hashed.clone()))?;
        let jobs = IntCounterVec::new(
            Opts::new("jobs_total", "Attempts of background jobs"),
            &["outcome"],
        )?;
        registry.register(Box::new(jobs.clone()))?;
        let mails = IntCounterVec::new(
            Opts::new("mails_total", "Attempts to send a mail"),
            &["kind", "result"],
        )?;
        registry.register(Box::new(mails.clone()))?;
        let reminders = IntCounterVec::new(
            Opts::new("reminders_total", "Reminders that fired; failed attempts, each of a user"),
            &["outcome"],
        )?;
        registry.register(Box::new(reminders.clone()))?;
        let webhook_deliveries = IntCounterVec::new(
            Opts::new("webhook_deliveries_total", "Attempts to send a reminder to a webhook"),
            &["result"],
        )?;
        registry.register(Box::new(webhook_deliveries.clone()))?;
        let foreign_tokens = IntCounterVec::new(
            Opts::new("auth_foreign_tokens_total", "Verifications of tokens of another issuer"),
            &["result"],
        )?;
        registry.register(Box::new(foreign_tokens.clone()))?;
        let body_memory_refusals = IntCounter::new(
            "body_memory_refusals_total",
            "Requests and responses rejected because the body memory was used up",
        )?;
        registry.register(Box::new(body_memory_refusals.clone()))?;
        registry.register(Box::new(pool_waits.clone()))?;
        registry.register(Box::new(build))?;
        let log_dropped = IntCounter::new(
            "log_lines_dropped_total",
            "Log lines that were dropped because standard error was not read in time",
        )?;
        if dropped_log_lines.is_some() {
            registry.register(Box::new(log_dropped.clone()))?;
        }
        Ok(Self {
            in_flight: gauge("http_requests_in_flight", "Requests in progress")?,
            pool_waiting: gauge("database_calls_waiting", "Calls waiting for a connection")?,
            pool_waits,
            breaker_open: gauge(
                "database_breaker_open",
                "1 while the circuit breaker is open and database calls fail at once",
            )?,
            hashing: gauge("password_hashes_queued", "Password hashes running or queued")?,
            hashed,
            jobs,
            mails,
            reminders,
            webhook_deliveries,
            foreign_tokens,
            oldest_mail: gauge(
                "mail_oldest_unsent_seconds",
                "Age of the oldest mail that is to be sent, 0 without one",
            )?,
            body_memory: gauge("body_memory_bytes", "Memory held by bodies in flight")?,
            body_memory_refusals,
            log_dropped: dropped_log_lines.map(|lines| (log_dropped, lines)),
            scrape_lock: Mutex::new(()),
            registry,
            requests,
            durations,
            failed_logins,
            connections,
            streams,
        })
    }

    /// Counts a request as in flight until the returned guard is dropped.
    pub(crate) fn start_request(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Records the response to a request.
    pub(crate) fn record_request(
        &self,
        method: &Method,
        route: &str,
        status: u16,
        duration: Duration,
    ) {
        let method = method_label(method);
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.durations.with_label_values(&[method, route]).observe(duration.as_secs_f64());
    }

    /// Counts a failed request, if it is a login with wrong credentials.
    pub(crate) fn record_failure(&self, failure: &ApiError) {
        if matches!(failure, ApiError::Core(crate::Error::InvalidCredentials)) {
            self.failed_logins.inc();
        }
    }

    /// All metrics as text (Prometheus exposition format 0.0.4).
    pub(crate) fn text(&self, stats: &Stats, budget: &Budget) -> Result<String, prometheus::Error> {
        self.connections.with_label_values(&["idle"]).set(stats.pool.idle);
        self.connections.with_label_values(&["used"]).set(stats.pool.used);
        for (kind, open) in StreamKind::ALL.into_iter().zip(stats.streams) {
            self.streams.with_label_values(&[kind.as_str()]).set(open);
        }
        self.pool_waiting.set(stats.pool.waiting);
        self.breaker_open.set(stats.pool.breaker_open);
        self.hashing.set(stats.hashing);
        self.oldest_mail.set(stats.mails.1);
        self.body_memory.set(i64::try_from(budget.reserved()).unwrap_or(i64::MAX));
        {
            // These are counted elsewhere; concurrent scrapes must not add the same increase twice.
            let _one = self.scrape_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.hashed.inc_by(stats.hashed.saturating_sub(self.hashed.get()));
            for (outcome, total) in
                [("succeeded", stats.succeeded_jobs), ("failed", stats.failed_jobs)]
            {
                let counter = self.jobs.with_label_values(&[outcome]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
            for (kind, results) in MailKind::ALL.into_iter().zip(stats.mails.0) {
                for (result, total) in MailResult::ALL.into_iter().zip(results) {
                    let counter = self.mails.with_label_values(&[kind.as_str(), result.as_str()]);
                    counter.inc_by(total.saturating_sub(counter.get()));
                }
            }
            for (outcome, total) in
                [("fired", stats.reminders.fired), ("failed", stats.reminders.failed)]
            {
                let counter = self.reminders.with_label_values(&[outcome]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
            for (result, total) in DeliveryResult::ALL.into_iter().zip(stats.reminders.deliveries) {
                let counter = self.webhook_deliveries.with_label_values(&[result.as_str()]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
            for (result, total) in stats.foreign_tokens.into_iter().flatten() {
                let counter = self.foreign_tokens.with_label_values(&[result]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
            let refused = budget.refused().saturating_sub(self.body_memory_refusals.get());
            self.body_memory_refusals.inc_by(refused);
            if let Some((counter, dropped_lines)) = &self.log_dropped {
                counter.inc_by(dropped_lines().saturating_sub(counter.get()));
            }
            let waited =
                Duration::from_micros(stats.pool.waited_micros.try_into().unwrap_or_default());
            let more = waited.as_secs_f64() - self.pool_waits.get();
            self.pool_waits.inc_by(more.max(0.0));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A request in flight.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The method as a label; `other` for methods outside the contract, which a client can invent.
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
