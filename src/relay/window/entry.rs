//! What goes into a window, and the words it is spoken to in.

use std::time::{Duration, Instant};

use opentelemetry::trace::SpanContext;

use crate::envelope::Message;
use crate::event::EventRef;

/// A topic as the lane numbers them, in order of first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

/// One row, read and encoded.
#[derive(Debug)]
pub struct Outgoing {
    pub event: EventRef,
    /// For whoever has to decide about it.
    pub event_type: Option<Box<str>>,
    pub topic: TopicId,
    pub message: Message,
    /// Why it cannot be sent at all, if so; the message then has only its key.
    pub unsendable: Option<Box<str>>,
    /// That is because Postgres cannot read it: nothing is known of it, not even its key.
    pub is_unreadable: bool,
    /// Kafka's timestamp, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// When the row was written, for the latency figures, in microseconds since 1970.
    pub created_at_us: i64,
    pub first_seen: Instant,
    /// The span that wrote the row, if one of ours is to be linked to it.
    pub trace: Option<Box<SpanContext>>,
}

impl Outgoing {
    /// Stands for a row that nobody is to look at.
    pub fn unread(event: EventRef) -> Outgoing {
        Outgoing {
            event,
            event_type: None,
            topic: TopicId(0),
            message: Message::keyless(event.id),
            unsendable: None,
            is_unreadable: false,
            timestamp_ms: None,
            created_at_us: 0,
            first_seen: Instant::now(),
            trace: None,
        }
    }
}

/// Names one entry of the window for as long as it is in it; it goes out with the message as its
/// delivery opaque. A ticket of an entry that has left is recognised and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// How a message is to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// In a message set with others.
    Batched,
    /// In a message set of its own, because it may be what made a set fail.
    Alone,
}

/// What the producer says of a message that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The broker or the client refused its message set: it may be the cause. It goes out alone, after
    /// a back-off.
    Refused,
    /// It was never the cause: its producer died or was purged. It goes out again as it was.
    Collateral,
    /// Its topic does not exist (any more): it waits for the topic.
    TopicMissing,
    /// We may not write to its topic: it waits until one of the topic's rows is taken.
    TopicRefused,
}

/// How a key stands after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How often the row failed that went alone.
    pub attempts: u32,
    /// Since the first of them.
    pub failing_for: Duration,
    /// How long the key waits now.
    pub wait: Duration,
}

/// What became of a row that was handed to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    New,
    /// It is in the window already.
    Known,
    /// It was acknowledged before: mark it again.
    Acknowledged,
    /// It is set aside.
    Parked,
    /// Its key or topic is held: it stays outside, and is read again when the hold ends.
    Held,
}

/// The bounds of a window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
}

/// How long a failing key waits between two attempts: doubling from `first` to `most`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// The wait after the given number of failures, without jitter.
    pub fn after(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(16);
        self.first.saturating_mul(factor).min(self.most)
    }
}

/// Counters for health and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Read and not acknowledged.
    pub rows: usize,
    pub bytes: usize,
    /// Handed to the producer and not reported.
    pub in_flight: usize,
    /// Acknowledged and not marked.
    pub unmarked: usize,
    /// Keys that are stopped or probing.
    pub held_keys: usize,
}
