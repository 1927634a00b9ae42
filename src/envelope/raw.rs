//! The payload alone: what consumers of Debezium's outbox event router read. Facts ride only in the
//! headers that the outbox is configured to add.

use std::ops::Range;

use super::Encoder;
use crate::event::{Event, Payload};

/// Writes the payload as value; a row without one is a tombstone.
pub(super) fn write(event: &Event<'_>, out: &mut Encoder) -> Option<Range<u32>> {
    match event.payload {
        Payload::Json(bytes) | Payload::Bytes(bytes) => Some(out.append(bytes)),
        Payload::Text(text) => Some(out.append(text.as_bytes())),
        Payload::Tombstone => None,
    }
}
