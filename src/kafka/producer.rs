//! A producer whose every message comes back as a report.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};
use tokio::sync::Notify;

use super::forward_log;
use super::polled::PolledProducer;
use super::{ClusterHealth, KafkaClient, KafkaSetupError, Login};
use crate::envelope::Message;

/// Tickets ride in librdkafka's opaque pointer.
const _: () = assert!(
    size_of::<usize>() == size_of::<u64>(),
    "outboxd needs 64-bit pointers"
);

/// Whether a producer puts several messages into one message set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The rule. `enable.gapless.guarantee` makes the producer turn fatal rather than write anything
    /// after a set that failed for good, so no row overtakes an earlier one of its key.
    Batched,
    /// For suspects: every message is a set of its own, so that a refusal means this message alone. The
    /// lane has at most one message of a key in flight here, which is the other way to keep order.
    Alone,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The ticket given to [`Producer::send`].
    pub ticket: u64,
    pub sharing: Sharing,
    /// Acknowledged by all in-sync replicas of a partition, or why not.
    pub outcome: Result<i32, RDKafkaErrorCode>,
}

/// Where the reports of a lane's producers arrive. Bounded by what the lane has in flight.
#[derive(Debug, Default)]
pub struct Reports {
    queue: Mutex<Vec<Report>>,
    arrived: Notify,
}

impl Reports {
    fn push(&self, report: Report) {
        // A Vec of plain values is whole at any moment, whoever panicked.
        let first = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push(report);
            queue.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is a report. Cancel-safe: nothing is taken.
    pub async fn wait(&self) {
        self.arrived.notified().await;
    }

    /// Exchanges the collected reports for an empty vector.
    pub fn take(&self, into: &mut Vec<Report>) {
        into.clear();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *queue, into);
    }
}

/// How much a producer may hold.
#[derive(Debug, Clone, Copy)]
pub struct ProducerSizes {
    pub messages: usize,
    pub bytes: usize,
    /// Of a message set; nothing: as configured.
    pub batch_bytes: Option<usize>,
}

/// Why a message was not taken. The producer keeps no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Try again after the next report.
    QueueFull,
    /// The producer takes nothing any more: make another.
    Fatal,
    /// The client refuses this message.
    Refused(RDKafkaErrorCode),
}

/// One librdkafka producer with the settings that the promise depends on.
pub struct Producer {
    inner: PolledProducer<Context>,
}

struct Context {
    reports: Arc<Reports>,
    health: Arc<ClusterHealth>,
    login: Login,
    sharing: Sharing,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.note_error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let outcome = match result {
            Ok(message) => {
                self.health.note_up();
                // Invariant: acknowledged is what the brokers have given an offset. librdkafka reports without one
                // what it concludes from the success of a later message set: a broker that knows the producer
                // would have refused that. One that does not, since the topic was made anew or this was its
                // first message set, takes it, and the earlier one, which was to be tried again, is lost.
                match message.offset() < 0 {
                    true => Err(RDKafkaErrorCode::Inconsistent),
                    false => Ok(message.partition()),
                }
            }
            Err((error, _)) => Err(error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.reports.push(Report {
            ticket: ticket as u64,
            sharing: self.sharing,
            outcome,
        });
    }
}

impl Producer {
    /// Connects in the background; a cluster that cannot be reached is not an error here.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(
        client: &KafkaClient,
        sharing: Sharing,
        sizes: ProducerSizes,
        reports: &Arc<Reports>,
    ) -> Result<Producer, KafkaSetupError> {
        let mut config = client.base(&[
            // One millisecond lets a burst share a message set and is hardly seen in the latency.
            ("linger.ms", "1"),
            // How long a topic that is gone is waited for by messages that were handed over. A lane asks for a
            // topic before it sends, and again when it is gone: its rows shall not take everybody's room meanwhile.
            ("topic.metadata.propagation.max.ms", "1000"),
        ]);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A timed-out message would let later ones of its key pass; the lane watches for stalls.
            .set("message.timeout.ms", "0")
            // The Java client's choice, so that both put a key into the same partition.
            .set("partitioner", "murmur2_random")
            .set(
                "queue.buffering.max.messages",
                sizes.messages.max(1).to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                // One that is larger than the queue would wait for ever.
                (sizes.bytes.max(client.rules().max_message_bytes) / 1024 + 1).to_string(),
            );
        if let Some(bytes) = sizes.batch_bytes {
            config.set("batch.size", bytes.to_string());
        }
        match sharing {
            Sharing::Batched => config.set("enable.gapless.guarantee", "true"),
            Sharing::Alone => config.set("batch.num.messages", "1").set("linger.ms", "0"),
        };
        let context = Context {
            reports: Arc::clone(reports),
            health: Arc::clone(&client.health),
            login: client.login.clone(),
            sharing,
        };
        let inner = PolledProducer::new(&config, context, &client.login);
        Ok(Producer {
            inner: inner.map_err(KafkaSetupError::create(&config))?,
        })
    }

    /// Hands a message over; its report comes with `ticket`. Never blocks.
    ///
    /// # Errors
    /// When the message was not taken: no report will come.
    pub fn send(
        &self,
        topic: &str,
        message: &Message,
        timestamp_ms: Option<i64>,
        ticket: u64,
    ) -> Result<(), SendError> {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers().len());
        for (key, value) in message.headers() {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut record = BaseRecord::with_opaque_to(topic, ticket as usize).headers(headers);
        if let Some(key) = message.kafka_key() {
            record = record.key(key);
        }
        if let Some(value) = message.value() {
            record = record.payload(value);
        }
        if let Some(timestamp) = timestamp_ms {
            record = record.timestamp(timestamp);
        }
        self.inner
            .send(record)
            .map_err(|error| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => SendError::QueueFull,
                Some(RDKafkaErrorCode::Fatal) => SendError::Fatal,
                Some(code) => SendError::Refused(code),
                // A topic name with a NUL byte.
                None => SendError::Refused(RDKafkaErrorCode::InvalidTopic),
            })
    }

    /// Since when it is made of files of certificates that hold something else now, if it is.
    pub fn outdated_since(&self) -> Option<Instant> {
        self.inner.outdated_since()
    }

    /// Whether the producer has given up and must be replaced.
    pub fn is_fatal(&self) -> bool {
        self.inner.producer().client().fatal_error().is_some()
    }
}
