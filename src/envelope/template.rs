//! What a template becomes for a row.

use std::fmt::Write;

use super::{EnvelopeError, timestamp};
use crate::config::{Field, Segment};
use crate::event::Event;

/// Appends the text to `out`; says whether the row has all the columns that the template names. If not,
/// `out` holds a part of it.
///
/// # Errors
/// When `{created_at}` cannot be written.
pub fn render(
    segments: &[Segment],
    event: &Event<'_>,
    out: &mut String,
) -> Result<bool, EnvelopeError> {
    for segment in segments {
        let text = match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Field(Field::AggregateType) => event.aggregate_type,
            Segment::Field(Field::AggregateId) => event.aggregate_id,
            Segment::Field(Field::EventType) => event.event_type,
            Segment::Field(Field::EventVersion) => event.event_version,
            Segment::Field(Field::CorrelationId) => event.correlation_id,
            Segment::Field(Field::CausationId) => event.causation_id,
            Segment::Field(Field::Traceparent) => event.traceparent,
            Segment::Field(Field::Tracestate) => event.tracestate,
            // Writing to a String cannot fail.
            Segment::Field(Field::EventId) => {
                let _ = write!(out, "{}", event.event_id);
                continue;
            }
            Segment::Field(Field::CreatedAt) => {
                let Some(timestamp) = timestamp(event)? else {
                    return Ok(false);
                };
                let _ = write!(out, "{timestamp}");
                continue;
            }
            // No placeholder stands for these.
            Segment::Field(
                Field::Id
                | Field::Payload
                | Field::PayloadBytes
                | Field::Headers
                | Field::Topic
                | Field::PartitionKey
                | Field::ContentType,
            ) => None,
        };
        let Some(text) = text else { return Ok(false) };
        out.push_str(text);
    }
    Ok(true)
}
