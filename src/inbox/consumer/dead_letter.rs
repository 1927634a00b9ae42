//! The dead-letter topic, as the consumer writes it.
//!
//! A dead letter is the message as it was, key, value and headers, with headers that say where it came
//! from and why it is here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::record::Record;
use crate::kafka::{KafkaSetupError, Login, PolledAdmin};

/// The headers that a dead letter has besides the message's own.
pub mod header {
    pub const TOPIC: &str = "dlq-original-topic";
    pub const PARTITION: &str = "dlq-original-partition";
    pub const OFFSET: &str = "dlq-original-offset";
    /// Kafka's, in milliseconds since 1970.
    pub const TIMESTAMP: &str = "dlq-original-timestamp";
    pub const CONSUMER: &str = "dlq-consumer";
    pub const EVENT_ID: &str = "dlq-event-id";
    pub const REASON: &str = "dlq-reason";
    /// How often the handler was run for it alone.
    pub const ATTEMPTS: &str = "dlq-attempts";
    /// On a message that was sent back: the consumer that it is for. Others pass over it.
    pub const REDRIVE: &str = "outboxd-redrive";

    /// What the headers of a dead letter begin with.
    pub const PREFIX: &str = "dlq-";
}

/// A reason can hold a whole chain of errors; a header is no place for more than this.
const MAX_REASON_BYTES: usize = 1_000;

/// How long a produce may take before its key waits: a transaction is open meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// A dead letter is larger than its message by its headers, so it must not meet the same limit.
pub const MAX_MESSAGE_BYTES: &str = "10485760";

/// Why a message is set aside.
#[derive(Debug, Clone, Copy)]
pub struct Reason<'a> {
    pub event_id: &'a str,
    pub text: &'a str,
    pub attempts: u32,
}

/// Writes dead letters.
pub struct DeadLetters {
    consumer: String,
    topic: String,
    producer: FutureProducer<Login>,
    config: ClientConfig,
    login: Login,
}

impl DeadLetters {
    /// `config`: the connection to Kafka, without a consumer's properties.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(
        consumer: &str,
        topic: &str,
        config: ClientConfig,
        login: &Login,
    ) -> Result<DeadLetters, KafkaError> {
        let mut producing = config.clone();
        producing
            // Order and repeats do not matter here, and an idempotent producer can fail for good.
            .set("enable.idempotence", "false")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false");
        Ok(DeadLetters {
            consumer: consumer.to_owned(),
            topic: topic.to_owned(),
            producer: producing.create_with_context(login.clone())?,
            config,
            login: login.clone(),
        })
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Makes the topic if it does not exist, with one partition and the broker's replication.
    ///
    /// # Errors
    /// When Kafka does not answer or refuses.
    pub async fn ensure_topic(&self) -> Result<(), KafkaSetupError> {
        let (producer, name) = (self.producer.clone(), self.topic.clone());
        let ask = move || {
            let metadata = producer.client().fetch_metadata(Some(&name), PATIENCE)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            Ok(topic.is_some_and(|topic| topic.error().is_none()))
        };
        let known: Result<bool, KafkaError> = tokio::task::spawn_blocking(ask)
            .await
            .unwrap_or(Err(KafkaError::Canceled));
        let topic = || self.topic.clone();
        let unanswered = |source| KafkaSetupError::Metadata {
            topic: topic(),
            source,
        };
        if known.map_err(unanswered)? {
            return Ok(());
        }
        let made = self.make_topic().await;
        made.map_err(|error| KafkaSetupError::CreateTopic {
            topic: topic(),
            reason: error.to_string(),
        })
    }

    async fn make_topic(&self) -> Result<(), KafkaError> {
        let admin = PolledAdmin::new(&self.config, &self.login)?;
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1))
            .set("max.message.bytes", MAX_MESSAGE_BYTES)
            // Nothing goes before a person has seen it.
            .set("retention.ms", "-1");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let created = admin.create_topics([&topic], &options).await?;
        match created.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            _ => {
                tracing::info!(topic.name = self.topic, "created the dead-letter topic");
                Ok(())
            }
        }
    }

    /// Writes the message with its reason; returns when all in-sync replicas have it.
    ///
    /// # Errors
    /// When Kafka did not take it in time. It may be there all the same.
    pub async fn send(&self, record: &Record, reason: Reason<'_>) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 8);
        for (key, value) in &record.headers {
            headers = insert(headers, key, value);
        }
        let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
        let timestamp = record.timestamp_ms.map(|millis| millis.to_string());
        let attempts = reason.attempts.to_string();
        let ours = [
            (header::TOPIC, Some(&*record.topic)),
            (header::PARTITION, Some(&*partition)),
            (header::OFFSET, Some(&*offset)),
            (header::TIMESTAMP, timestamp.as_deref()),
            (header::CONSUMER, Some(&*self.consumer)),
            (header::EVENT_ID, Some(reason.event_id)),
            (header::REASON, Some(shortened(reason.text))),
            (header::ATTEMPTS, Some(&*attempts)),
        ];
        for (key, value) in ours {
            if let Some(value) = value {
                headers = insert(headers, key, value.as_bytes());
            }
        }
        let mut message = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        self.producer
            .send(message, PATIENCE)
            .await
            .map(|_| ())
            .map_err(|(error, _)| error)
    }
}

fn insert(headers: OwnedHeaders, key: &str, value: &[u8]) -> OwnedHeaders {
    headers.insert(Header {
        key,
        value: Some(value),
    })
}

/// Cut at a character's boundary.
pub(crate) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_BYTES)]
}
