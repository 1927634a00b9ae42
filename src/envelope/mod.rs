//! Row to message: pure functions, one file per format. Nothing here depends on when or by whom an
//! event is published, so that every copy of it is the same, byte for byte.

mod cloudevents;
mod cloudevents_binary;
mod json;
mod native;
mod raw;
mod template;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use jiff::Timestamp;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use uuid::Uuid;

use crate::config::{EnvelopeFormat, Field, NamedTemplates, OutboxConfig, Template};
use crate::event::{Event, EventId};

use cloudevents::CloudEvents;
use native::Native;
use raw::Raw;
pub use template::render;
use template::rendered;

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
    /// Of copies that somebody asked for: all that tells them from the first.
    pub const REPLAY: &str = "outboxd-replay";
}

/// Why a row cannot become a message. The fault is the row's alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error(
        "created_at must lie between -9999-01-03 and 9999-12-30, is {micros} microseconds since 1970"
    )]
    Timestamp { micros: i64 },
    #[error("headers must be a flat JSON object of strings")]
    Headers,
    #[error("{} must not be null, the envelope needs it", field.name())]
    Missing { field: Field },
}

/// The value of [`header::REPLAY`]: every replay's copies are the same, byte for byte.
const REPLAYED: &[u8] = b"1";

/// How the rows of one outbox become messages.
#[derive(Debug, Clone)]
pub struct Envelope {
    format: Format,
    /// Nothing: only a row's own partition key is one.
    key: Option<Template>,
    headers: NamedTemplates,
}

#[derive(Debug, Clone)]
enum Format {
    Native(Native),
    CloudEvents(CloudEvents),
    CloudEventsBinary(CloudEvents),
    Raw(Raw),
}

impl Envelope {
    pub fn new(outbox: &OutboxConfig) -> Envelope {
        Envelope {
            format: match outbox.envelope {
                EnvelopeFormat::Native => Format::Native(Native::new(outbox)),
                EnvelopeFormat::CloudEvents => Format::CloudEvents(CloudEvents::new(outbox)),
                EnvelopeFormat::CloudEventsBinary => {
                    Format::CloudEventsBinary(CloudEvents::new(outbox))
                }
                EnvelopeFormat::Raw => Format::Raw(Raw::new(outbox)),
            },
            key: outbox.templates.key.clone(),
            headers: outbox.templates.headers.clone(),
        }
    }

    /// The Kafka key; nothing if the event has none.
    fn key<'e>(&'e self, event: &Event<'e>) -> Result<Option<Cow<'e, str>>, EnvelopeError> {
        match (event.partition_key, &self.key) {
            (Some(key), _) => Ok(Some(Cow::Borrowed(key))),
            (None, Some(template)) => rendered(template.segments(), event),
            (None, None) => Ok(None),
        }
    }

    /// What keeps the place of a row that cannot become a message: its key, and nothing else.
    pub fn placeholder(&self, event: &Event<'_>) -> Message {
        match self.key(event) {
            Ok(Some(key)) => Message::of_key(key.as_bytes()),
            Ok(None) | Err(_) => Message::keyless(event.reference.id),
        }
    }

    /// Writes value and headers; returns where the value stands, nothing for a tombstone.
    fn write(
        &self,
        event: &Event<'_>,
        key: Option<&str>,
        out: &mut Encoder,
    ) -> Result<Option<Range<u32>>, EnvelopeError> {
        let value = match &self.format {
            Format::Native(native) => native.write(event, out)?,
            Format::CloudEvents(outbox) => Some(outbox.write(event, key, out)?),
            Format::CloudEventsBinary(outbox) => {
                cloudevents_binary::write(outbox, event, key, out)?
            }
            Format::Raw(raw) => raw.write(event, out),
        };
        each(&self.headers, event, |name, text| {
            out.header(name.to_owned(), text.as_bytes());
        })?;
        out.row_headers(event.headers)?;
        Ok(value)
    }
}

/// Hands over what each template becomes for the row, but for those that name a column which is null.
fn each(
    templates: &NamedTemplates,
    event: &Event<'_>,
    mut take: impl FnMut(&str, &str),
) -> Result<(), EnvelopeError> {
    for (name, template) in templates.iter() {
        if let Some(text) = rendered(template.segments(), event)? {
            take(name, &text);
        }
    }
    Ok(())
}

/// The row's instant as RFC 3339 has it, if the row has one.
fn timestamp(event: &Event<'_>) -> Result<Option<Timestamp>, EnvelopeError> {
    let Some(created_at) = event.created_at else {
        return Ok(None);
    };
    let micros = created_at.unix_micros();
    let timestamp = created_at.timestamp();
    timestamp
        .map(Some)
        .ok_or(EnvelopeError::Timestamp { micros })
}

/// What the format cannot do without.
fn needed<T>(value: Option<T>, field: Field) -> Result<T, EnvelopeError> {
    value.ok_or(EnvelopeError::Missing { field })
}

/// Key, value and headers of one Kafka message in a single buffer, ready to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    buffer: Box<[u8]>,
    /// What orders it: the key, or the row's id if it has none.
    order: Range<u32>,
    has_key: bool,
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
            order: 0..key.len() as u32,
            has_key: true,
            value: None,
            headers: Box::default(),
        }
    }

    /// The same message as a replay's copy of it. What a row's own headers may say of replays is not taken
    /// for it: there is exactly one such header.
    #[must_use]
    pub fn replayed(self) -> Message {
        let mut headers = self.headers.into_vec();
        headers.retain(|header| header.name != header::REPLAY);
        let message = Message {
            headers: headers.into(),
            ..self
        };
        message.with_headers([(header::REPLAY, REPLAYED)])
    }

    /// The same message with more headers, after its own.
    #[must_use]
    pub fn with_headers<'h>(
        self,
        more: impl IntoIterator<Item = (&'static str, &'h [u8])>,
    ) -> Message {
        let mut buffer = self.buffer.into_vec();
        let mut headers = self.headers.into_vec();
        for (name, value) in more {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(value);
            headers.push(Header {
                name: Cow::Borrowed(name),
                value: start..buffer.len() as u32,
            });
        }
        Message {
            buffer: buffer.into(),
            headers: headers.into(),
            ..self
        }
    }

    /// The same message as a tombstone.
    #[must_use]
    pub fn without_value(self) -> Message {
        Message {
            value: None,
            ..self
        }
    }

    /// A message of nothing at all, of the row with this id.
    pub(crate) fn keyless(id: i64) -> Message {
        Message {
            has_key: false,
            ..Message::of_key(&id.to_be_bytes())
        }
    }

    /// What orders the message: its key; without one the row is an order key of its own.
    pub fn key(&self) -> &[u8] {
        self.slice(&self.order)
    }

    /// The key that goes out, if there is one.
    pub fn kafka_key(&self) -> Option<&[u8]> {
        self.has_key.then(|| self.key())
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
        envelope: &Envelope,
        event: &Event<'_>,
    ) -> Result<Message, EnvelopeError> {
        self.buffer.clear();
        self.headers.clear();
        let key = envelope.key(event)?;
        let key = key.as_deref();
        let order = match key {
            Some(key) => self.append(key.as_bytes()),
            None => self.append(&event.reference.id.to_be_bytes()),
        };
        let value = envelope.write(event, key, self)?;
        Ok(Message {
            buffer: self.buffer.as_slice().into(),
            order,
            has_key: key.is_some(),
            value,
            headers: self.headers.drain(..).collect(),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len() as u32
    }

    fn header(&mut self, name: impl Into<Cow<'static, str>>, value: &[u8]) {
        self.written_header(name, |buffer| buffer.extend_from_slice(value));
    }

    fn optional_header(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.header(name, value.as_bytes());
        }
    }

    fn id_header(&mut self, name: &'static str, id: EventId<'_>) {
        match id {
            EventId::Uuid(id) => {
                let mut text = Uuid::encode_buffer();
                self.header(name, id.as_hyphenated().encode_lower(&mut text).as_bytes());
            }
            EventId::Text(id) => self.header(name, id.as_bytes()),
        }
    }

    /// The row's own headers, in the order of its JSON text.
    fn row_headers(&mut self, json: Option<&str>) -> Result<(), EnvelopeError> {
        let Some(json) = json else { return Ok(()) };
        let RowHeaders(headers) = serde_json::from_str(json).map_err(|_| EnvelopeError::Headers)?;
        for (name, value) in headers {
            self.header(name, value.as_bytes());
        }
        Ok(())
    }

    /// A header whose value is what `write` appends. All others come here.
    fn written_header(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.buffer.len() as u32;
        write(&mut self.buffer);
        let value = start..self.buffer.len() as u32;
        let name = name.into();
        self.headers.push(Header { name, value });
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
