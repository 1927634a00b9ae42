//! CloudEvents 1.0 in binary mode: attributes in `ce_` headers, the payload alone as value, by the Kafka
//! protocol binding of <https://github.com/cloudevents/spec/tree/v1.0.2>.

use std::io::Write;
use std::ops::Range;

use super::cloudevents::{CloudEvents, HEADER_PREFIX, JSON, SPEC_VERSION, TEXT, texts};
use super::{Encoder, EnvelopeError, header, needed};
use crate::config::Field;
use crate::event::{Event, Payload};

/// Writes headers and value; a row without payload is a tombstone.
pub(super) fn write(
    outbox: &CloudEvents,
    event: &Event<'_>,
    key: Option<&str>,
    out: &mut Encoder,
) -> Result<Option<Range<u32>>, EnvelopeError> {
    let timestamp = super::timestamp(event)?;
    let event_type = needed(event.event_type, Field::EventType)?;
    let (value, content_type) = match event.payload {
        Payload::Json(json) => (Some(out.append(json)), Some(JSON)),
        Payload::Text(text) => {
            let content_type = event.content_type.unwrap_or(TEXT);
            (Some(out.append(text.as_bytes())), Some(content_type))
        }
        Payload::Bytes(bytes) => {
            let content_type = event.content_type.unwrap_or(&outbox.bytes_content_type);
            (Some(out.append(bytes)), Some(content_type))
        }
        Payload::Tombstone => (None, None),
    };
    out.header("ce_specversion", SPEC_VERSION.as_bytes());
    out.id_header("ce_id", event.event_id);
    out.header("ce_source", outbox.source.as_bytes());
    out.header("ce_type", event_type.as_bytes());
    if let Some(timestamp) = timestamp {
        out.written_header("ce_time", |buffer| {
            // Writing to a Vec cannot fail.
            let _ = write!(buffer, "{timestamp}");
        });
    }
    for (name, value) in texts(event, key) {
        out.header(name, value.as_bytes());
    }
    outbox.each_field(event, |name, value| {
        out.header(format!("{HEADER_PREFIX}{name}"), value.as_bytes());
    })?;
    out.optional_header(header::CONTENT_TYPE, content_type);
    Ok(value)
}
