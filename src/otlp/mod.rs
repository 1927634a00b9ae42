//! Traces and metrics for a collector, by OTLP over gRPC.
//!
//! A collector that does not answer delays nothing: what cannot be sent is dropped, and the log says so once.

mod instruments;
mod noted;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use uuid::Uuid;

use crate::config::{OtlpConfig, OtlpEndpoint};
use crate::outage::Outage;

pub use instruments::{Export, Instrument, Timing};
use noted::Noted;
pub use spans::{Outcome, Relayed, Spans, trace_of};

/// Spans that wait to be sent, at most: about 1 kB each. More are dropped.
const MAX_SPANS: usize = 8_192;

/// How long spans wait for others.
const SPANS_WAIT: Duration = Duration::from_secs(1);

/// How long a collector may take for one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Metrics are sent when somebody asks for it ([`Otlp::send_metrics`]), not by the reader's own clock.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The way to a collector; to none if none is configured.
#[derive(Debug, Default)]
pub struct Otlp {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Otlp {
    /// Connects when there is something to send. `instance` tells this process from others. Needs the runtime
    /// that is to carry the connection.
    ///
    /// # Errors
    /// When a variable of OpenTelemetry (`OTEL_EXPORTER_OTLP_*`) does not say what it should.
    pub fn new(config: &OtlpConfig, instance: Uuid) -> Result<Otlp, ExporterBuildError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(Otlp::default());
        };
        let outage = Arc::new(Outage::new("otlp"));
        let resource = resource(instance);
        let traces = match config.traces {
            true => Some(traces(endpoint, &outage, resource.clone())?),
            false => None,
        };
        let metrics = match config.metrics {
            true => Some(metrics(endpoint, &outage, resource)?),
            false => None,
        };
        Ok(Otlp { traces, metrics })
    }

    /// For the spans of one outbox, if they are wanted.
    pub fn spans(&self, outbox: &str) -> Option<Spans> {
        let tracer = self.traces.as_ref()?.tracer("outboxd");
        Some(Spans::new(tracer, outbox))
    }

    /// For the metrics, if they are wanted.
    pub fn meter(&self) -> Option<Meter> {
        Some(self.metrics.as_ref()?.meter("outboxd"))
    }

    /// Sends the metrics as they are now. Whether that succeeds is noted where it is done.
    pub async fn send_metrics(&self) {
        if let Some(metrics) = self.metrics.clone() {
            let sent = tokio::task::spawn_blocking(move || drop(metrics.force_flush()));
            // It panics only with the exporter, and then there is nothing more to send.
            let _ = sent.await;
        }
    }

    /// Sends what is left. Takes some seconds at most.
    pub async fn close(&self) {
        let traces = self.traces.clone();
        let spans = tokio::task::spawn_blocking(move || {
            if let Some(traces) = traces {
                let _ = traces.shutdown_with_timeout(TIMEOUT);
            }
        });
        // As above.
        let ((), _) = tokio::join!(self.send_metrics(), spans);
    }
}

/// Who sends. The variables of OpenTelemetry are stronger.
fn resource(instance: Uuid) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("outboxd")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

fn traces(
    endpoint: &OtlpEndpoint,
    outage: &Arc<Outage>,
    resource: Resource,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = aimed(SpanExporter::builder().with_tonic(), endpoint).build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_SPANS)
        .with_max_export_batch_size(MAX_SPANS / 4)
        .with_scheduled_delay(SPANS_WAIT)
        .build();
    let processor = BatchSpanProcessor::builder(Noted::new(exporter, outage))
        .with_batch_config(batches)
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        .build())
}

fn metrics(
    endpoint: &OtlpEndpoint,
    outage: &Arc<Outage>,
    resource: Resource,
) -> Result<SdkMeterProvider, ExporterBuildError> {
    let exporter = aimed(MetricExporter::builder().with_tonic(), endpoint).build()?;
    let reader = PeriodicReader::builder(Noted::new(exporter, outage))
        .with_interval(NEVER)
        .build();
    Ok(SdkMeterProvider::builder()
        .with_reader(reader)
        .with_resource(resource)
        .build())
}

/// An exporter that sends to the endpoint.
fn aimed<B: WithExportConfig + WithTonicConfig>(exporter: B, endpoint: &OtlpEndpoint) -> B {
    let exporter = exporter
        .with_endpoint(endpoint.as_str())
        .with_timeout(TIMEOUT);
    match endpoint.is_encrypted() {
        true => exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
        false => exporter,
    }
}
