//! Traces for OpenTelemetry: one server span a request, named by the route's pattern, in the trace
//! that the client began (W3C Trace Context), sent by OTLP/HTTP. How it is sent is for the standard's
//! own variables (`OTEL_*`), which the exporter reads itself; without `OTEL_EXPORTER_OTLP_ENDPOINT`
//! nothing is.

use std::{env, time::Duration};

use http::HeaderMap;
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::http::TRACE;

/// How long the way out may take for spans that were not sent yet.
const FLUSH: Duration = Duration::from_secs(3);

/// What sends the spans; it is stopped, and the last are sent, when this is dropped.
pub(crate) struct Exporting(SdkTracerProvider);

impl Exporting {
    /// The exporter, if the environment names an endpoint. Not to be called inside a runtime: the
    /// exporter has a thread of its own.
    ///
    /// # Errors
    /// What is wrong with the endpoint. The exporter's own error repeats it, and a password in it.
    pub(crate) fn start() -> Result<Option<Self>, &'static str> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_set("OTEL_EXPORTER_OTLP_ENDPOINT") {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().build();
        let exporter = exporter.map_err(|_| {
            "the exporter of traces cannot start: OTEL_EXPORTER_OTLP_ENDPOINT and its like must be \
             http:// addresses"
        })?;
        let mut resource = Resource::builder();
        if !is_set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("todo-server");
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Some(Self(provider)))
    }

    /// Turns requests into spans, and nothing else that is traced.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("todo"))
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TRACE))
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Makes the span part of the trace that the request's headers name, if they name one.
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    // It fails where no layer is there to hear of it, and then it does not matter.
    let _ = span.set_parent(context);
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
