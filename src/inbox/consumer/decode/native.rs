//! outboxd's own envelope, version 1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{DecodeError, Decoded, Decoder, Payload, required, timestamp};
use crate::inbox::EventId;
use crate::inbox::consumer::record::Record;

const FORMAT: &str = "native envelope";
const VERSION: u32 = 1;

/// Reads the `native` envelope: the body alone is enough, and a tombstone is read from its headers.
#[derive(Debug, Clone, Copy)]
pub struct Native;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    envelope_version: u32,
    event_id: String,
    event_type: String,
    event_version: String,
    timestamp: String,
    source: String,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    aggregate_type: String,
    aggregate_id: String,
    // A payload that is the JSON text `null` is data, too.
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Decoder for Native {
    fn decode(&self, record: &Record) -> Option<Result<Decoded, DecodeError>> {
        match &record.value {
            Some(value) if record.header("envelope-version").is_some() => Some(body(value)),
            // Headers can be lost on the way; the first field tells the format.
            Some(value) if value.starts_with(br#"{"envelopeVersion":"#) => Some(body(value)),
            None if record.header("envelope-version").is_some() => Some(tombstone(record)),
            _ => None,
        }
    }
}

fn body(value: &[u8]) -> Result<Decoded, DecodeError> {
    let body: Body =
        serde_json::from_slice(value).map_err(|error| DecodeError::json(FORMAT, &error))?;
    check_version(body.envelope_version)?;
    let payload = match (body.data, body.data_base64) {
        (Some(data), None) => Payload::Json(data),
        (None, Some(text)) => Payload::Bytes(
            STANDARD
                .decode(text)
                .map_err(|_| DecodeError::malformed(FORMAT, "dataBase64 is not Base64"))?,
        ),
        _ => {
            let problem = "must have either data or dataBase64";
            return Err(DecodeError::malformed(FORMAT, problem));
        }
    };
    Ok(Decoded {
        id: event_id(&body.event_id)?,
        event_type: required(FORMAT, "eventType", Some(body.event_type))?,
        event_version: body.event_version,
        created_at: Some(timestamp(FORMAT, &body.timestamp)?),
        source: Some(body.source),
        correlation_id: body.correlation_id,
        causation_id: body.causation_id,
        traceparent: body.traceparent,
        tracestate: body.tracestate,
        aggregate_type: Some(body.aggregate_type),
        aggregate_id: Some(body.aggregate_id),
        payload,
    })
}

fn tombstone(record: &Record) -> Result<Decoded, DecodeError> {
    let header = |name| record.header_text(name).map(str::to_owned);
    let version = required(FORMAT, "envelope-version", header("envelope-version"))?;
    check_version(version.parse().unwrap_or(0))?;
    let id = required(FORMAT, "event-id", header("event-id"))?;
    Ok(Decoded {
        id: event_id(&id)?,
        event_type: required(FORMAT, "event-type", header("event-type"))?,
        event_version: required(FORMAT, "event-version", header("event-version"))?,
        created_at: record.timestamp_ms.and_then(from_millis),
        source: header("source"),
        correlation_id: header("correlation-id"),
        causation_id: header("causation-id"),
        traceparent: header("traceparent"),
        tracestate: header("tracestate"),
        aggregate_type: header("aggregate-type"),
        aggregate_id: header("aggregate-id"),
        payload: Payload::Tombstone,
    })
}

fn event_id(text: &str) -> Result<EventId, DecodeError> {
    Uuid::try_parse(text)
        .map(EventId::from)
        .map_err(|_| DecodeError::malformed(FORMAT, "the event id is not a UUID"))
}

fn check_version(version: u32) -> Result<(), DecodeError> {
    if version == VERSION {
        return Ok(());
    }
    let problem = format!("the version must be {VERSION}, is {version}");
    Err(DecodeError::malformed(FORMAT, problem))
}

fn from_millis(millis: i64) -> Option<std::time::SystemTime> {
    jiff::Timestamp::from_millisecond(millis)
        .ok()
        .map(Into::into)
}
