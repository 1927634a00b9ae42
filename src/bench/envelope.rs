//! `bench envelope`: what turning rows into messages costs one core, beside copying the finished messages.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::BenchError;
use super::report::{EnvelopeReport, EnvelopeRun};
use super::spread::Spread;
use crate::config::{Config, EnvelopeFormat, OutboxConfig, Sources};
use crate::envelope::{Encoder, Envelope, Message};
use crate::event::{CreatedAt, Event, EventId, EventRef, Payload};

/// What to encode, and how often to measure.
#[derive(Debug, Clone)]
pub struct EnvelopeOptions {
    /// The length of a payload in bytes.
    pub payload: usize,
    pub seed: u64,
    pub runs: usize,
}

/// Different rows, as many as one read of the relay brings by default: their messages are kept until all
/// are made, as the relay keeps a batch.
const ROWS: usize = 2000;

/// How long each format, and the copying beside it, is measured in a run.
const TIME: Duration = Duration::from_millis(500);

/// What the payload's frame takes: `{"pad":""}`.
const FRAME: usize = 10;

/// Measures every format in turn, `runs` times.
///
/// # Errors
/// When a row cannot be encoded, which none of these should be.
pub fn envelope(options: &EnvelopeOptions) -> Result<EnvelopeReport, BenchError> {
    let rows = draw(options);
    let events: Vec<Event<'_>> = rows.iter().map(Row::event).collect();
    let mut measured: Vec<(EnvelopeFormat, Vec<Measured>)> = EnvelopeFormat::ALL
        .iter()
        .map(|format| (*format, Vec::new()))
        .collect();
    for _ in 0..options.runs {
        for (format, runs) in &mut measured {
            runs.push(measure(&shipped(*format), &events)?);
        }
    }
    let spread =
        |runs: &[Measured], value: fn(&Measured) -> f64| Spread::of(runs.iter().map(value));
    Ok(EnvelopeReport {
        payload_bytes: options.payload,
        seed: options.seed,
        runs: options.runs,
        formats: measured
            .iter()
            .map(|(format, runs)| EnvelopeRun {
                envelope: format.as_str(),
                message_bytes: runs.first().map_or(0, |run| run.message_bytes),
                rows_per_second: spread(runs, |run| run.encoded),
                copies_per_second: spread(runs, |run| run.copied),
            })
            .collect(),
    })
}

struct Measured {
    /// Rows a second.
    encoded: f64,
    /// Messages a second.
    copied: f64,
    /// Of an average message: key, value and headers.
    message_bytes: usize,
}

fn measure(outbox: &OutboxConfig, events: &[Event<'_>]) -> Result<Measured, BenchError> {
    let envelope = Envelope::new(outbox);
    let mut encoder = Encoder::default();
    let mut encode = |event| {
        let message = encoder.encode(&envelope, black_box(event));
        message.map_err(|error| BenchError::Produce {
            reason: error.to_string(),
        })
    };
    let mut messages = Vec::with_capacity(events.len());
    for event in events {
        messages.push(encode(event)?);
    }
    // Each takes the place of an older one, as in the relay's window: freed all at once, the memory would
    // go back to the system and be asked for again.
    let encoded = rate(events.len(), || {
        for (place, event) in messages.iter_mut().zip(events) {
            *place = encode(event)?;
        }
        Ok(())
    })?;
    let mut copies = messages.clone();
    let copied = rate(messages.len(), || {
        for (place, message) in copies.iter_mut().zip(&messages) {
            *place = black_box(message).clone();
        }
        Ok(())
    })?;
    let bytes: usize = messages.iter().map(Message::size).sum();
    Ok(Measured {
        encoded,
        copied,
        message_bytes: bytes / messages.len().max(1),
    })
}

/// How many pieces of `work`, which has so many of them, are done in a second of a core's time: others on
/// the machine take nothing away from it but their share of the caches.
fn rate(
    pieces: usize,
    mut work: impl FnMut() -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    // Once for the caches.
    work()?;
    let started = core_time();
    let mut done = 0;
    let spent = loop {
        work()?;
        done += pieces;
        let spent = core_time().saturating_sub(started);
        if spent >= TIME {
            break spent;
        }
    };
    Ok(done as f64 / spent.as_secs_f64())
}

/// What this thread has used of a core.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The clock starts at zero and its nanoseconds are below a second.
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// An outbox with the shipped defaults.
fn shipped(format: EnvelopeFormat) -> OutboxConfig {
    let set = |(option, value): (&str, &str)| (option.to_owned(), value.to_owned());
    let config = Config::load(Sources {
        file: None,
        environment: std::iter::empty(),
        overrides: [
            ("postgres.url", "postgres://localhost"),
            ("kafka.bootstrap_servers", "localhost:9092"),
            ("outbox.default.envelope", format.as_str()),
        ]
        .map(set)
        .to_vec(),
    });
    let outbox = config.map(|mut config| config.outboxes.remove("default"));
    match outbox {
        Ok(Some(outbox)) => outbox,
        unexpected => unreachable!("the defaults are valid: {unexpected:?}"),
    }
}

/// A row as the documented insert writes it, with correlation and trace.
struct Row {
    event_id: Uuid,
    aggregate_id: String,
    correlation_id: String,
    traceparent: String,
    payload: String,
}

fn draw(options: &EnvelopeOptions) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let text = |random: &mut fastrand::Rng, length: usize| -> String {
        std::iter::repeat_with(|| random.alphanumeric())
            .take(length)
            .collect()
    };
    (0..ROWS)
        .map(|_| Row {
            event_id: Uuid::from_u128(random.u128(..)),
            aggregate_id: format!("ord_{}", text(&mut random, 8)),
            correlation_id: Uuid::from_u128(random.u128(..)).to_string(),
            traceparent: format!("00-{:032x}-{:016x}-01", random.u128(..), random.u64(..)),
            payload: format!(
                r#"{{"pad":"{}"}}"#,
                text(&mut random, options.payload.saturating_sub(FRAME))
            ),
        })
        .collect()
}

impl Row {
    fn event(&self) -> Event<'_> {
        Event {
            reference: EventRef {
                id: 1,
                event_id: self.event_id,
            },
            event_id: EventId::Uuid(self.event_id),
            aggregate_type: Some("order"),
            aggregate_id: Some(&self.aggregate_id),
            event_type: Some("order.placed"),
            event_version: Some("1"),
            payload: Payload::Json(self.payload.as_bytes()),
            content_type: None,
            correlation_id: Some(&self.correlation_id),
            causation_id: None,
            traceparent: Some(&self.traceparent),
            tracestate: None,
            headers: None,
            topic: None,
            partition_key: None,
            created_at: Some(CreatedAt::from_postgres_micros(835_000_000_123_456)),
            other_columns: &[],
            unsendable: None,
        }
    }
}
