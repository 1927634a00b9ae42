//! Row to message: pure functions, one file per format. Nothing here depends on when or by whom an
//! event is published, so that every copy of it is the same, byte for byte.

mod native;

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::event::Event;

pub use native::Native;

/// The names of the headers that the envelopes set, besides those of the row.
pub mod header {
    pub const ENVELOPE_VERSION: &str = "envelope-version";
    pub const EVENT_ID: &str = "event-id";
    pub const EVENT_TYPE: &str = "event-type";
    pub const EVENT_VERSION: &str = "event-version";
    pub const SOURCE: &str = "source";
    pub const CORRELATION_ID: &str = "correlation-id";
    pub const CAUSATION_ID: &str = "causation-id";
    pub const AGGREGATE_TYPE: &str = "aggregate-type";
    pub const AGGREGATE_ID: &str = "aggregate-id";
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
    pub const CONTENT_TYPE: &str = "content-type";
}

/// Why a row cannot become a message. The fault is the row's alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error(
        "created_at must lie between the years -9999 and 9999, is {micros} microseconds since 1970"
    )]
    Timestamp { micros: i64 },
    #[error("headers must be a flat JSON object of strings")]
    Headers,
}

/// Key, value and headers of one Kafka message in a single buffer, ready to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    buffer: Box<[u8]>,
    key: Range<u32>,
    /// Nothing: a tombstone.
    value: Option<Range<u32>>,
    headers: Box<[Header]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    name: Cow<'static, str>,
    value: Range<u32>,
}

impl Message {
    /// A message of nothing but its key.
    pub fn of_key(key: &[u8]) -> Message {
        Message {
            buffer: key.into(),
            key: 0..key.len() as u32,
            value: None,
            headers: Box::default(),
        }
    }

    pub fn key(&self) -> &[u8] {
        self.slice(&self.key)
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|range| self.slice(range))
    }

    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|header| (header.name.as_ref(), self.slice(&header.value)))
    }

    /// Bytes that this message holds in memory.
    pub fn size(&self) -> usize {
        self.buffer.len() + self.headers.len() * size_of::<Header>()
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.buffer[range.start as usize..range.end as usize]
    }
}

/// Writes messages one after the other, reusing its scratch space.
///
/// A Kafka message cannot come near 4 GiB (the protocol's lengths are 31 bits, and Postgres's values
/// end at 1 GiB), so offsets are 32 bits.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    headers: Vec<Header>,
}

impl Encoder {
    /// Encodes `event` by `envelope`.
    ///
    /// # Errors
    /// When the row itself cannot be put into the format; the encoder stays usable.
    pub fn encode(
        &mut self,
        envelope: &Native,
        event: &Event<'_>,
    ) -> Result<Message, EnvelopeError> {
        self.buffer.clear();
        self.headers.clear();
        let key = self.append(event.key().as_bytes());
        let value = envelope.write(event, self)?;
        Ok(Message {
            buffer: self.buffer.as_slice().into(),
            key,
            value,
            headers: self.headers.drain(..).collect(),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len() as u32
    }

    fn header(&mut self, name: &'static str, value: &[u8]) {
        let value = self.append(value);
        let name = Cow::Borrowed(name);
        self.headers.push(Header { name, value });
    }

    fn optional_header(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.header(name, value.as_bytes());
        }
    }

    /// The row's own headers, in the order of its JSON text.
    fn row_headers(&mut self, json: Option<&str>) -> Result<(), EnvelopeError> {
        let Some(json) = json else { return Ok(()) };
        let RowHeaders(headers) = serde_json::from_str(json).map_err(|_| EnvelopeError::Headers)?;
        for (name, value) in headers {
            let value = self.append(value.as_bytes());
            let name = Cow::Owned(name);
            self.headers.push(Header { name, value });
        }
        Ok(())
    }
}

/// A JSON object of strings that keeps its order.
struct RowHeaders<'r>(Vec<(String, Cow<'r, str>)>);

impl<'de> Deserialize<'de> for RowHeaders<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RowHeaders<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a flat object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut headers = Vec::with_capacity(map.size_hint().unwrap_or(4));
                while let Some(entry) = map.next_entry()? {
                    headers.push(entry);
                }
                Ok(RowHeaders(headers))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
