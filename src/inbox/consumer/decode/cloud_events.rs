//! CloudEvents 1.0 over Kafka, binary and structured
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeError, Decoded, Decoder, Payload, required, timestamp};
use crate::inbox::EventId;
use crate::inbox::consumer::record::Record;

const FORMAT: &str = "CloudEvents";

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch";

/// The version of an event that names none: CloudEvents has no attribute for it.
const FIRST_VERSION: &str = "1";

/// Reads CloudEvents. The event is claimed by its id if that is a UUID, otherwise by source and id, which
/// are its identity.
///
/// `subject` becomes the aggregate id; the extensions `correlationid`, `causationid`, `traceparent`,
/// `tracestate`, `aggregatetype` and `eventversion` (else `"1"`) are read as what they say.
#[derive(Debug, Clone, Copy)]
pub struct CloudEvents;

/// The attributes, however they came.
#[derive(Deserialize)]
struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    eventversion: Option<String>,
    datacontenttype: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    correlationid: Option<String>,
    causationid: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    aggregatetype: Option<String>,
}

/// The rest of a structured event.
#[derive(Deserialize)]
struct Data {
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
}

impl Decoder for CloudEvents {
    fn decode(&self, record: &Record) -> Option<Result<Decoded, DecodeError>> {
        let content_type = record.header_text("content-type").unwrap_or_default();
        if content_type.starts_with(BATCH) {
            let problem = "batches are not defined for Kafka";
            return Some(Err(DecodeError::malformed(FORMAT, problem)));
        }
        if content_type.starts_with(STRUCTURED) {
            return Some(structured(record));
        }
        record
            .header("ce_specversion")
            .is_some()
            .then(|| binary(record))
    }
}

fn structured(record: &Record) -> Result<Decoded, DecodeError> {
    let value = record.value.as_deref().unwrap_or_default();
    let json = |error| DecodeError::json(FORMAT, &error);
    let attributes: Attributes = serde_json::from_slice(value).map_err(json)?;
    let payload = match serde_json::from_slice(value).map_err(json)? {
        Data {
            data: Some(_),
            data_base64: Some(_),
        } => {
            let problem = "must not have both data and data_base64";
            return Err(DecodeError::malformed(FORMAT, problem));
        }
        Data {
            data: Some(data), ..
        } => Payload::Json(data),
        Data {
            data_base64: Some(text),
            ..
        } => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| DecodeError::malformed(FORMAT, "data_base64 is not Base64"))?;
            payload(attributes.datacontenttype.as_deref(), bytes)?
        }
        Data { .. } => Payload::Tombstone,
    };
    attributes.decoded(payload)
}

fn binary(record: &Record) -> Result<Decoded, DecodeError> {
    let attribute = |name: &str| {
        let header = format!("ce_{name}");
        record.header_text(&header).map(str::to_owned)
    };
    let attributes = Attributes {
        specversion: attribute("specversion"),
        id: attribute("id"),
        source: attribute("source"),
        event_type: attribute("type"),
        eventversion: attribute("eventversion"),
        datacontenttype: record.header_text("content-type").map(str::to_owned),
        subject: attribute("subject"),
        time: attribute("time"),
        correlationid: attribute("correlationid"),
        causationid: attribute("causationid"),
        traceparent: attribute("traceparent"),
        tracestate: attribute("tracestate"),
        aggregatetype: attribute("aggregatetype"),
    };
    let payload = match &record.value {
        Some(value) => payload(attributes.datacontenttype.as_deref(), value.to_vec())?,
        None => Payload::Tombstone,
    };
    attributes.decoded(payload)
}

/// Bytes that their content type calls JSON are JSON.
fn payload(content_type: Option<&str>, bytes: Vec<u8>) -> Result<Payload, DecodeError> {
    let media_type = content_type.unwrap_or("application/json");
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !(media_type.ends_with("/json") || media_type.ends_with("+json")) {
        return Ok(Payload::Bytes(bytes));
    }
    serde_json::from_slice(&bytes)
        .map(Payload::Json)
        .map_err(|error| DecodeError::json(FORMAT, &error))
}

impl Attributes {
    fn decoded(self, payload: Payload) -> Result<Decoded, DecodeError> {
        let version = required(FORMAT, "specversion", self.specversion)?;
        if version != "1.0" {
            let problem = "the specversion must be 1.0";
            return Err(DecodeError::malformed(FORMAT, problem));
        }
        let id = required(FORMAT, "id", self.id)?;
        let source = required(FORMAT, "source", self.source)?;
        let created_at = self.time.map(|time| timestamp(FORMAT, &time)).transpose()?;
        Ok(Decoded {
            id: EventId::of_source(&source, &id)
                .map_err(|error| DecodeError::malformed(FORMAT, error.to_string()))?,
            event_type: required(FORMAT, "type", self.event_type)?,
            event_version: self
                .eventversion
                .unwrap_or_else(|| FIRST_VERSION.to_owned()),
            created_at,
            source: Some(source),
            correlation_id: self.correlationid,
            causation_id: self.causationid,
            traceparent: self.traceparent,
            tracestate: self.tracestate,
            aggregate_type: self.aggregatetype,
            aggregate_id: self.subject,
            payload,
        })
    }
}
