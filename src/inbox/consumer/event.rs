//! The event as a handler sees it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use super::decode::{Decoded, Payload};
use super::record::Record;
use crate::inbox::EventId;

/// One event, with its data as `T`: any type that serde can read, or [`Raw`].
#[derive(Debug, Clone)]
pub struct Event<T> {
    pub id: EventId,
    pub event_type: String,
    /// After the upcasts, if any are registered.
    pub event_version: String,
    pub created_at: Option<SystemTime>,
    pub source: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    /// The Kafka message that brought it, with its headers.
    pub record: Arc<Record>,
    pub data: T,
}

impl<T> Event<T> {
    /// The Kafka key as text; empty if there is none or it is not UTF-8.
    pub fn key(&self) -> &str {
        let key = self.record.key.as_deref().unwrap_or_default();
        std::str::from_utf8(key).unwrap_or_default()
    }
}

/// What the event carries, as it came.
///
/// ```
/// use outboxd::inbox::consumer::decode::Payload;
/// use outboxd::inbox::consumer::{Event, HandlerError, HandlerResult, Raw, Tx};
///
/// async fn store(mut tx: Tx, event: Event<Raw>) -> HandlerResult {
///     let Payload::Bytes(avro) = event.data.0 else {
///         return Err(HandlerError::reject("it is not Avro"));
///     };
///     sqlx::query("insert into images (id, avro) values ($1, $2)")
///         .bind(event.id.as_str())
///         .bind(avro)
///         .execute(&mut *tx)
///         .await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Raw(pub Payload);

/// What an event's data can be read as: anything that implements [`serde::Deserialize`], and [`Raw`].
pub trait FromPayload: Sized + Send {
    /// # Errors
    /// When the payload is not of this type. Never shows the payload.
    fn from_payload(payload: Payload) -> Result<Self, NotOfType>;
}

/// The data is not what the handler takes: the event is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOfType(String);

impl fmt::Display for NotOfType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the data is not what the handler takes: {}", self.0)
    }
}

impl std::error::Error for NotOfType {}

impl FromPayload for Raw {
    fn from_payload(payload: Payload) -> Result<Raw, NotOfType> {
        Ok(Raw(payload))
    }
}

impl<T: DeserializeOwned + Send> FromPayload for T {
    fn from_payload(payload: Payload) -> Result<T, NotOfType> {
        match payload {
            Payload::Json(data) => serde_json::from_str(data.get()).map_err(|error| {
                // serde quotes values; only the place is told.
                let (line, column) = (error.line(), error.column());
                NotOfType(format!("line {line}, column {column}"))
            }),
            Payload::Bytes(_) => Err(NotOfType("it is bytes, not JSON".to_owned())),
            Payload::Tombstone => Err(NotOfType("it is a tombstone".to_owned())),
        }
    }
}

pub(super) fn event<T: FromPayload>(
    decoded: Decoded,
    record: Arc<Record>,
) -> Result<Event<T>, NotOfType> {
    Ok(Event {
        data: T::from_payload(decoded.payload)?,
        id: decoded.id,
        event_type: decoded.event_type,
        event_version: decoded.event_version,
        created_at: decoded.created_at,
        source: decoded.source,
        correlation_id: decoded.correlation_id,
        causation_id: decoded.causation_id,
        traceparent: decoded.traceparent,
        tracestate: decoded.tracestate,
        aggregate_type: decoded.aggregate_type,
        aggregate_id: decoded.aggregate_id,
        record,
    })
}
