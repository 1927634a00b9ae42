//! A JSON object written straight into a message's buffer.

use std::fmt::Display;
use std::io::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use crate::event::EventId;

/// An object under construction. Names are constants that need no escaping. Nothing here can fail: a `Vec`
/// takes what is written.
pub(super) struct Object<'b> {
    body: &'b mut Vec<u8>,
    start: u32,
}

impl<'b> Object<'b> {
    pub fn open(body: &'b mut Vec<u8>) -> Object<'b> {
        let start = body.len() as u32;
        Object { body, start }
    }

    /// JSON as it is: a payload, or text that was escaped before.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.body.extend_from_slice(json);
    }

    /// A string, escaped where needed.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.body, value);
    }

    pub fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A value whose text needs no escaping, as a string.
    pub fn plain(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.body, "\"{value}\"");
    }

    pub fn id(&mut self, name: &str, id: EventId<'_>) {
        let id = match id {
            EventId::Uuid(id) => id,
            EventId::Text(id) => return self.text(name, id),
        };
        self.name(name);
        self.body.push(b'"');
        let mut text = Uuid::encode_buffer();
        let text = id.as_hyphenated().encode_lower(&mut text);
        self.body.extend_from_slice(text.as_bytes());
        self.body.push(b'"');
    }

    pub fn base64(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.body.push(b'"');
        let text = self.body.len();
        self.body.resize(text + bytes.len().div_ceil(3) * 4, 0);
        // The space is exactly what the encoding needs.
        let _ = STANDARD.encode_slice(bytes, &mut self.body[text..]);
        self.body.push(b'"');
    }

    /// Returns where the object stands.
    pub fn close(self) -> Range<u32> {
        if self.body.len() as u32 == self.start {
            self.body.push(b'{');
        }
        self.body.push(b'}');
        self.start..self.body.len() as u32
    }

    fn name(&mut self, name: &str) {
        let first = self.body.len() as u32 == self.start;
        self.body
            .extend_from_slice(if first { b"{\"" } else { b",\"" });
        self.body.extend_from_slice(name.as_bytes());
        self.body.extend_from_slice(b"\":");
    }
}
