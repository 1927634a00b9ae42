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
    /// The event's own id if it is a UUID, else 16 bytes that the database makes of it.
    pub event_id: Uuid,
}

impl fmt::Debug for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.event_id)
    }
}

/// The event's own id, the same in every copy that goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventId<'r> {
    Uuid(Uuid),
    /// Of a table whose ids are anything else, as Postgres writes it.
    Text(&'r str),
}

impl fmt::Display for EventId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventId::Uuid(id) => id.as_hyphenated().fmt(f),
            EventId::Text(id) => f.write_str(id),
        }
    }
}

/// One row, borrowed. What is optional may be null, or the table has no column for it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'r> {
    pub reference: EventRef,
    pub event_id: EventId<'r>,
    pub aggregate_type: Option<&'r str>,
    pub aggregate_id: Option<&'r str>,
    pub event_type: Option<&'r str>,
    pub event_version: Option<&'r str>,
    pub payload: Payload<'r>,
    /// Of a payload that is not JSON.
    pub content_type: Option<&'r str>,
    pub correlation_id: Option<&'r str>,
    pub causation_id: Option<&'r str>,
    pub traceparent: Option<&'r str>,
    pub tracestate: Option<&'r str>,
    /// A flat JSON object of strings, as text.
    pub headers: Option<&'r str>,
    /// Overrides the outbox's topic.
    pub topic: Option<&'r str>,
    /// Overrides the outbox's key.
    pub partition_key: Option<&'r str>,
    pub created_at: Option<CreatedAt>,
    /// Of the columns that hold no field, those that the outbox's templates name, in their order.
    pub other_columns: &'r [Option<&'r str>],
    /// Why the row cannot become a message, found while it was read: then it has no payload.
    pub unsendable: Option<&'r str>,
}

impl Event<'_> {
    /// How long its texts and its payload are together.
    pub fn bytes(&self) -> usize {
        let texts = [
            self.aggregate_type,
            self.aggregate_id,
            self.event_type,
            self.event_version,
            self.content_type,
            self.correlation_id,
            self.causation_id,
            self.traceparent,
            self.tracestate,
            self.headers,
            self.topic,
            self.partition_key,
        ];
        let texts = texts.iter().chain(self.other_columns);
        let texts: usize = texts.flatten().map(|text| text.len()).sum();
        texts + self.payload.bytes()
    }
}

/// What the event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'r> {
    /// JSON text exactly as the application wrote it.
    Json(&'r [u8]),
    /// Text that is not to be taken as JSON.
    Text(&'r str),
    /// Anything else: Avro, Protobuf, an image.
    Bytes(&'r [u8]),
    /// Nothing: the key's deletion on a compacted topic.
    Tombstone,
}

impl Payload<'_> {
    fn bytes(self) -> usize {
        match self {
            Payload::Json(bytes) | Payload::Bytes(bytes) => bytes.len(),
            Payload::Text(text) => text.len(),
            Payload::Tombstone => 0,
        }
    }
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
