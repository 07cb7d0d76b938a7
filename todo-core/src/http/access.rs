//! The access log: one line a request, and one count. What is said of a request is from sets that are
//! fixed when the program is built, or was checked: never a path, a query, a header or a body.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use tracing::{Span, field::Empty};
use uuid::Uuid;

use crate::http::{
    Api, Peer,
    metrics::{Metrics, UNMATCHED, method_label},
    problem::Failure,
};

/// The target of the access log, at info.
const ACCESS: &str = "todo_core::access";
/// The target of the span that is for traces and not for the log.
pub(crate) const TRACE: &str = "todo_core::trace";
/// What nginx made the usual number for a client that did not wait for its answer.
const CLIENT_LEFT: u16 = 499;

/// A request that is being answered. Where a server has something of its own at a path, it takes
/// one of these from [`Api::asked`](super::Api::asked) and says how that ended with
/// [`Asked::answered`]; dropped before, it tells that the client left.
pub struct Asked<'a> {
    metrics: &'a Metrics,
    request_id: Arc<str>,
    method: Method,
    client: Option<Peer>,
    since: Instant,
    /// Never entered: what runs on in a task of its own would hold it open.
    span: Span,
    seen: Mutex<Seen<'a>>,
    status: Option<StatusCode>,
    /// Whether an [`Answering`] has taken over.
    goes_on: bool,
}

/// What becomes known of a request on its way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen<'a> {
    /// The pattern of the route, if one matched.
    pub(crate) route: Option<&'a str>,
    /// Of a token that was found good.
    pub(crate) user_id: Option<Uuid>,
    /// When the answer was ready, if that was before now.
    pub(crate) took: Option<Duration>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        metrics: &'a Metrics,
        request_id: String,
        method: Method,
        headers: &HeaderMap,
        client: Option<Peer>,
    ) -> Self {
        let span = span(&method, headers);
        let (since, seen) = (Instant::now(), Mutex::default());
        let request_id = request_id.into();
        Self {
            metrics,
            request_id,
            method,
            client,
            since,
            span,
            seen,
            status: None,
            goes_on: false,
        }
    }

    /// The id of the request, which the answer carries as `X-Request-Id`.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.request_id
    }

    /// Logs and counts the answer. `route` is a label of metrics: a pattern, never a path.
    pub fn answered(self, route: &'static str, status: StatusCode) {
        self.see(|seen| seen.route = Some(route));
        self.end(status);
    }

    pub(crate) fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Leaves the rest to the body of the answer, which is sent in pieces.
    pub(crate) fn goes_on(mut self, api: Api, status: StatusCode) -> Answering {
        self.goes_on = true;
        let seen = self.seen();
        Answering {
            api,
            request_id: Arc::clone(&self.request_id),
            method: self.method.clone(),
            route: seen.route.unwrap_or(UNMATCHED).to_owned(),
            client: self.client(),
            user_id: seen.user_id,
            took: seen.took.unwrap_or_else(|| self.elapsed()),
            span: self.span.clone(),
            status,
            outcome: None,
        }
    }

    pub(crate) fn see(&self, see: impl FnOnce(&mut Seen<'a>)) {
        see(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn seen(&self) -> Seen<'a> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client.map(|client| client.address)
    }

    /// Whether the client asks over https.
    pub(crate) fn is_https(&self) -> bool {
        self.client.is_some_and(|client| client.https)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A server span by OpenTelemetry's conventions for HTTP; disabled where nobody exports it.
fn span(method: &Method, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TRACE,
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        http.request.method = method_label(method),
        http.route = Empty,
        http.response.status_code = Empty,
    );
    #[cfg(feature = "otlp")]
    crate::otlp::continue_trace(&span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = headers;
    span
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.goes_on {
            return;
        }
        let seen = self.seen();
        let ending = Ending {
            request_id: &self.request_id,
            method: &self.method,
            route: seen.route.unwrap_or(UNMATCHED),
            client: self.client(),
            user_id: seen.user_id,
            took: seen.took.unwrap_or_else(|| self.elapsed()),
            span: &self.span,
        };
        match self.status {
            Some(status) => ending.tell(self.metrics, status.as_u16(), "answered"),
            None => ending.tell(self.metrics, CLIENT_LEFT, "client left"),
        }
    }
}

/// A request whose answer is sent in pieces: logged and counted when the last of them is taken.
/// Dropped before, it tells that the client left.
pub(crate) struct Answering {
    api: Api,
    request_id: Arc<str>,
    method: Method,
    route: String,
    client: Option<IpAddr>,
    user_id: Option<Uuid>,
    /// Until the first piece was there: the rest is as fast as the client reads.
    took: Duration,
    span: Span,
    status: StatusCode,
    outcome: Option<(u16, &'static str)>,
}

impl Answering {
    /// The client has taken all of it.
    pub(crate) fn end(mut self) {
        self.outcome = Some((self.status.as_u16(), "answered"));
    }

    /// The rest could not be had.
    pub(crate) fn cut_off(mut self, failure: &Failure) {
        let cause = failure.cause();
        tracing::error!(request_id = &*self.request_id, cause, "an answer was cut off");
        self.outcome = Some((failure.status().as_u16(), "cut off"));
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let ending = Ending {
            request_id: &self.request_id,
            method: &self.method,
            route: &self.route,
            client: self.client,
            user_id: self.user_id,
            took: self.took,
            span: &self.span,
        };
        let (status, message) = self.outcome.unwrap_or((CLIENT_LEFT, "client left"));
        ending.tell(self.api.counters(), status, message);
    }
}

/// What is logged and counted of a request that has ended.
struct Ending<'a> {
    request_id: &'a str,
    method: &'a Method,
    route: &'a str,
    client: Option<IpAddr>,
    user_id: Option<Uuid>,
    took: Duration,
    span: &'a Span,
}

impl Ending<'_> {
    fn tell(self, metrics: &Metrics, status: u16, message: &str) {
        let Self { request_id, method, route, client, user_id, took, span } = self;
        metrics.answered(method, route, status, took);
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
            duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            client_ip = client.map(display),
            user_id = user_id.map(display),
            "{message}"
        );
    }
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("request_id", &&*self.request_id).finish_non_exhaustive()
    }
}
