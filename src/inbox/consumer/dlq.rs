//! The dead letters of one consumer, for a person: which are there, sent back, given up.
//!
//! The topic keeps every letter; which of them still wait is said by `processed_events`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use sqlx::PgConnection;

use super::dead_letter::{MAX_MESSAGE_BYTES, header};
use super::record::{Place, Record};
use crate::inbox::outcome::Outcomes;
use crate::inbox::{ConsumerName, InboxError};
use crate::kafka::{KafkaSetupError, Login};
use crate::oauth::ClientCredentials;

pub use crate::inbox::outcome::State;

/// How long Kafka may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the topic may bring nothing while something must still be there.
const STALL: Duration = Duration::from_secs(30);

/// Letters that are looked up in Postgres at a time.
const CHUNK: usize = 500;

/// Why dead letters could not be read or moved.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    #[error("{action}")]
    Kafka {
        action: String,
        #[source]
        source: KafkaError,
    },
    #[error(transparent)]
    Login(#[from] KafkaSetupError),
    #[error("the dead letters' states")]
    Inbox(#[from] InboxError),
    #[error("topic \"{topic}\" brought nothing for {seconds} s with {left} partitions left")]
    Stalled {
        topic: String,
        seconds: u64,
        left: usize,
    },
    /// Somebody else was quicker, or it was never one.
    #[error("event {0} is no dead letter of this consumer any more")]
    Gone(String),
    #[error("the letter of event {0} does not say where it came from")]
    NoOrigin(String),
}

/// One message on the dead-letter topic that waits for a person.
#[derive(Debug, Clone)]
pub struct Letter {
    pub event_id: String,
    pub reason: String,
    pub attempts: u32,
    /// Dead-lettered; or redriven, and not yet effective.
    pub state: State,
    /// Where the message was first.
    pub origin: Option<Place>,
    /// The message on the dead-letter topic itself.
    pub record: Record,
}

/// The dead letters of one consumer.
///
/// ```no_run
/// use outboxd::inbox::ConsumerName;
/// use outboxd::inbox::consumer::dlq::Dlq;
/// use rdkafka::ClientConfig;
///
/// # async fn redrive(mut connection: sqlx::PgConnection) -> Result<(), Box<dyn std::error::Error>> {
/// let mut kafka = ClientConfig::new();
/// kafka.set("bootstrap.servers", "localhost:9092");
/// let dlq = Dlq::new(ConsumerName::new("billing")?, None, None, kafka)?;
/// for letter in dlq.list(&mut connection).await? {
///     if letter.reason.contains("no such account") {
///         dlq.redrive(&mut connection, &letter).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Dlq {
    consumer: ConsumerName,
    topic: String,
    outcomes: Outcomes,
    config: ClientConfig,
    login: Login,
}

impl Dlq {
    /// `config`: the connection to Kafka. `topic`: none stands for the consumer's usual one.
    ///
    /// # Errors
    /// When the schema's name is none.
    pub fn new(
        consumer: ConsumerName,
        topic: Option<&str>,
        schema: Option<&str>,
        config: ClientConfig,
    ) -> Result<Dlq, DlqError> {
        let usual = format!("{consumer}-dead-letters");
        Ok(Dlq {
            topic: topic.map_or(usual, str::to_owned),
            outcomes: Outcomes::new(consumer.clone(), schema)?,
            consumer,
            config,
            login: Login::new(None, None),
        })
    }

    /// Logs in with tokens that are fetched for these credentials: with the property `sasl.mechanism` set to
    /// `OAUTHBEARER`.
    #[must_use]
    pub fn oauth(self, credentials: &ClientCredentials) -> Dlq {
        self.with_login(&Login::new(Some(credentials), None))
    }

    /// Logs in as others of the process do.
    pub(crate) fn with_login(mut self, login: &Login) -> Dlq {
        self.login = login.clone();
        self
    }

    /// The letters that wait, in the order of the topic; the last of an event that has several.
    ///
    /// # Errors
    /// When Kafka or Postgres does not answer.
    pub async fn list(&self, connection: &mut PgConnection) -> Result<Vec<Letter>, DlqError> {
        let (chunks, mut letters) = tokio::sync::mpsc::channel::<Vec<Letter>>(1);
        let reader = Reader {
            consumer: self.consumer.as_str().to_owned(),
            topic: self.topic.as_str().into(),
            config: self.config.clone(),
            login: self.login.clone(),
        };
        let reading = tokio::task::spawn_blocking(move || reader.read(&chunks));
        let mut found: BTreeMap<String, Letter> = BTreeMap::new();
        while let Some(chunk) = letters.recv().await {
            let ids: Vec<&str> = chunk.iter().map(|letter| &*letter.event_id).collect();
            let states = self.outcomes.states(connection, &ids).await?;
            for mut letter in chunk {
                let state = states.get(&letter.event_id);
                if let Some(state @ (State::DeadLettered | State::Redriven)) = state {
                    letter.state = *state;
                    found.insert(letter.event_id.clone(), letter);
                }
            }
        }
        let canceled = Err(self.kafka("reading", KafkaError::Canceled));
        reading.await.unwrap_or(canceled)?;
        let mut found: Vec<Letter> = found.into_values().collect();
        found.sort_by_key(|letter| (letter.record.partition, letter.record.offset));
        Ok(found)
    }

    /// Sends the event back to its topic, to take effect as if it were new. Recorded first: a crash in
    /// between leaves it listed as redriven, to be redriven again.
    ///
    /// # Errors
    /// When it is no dead letter any more, or Kafka did not take it: it then stays listed.
    pub async fn redrive(
        &self,
        connection: &mut PgConnection,
        letter: &Letter,
    ) -> Result<(), DlqError> {
        let id = &letter.event_id;
        let Some(origin) = &letter.origin else {
            return Err(DlqError::NoOrigin(id.clone()));
        };
        let changed = self.outcomes.change(connection, id, State::Redriven).await;
        if !changed? {
            return Err(DlqError::Gone(id.clone()));
        }
        self.send_back(letter, origin).await?;
        // What had no id of its own comes back as another message.
        if *id == origin.event_id().as_str() {
            self.discard(connection, letter).await?;
        }
        Ok(())
    }

    /// Gives the event up: it will never take effect.
    ///
    /// # Errors
    /// When it is no dead letter any more.
    pub async fn discard(
        &self,
        connection: &mut PgConnection,
        letter: &Letter,
    ) -> Result<(), DlqError> {
        let id = &letter.event_id;
        let changed = self.outcomes.change(connection, id, State::Discarded).await;
        match changed? {
            true => Ok(()),
            false => Err(DlqError::Gone(id.clone())),
        }
    }

    /// The message as it was, with one header more.
    async fn send_back(&self, letter: &Letter, origin: &Place) -> Result<(), DlqError> {
        let action = "sending back a message of";
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            // The Java client's choice, which the relay makes too: the key's own partition.
            .set("partitioner", "murmur2_random");
        let producer: FutureProducer<Login> = config
            .create_with_context(self.login.clone())
            .map_err(|e| self.kafka(action, e))?;
        let record = &letter.record;
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            if !key.starts_with(header::PREFIX) && **key != *header::REDRIVE {
                let value = Some(&**value);
                headers = headers.insert(Header { key, value });
            }
        }
        headers = headers.insert(Header {
            key: header::REDRIVE,
            value: Some(self.consumer.as_str()),
        });
        let mut message = FutureRecord::<[u8], [u8]>::to(&origin.topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = origin.timestamp_ms;
        let sent = producer.send(message, PATIENCE).await;
        sent.map(|_| ())
            .map_err(|(error, _)| self.kafka(action, error))
    }

    fn kafka(&self, action: &str, source: KafkaError) -> DlqError {
        DlqError::Kafka {
            action: format!("{action} topic \"{}\"", self.topic),
            source,
        }
    }
}

/// Reads the topic from its beginning to what is now its end.
struct Reader {
    consumer: String,
    topic: Arc<str>,
    config: ClientConfig,
    login: Login,
}

impl Reader {
    fn read(mut self, chunks: &tokio::sync::mpsc::Sender<Vec<Letter>>) -> Result<(), DlqError> {
        let action = format!("reading topic \"{}\"", self.topic);
        let fail = |source| DlqError::Kafka {
            action: action.clone(),
            source,
        };
        self.config
            .set("group.id", "outboxd-dlq")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "100");
        let client: BaseConsumer<Login> = self
            .config
            .create_with_context(self.login.clone())
            .map_err(fail)?;
        self.login.prepare(client.client())?;
        let metadata = client
            .fetch_metadata(Some(&self.topic), PATIENCE)
            .map_err(fail)?;
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        let mut start = TopicPartitionList::new();
        let mut left = BTreeMap::new();
        for partition in partitions {
            let id = partition.id();
            let ends = client.fetch_watermarks(&self.topic, id, PATIENCE);
            let (low, high) = ends.map_err(fail)?;
            if high > low {
                left.insert(id, high);
                let added = start.add_partition_offset(&self.topic, id, Offset::Beginning);
                added.map_err(fail)?;
            }
        }
        client.assign(&start).map_err(fail)?;
        let mut chunk = Vec::new();
        let mut moved = Instant::now();
        while !left.is_empty() {
            let Some(Ok(message)) = client.poll(Duration::from_millis(100)) else {
                if moved.elapsed() > STALL {
                    return Err(DlqError::Stalled {
                        topic: self.topic.to_string(),
                        seconds: STALL.as_secs(),
                        left: left.len(),
                    });
                }
                continue;
            };
            moved = Instant::now();
            // The last offset may be a marker of a transaction, which nobody sees: nobody writes any here.
            if left
                .get(&message.partition())
                .is_some_and(|end| message.offset() + 1 >= *end)
            {
                left.remove(&message.partition());
            }
            chunk.extend(self.letter(Record::of(Arc::clone(&self.topic), &message)));
            if chunk.len() >= CHUNK && chunks.blocking_send(std::mem::take(&mut chunk)).is_err() {
                return Ok(());
            }
        }
        // Nobody listens only if the reader's owner was dropped.
        let _ = chunks.blocking_send(chunk);
        Ok(())
    }

    fn letter(&self, record: Record) -> Option<Letter> {
        let text = |name| record.header_text(name);
        if text(header::CONSUMER)? != self.consumer {
            return None;
        }
        let origin = || {
            Some(Place {
                topic: text(header::TOPIC)?.into(),
                partition: text(header::PARTITION)?.parse().ok()?,
                offset: text(header::OFFSET)?.parse().ok()?,
                timestamp_ms: text(header::TIMESTAMP).and_then(|millis| millis.parse().ok()),
            })
        };
        Some(Letter {
            event_id: text(header::EVENT_ID)?.to_owned(),
            reason: text(header::REASON).unwrap_or_default().to_owned(),
            attempts: text(header::ATTEMPTS)?.parse().ok()?,
            state: State::DeadLettered,
            origin: origin(),
            record,
        })
    }
}
