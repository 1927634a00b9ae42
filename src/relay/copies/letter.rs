//! A parked row as a message for the topic of dead letters.

use crate::db::copies::Uncopied;
use crate::envelope::Message;
use crate::inbox::consumer::{dead_letter_header as header, shortened};
use crate::relay::window::Outgoing;

/// Headers that a consumer's dead letters do not have.
const OUTBOX: &str = "dlq-outbox";
const ROW: &str = "dlq-row";
const CLASS: &str = "dlq-class";
/// What the message had and its copy has not.
const OMITTED: &str = "dlq-omitted";

/// How much of a message its copy has: less, if the topic does not take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    WithoutValue,
    /// Nothing but why it is here.
    Bare,
}

impl Form {
    pub const ALL: [Form; 3] = [Form::Whole, Form::WithoutValue, Form::Bare];
}

/// A row to be copied.
#[derive(Debug)]
pub struct Letter {
    pub note: Uncopied,
    /// Nothing: it is gone, or nobody is to look at it.
    pub row: Option<Outgoing>,
}

impl Letter {
    /// `outbox` is its name in the configuration.
    pub fn message(&self, outbox: &str, form: Form) -> Message {
        let (message, omitted) = self.body(form);
        let note = &self.note;
        let (row, event_id) = (note.event.id.to_string(), note.event.event_id.to_string());
        let attempts = note.attempts.to_string();
        let timestamp = self.row.as_ref().and_then(|row| row.timestamp_ms);
        let timestamp = timestamp.map(|millis| millis.to_string());
        let headers = [
            (OUTBOX, Some(outbox)),
            (ROW, Some(&*row)),
            (header::EVENT_ID, Some(&*event_id)),
            (header::TOPIC, Some(&*note.topic)),
            (header::TIMESTAMP, timestamp.as_deref()),
            (CLASS, Some(&*note.class)),
            (header::REASON, Some(shortened(&note.reason))),
            (header::ATTEMPTS, Some(&*attempts)),
            (OMITTED, omitted),
        ];
        let headers = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.as_bytes())));
        message.with_headers(headers)
    }

    /// The message, and what it lacks.
    fn body(&self, form: Form) -> (Message, Option<&'static str>) {
        let id = self.note.event.id;
        match (&self.row, form) {
            (_, Form::Bare) => (Message::keyless(id), Some("key, value, headers")),
            (None, _) => {
                let message = match &self.note.key {
                    Some(key) => Message::of_key(key),
                    None => Message::keyless(id),
                };
                (message, Some("value, headers"))
            }
            // What could be made of it is its key.
            (Some(row), _) if row.unsendable.is_some() => {
                (row.message.clone(), Some("value, headers"))
            }
            (Some(row), Form::WithoutValue) => (row.message.clone().without_value(), Some("value")),
            (Some(row), Form::Whole) => (row.message.clone(), None),
        }
    }
}
