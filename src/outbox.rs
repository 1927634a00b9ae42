//! The write side for Rust: appends events to the outbox inside the caller's transaction.
//!
//! ```no_run
//! # async fn place(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! use outboxd::outbox::{self, NewEvent};
//!
//! let mut tx = pool.begin().await?;
//! // The key's lock comes first, so that the order of ids is the order of the changes.
//! sqlx::query("update orders set state = 'placed' where id = $1")
//!     .bind("ord_1")
//!     .execute(&mut *tx)
//!     .await?;
//! let placed = NewEvent::json("order", "ord_1", "order.placed", &serde_json::json!({"total": 4995}))?;
//! outbox::append(&mut tx, placed).await?;
//! tx.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Inside a handler of the consumer runtime (`inbox::consumer`) the event at hand is handed on by
//! itself: its correlation id (its own id, if it has none), its id as the causation id, and its trace
//! context.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

/// An event to be appended. See the README for what each column means.
///
/// ```
/// use outboxd::outbox::NewEvent;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let placed = NewEvent::json("order", "ord_1", "order.placed", &serde_json::json!({"totalCents": 4995}))?
///     .version("2.0")
///     .correlation_id("checkout-42")
///     .header("tenant", "north")
///     .partition_key("customer_7"); // in order with all of this customer's
/// let scan = NewEvent::bytes("order", "ord_1", "order.scanned", [0xff, 0xd8]).topic("scans");
/// let gone = NewEvent::tombstone("order", "ord_1", "order.deleted");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct NewEvent {
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    event_version: String,
    payload: Payload,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    headers: BTreeMap<String, String>,
    topic: Option<String>,
    partition_key: Option<String>,
    event_id: Option<Uuid>,
}

#[derive(Debug, Clone)]
enum Payload {
    Json(String),
    Bytes(Vec<u8>),
    Tombstone,
}

impl NewEvent {
    /// An event whose payload is `data` as JSON.
    ///
    /// # Errors
    /// When `data` cannot be written as JSON.
    pub fn json(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<NewEvent, serde_json::Error> {
        let payload = Payload::Json(serde_json::to_string(data)?);
        let (aggregate_type, aggregate_id) = (aggregate_type.into(), aggregate_id.into());
        Ok(NewEvent::new(
            aggregate_type,
            aggregate_id,
            event_type.into(),
            payload,
        ))
    }

    /// An event whose payload is anything else: Avro, Protobuf, an image.
    pub fn bytes(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
        data: impl Into<Vec<u8>>,
    ) -> NewEvent {
        let payload = Payload::Bytes(data.into());
        NewEvent::new(
            aggregate_type.into(),
            aggregate_id.into(),
            event_type.into(),
            payload,
        )
    }

    /// An event without payload: the deletion of its key on a compacted topic.
    pub fn tombstone(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
    ) -> NewEvent {
        NewEvent::new(
            aggregate_type.into(),
            aggregate_id.into(),
            event_type.into(),
            Payload::Tombstone,
        )
    }

    fn new(
        aggregate_type: String,
        aggregate_id: String,
        event_type: String,
        payload: Payload,
    ) -> NewEvent {
        NewEvent {
            aggregate_type,
            aggregate_id,
            event_type,
            event_version: "1".to_owned(),
            payload,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            tracestate: None,
            headers: BTreeMap::new(),
            topic: None,
            partition_key: None,
            event_id: None,
        }
    }

    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> NewEvent {
        self.event_version = version.into();
        self
    }

    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> NewEvent {
        self.correlation_id = Some(id.into());
        self
    }

    #[must_use]
    pub fn causation_id(mut self, id: impl Into<String>) -> NewEvent {
        self.causation_id = Some(id.into());
        self
    }

    /// W3C trace context.
    #[must_use]
    pub fn trace(mut self, traceparent: impl Into<String>, tracestate: Option<String>) -> NewEvent {
        self.traceparent = Some(traceparent.into());
        self.tracestate = tracestate;
        self
    }

    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> NewEvent {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Overrides the outbox's topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> NewEvent {
        self.topic = Some(topic.into());
        self
    }

    /// Overrides the Kafka key, which is else the aggregate id.
    #[must_use]
    pub fn partition_key(mut self, key: impl Into<String>) -> NewEvent {
        self.partition_key = Some(key.into());
        self
    }

    /// An id of the caller's own; the database else makes a UUIDv7.
    #[must_use]
    pub fn event_id(mut self, id: Uuid) -> NewEvent {
        self.event_id = Some(id);
        self
    }

    /// Fills in what the event at hand hands on.
    fn caused(mut self, by: Cause) -> NewEvent {
        self.correlation_id
            .get_or_insert(by.correlation_id.unwrap_or_else(|| by.event_id.clone()));
        self.causation_id.get_or_insert(by.event_id);
        if self.traceparent.is_none() {
            self.traceparent = by.traceparent;
            self.tracestate = by.tracestate;
        }
        self
    }
}

/// The event at hand, as a handler's appends see it.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub event_id: String,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

tokio::task_local! {
    static CAUSE: Cause;
}

#[cfg(feature = "consumer")]
/// Runs `work` so that the events it appends name `cause`.
pub(crate) async fn because<F: Future>(cause: Cause, work: F) -> F::Output {
    CAUSE.scope(cause, work).await
}

/// An open transaction: the caller's own, or the one a handler was lent. Appending elsewhere would
/// publish events of changes that are then rolled back.
pub trait InTransaction: sealed::Sealed {}

mod sealed {
    pub trait Sealed: Send {
        fn connection(&mut self) -> &mut sqlx::PgConnection;
    }
}

impl InTransaction for Transaction<'_, Postgres> {}
impl sealed::Sealed for Transaction<'_, Postgres> {
    fn connection(&mut self) -> &mut PgConnection {
        self
    }
}

#[cfg(feature = "inbox")]
impl InTransaction for crate::inbox::Tx {}
#[cfg(feature = "inbox")]
impl sealed::Sealed for crate::inbox::Tx {
    fn connection(&mut self) -> &mut PgConnection {
        self
    }
}

/// Appends an event to `outbox_events` of the search path, and returns its id. The caller holds the lock
/// of the event's key.
///
/// # Errors
/// What Postgres says: a broken rule of the table, or a lost connection.
pub async fn append(tx: &mut impl InTransaction, event: NewEvent) -> Result<Uuid, sqlx::Error> {
    insert(tx.connection(), event, INSERT).await
}

/// The same, and takes the key's lock first, by the SQL function `outbox_append`: for callers who hold
/// none of their own. Append the events of several keys in sorted order of their keys.
///
/// # Errors
/// As [`append`].
pub async fn append_with_lock(
    tx: &mut impl InTransaction,
    event: NewEvent,
) -> Result<Uuid, sqlx::Error> {
    insert(tx.connection(), event, APPEND).await
}

const INSERT: &str = "\
insert into outbox_events (
    aggregate_type, aggregate_id, event_type, event_version, payload, payload_bytes, correlation_id,
    causation_id, traceparent, tracestate, headers, topic, partition_key, event_id)
values ($1, $2, $3, $4, $5::json, $6, $7, $8, $9, $10, $11::jsonb, $12, $13,
    coalesce($14, outbox_uuidv7()))
returning event_id";

const APPEND: &str = "\
select outbox_append(
    aggregate_type => $1, aggregate_id => $2, event_type => $3, event_version => $4, payload => $5::json,
    payload_bytes => $6, correlation_id => $7, causation_id => $8, traceparent => $9, tracestate => $10,
    headers => $11::jsonb, topic => $12, partition_key => $13, event_id => $14)";

async fn insert(
    connection: &mut PgConnection,
    event: NewEvent,
    statement: &'static str,
) -> Result<Uuid, sqlx::Error> {
    let event = match CAUSE.try_with(Cause::clone) {
        Ok(cause) => event.caused(cause),
        Err(_) => event,
    };
    let (json, bytes) = match event.payload {
        Payload::Json(json) => (Some(json), None),
        Payload::Bytes(bytes) => (None, Some(bytes)),
        Payload::Tombstone => (None, None),
    };
    let headers = match event.headers.is_empty() {
        true => None,
        false => Some(serde_json::Value::from_iter(event.headers).to_string()),
    };
    sqlx::query_scalar(statement)
        .bind(event.aggregate_type)
        .bind(event.aggregate_id)
        .bind(event.event_type)
        .bind(event.event_version)
        .bind(json)
        .bind(bytes)
        .bind(event.correlation_id)
        .bind(event.causation_id)
        .bind(event.traceparent)
        .bind(event.tracestate)
        .bind(headers)
        .bind(event.topic)
        .bind(event.partition_key)
        .bind(event.event_id)
        .fetch_one(connection)
        .await
}
