//! What a topic takes: asked for once, and compared with every message before it is sent, because the broker
//! refuses a whole message set for one of its messages and names every mate as guilty.

use std::time::Duration;

use rdkafka::admin::ConfigResource;

use crate::envelope::Message;

/// What a topic takes, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicRules {
    /// `max.message.bytes`: of a message set as it lies on the broker's disk.
    pub max_message_bytes: Option<usize>,
    /// The topic is compacted, and a message without a key cannot be.
    pub needs_key: bool,
    /// How far ahead of the broker's clock a timestamp may be, if the broker keeps timestamps at all.
    pub max_ahead: Option<Duration>,
    /// And how far behind.
    pub max_behind: Option<Duration>,
}

/// What the client adds to the topic's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRules {
    /// `message.max.bytes`: of the message alone.
    pub max_message_bytes: usize,
    /// Then a message may be smaller on the broker than it is here.
    pub compresses: bool,
}

impl TopicRules {
    /// From the topic's configuration; nothing if that is empty, as the client has it when the brokers do not
    /// let us see it.
    pub(super) fn read(topic: &ConfigResource) -> Option<TopicRules> {
        if topic.entries.is_empty() {
            return None;
        }
        let value = |name| topic.get(name)?.value.as_deref();
        let number = |name| value(name)?.parse::<u64>().ok();
        let has_create_time = value("message.timestamp.type") != Some("LogAppendTime");
        let bound = |name| {
            number(name)
                .map(Duration::from_millis)
                .filter(|_| has_create_time)
        };
        let policy = value("cleanup.policy").unwrap_or_default();
        Some(TopicRules {
            max_message_bytes: number("max.message.bytes").and_then(|bytes| bytes.try_into().ok()),
            needs_key: policy.split(',').any(|policy| policy == "compact"),
            max_ahead: bound("message.timestamp.after.max.ms"),
            max_behind: bound("message.timestamp.before.max.ms"),
        })
    }

    /// Why the topic would refuse the message, at this time (both in milliseconds since 1970), if it would.
    pub fn refuses(
        &self,
        client: &ClientRules,
        message: &Message,
        timestamp_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<String> {
        if self.needs_key && message.kafka_key().is_none() {
            return Some("the topic is compacted, and the message has no key".to_owned());
        }
        if let Some(timestamp) = timestamp_ms {
            let bounds = [
                (
                    "ahead of",
                    self.max_ahead,
                    timestamp.saturating_sub(now_ms),
                    "after",
                ),
                (
                    "behind",
                    self.max_behind,
                    now_ms.saturating_sub(timestamp),
                    "before",
                ),
            ];
            for (where_it_is, bound, distance, name) in bounds {
                let distance = Duration::from_millis(u64::try_from(distance).unwrap_or(0));
                if let Some(bound) = bound.filter(|bound| distance > *bound) {
                    return Some(format!(
                        "the timestamp is {} ms {where_it_is} the clock, and the topic's \
                         message.timestamp.{name}.max.ms is {}",
                        distance.as_millis(),
                        bound.as_millis()
                    ));
                }
            }
        }
        self.refuses_size(client, message)
    }

    fn refuses_size(&self, client: &ClientRules, message: &Message) -> Option<String> {
        let limit = self.max_message_bytes.unwrap_or(usize::MAX);
        // Nearly every message is far from its limits.
        let most = message.size() + MAX_OVERHEAD + message.headers().len() * MAX_HEADER_OVERHEAD;
        if most <= limit.min(client.max_message_bytes) {
            return None;
        }
        let bytes = record_batch_bytes(message);
        if bytes > client.max_message_bytes.saturating_add(BATCH_HEADER) {
            return Some(format!(
                "the message of {bytes} bytes is larger than the client's message.max.bytes ({})",
                client.max_message_bytes
            ));
        }
        (bytes > limit && !client.compresses).then(|| {
            format!("the message of {bytes} bytes is larger than the topic's max.message.bytes ({limit})")
        })
    }
}

/// The header of a record batch, version 2 (<https://kafka.apache.org/documentation/#recordbatch>).
const BATCH_HEADER: usize = 61;

/// A record's own fields in a batch of one, with the longest lengths there are.
const MAX_OVERHEAD: usize = BATCH_HEADER + 5 + 1 + 1 + 1 + 5 + 5 + 5;

/// The lengths of a header's name and value.
const MAX_HEADER_OVERHEAD: usize = 10;

/// The bytes of a record batch that holds this message alone, uncompressed.
fn record_batch_bytes(message: &Message) -> usize {
    let counted = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => varint_bytes(bytes.len()) + bytes.len(),
        // A length of -1.
        None => 1,
    };
    let headers = message.headers();
    let header_count = varint_bytes(headers.len());
    let headers: usize = headers
        .map(|(name, value)| counted(Some(name.as_bytes())) + counted(Some(value)))
        .sum();
    // Attributes, and the deltas of timestamp and offset, which are 0: a byte each.
    let record =
        3 + counted(message.kafka_key()) + counted(message.value()) + header_count + headers;
    BATCH_HEADER + varint_bytes(record) + record
}

/// The bytes of a length as a zigzag varint.
fn varint_bytes(length: usize) -> usize {
    let zigzag = (length as u64) << 1;
    let bits = u64::BITS - zigzag.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientRules = ClientRules {
        max_message_bytes: 1_000_000,
        compresses: false,
    };

    #[test]
    fn lengths_take_a_byte_for_each_seven_bits_after_zigzag() {
        let bytes = [0, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576].map(varint_bytes);
        assert_eq!(bytes, [1, 1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn a_batch_of_one_key_has_its_fields_and_no_more() {
        // 61 of the batch, 1 length, 3 attributes and deltas, 1 + 3 key, 1 no value, 1 no headers.
        assert_eq!(record_batch_bytes(&Message::of_key(b"key")), 71);
    }

    #[test]
    fn the_limit_itself_is_taken_and_one_byte_more_is_not() {
        let message = Message::of_key(b"key");
        let rules = |max_message_bytes| TopicRules {
            max_message_bytes: Some(max_message_bytes),
            ..TopicRules::default()
        };
        assert_eq!(rules(71).refuses(&CLIENT, &message, None, 0), None);
        let reason = rules(70)
            .refuses(&CLIENT, &message, None, 0)
            .expect("refused");
        assert!(
            reason.contains("71 bytes") && reason.contains("max.message.bytes (70)"),
            "{reason}"
        );
        let compressing = ClientRules {
            compresses: true,
            ..CLIENT
        };
        assert_eq!(rules(70).refuses(&compressing, &message, None, 0), None);
    }

    #[test]
    fn timestamps_are_compared_with_the_clock_unless_the_broker_replaces_them() {
        let hour = Duration::from_secs(3_600);
        let rules = TopicRules {
            max_ahead: Some(hour),
            max_behind: Some(hour),
            ..TopicRules::default()
        };
        let message = Message::of_key(b"key");
        let refuses = |timestamp| rules.refuses(&CLIENT, &message, Some(timestamp), 10_000_000);
        assert_eq!(refuses(10_000_000), None);
        assert_eq!(refuses(13_600_000), None);
        assert!(refuses(13_600_001).is_some_and(|reason| reason.contains("3600001 ms ahead of")));
        assert!(
            refuses(6_399_999).is_some_and(|reason| reason.contains("before.max.ms is 3600000"))
        );
        let none = TopicRules::default();
        assert_eq!(none.refuses(&CLIENT, &message, Some(i64::MAX), 0), None);
    }
}
