//! outboxd's own envelope: one JSON object in camelCase, version 1, with the same facts in headers.

use std::io::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Encoder, EnvelopeError, header};
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
    /// `"source":"…"`, escaped once.
    source_json: Box<str>,
    source: Box<str>,
}

const VERSION: &[u8] = b"1";

impl Native {
    pub fn new(source: &str) -> Native {
        Native {
            source_json: serde_json::Value::from(source).to_string().into(),
            source: source.into(),
        }
    }

    /// Writes body and headers; returns where the body stands, nothing for a tombstone.
    pub(super) fn write(
        &self,
        event: &Event<'_>,
        out: &mut Encoder,
    ) -> Result<Option<Range<u32>>, EnvelopeError> {
        let value = match event.payload {
            Payload::Tombstone => None,
            Payload::Json(_) | Payload::Bytes(_) => Some(self.write_body(event, out)?),
        };
        let mut id = uuid::Uuid::encode_buffer();
        out.header(header::ENVELOPE_VERSION, VERSION);
        out.header(
            header::EVENT_ID,
            event
                .event_id
                .as_hyphenated()
                .encode_lower(&mut id)
                .as_bytes(),
        );
        out.header(header::EVENT_TYPE, event.event_type.as_bytes());
        out.header(header::EVENT_VERSION, event.event_version.as_bytes());
        out.header(header::SOURCE, self.source.as_bytes());
        out.optional_header(header::CORRELATION_ID, event.correlation_id);
        out.optional_header(header::CAUSATION_ID, event.causation_id);
        out.header(header::AGGREGATE_TYPE, event.aggregate_type.as_bytes());
        out.header(header::AGGREGATE_ID, event.aggregate_id.as_bytes());
        out.optional_header(header::TRACEPARENT, event.traceparent);
        out.optional_header(header::TRACESTATE, event.tracestate);
        if value.is_some() {
            out.header(header::CONTENT_TYPE, b"application/json");
        }
        out.row_headers(event.headers)?;
        Ok(value)
    }

    fn write_body(
        &self,
        event: &Event<'_>,
        out: &mut Encoder,
    ) -> Result<Range<u32>, EnvelopeError> {
        let timestamp = event
            .created_at
            .timestamp()
            .ok_or(EnvelopeError::Timestamp {
                micros: event.created_at.unix_micros(),
            })?;
        let mut id = uuid::Uuid::encode_buffer();
        let body = &mut out.buffer;
        let start = body.len() as u32;
        body.extend_from_slice(b"{\"envelopeVersion\":");
        body.extend_from_slice(VERSION);
        body.extend_from_slice(b",\"eventId\":\"");
        body.extend_from_slice(
            event
                .event_id
                .as_hyphenated()
                .encode_lower(&mut id)
                .as_bytes(),
        );
        body.push(b'"');
        field(body, "eventType", event.event_type);
        field(body, "eventVersion", event.event_version);
        // Writing to a Vec cannot fail.
        let _ = write!(
            body,
            ",\"timestamp\":\"{timestamp}\",\"source\":{}",
            self.source_json
        );
        optional_field(body, "correlationId", event.correlation_id);
        optional_field(body, "causationId", event.causation_id);
        optional_field(body, "traceparent", event.traceparent);
        optional_field(body, "tracestate", event.tracestate);
        field(body, "aggregateType", event.aggregate_type);
        field(body, "aggregateId", event.aggregate_id);
        match event.payload {
            Payload::Json(json) => {
                body.extend_from_slice(b",\"data\":");
                body.extend_from_slice(json);
            }
            Payload::Bytes(bytes) => {
                body.extend_from_slice(b",\"dataBase64\":\"");
                let text = body.len();
                body.resize(text + bytes.len().div_ceil(3) * 4, 0);
                // The space is exactly what the encoding needs.
                let _ = STANDARD.encode_slice(bytes, &mut body[text..]);
                body.push(b'"');
            }
            Payload::Tombstone => body.extend_from_slice(b",\"data\":null"),
        }
        body.push(b'}');
        Ok(start..body.len() as u32)
    }
}

fn field(body: &mut Vec<u8>, name: &str, value: &str) {
    body.extend_from_slice(b",\"");
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":");
    // A string into a Vec: neither the serializer nor the writer can fail.
    let _ = serde_json::to_writer(body, value);
}

fn optional_field(body: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        field(body, name, value);
    }
}
