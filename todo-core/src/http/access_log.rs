//! The access log: one line and one count per request. The logged values come from sets that are
//! fixed at build time or were validated: never a path, a query, a header or a body.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use tracing::Span;

use crate::http::{
    Api, Peer,
    metrics::{Metrics, UNMATCHED, method_label},
    problem::ApiError,
    rate_limit::ReportedLimit,
    trace,
};
use crate::ids::UserId;

/// The target of the access log, at info.
const ACCESS: &str = "todo_core::access";
/// The status for a client that disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The log entry of a request in progress. Dropped before its end, it logs that the client
/// disconnected.
pub(crate) struct RequestLog<'a> {
    metrics: &'a Metrics,
    request_id: Arc<str>,
    method: Method,
    client: Option<Peer>,
    started: Instant,
    /// Never entered: a spawned task that outlives the request would keep it open.
    span: Span,
    fields: Mutex<RequestFields<'a>>,
    /// For the headers of the response.
    rate_limit: ReportedLimit,
    status: Option<StatusCode>,
    /// Whether a [`StreamLog`] has taken over.
    is_handed_over: bool,
}

/// Fields of a request's log entry that are filled while it is handled.
#[derive(Clone, Copy, Default)]
pub(crate) struct RequestFields<'a> {
    /// The pattern of the route, if one matched.
    pub(crate) route: Option<&'a str>,
    /// The user of the verified token.
    pub(crate) user_id: Option<UserId>,
    /// The time until the response was ready, if it was ready before the end of the request.
    pub(crate) duration: Option<Duration>,
}

impl<'a> RequestLog<'a> {
    pub(crate) fn new(
        metrics: &'a Metrics,
        request_id: String,
        method: Method,
        headers: &HeaderMap,
        client: Option<Peer>,
    ) -> Self {
        let span = trace::span(&method, headers);
        let started = Instant::now();
        let fields = Mutex::default();
        let request_id = request_id.into();
        Self {
            metrics,
            request_id,
            method,
            client,
            started,
            span,
            fields,
            rate_limit: ReportedLimit::default(),
            status: None,
            is_handed_over: false,
        }
    }

    /// The id of the request, sent as `X-Request-Id` in the response.
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(crate) fn shared_request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    /// Logs and counts the response.
    pub(crate) fn finish_with(mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Hands the entry over to a streamed response body. A client that disconnects ends a live
    /// stream as intended: the logged status is then the response's.
    pub(crate) fn into_stream_log(
        mut self,
        api: Api,
        status: StatusCode,
        is_live: bool,
    ) -> StreamLog {
        self.is_handed_over = true;
        let fields = self.fields();
        StreamLog {
            api,
            request_id: Arc::clone(&self.request_id),
            method: self.method.clone(),
            route: fields.route.unwrap_or(UNMATCHED).to_owned(),
            client: self.client(),
            user_id: fields.user_id,
            duration: fields.duration.unwrap_or_else(|| self.elapsed()),
            span: self.span.clone(),
            status,
            is_live,
            outcome: None,
        }
    }

    pub(crate) fn update(&self, update: impl FnOnce(&mut RequestFields<'a>)) {
        update(&mut self.fields.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn fields(&self) -> RequestFields<'a> {
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rate_limit(&self) -> &ReportedLimit {
        &self.rate_limit
    }

    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client.map(|client| client.address)
    }

    /// Whether the client uses https.
    pub(crate) fn is_https(&self) -> bool {
        self.client.is_some_and(|client| client.is_tls)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for RequestLog<'_> {
    fn drop(&mut self) {
        if self.is_handed_over {
            return;
        }
        let fields = self.fields();
        let entry = AccessEntry {
            request_id: &self.request_id,
            method: &self.method,
            route: fields.route.unwrap_or(UNMATCHED),
            client: self.client(),
            user_id: fields.user_id,
            duration: fields.duration.unwrap_or_else(|| self.elapsed()),
            span: &self.span,
        };
        match self.status {
            Some(status) => entry.record(self.metrics, status.as_u16(), "completed"),
            None => entry.record(self.metrics, CLIENT_CLOSED_REQUEST, "client disconnected"),
        }
    }
}

/// The log entry of a request with a streamed response: logged and counted when the client has read
/// the last chunk. Dropped before, it logs that the client disconnected.
pub(crate) struct StreamLog {
    api: Api,
    request_id: Arc<str>,
    method: Method,
    route: String,
    client: Option<IpAddr>,
    user_id: Option<UserId>,
    /// The time until the first chunk was ready: the rest depends on how fast the client reads.
    duration: Duration,
    span: Span,
    status: StatusCode,
    is_live: bool,
    outcome: Option<(u16, &'static str)>,
}

impl StreamLog {
    /// The client has read all chunks.
    pub(crate) fn end(mut self) {
        self.outcome = Some((self.status.as_u16(), "completed"));
    }

    /// Reading the rest of the response body failed.
    pub(crate) fn cut_off(mut self, failure: &ApiError) {
        let cause = failure.cause();
        tracing::error!(request_id = &*self.request_id, cause, "a response was cut off");
        self.outcome = Some((failure.status().as_u16(), "response cut off"));
    }
}

impl Drop for StreamLog {
    fn drop(&mut self) {
        let entry = AccessEntry {
            request_id: &self.request_id,
            method: &self.method,
            route: &self.route,
            client: self.client,
            user_id: self.user_id,
            duration: self.duration,
            span: &self.span,
        };
        let disconnected = if self.is_live { self.status.as_u16() } else { CLIENT_CLOSED_REQUEST };
        let (status, message) = self.outcome.unwrap_or((disconnected, "client disconnected"));
        entry.record(self.api.metrics(), status, message);
    }
}

/// A finished request, to be logged and counted.
struct AccessEntry<'a> {
    request_id: &'a str,
    method: &'a Method,
    route: &'a str,
    client: Option<IpAddr>,
    user_id: Option<UserId>,
    duration: Duration,
    span: &'a Span,
}

impl AccessEntry<'_> {
    fn record(self, metrics: &Metrics, status: u16, message: &str) {
        let Self { request_id, method, route, client, user_id, duration, span } = self;
        metrics.record_request(method, route, status, duration);
        if !span.is_disabled() {
            span.record("otel.name", format!("{} {route}", method_label(method)));
            span.record("http.route", route);
            span.record("http.response.status_code", status);
            if status >= 500 {
                span.record("otel.status_code", "ERROR");
            }
        }
        tracing::info!(
            target: ACCESS,
            request_id,
            method = method_label(method),
            route,
            status,
            // Whole microseconds: a float's noise beyond them is no measurement.
            duration_ms = (duration.as_secs_f64() * 1e6).round() / 1e3,
            client_ip = client.map(display),
            user_id = user_id.map(display),
            "{message}"
        );
    }
}
