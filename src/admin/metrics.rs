//! Every metric, with its name, in one place. Units are in the names; ids are never labels.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::Meter;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::db::bypasses::Bypass;
use crate::db::pauses::Pause;
use crate::otlp::{Export, Instrument, Timing};
use crate::relay::status::Progress;
use crate::relay::window::Outgoing;

/// The label that every metric of an outbox has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboxLabel {
    outbox: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Nothing: they are not sent anywhere.
    meter: Option<Meter>,
    published: PerOutbox<Counter>,
    marked: PerOutbox<Counter>,
    refused: PerOutbox<Counter>,
    parked: PerOutbox<Counter>,
    copied: PerOutbox<Counter>,
    parked_rows: PerOutbox<Gauge>,
    late_rows: PerOutbox<Counter>,
    swept_rows: PerOutbox<Counter>,
    expired: PerOutbox<Counter>,
    producer_rebuilds: PerOutbox<Counter>,
    owner: PerOutbox<Gauge>,
    pending: PerOutbox<Gauge>,
    oldest_pending_age: PerOutbox<Seconds>,
    window_rows: PerOutbox<Gauge>,
    window_bytes: PerOutbox<Gauge>,
    in_flight: PerOutbox<Gauge>,
    unmarked: PerOutbox<Gauge>,
    held_keys: PerOutbox<Gauge>,
    held_rows: PerOutbox<Gauge>,
    held_topics: PerOutbox<Gauge>,
    paused: PerOutbox<Gauge>,
    paused_topics: PerOutbox<Gauge>,
    bypassed_topics: PerOutbox<Gauge>,
    gaps: PerOutbox<Gauge>,
    created_to_acknowledged: PerOutbox<Histogram>,
    seen_to_acknowledged: PerOutbox<Histogram>,
    poll: PerOutbox<Histogram>,
    mark: PerOutbox<Histogram>,
}

/// One metric, of every outbox.
#[derive(Debug)]
struct PerOutbox<M> {
    name: &'static str,
    help: &'static str,
    family: Family<OutboxLabel, M>,
}

impl<M: Export + Clone> PerOutbox<M> {
    fn of(&self, label: &OutboxLabel, meter: Option<&Meter>) -> M {
        let metric = self.family.get_or_create_owned(label);
        if let Some(meter) = meter {
            metric.export(meter, Instrument::new(self.name, self.help, &label.outbox));
        }
        metric
    }
}

impl PerOutbox<Histogram> {
    fn timing(&self, label: &OutboxLabel, meter: Option<&Meter>, bounds: Vec<f64>) -> Timing {
        let timing = Timing::new(self.family.get_or_create_owned(label));
        match meter {
            Some(meter) => {
                let instrument = Instrument::new(self.name, self.help, &label.outbox);
                timing.exported(meter, instrument, bounds)
            }
            None => timing,
        }
    }
}

/// From half a millisecond to about a quarter of an hour.
fn latencies() -> Vec<f64> {
    exponential_buckets(0.0005, 2.0, 22).collect()
}

/// From a tenth of a millisecond to about three seconds.
fn durations() -> Vec<f64> {
    exponential_buckets(0.0001, 2.0, 16).collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(None)
    }
}

impl Metrics {
    /// With a meter they are sent as well as scraped.
    pub fn new(meter: Option<Meter>) -> Metrics {
        let mut registry = Registry::with_prefix("outboxd");
        macro_rules! register {
            ($name:literal, $help:literal, $family:expr) => {{
                let family = $family;
                registry.register($name, $help, family.clone());
                PerOutbox {
                    name: $name,
                    help: $help,
                    family,
                }
            }};
        }
        let counter = Family::<OutboxLabel, Counter>::default;
        let gauge = Family::<OutboxLabel, Gauge>::default;
        let published = register!("published", "Events acknowledged by Kafka", counter());
        let marked = register!("marked", "Events marked sent, or deleted", counter());
        let refused = register!(
            "refused",
            "Messages that Kafka or its client refused",
            counter()
        );
        let parked = register!("parked", "Rows set aside", counter());
        let copied = register!(
            "copied",
            "Parked rows copied to the topic for dead letters",
            counter()
        );
        let parked_rows = register!("parked_rows", "Rows that are set aside", gauge());
        let late_rows = register!(
            "late_rows",
            "Rows that committed behind the position",
            counter()
        );
        let swept_rows = register!("swept_rows", "Rows that only the sweep found", counter());
        let expired = register!(
            "expired_rows",
            "Sent rows deleted after their retention",
            counter()
        );
        let producer_rebuilds =
            register!("producer_rebuilds", "Kafka producers made anew", counter());
        let owner = register!("owner", "1 if this process owns the outbox", gauge());
        let pending = register!(
            "pending_rows",
            "Committed rows not acknowledged, counted up to 1,000,000 unread",
            gauge()
        );
        let oldest_pending_age = register!(
            "oldest_pending_age_seconds",
            "Age of the oldest row not acknowledged, 0 if there is none",
            Family::<OutboxLabel, Seconds>::default()
        );
        let window_rows = register!("window_rows", "Rows read and not acknowledged", gauge());
        let window_bytes = register!(
            "window_bytes",
            "Bytes of the rows read and not acknowledged",
            gauge()
        );
        let in_flight = register!(
            "in_flight_messages",
            "Messages handed to Kafka and not reported",
            gauge()
        );
        let unmarked = register!("unmarked_rows", "Rows acknowledged and not marked", gauge());
        let held_keys = register!(
            "held_keys",
            "Order keys that wait behind a row that failed or is parked",
            gauge()
        );
        let held_rows = register!(
            "held_rows",
            "Rows that wait outside of the window for their key or topic",
            gauge()
        );
        let held_topics = register!(
            "held_topics",
            "Topics that cannot be used, or are paused",
            gauge()
        );
        let paused = register!("paused", "1 if somebody has paused the outbox", gauge());
        let paused_topics = register!(
            "paused_topics",
            "Topics that somebody has paused by themselves",
            gauge()
        );
        let bypassed_topics = register!(
            "bypassed_topics",
            "Topics whose refused rows somebody has parked until Kafka takes one",
            gauge()
        );
        let gaps = register!(
            "id_gaps",
            "Ranges of ids that may still bring late rows",
            gauge()
        );
        let created_to_acknowledged = register!(
            "created_to_acknowledged_seconds",
            "From a row's created_at to its acknowledgement",
            Family::<OutboxLabel, Histogram>::new_with_constructor(|| Histogram::new(latencies()))
        );
        let seen_to_acknowledged = register!(
            "first_seen_to_acknowledged_seconds",
            "From the read of a row to its acknowledgement: what producing takes",
            Family::<OutboxLabel, Histogram>::new_with_constructor(|| Histogram::new(latencies()))
        );
        let poll = register!(
            "poll_duration_seconds",
            "Duration of one poll, all its statements",
            Family::<OutboxLabel, Histogram>::new_with_constructor(|| Histogram::new(durations()))
        );
        let mark = register!(
            "mark_duration_seconds",
            "Duration of one marking statement",
            Family::<OutboxLabel, Histogram>::new_with_constructor(|| Histogram::new(durations()))
        );
        Metrics {
            registry,
            meter,
            published,
            marked,
            refused,
            parked,
            copied,
            parked_rows,
            late_rows,
            swept_rows,
            expired,
            producer_rebuilds,
            owner,
            pending,
            oldest_pending_age,
            window_rows,
            window_bytes,
            in_flight,
            unmarked,
            held_keys,
            held_rows,
            held_topics,
            paused,
            paused_topics,
            bypassed_topics,
            gaps,
            created_to_acknowledged,
            seen_to_acknowledged,
            poll,
            mark,
        }
    }
}

impl Metrics {
    /// The handles of one outbox, looked up once: updating them takes no lock.
    pub fn outbox(&self, name: &str, progress: &Arc<Progress>) -> OutboxMetrics {
        let label = OutboxLabel {
            outbox: name.to_owned(),
        };
        let meter = self.meter.as_ref();
        OutboxMetrics {
            published: self.published.of(&label, meter),
            marked: self.marked.of(&label, meter),
            refused: self.refused.of(&label, meter),
            parked: self.parked.of(&label, meter),
            copied: self.copied.of(&label, meter),
            parked_rows: self.parked_rows.of(&label, meter),
            late_rows: self.late_rows.of(&label, meter),
            swept_rows: self.swept_rows.of(&label, meter),
            expired: self.expired.of(&label, meter),
            producer_rebuilds: self.producer_rebuilds.of(&label, meter),
            owner: self.owner.of(&label, meter),
            pending: self.pending.of(&label, meter),
            oldest_pending_age: self.oldest_pending_age.of(&label, meter),
            window_rows: self.window_rows.of(&label, meter),
            window_bytes: self.window_bytes.of(&label, meter),
            in_flight: self.in_flight.of(&label, meter),
            unmarked: self.unmarked.of(&label, meter),
            held_keys: self.held_keys.of(&label, meter),
            held_rows: self.held_rows.of(&label, meter),
            held_topics: self.held_topics.of(&label, meter),
            paused: self.paused.of(&label, meter),
            paused_topics: self.paused_topics.of(&label, meter),
            bypassed_topics: self.bypassed_topics.of(&label, meter),
            gaps: self.gaps.of(&label, meter),
            created_to_acknowledged: self.created_to_acknowledged.timing(
                &label,
                meter,
                latencies(),
            ),
            seen_to_acknowledged: self.seen_to_acknowledged.timing(&label, meter, latencies()),
            poll_seconds: self.poll.timing(&label, meter, durations()),
            mark_seconds: self.mark.timing(&label, meter, durations()),
            progress: Arc::clone(progress),
        }
    }

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

/// The metrics of one outbox.
#[derive(Debug, Clone)]
pub struct OutboxMetrics {
    pub published: Counter,
    pub marked: Counter,
    pub refused: Counter,
    pub parked: Counter,
    pub copied: Counter,
    parked_rows: Gauge,
    pub late_rows: Counter,
    pub swept_rows: Counter,
    pub expired: Counter,
    pub producer_rebuilds: Counter,
    pub owner: Gauge,
    pub pending: Gauge,
    oldest_pending_age: Seconds,
    window_rows: Gauge,
    window_bytes: Gauge,
    in_flight: Gauge,
    unmarked: Gauge,
    held_keys: Gauge,
    held_rows: Gauge,
    held_topics: Gauge,
    paused: Gauge,
    paused_topics: Gauge,
    bypassed_topics: Gauge,
    gaps: Gauge,
    created_to_acknowledged: Timing,
    seen_to_acknowledged: Timing,
    pub poll_seconds: Timing,
    pub mark_seconds: Timing,
    progress: Arc<Progress>,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::inbox::consumer;

    const TABLES: &str = include_str!("../../docs/metrics.md");

    /// Name to kind and meaning, as they are scraped.
    fn scraped(text: &str) -> BTreeMap<String, (String, String)> {
        let mut helps = BTreeMap::new();
        let mut metrics = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => drop(helps.insert(name, help.trim_end_matches('.'))),
                ["#", "TYPE", name, kind] => {
                    let name_shown = match kind {
                        "counter" => format!("{name}_total"),
                        _ => name.to_owned(),
                    };
                    metrics.insert(name_shown, (kind.to_owned(), helps[name].to_owned()));
                }
                _ => {}
            }
        }
        metrics
    }

    /// The rows of the document's tables.
    fn documented() -> BTreeMap<String, (String, String)> {
        let rows = TABLES.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect());
        cells
            .map(|cells: Vec<&str>| {
                let name = cells[0].trim_matches('`').to_owned();
                (name, (cells[1].to_owned(), cells[2].to_owned()))
            })
            .collect()
    }

    #[test]
    fn the_document_has_every_metric_with_its_kind_and_meaning_and_no_other() {
        let metrics = Metrics::default();
        metrics.outbox("orders", &Arc::default());
        let mut text = metrics.encode().expect("text");
        let mut registry = Registry::default();
        consumer::Metrics::sampled().register(&mut registry);
        encode(&mut text, &registry).expect("text");
        let (scraped, documented) = (scraped(&text), documented());
        assert!(scraped.len() > 30, "{scraped:#?}");
        assert_eq!(scraped, documented);
    }
}
