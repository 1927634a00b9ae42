//! The row of an outbox as the relay sees it: borrowed from the database's answer, never copied.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

/// What identifies an event everywhere in the relay: its place in the table and its own id.
///
/// Never the place alone: after a crash of Postgres the sequence can fall back, and an `id` that was
/// published is then drawn again for another event (the `event_id` differs).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventRef {
    /// The identity column: the order of publication.
    pub id: i64,
    /// The event's own id, the same in every copy that goes out.
    pub event_id: Uuid,
}

impl fmt::Debug for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.event_id)
    }
}

/// One row, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Event<'r> {
    pub id: i64,
    pub event_id: Uuid,
    pub aggregate_type: &'r str,
    pub aggregate_id: &'r str,
    pub event_type: &'r str,
    pub event_version: &'r str,
    pub payload: Payload<'r>,
    pub correlation_id: Option<&'r str>,
    pub causation_id: Option<&'r str>,
    pub traceparent: Option<&'r str>,
    pub tracestate: Option<&'r str>,
    /// A flat JSON object of strings, as text.
    pub headers: Option<&'r str>,
    /// Overrides the outbox's topic.
    pub topic: Option<&'r str>,
    /// Overrides the Kafka key, which is else the aggregate id.
    pub partition_key: Option<&'r str>,
    pub created_at: CreatedAt,
}

impl Event<'_> {
    /// What places the event in its parent table, for marks and logs.
    pub fn reference(&self) -> EventRef {
        EventRef {
            id: self.id,
            event_id: self.event_id,
        }
    }

    /// The Kafka key.
    pub fn key(&self) -> &str {
        self.partition_key.unwrap_or(self.aggregate_id)
    }
}

/// What the event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'r> {
    /// JSON text exactly as the application wrote it.
    Json(&'r [u8]),
    /// Anything else: Avro, Protobuf, an image.
    Bytes(&'r [u8]),
    /// Nothing: the key's deletion on a compacted topic.
    Tombstone,
}

/// The instant of the row's insert in microseconds since 1970-01-01T00:00:00Z, as Postgres stores it:
/// it can lie outside what other types can hold, so it is turned into them only where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CreatedAt(i64);

/// Postgres counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl CreatedAt {
    /// From the wire's binary form: microseconds since 2000-01-01T00:00:00Z, with the two ends of the
    /// range standing for plus and minus infinity.
    pub fn from_postgres_micros(micros: i64) -> CreatedAt {
        CreatedAt(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn unix_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded down: Kafka's unit.
    pub fn unix_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The instant, or nothing when it lies outside the years -9999 to 9999.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.0).ok()
    }
}
