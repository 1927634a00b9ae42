//! Metrics that are scraped, and sent as well.

use std::sync::atomic::AtomicU64;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram as SentHistogram, Meter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// What a metric is called where it is sent. A collector that makes it Prometheus' again gives it the name that it
/// is scraped by.
#[derive(Debug)]
pub struct Instrument {
    name: String,
    help: &'static str,
    unit: &'static str,
    outbox: [KeyValue; 1],
}

impl Instrument {
    /// `name` as it is scraped, without the prefix.
    pub fn new(name: &'static str, help: &'static str, outbox: &str) -> Instrument {
        let (name, unit) = match name.strip_suffix("_seconds") {
            Some(name) => (name, "s"),
            None => (name, ""),
        };
        Instrument {
            name: format!("outboxd.{name}"),
            help,
            unit,
            outbox: [KeyValue::new("outbox", outbox.to_owned())],
        }
    }
}

/// A metric of one outbox whose value is asked for when it is sent.
pub trait Export {
    fn export(&self, meter: &Meter, instrument: Instrument);
}

impl Export for Counter {
    fn export(&self, meter: &Meter, instrument: Instrument) {
        let (counter, outbox) = (self.clone(), instrument.outbox);
        meter
            .u64_observable_counter(instrument.name)
            .with_description(instrument.help)
            .with_callback(move |observer| observer.observe(counter.get(), &outbox))
            .build();
    }
}

impl Export for Gauge {
    fn export(&self, meter: &Meter, instrument: Instrument) {
        let (gauge, outbox) = (self.clone(), instrument.outbox);
        meter
            .i64_observable_gauge(instrument.name)
            .with_description(instrument.help)
            .with_callback(move |observer| observer.observe(gauge.get(), &outbox))
            .build();
    }
}

impl Export for Gauge<f64, AtomicU64> {
    fn export(&self, meter: &Meter, instrument: Instrument) {
        let (gauge, outbox) = (self.clone(), instrument.outbox);
        meter
            .f64_observable_gauge(instrument.name)
            .with_description(instrument.help)
            .with_unit(instrument.unit)
            .with_callback(move |observer| observer.observe(gauge.get(), &outbox))
            .build();
    }
}

/// Durations of one outbox. What was observed cannot be asked for later, so each is noted in both forms.
#[derive(Debug, Clone)]
pub struct Timing {
    scraped: Histogram,
    sent: Option<(SentHistogram<f64>, [KeyValue; 1])>,
}

impl Timing {
    /// `bounds` are those of the histogram that is scraped.
    pub fn of(scraped: Histogram, sent: Option<(&Meter, Instrument)>, bounds: Vec<f64>) -> Timing {
        let sent = sent.map(|(meter, instrument)| {
            let histogram = meter
                .f64_histogram(instrument.name)
                .with_description(instrument.help)
                .with_unit(instrument.unit)
                .with_boundaries(bounds)
                .build();
            (histogram, instrument.outbox)
        });
        Timing { scraped, sent }
    }

    pub fn observe(&self, seconds: f64) {
        self.scraped.observe(seconds);
        if let Some((sent, outbox)) = &self.sent {
            sent.record(seconds, outbox);
        }
    }
}
