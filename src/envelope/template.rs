//! What a template becomes for a row.

use std::borrow::Cow;

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
        match piece(segment, event)? {
            Some(text) => out.push_str(&text),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// The text, borrowed if the template is nothing but a column; nothing if the row has not all the columns
/// that the template names.
///
/// # Errors
/// As [`render`].
pub fn rendered<'e>(
    segments: &'e [Segment],
    event: &Event<'e>,
) -> Result<Option<Cow<'e, str>>, EnvelopeError> {
    if let [segment] = segments {
        return piece(segment, event);
    }
    let mut text = String::new();
    let complete = render(segments, event, &mut text)?;
    Ok(complete.then_some(Cow::Owned(text)))
}

fn piece<'e>(
    segment: &'e Segment,
    event: &Event<'e>,
) -> Result<Option<Cow<'e, str>>, EnvelopeError> {
    let text = match segment {
        Segment::Literal(text) => Some(text.as_str()),
        Segment::Other { place, .. } => event.other_columns.get(*place).copied().flatten(),
        Segment::Field(field) => match field {
            Field::AggregateType => event.aggregate_type,
            Field::AggregateId => event.aggregate_id,
            Field::EventType => event.event_type,
            Field::EventVersion => event.event_version,
            Field::CorrelationId => event.correlation_id,
            Field::CausationId => event.causation_id,
            Field::Traceparent => event.traceparent,
            Field::Tracestate => event.tracestate,
            Field::Topic => event.topic,
            Field::PartitionKey => event.partition_key,
            Field::ContentType => event.content_type,
            Field::Id => return Ok(Some(event.reference.id.to_string().into())),
            Field::EventId => return Ok(Some(event.event_id.to_string().into())),
            Field::CreatedAt => {
                let timestamp = timestamp(event)?;
                return Ok(timestamp.map(|timestamp| timestamp.to_string().into()));
            }
            // No placeholder stands for these.
            Field::Payload | Field::PayloadBytes | Field::Headers => None,
        },
    };
    Ok(text.map(Cow::Borrowed))
}
