//! A message as it came from Kafka, owned: it outlives the client's buffers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::inbox::EventId;

/// One Kafka message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's own timestamp, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Box<[u8]>>,
    /// Nothing: a tombstone.
    pub value: Option<Box<[u8]>>,
    /// In the order of the message; a name can come more than once.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
}

impl Record {
    pub(crate) fn of(topic: Arc<str>, message: &BorrowedMessage<'_>) -> Record {
        // The wrapper panics at a name that is not UTF-8. What can be decoded without headers still is.
        let headers = catch_unwind(AssertUnwindSafe(|| headers(message)));
        let headers = headers.unwrap_or_else(|_| {
            tracing::warn!(
                topic.name = &*topic,
                partition = message.partition(),
                offset = message.offset(),
                "the headers of a message cannot be read and are left out"
            );
            Vec::new()
        });
        Record {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Into::into),
            value: message.payload().map(Into::into),
            headers,
        }
    }

    pub fn place(&self) -> Place {
        Place {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
        }
    }

    /// The last header of this name, which is the one that counts.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().rev();
        found
            .find(|(header, _)| **header == *name)
            .map(|(_, value)| &**value)
    }

    /// The same as text; nothing if it is not UTF-8.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// Bytes that this message holds in memory, about.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD)
            .sum();
        let length = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        size_of::<Record>() + length(&self.key) + length(&self.value) + headers
    }
}

/// Where a message is, or was once: `topic/partition/offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's, in milliseconds since 1970: a topic that is made anew has the same offsets once more.
    pub timestamp_ms: Option<i64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl Place {
    /// What a message without an id of its own is known by.
    pub(super) fn event_id(&self) -> EventId {
        let time = self.timestamp_ms.map(|millis| format!("@{millis}"));
        match EventId::text(format!("kafka:{self}{}", time.unwrap_or_default())) {
            Ok(id) => id,
            // Kafka's topic names end at 249 bytes and hold no NUL.
            Err(_) => unreachable!("a place in Kafka is an id"),
        }
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<(Box<str>, Box<[u8]>)> {
    let headers = message.headers().into_iter().flat_map(|all| all.iter());
    headers
        .map(|header| (header.key.into(), header.value.unwrap_or_default().into()))
        .collect()
}

/// Two fat pointers.
const HEADER_OVERHEAD: usize = 32;
