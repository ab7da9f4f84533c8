//! Traces over OTLP: one from the request through the command and its append to the read models that took it.
//!
//! Nothing of it runs unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set: then spans of [`TRACE_TARGET`] are recorded, and
//! [`board::Board`] remembers for a minute which trace an event belongs to, so that the read models' part of it, which
//! happens after the answer and in other tasks, is told in the same trace. What another process's runner takes is not.

pub mod board;
mod collector;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use calos_commands::in_request::TRACE_TARGET;

use board::Board;
use collector::Collector;

/// How long one batch may take to be handed over.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// How long the last batch may take when the server stops.
const STOP_MAX: Duration = Duration::from_secs(3);

static CURRENT: OnceLock<Arc<Telemetry>> = OnceLock::new();

/// Why no traces can be told.
#[derive(Debug, thiserror::Error)]
pub enum NoTelemetry {
    /// The client cannot be built.
    #[error("no client for OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Client(#[from] reqwest::Error),
    /// The address is wrong.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Where traces go.
pub struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    board: Arc<Board>,
}

impl Telemetry {
    /// Begins to tell traces to `<endpoint>/v1/traces`, from this runtime. Sampling, headers, resource attributes and the
    /// size of batches follow the other `OTEL_` variables of the environment.
    ///
    /// # Errors
    /// [`NoTelemetry`].
    pub fn start(endpoint: &str, runtime: Handle) -> Result<Arc<Self>, NoTelemetry> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(runtime, EXPORT_MAX)?)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_MAX)
            .build()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("calos");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("calos");
        let board = Arc::new(Board::new(tracer.clone()));
        let telemetry = Arc::new(Self { provider, tracer, board });
        Ok(Arc::clone(CURRENT.get_or_init(|| telemetry)))
    }

    /// What records the spans.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TRACE_TARGET))
    }

    /// Who follows commands and events.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Hands over what is left. It blocks for up to three seconds.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(STOP_MAX) {
            tracing::warn!(%error, "the last traces were not handed over");
        }
    }
}

/// Where this process's traces go, when it tells any.
#[must_use]
pub fn current() -> Option<Arc<Telemetry>> {
    CURRENT.get().map(Arc::clone)
}

/// Goes on with the trace that a request's `traceparent` names, if it names one.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if parent.span().span_context().is_valid()
        && let Err(error) = span.set_parent(parent)
    {
        tracing::debug!(?error, "a trace could not be gone on with");
    }
}
