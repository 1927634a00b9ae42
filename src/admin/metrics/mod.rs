//! Every metric, with its name, in one place. Units are in the names; ids are never labels.

mod kinds;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::Meter;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::db::bypasses::Bypass;
use crate::db::pauses::Pause;
use crate::relay::status::Progress;
use crate::relay::window::Outgoing;

use kinds::{Latency, PerOutbox, Seconds, Took};

/// Makes of a table of metrics those of the process, and of each of its outboxes.
macro_rules! metrics {
    ($($visibility:vis $field:ident: $kind:ty = $name:literal, $help:literal;)*) => {
        /// The metrics of one process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// Nothing: they are not sent anywhere.
            meter: Option<Meter>,
            $($field: PerOutbox<$kind>,)*
        }

        impl Metrics {
            /// With a meter they are sent as well as scraped.
            pub fn new(meter: Option<Meter>) -> Metrics {
                let mut registry = Registry::with_prefix("outboxd");
                Metrics {
                    $($field: PerOutbox::register(&mut registry, $name, $help),)*
                    registry,
                    meter,
                }
            }

            /// The handles of one outbox, looked up once: updating them takes no lock.
            pub fn outbox(&self, name: &str, progress: &Arc<Progress>) -> OutboxMetrics {
                let meter = self.meter.as_ref();
                OutboxMetrics {
                    $($field: self.$field.of(name, meter),)*
                    progress: Arc::clone(progress),
                }
            }
        }

        /// The metrics of one outbox.
        #[derive(Debug, Clone)]
        pub struct OutboxMetrics {
            $($visibility $field: $kind,)*
            progress: Arc<Progress>,
        }
    };
}

// Field, kind, name and meaning; docs/metrics.md says the same.
metrics! {
    pub published: Counter = "published", "Events acknowledged by Kafka";
    pub marked: Counter = "marked", "Events marked sent, or deleted";
    pub pending: Gauge = "pending_rows", "Committed rows not acknowledged, counted up to 1,000,000 unread";
    oldest_pending_age: Seconds = "oldest_pending_age_seconds",
        "Age of the oldest row not acknowledged, 0 if there is none";
    pub owner: Gauge = "owner", "1 if this process owns the outbox";
    created_to_acknowledged: Latency = "created_to_acknowledged_seconds",
        "From a row's created_at to its acknowledgement";
    seen_to_acknowledged: Latency = "first_seen_to_acknowledged_seconds",
        "From the read of a row to its acknowledgement: what producing takes";
    pub late_rows: Counter = "late_rows", "Rows that committed behind the position";
    pub swept_rows: Counter = "swept_rows", "Rows that only the sweep found";
    gaps: Gauge = "id_gaps", "Ranges of ids that may still bring late rows";
    window_rows: Gauge = "window_rows", "Rows read and not acknowledged";
    window_bytes: Gauge = "window_bytes", "Bytes of the rows read and not acknowledged";
    in_flight: Gauge = "in_flight_messages", "Messages handed to Kafka and not reported";
    unmarked: Gauge = "unmarked_rows", "Rows acknowledged and not marked";
    held_keys: Gauge = "held_keys", "Order keys that wait behind a row that failed or is parked";
    held_rows: Gauge = "held_rows", "Rows that wait outside of the window for their key or topic";
    held_topics: Gauge = "held_topics", "Topics that cannot be used, or are paused";
    paused: Gauge = "paused", "1 if somebody has paused the outbox";
    paused_topics: Gauge = "paused_topics", "Topics that somebody has paused by themselves";
    bypassed_topics: Gauge = "bypassed_topics",
        "Topics whose refused rows somebody has parked until Kafka takes one";
    pub refused: Counter = "refused", "Messages that Kafka or its client refused";
    pub parked: Counter = "parked", "Rows set aside";
    parked_rows: Gauge = "parked_rows", "Rows that are set aside";
    pub copied: Counter = "copied", "Parked rows copied to the topic for dead letters";
    pub producer_rebuilds: Counter = "producer_rebuilds", "Kafka producers made anew";
    pub poll_seconds: Took = "poll_duration_seconds", "Duration of one poll, all its statements";
    pub mark_seconds: Took = "mark_duration_seconds", "Duration of one marking statement";
    pub expired: Counter = "expired_rows", "Sent rows deleted after their retention";
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(None)
    }
}

impl Metrics {
    /// The text form of OpenMetrics, which Prometheus reads.
    ///
    /// # Errors
    /// Never with a String; the signature is the encoder's.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl OutboxMetrics {
    /// Notes one acknowledged row.
    pub fn acknowledged(&self, row: &Outgoing, now: Instant, now_us: i64) {
        self.published.inc();
        let since_created = now_us.saturating_sub(row.created_at_us).max(0);
        self.created_to_acknowledged
            .observe(since_created as f64 / 1e6);
        self.seen_to_acknowledged
            .observe(now.duration_since(row.first_seen).as_secs_f64());
    }

    /// `created_at`: microseconds since 1970 of the oldest pending row.
    pub fn set_oldest_pending(&self, created_at: Option<i64>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let age = created_at.map_or(0.0, |created_at| (now - created_at as f64 / 1e6).max(0.0));
        self.oldest_pending_age.set(age);
    }

    /// The age of the oldest pending row in seconds, if there is one.
    pub fn oldest_pending_age(&self) -> Option<f64> {
        Some(self.oldest_pending_age.get()).filter(|age| *age > 0.0)
    }

    /// What people have decided about the outbox and its topics.
    pub fn set_decisions(&self, pauses: &[Pause], bypasses: &[Bypass]) {
        let topics = pauses.iter().filter(|pause| pause.topic.is_some()).count();
        self.paused.set((pauses.len() > topics).into());
        self.paused_topics.set(number(topics));
        self.bypassed_topics.set(number(bypasses.len()));
    }

    /// The outbox is not ours any more: what of it is pending or paused is for its next owner to say.
    pub fn disowned(&self) {
        self.owner.set(0);
        self.pending.set(0);
        self.set_oldest_pending(None);
        self.set_decisions(&[], &[]);
    }

    /// Brings the gauges of the window up to date, for a scrape.
    pub fn refresh(&self) {
        let fill = self.progress.fill();
        self.window_rows.set(number(fill.rows));
        self.window_bytes.set(number(fill.bytes));
        self.in_flight.set(number(fill.in_flight));
        self.unmarked.set(number(fill.unmarked));
        let held = self.progress.held();
        self.held_keys
            .set(number(fill.held_keys + held.blocked_keys));
        self.held_rows
            .set(i64::try_from(held.rows).unwrap_or(i64::MAX));
        self.held_topics.set(number(held.topics));
        self.parked_rows.set(number(held.parked));
        self.gaps.set(number(self.progress.gaps()));
    }
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
