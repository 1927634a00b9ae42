//! outboxd's own envelope: one JSON object in camelCase, version 1, with the same facts in headers.

use std::ops::Range;

use super::json::Object;
use super::{Encoder, EnvelopeError, each, header, needed};
use crate::config::{Field, NamedTemplates, OutboxConfig};
use crate::event::{Event, Payload};

/// The `native` envelope of one outbox.
///
/// ```json
/// {"envelopeVersion":1,"eventId":"0192…","eventType":"order.placed","eventVersion":"1",
///  "timestamp":"2026-01-02T03:04:05.678901Z","source":"shop","correlationId":"c-1",
///  "aggregateType":"order","aggregateId":"ord_1","data":{"orderId":"ord_1"}}
/// ```
///
/// `data` holds the payload's bytes as the application wrote them. Fields without a value are left out.
/// A `payload_bytes` becomes `dataBase64`; a row without payload is a tombstone: headers, null value.
#[derive(Debug, Clone)]
pub struct Native {
    /// As a JSON string, escaped once.
    source_json: Box<str>,
    source: Box<str>,
    /// More members.
    fields: NamedTemplates,
}

const VERSION: &[u8] = b"1";

/// What every event says.
struct Facts<'e> {
    event_type: &'e str,
    event_version: &'e str,
    aggregate_type: &'e str,
    aggregate_id: &'e str,
}

impl<'e> Facts<'e> {
    fn of(event: &Event<'e>) -> Result<Facts<'e>, EnvelopeError> {
        Ok(Facts {
            event_type: needed(event.event_type, Field::EventType)?,
            // Where there are no versions it is the first, as in outboxd's own table.
            event_version: event.event_version.unwrap_or("1"),
            aggregate_type: needed(event.aggregate_type, Field::AggregateType)?,
            aggregate_id: needed(event.aggregate_id, Field::AggregateId)?,
        })
    }
}

impl Native {
    pub fn new(outbox: &OutboxConfig) -> Native {
        let source = outbox.source.as_str();
        Native {
            source_json: serde_json::Value::from(source).to_string().into(),
            source: source.into(),
            fields: outbox.templates.fields.clone(),
        }
    }

    /// Writes body and headers; returns where the body stands, nothing for a tombstone.
    pub(super) fn write(
        &self,
        event: &Event<'_>,
        out: &mut Encoder,
    ) -> Result<Option<Range<u32>>, EnvelopeError> {
        let facts = Facts::of(event)?;
        let value = match event.payload {
            Payload::Tombstone => None,
            Payload::Json(_) | Payload::Text(_) | Payload::Bytes(_) => {
                Some(self.write_body(event, &facts, out)?)
            }
        };
        out.header(header::ENVELOPE_VERSION, VERSION);
        out.id_header(header::EVENT_ID, event.event_id);
        out.header(header::EVENT_TYPE, facts.event_type.as_bytes());
        out.header(header::EVENT_VERSION, facts.event_version.as_bytes());
        out.header(header::SOURCE, self.source.as_bytes());
        out.optional_header(header::CORRELATION_ID, event.correlation_id);
        out.optional_header(header::CAUSATION_ID, event.causation_id);
        out.header(header::AGGREGATE_TYPE, facts.aggregate_type.as_bytes());
        out.header(header::AGGREGATE_ID, facts.aggregate_id.as_bytes());
        out.optional_header(header::TRACEPARENT, event.traceparent);
        out.optional_header(header::TRACESTATE, event.tracestate);
        if value.is_some() {
            out.header(header::CONTENT_TYPE, b"application/json");
        }
        Ok(value)
    }

    fn write_body(
        &self,
        event: &Event<'_>,
        facts: &Facts<'_>,
        out: &mut Encoder,
    ) -> Result<Range<u32>, EnvelopeError> {
        let timestamp = needed(super::timestamp(event)?, Field::CreatedAt)?;
        let mut body = Object::open(&mut out.buffer);
        body.raw("envelopeVersion", VERSION);
        body.id("eventId", event.event_id);
        body.text("eventType", facts.event_type);
        body.text("eventVersion", facts.event_version);
        body.plain("timestamp", timestamp);
        body.raw("source", self.source_json.as_bytes());
        body.optional_text("correlationId", event.correlation_id);
        body.optional_text("causationId", event.causation_id);
        body.optional_text("traceparent", event.traceparent);
        body.optional_text("tracestate", event.tracestate);
        body.text("aggregateType", facts.aggregate_type);
        body.text("aggregateId", facts.aggregate_id);
        each(&self.fields, event, |name, text| body.text(name, text))?;
        match event.payload {
            Payload::Json(json) => body.raw("data", json),
            Payload::Text(text) => body.text("data", text),
            Payload::Bytes(bytes) => body.base64("dataBase64", bytes),
            Payload::Tombstone => body.raw("data", b"null"),
        }
        Ok(body.close())
    }
}
