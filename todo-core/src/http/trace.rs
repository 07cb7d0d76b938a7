//! The span of a request, in the client's trace (W3C Trace Context) with the feature `otlp`. The
//! exporter is the program's.

use http::{HeaderMap, Method};
#[cfg(feature = "otlp")]
use opentelemetry::propagation::{Extractor, TextMapPropagator};
#[cfg(feature = "otlp")]
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty};
#[cfg(feature = "otlp")]
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::http::metrics::method_label;

/// The target of the request span, which is exported as a trace and not logged.
pub const TRACE_TARGET: &str = "todo_core::trace";

/// A server span by OpenTelemetry's conventions for HTTP; disabled if there is no exporter.
pub(crate) fn span(method: &Method, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TRACE_TARGET,
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        http.request.method = method_label(method),
        http.route = Empty,
        http.response.status_code = Empty,
    );
    #[cfg(feature = "otlp")]
    continue_trace(&span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = headers;
    span
}

/// Makes the span part of the trace in the request's headers, if there is one.
#[cfg(feature = "otlp")]
fn continue_trace(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    // Fails only without an OpenTelemetry layer, where it has no effect anyway.
    let _ = span.set_parent(context);
}

#[cfg(feature = "otlp")]
struct Headers<'h>(&'h HeaderMap);

#[cfg(feature = "otlp")]
impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
