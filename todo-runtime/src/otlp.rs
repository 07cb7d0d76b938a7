//! OpenTelemetry traces: one server span per request, named by the route's pattern, in the client's
//! trace (W3C Trace Context), exported by OTLP/HTTP. The exporter reads the standard `OTEL_*`
//! variables itself; without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing is exported.

use std::{env, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use todo_core::http::TRACE_TARGET;
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// Timeout for sending the remaining spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The span exporter. Dropping it sends the remaining spans and stops it.
pub(crate) struct TraceExporter(SdkTracerProvider);

impl TraceExporter {
    /// Starts the exporter, if the environment sets an endpoint. Must not be called inside a
    /// runtime: the exporter has its own thread.
    ///
    /// # Errors
    /// An invalid endpoint. The exporter's own error is not used, since it contains the endpoint,
    /// which may hold a password.
    pub(crate) fn start() -> Result<Option<Self>, &'static str> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_set("OTEL_EXPORTER_OTLP_ENDPOINT") {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().build();
        let exporter = exporter.map_err(|_| {
            "cannot start the trace exporter: OTEL_EXPORTER_OTLP_ENDPOINT and similar variables must \
             be http:// addresses"
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

    /// The layer that exports request spans, and no other spans.
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
            .with_filter(filter_fn(|metadata| metadata.target() == TRACE_TARGET))
    }
}

impl Drop for TraceExporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "cannot send the remaining traces");
        }
    }
}
