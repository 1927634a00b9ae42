//! An exporter whose failures are one outage.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::outage::Outage;

#[derive(Debug)]
pub(super) struct Noted<E> {
    exporter: E,
    outage: Arc<Outage>,
}

impl<E: fmt::Debug> Noted<E> {
    pub(super) fn new(exporter: E, outage: &Arc<Outage>) -> Noted<E> {
        Noted {
            exporter,
            outage: Arc::clone(outage),
        }
    }

    async fn note(&self, exported: impl Future<Output = OTelSdkResult>) -> OTelSdkResult {
        let exported = exported.await;
        match &exported {
            Ok(()) => self.outage.note_up(),
            Err(error) => self.outage.note_down(&error.to_string()),
        }
        exported
    }
}

impl<E: SpanExporter> SpanExporter for Noted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.note(self.exporter.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter + fmt::Debug> PushMetricExporter for Noted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.note(self.exporter.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
