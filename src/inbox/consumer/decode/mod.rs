//! Message to event: pure functions, one file per format.
//!
//! A [`Decoder`] looks at a message and says either that it is not its format, or what event it is, or
//! why it cannot be one. The consumer asks its decoders in turn; a message that none of them knows goes
//! to the dead-letter topic and blocks nothing.

mod cloud_events;
mod native;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use serde_json::value::RawValue;

use super::record::Record;
use crate::inbox::EventId;

pub use cloud_events::CloudEvents;
pub use native::Native;

/// Reads one format.
///
/// Debezium's outbox router puts the id into a header and the payload alone into the value:
///
/// ```
/// use outboxd::inbox::EventId;
/// use outboxd::inbox::consumer::Record;
/// use outboxd::inbox::consumer::decode::{DecodeError, Decoded, Decoder, Payload};
///
/// struct Debezium;
///
/// impl Decoder for Debezium {
///     fn decode(&self, record: &Record) -> Option<Result<Decoded, DecodeError>> {
///         let aggregate = record.topic.strip_prefix("outbox.event.")?;
///         let id = EventId::text(record.header_text("id")?);
///         Some(
///             id.map(|id| Decoded {
///                 id,
///                 event_type: record.header_text("eventType").unwrap_or(aggregate).to_owned(),
///                 event_version: "1".to_owned(),
///                 created_at: None,
///                 source: None,
///                 correlation_id: None,
///                 causation_id: None,
///                 traceparent: None,
///                 tracestate: None,
///                 aggregate_type: Some(aggregate.to_owned()),
///                 aggregate_id: None,
///                 payload: match &record.value {
///                     Some(value) => Payload::Bytes(value.to_vec()),
///                     None => Payload::Tombstone,
///                 },
///             })
///             .map_err(|error| DecodeError::malformed("debezium", error.to_string())),
///         )
///     }
/// }
/// ```
pub trait Decoder: Send + Sync + 'static {
    /// The event in the message; nothing if the message is not of this format.
    ///
    /// Must depend on the message alone: an event that arrives twice must get the same id twice.
    fn decode(&self, record: &Record) -> Option<Result<Decoded, DecodeError>>;
}

/// An event without its type's own data structure.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// What the event is claimed by.
    pub id: EventId,
    pub event_type: String,
    pub event_version: String,
    /// When the event came to be, if it says.
    pub created_at: Option<SystemTime>,
    pub source: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub payload: Payload,
}

/// What an event carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// JSON as it was written.
    Json(Box<RawValue>),
    Bytes(Vec<u8>),
    /// Nothing: the deletion of its key.
    Tombstone,
}

/// Why a message is no event. Never shows the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no decoder knows the message's format")]
    UnknownFormat,
    #[error("{format}: {attribute} is missing or empty")]
    Missing {
        format: &'static str,
        attribute: &'static str,
    },
    #[error("{format}: {problem}")]
    Malformed {
        format: &'static str,
        problem: String,
    },
}

impl DecodeError {
    /// A broken rule of the format, in words of its own: never the message's.
    pub fn malformed(format: &'static str, problem: impl Into<String>) -> DecodeError {
        DecodeError::Malformed {
            format,
            problem: problem.into(),
        }
    }

    /// serde's own messages quote the input, so only the place is told.
    fn json(format: &'static str, error: &serde_json::Error) -> DecodeError {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "does not have the format's fields",
            _ => "is not valid JSON",
        };
        let (line, column) = (error.line(), error.column());
        DecodeError::malformed(
            format,
            format!("the value {kind} (line {line}, column {column})"),
        )
    }
}

/// The formats that every consumer knows: outboxd's own, and CloudEvents in both modes.
pub(super) fn known() -> Vec<Box<dyn Decoder>> {
    vec![Box::new(Native), Box::new(CloudEvents)]
}

/// The first answer of the decoders.
pub(super) fn decode(
    decoders: &[Box<dyn Decoder>],
    record: &Record,
) -> Result<Decoded, DecodeError> {
    let mut answers = decoders.iter().filter_map(|decoder| decoder.decode(record));
    answers.next().unwrap_or(Err(DecodeError::UnknownFormat))
}

/// An attribute that must be there and not be empty.
fn required(
    format: &'static str,
    attribute: &'static str,
    value: Option<String>,
) -> Result<String, DecodeError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or(DecodeError::Missing { format, attribute })
}

/// RFC 3339, as both formats have it.
fn timestamp(format: &'static str, text: &str) -> Result<SystemTime, DecodeError> {
    let timestamp: jiff::Timestamp = text
        .parse()
        .map_err(|_| DecodeError::malformed(format, "the time is not RFC 3339"))?;
    Ok(SystemTime::from(timestamp))
}
