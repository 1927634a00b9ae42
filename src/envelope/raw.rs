//! The payload alone: what consumers of Debezium's outbox event router read. Facts ride only in the
//! headers that the outbox is configured to add.

use std::ops::Range;

use super::Encoder;
use crate::config::OutboxConfig;
use crate::event::{Event, Payload};

/// The `raw` form of one outbox.
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    /// A text of nothing but white space is none, as Debezium's `route.tombstone.on.empty.payload` has it.
    tombstone_on_empty: bool,
}

impl Raw {
    pub fn new(outbox: &OutboxConfig) -> Raw {
        Raw {
            tombstone_on_empty: outbox.tombstone_on_empty,
        }
    }

    /// Writes the payload as value; a row without one is a tombstone.
    pub(super) fn write(self, event: &Event<'_>, out: &mut Encoder) -> Option<Range<u32>> {
        let (payload, is_text) = match event.payload {
            Payload::Json(text) => (text, true),
            Payload::Text(text) => (text.as_bytes(), true),
            Payload::Bytes(bytes) => (bytes, false),
            Payload::Tombstone => return None,
        };
        // What Java's String.trim() takes away.
        let is_blank = || payload.iter().all(|byte| *byte <= b' ');
        match self.tombstone_on_empty && is_text && is_blank() {
            true => None,
            false => Some(out.append(payload)),
        }
    }
}
