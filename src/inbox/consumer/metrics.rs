//! The metrics of consumers, for a registry of the application's own.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabel {
    consumer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    consumer: String,
    topic: String,
    partition: i32,
}

/// The metrics of all consumers of one process. A clone is the same metrics.
///
/// ```
/// use outboxd::inbox::consumer::{Consumer, Metrics};
/// use prometheus_client::registry::Registry;
///
/// # fn consumers(pool: sqlx::PgPool) {
/// let mut registry = Registry::default();
/// let metrics = Metrics::default();
/// metrics.register(&mut registry);
/// let billing = Consumer::new("billing", pool.clone()).metrics(&metrics);
/// let mailing = Consumer::new("mailing", pool).metrics(&metrics);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Metrics {
    processed: Family<ConsumerLabel, Counter>,
    duplicates: Family<ConsumerLabel, Counter>,
    expired: Family<ConsumerLabel, Counter>,
    skipped: Family<ConsumerLabel, Counter>,
    retried: Family<ConsumerLabel, Counter>,
    dead_lettered: Family<ConsumerLabel, Counter>,
    lag: Family<PartitionLabel, Gauge>,
    created_to_processed: Family<ConsumerLabel, Histogram>,
}

/// From half a millisecond to about a quarter of an hour.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 22))
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            processed: Family::default(),
            duplicates: Family::default(),
            expired: Family::default(),
            skipped: Family::default(),
            retried: Family::default(),
            dead_lettered: Family::default(),
            lag: Family::default(),
            created_to_processed: Family::new_with_constructor(latency),
        }
    }
}

impl Metrics {
    /// Shows the metrics in `registry`, their names with `outboxd_inbox_` in front.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("outboxd_inbox");
        macro_rules! register {
            ($field:ident, $name:literal, $help:literal) => {
                registry.register($name, $help, self.$field.clone());
            };
        }
        register!(
            processed,
            "processed",
            "Events whose effect was committed by this process"
        );
        register!(
            duplicates,
            "duplicates",
            "Events dropped because they took effect before"
        );
        register!(
            expired,
            "expired",
            "Events older than anything remembered, which did not take effect"
        );
        register!(
            skipped,
            "skipped",
            "Events of types without a handler, and those sent back for another consumer"
        );
        register!(
            retried,
            "retried",
            "Failures of a handler that were followed by another attempt"
        );
        register!(
            dead_lettered,
            "dead_lettered",
            "Messages written to the dead-letter topic"
        );
        register!(
            lag,
            "lag_messages",
            "Messages of a partition that are not done, by the last report of Kafka"
        );
        register!(
            created_to_processed,
            "created_to_processed_seconds",
            "From an event's creation to the commit of its effect"
        );
    }

    /// The handles of one consumer: updating them takes no lock.
    pub(super) fn consumer(&self, name: &str) -> ConsumerMetrics {
        let label = ConsumerLabel {
            consumer: name.to_owned(),
        };
        ConsumerMetrics {
            consumer: name.into(),
            processed: self.processed.get_or_create_owned(&label),
            duplicates: self.duplicates.get_or_create_owned(&label),
            expired: self.expired.get_or_create_owned(&label),
            skipped: self.skipped.get_or_create_owned(&label),
            retried: self.retried.get_or_create_owned(&label),
            dead_lettered: self.dead_lettered.get_or_create_owned(&label),
            created_to_processed: self.created_to_processed.get_or_create_owned(&label),
            lag: self.lag.clone(),
        }
    }
}

#[cfg(all(test, feature = "relay"))]
impl Metrics {
    /// With a value of each.
    pub(crate) fn sampled() -> Metrics {
        let metrics = Metrics::default();
        metrics.consumer("c").set_lag("t", 0, 0);
        metrics
    }
}

/// The metrics of one consumer.
#[derive(Debug, Clone)]
pub(super) struct ConsumerMetrics {
    consumer: Arc<str>,
    pub processed: Counter,
    pub duplicates: Counter,
    pub expired: Counter,
    pub skipped: Counter,
    pub retried: Counter,
    pub dead_lettered: Counter,
    created_to_processed: Histogram,
    lag: Family<PartitionLabel, Gauge>,
}

impl ConsumerMetrics {
    /// Notes one event whose effect is committed.
    pub fn took_effect(&self, created_at: Option<SystemTime>) {
        self.processed.inc();
        // A clock that runs ahead is no latency.
        let age = created_at.and_then(|created| SystemTime::now().duration_since(created).ok());
        if let Some(age) = age {
            self.created_to_processed.observe(age.as_secs_f64());
        }
    }

    pub fn set_lag(&self, topic: &str, partition: i32, messages: i64) {
        self.lag
            .get_or_create_owned(&self.label(topic, partition))
            .set(messages);
    }

    /// The partition is another's: its lag is no more ours to show.
    pub fn forget_lag(&self, topic: &str, partition: i32) {
        self.lag.remove(&self.label(topic, partition));
    }

    fn label(&self, topic: &str, partition: i32) -> PartitionLabel {
        PartitionLabel {
            consumer: self.consumer.to_string(),
            topic: topic.to_owned(),
            partition,
        }
    }
}
