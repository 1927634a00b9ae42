//! CloudEvents 1.0 in structured mode: one JSON object, by the JSON format and the Kafka protocol binding
//! of <https://github.com/cloudevents/spec/tree/v1.0.2>.
//!
//! `subject` is the aggregate id; `correlationid`, `causationid`, `partitionkey`, `traceparent` and
//! `tracestate` are documented extensions, `aggregatetype` and `eventversion` are outboxd's.

use std::ops::Range;

use super::json::Object;
use super::{Encoder, EnvelopeError, each, header, needed};
use crate::config::{Field, NamedTemplates, OutboxConfig};
use crate::event::{Event, Payload};

pub(super) const SPEC_VERSION: &str = "1.0";
pub(super) const JSON: &str = "application/json";

/// Of text that the row says no more of.
pub(super) const TEXT: &str = "text/plain";

/// What binary mode puts before an attribute's name.
pub(super) const HEADER_PREFIX: &str = "ce_";

/// The content type by which consumers know structured mode.
const STRUCTURED: &[u8] = b"application/cloudevents+json; charset=UTF-8";

/// What is the same for every event of an outbox, in both modes.
#[derive(Debug, Clone)]
pub struct CloudEvents {
    pub(super) source: Box<str>,
    /// Of payloads that are not JSON.
    pub(super) bytes_content_type: Box<str>,
    /// More extensions.
    fields: NamedTemplates,
}

impl CloudEvents {
    /// The source is a URI reference, as the configuration ensures.
    pub fn new(outbox: &OutboxConfig) -> CloudEvents {
        CloudEvents {
            source: outbox.source.as_str().into(),
            bytes_content_type: outbox.bytes_content_type.as_str().into(),
            fields: outbox.templates.fields.clone(),
        }
    }

    /// Structured mode has no tombstone: a row without payload is an event without data.
    pub(super) fn write(
        &self,
        event: &Event<'_>,
        key: Option<&str>,
        out: &mut Encoder,
    ) -> Result<Range<u32>, EnvelopeError> {
        let timestamp = super::timestamp(event)?;
        let event_type = needed(event.event_type, Field::EventType)?;
        let mut body = Object::open(&mut out.buffer);
        body.plain("specversion", SPEC_VERSION);
        body.id("id", event.event_id);
        body.text("source", &self.source);
        body.text("type", event_type);
        if let Some(timestamp) = timestamp {
            body.plain("time", timestamp);
        }
        for (header, value) in texts(event, key) {
            body.text(&header[HEADER_PREFIX.len()..], value);
        }
        self.each_field(event, |name, value| body.text(name, value))?;
        match event.payload {
            Payload::Json(json) => {
                body.text("datacontenttype", JSON);
                body.raw("data", json);
            }
            Payload::Text(text) => {
                body.text("datacontenttype", event.content_type.unwrap_or(TEXT));
                body.text("data", text);
            }
            Payload::Bytes(bytes) => {
                let content_type = event.content_type.unwrap_or(&self.bytes_content_type);
                body.text("datacontenttype", content_type);
                body.base64("data_base64", bytes);
            }
            Payload::Tombstone => {}
        }
        let value = body.close();
        out.header(header::CONTENT_TYPE, STRUCTURED);
        Ok(value)
    }
}

impl CloudEvents {
    /// The configured extensions that the event has. None of them may be empty.
    pub(super) fn each_field(
        &self,
        event: &Event<'_>,
        mut take: impl FnMut(&str, &str),
    ) -> Result<(), EnvelopeError> {
        each(&self.fields, event, |name, value| {
            if !value.is_empty() {
                take(name, value);
            }
        })
    }
}

/// The optional attributes and extensions that the event has, by the names of their headers in binary
/// mode. None of them may be empty.
pub(super) fn texts<'e>(
    event: &Event<'e>,
    key: Option<&'e str>,
) -> impl Iterator<Item = (&'static str, &'e str)> {
    [
        ("ce_subject", event.aggregate_id),
        ("ce_aggregatetype", event.aggregate_type),
        ("ce_eventversion", event.event_version),
        ("ce_partitionkey", key),
        ("ce_correlationid", event.correlation_id),
        ("ce_causationid", event.causation_id),
        ("ce_traceparent", event.traceparent),
        ("ce_tracestate", event.tracestate),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
}
