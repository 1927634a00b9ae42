//! The kinds of metrics: how each is scraped, and sent.

use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

use opentelemetry::metrics::Meter;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::otlp::{Export, Instrument, Timing};

/// What one outbox has of a metric.
pub trait Kind: Sized {
    /// The part that is scraped.
    type Scraped: Debug + Clone + EncodeMetric + TypedMetric + Send + Sync + 'static;

    fn scraped() -> Self::Scraped;

    /// `sent`: where it is sent to as well, and as what.
    fn of(scraped: Self::Scraped, sent: Option<(&Meter, Instrument)>) -> Self;
}

/// One metric, of every outbox.
#[derive(Debug)]
pub struct PerOutbox<K: Kind> {
    name: &'static str,
    help: &'static str,
    family: Family<OutboxLabel, K::Scraped>,
}

/// The label that every metric of an outbox has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutboxLabel {
    outbox: String,
}

impl<K: Kind> PerOutbox<K> {
    pub fn register(registry: &mut Registry, name: &'static str, help: &'static str) -> Self {
        let family = Family::new_with_constructor(K::scraped as fn() -> K::Scraped);
        registry.register(name, help, family.clone());
        PerOutbox { name, help, family }
    }

    pub fn of(&self, outbox: &str, meter: Option<&Meter>) -> K {
        let scraped = self.family.get_or_create_owned(&OutboxLabel {
            outbox: outbox.to_owned(),
        });
        let sent = meter.map(|meter| (meter, Instrument::new(self.name, self.help, outbox)));
        K::of(scraped, sent)
    }
}

/// Counters and gauges are asked for their value when it is sent.
impl<M> Kind for M
where
    M: Export + Default + Debug + Clone + EncodeMetric + TypedMetric + Send + Sync + 'static,
{
    type Scraped = M;

    fn scraped() -> M {
        M::default()
    }

    fn of(scraped: M, sent: Option<(&Meter, Instrument)>) -> M {
        if let Some((meter, instrument)) = sent {
            scraped.export(meter, instrument);
        }
        scraped
    }
}

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// A histogram whose buckets double, from so many microseconds on.
#[derive(Debug, Clone)]
pub struct Doubling<const LEAST_US: u64, const BUCKETS: u16>(Timing);

/// What becomes of an event, from half a millisecond to 17 minutes.
pub type Latency = Doubling<500, 22>;

/// What a statement takes, from a tenth of a millisecond to 3 seconds.
pub type Took = Doubling<100, 16>;

impl<const LEAST_US: u64, const BUCKETS: u16> Doubling<LEAST_US, BUCKETS> {
    fn bounds() -> Vec<f64> {
        exponential_buckets(LEAST_US as f64 / 1e6, 2.0, BUCKETS).collect()
    }

    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl<const LEAST_US: u64, const BUCKETS: u16> Kind for Doubling<LEAST_US, BUCKETS> {
    type Scraped = Histogram;

    fn scraped() -> Histogram {
        Histogram::new(Self::bounds())
    }

    fn of(scraped: Histogram, sent: Option<(&Meter, Instrument)>) -> Self {
        Doubling(Timing::of(scraped, sent, Self::bounds()))
    }
}
