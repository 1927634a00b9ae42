//! The consumer runtime: handlers that read like those of a small web server, and an effect that happens
//! once.
//!
//! ```no_run
//! use outboxd::inbox::consumer::{Consumer, Event, HandlerError, HandlerResult, Tx};
//! use outboxd::outbox::{self, NewEvent};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "camelCase")]
//! struct OrderPlaced {
//!     order_id: String,
//!     total_cents: i64,
//! }
//!
//! async fn charge(mut tx: Tx, event: Event<OrderPlaced>) -> HandlerResult {
//!     let order = event.data;
//!     if order.total_cents < 0 {
//!         return Err(HandlerError::reject("a negative total")); // to the dead letters at once
//!     }
//!     sqlx::query("update accounts set cents = cents - $1 where id = $2")
//!         .bind(order.total_cents)
//!         .bind(&order.order_id)
//!         .execute(&mut *tx)
//!         .await?; // any error: tried again, later
//!     let paid = NewEvent::json("order", order.order_id, "order.paid", &order.total_cents)?;
//!     outbox::append(&mut tx, paid).await?; // caused by the event at hand, and says so
//!     Ok(())
//! }
//!
//! # async fn run(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! Consumer::new("billing", pool)
//!     .kafka([("bootstrap.servers", "localhost:9092")])
//!     .topics(["order-events"])
//!     .on("order.placed", charge)
//!     .upcast("order.placed", "1", "2", |mut data| {
//!         data["totalCents"] = (data["total"].as_f64().unwrap_or(0.0) * 100.0).round().into();
//!         Ok(data)
//!     })
//!     .run_until(std::future::pending())
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * A handler's effect in its transaction happens once per consumer and event, whatever is redelivered,
//!   replayed or crashed, and whoever else believes that a partition is theirs: the event is claimed in that
//!   very transaction ([`crate::inbox`]). A handler may *run* more than once; what it does outside its
//!   transaction is not covered.
//! * Offsets are committed after the effects.
//! * Events of one key are handled in the order of their partition; keys are worked on in parallel, many
//!   events in one transaction. A handler that fails in company is judged alone.
//! * A failed event is tried again, with its key waiting and all other keys flowing; after
//!   [`Consumer::attempts`] it goes to the dead-letter topic with its reason. So does, at once, what a
//!   handler rejects, what no decoder can read, and what is older than anything remembered.
//! * Nothing is lost: what the dead-letter topic does not take waits. Outages, deadlocks and serialization
//!   failures are no attempts; losing the connection again and again is, for the event at hand alone.
//! * A handler cannot commit its transaction, and one that rolls it back by SQL has failed.
//!
//! `outboxd inbox dlq` shows dead letters, sends them back or gives them up.

mod aside;
mod attempt;
mod dead_letter;
pub mod decode;
mod dispatcher;
pub mod dlq;
mod event;
mod failure;
mod feed;
mod handler;
mod metrics;
mod properties;
mod record;
mod schedule;
mod transaction;
mod upcast;
mod worker;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::error::KafkaError;
use serde_json::Value;
use sqlx::PgPool;

use super::outcome::Outcomes;
use super::{ConsumerName, IdentityError, Inbox, InboxError};
use crate::outage::{Outage, chain};
use dead_letter::DeadLetters;
use decode::Decoder;
use dispatcher::{Broken, Dispatcher, Settings};
use feed::Feed;
use handler::Routes;
use properties::Properties;
use schedule::{Backoff, Limits, Load};
use upcast::Upcasters;
use worker::Worker;

pub use crate::inbox::Tx;
pub use event::{Event, FromPayload, NotOfType, Raw};
pub use handler::{HandlerError, HandlerResult};
pub use metrics::Metrics;
pub use properties::PropertyError;
pub use record::{Place, Record};
pub use upcast::UpcastCycle;

/// Each has one transaction, and so one connection of the pool, at a time.
const WORKERS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Events of one transaction: enough that the commit is a small part, few enough that locks are short.
const BATCH: NonZeroUsize = NonZeroUsize::new(200).unwrap();

const ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).unwrap();

const LIMITS: Limits = Limits {
    // A handful of batches for every worker; and as many bytes as 16 of Kafka's largest default fetches of a
    // partition.
    partition: Load {
        messages: 5_000,
        bytes: 16 << 20,
        // Two words each: under 2 MiB.
        span: 100_000,
    },
    // As much as eight full partitions, whatever their number.
    all: Load {
        messages: 40_000,
        bytes: 128 << 20,
        span: 800_000,
    },
};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    most: Duration::from_secs(30),
};

/// Long for a database, short beside the five minutes after which Kafka gives up a silent consumer.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a rebalance waits for batches that are at work.
const REBALANCE_PATIENCE: Duration = Duration::from_secs(10);

const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// Why a consumer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error(transparent)]
    Name(#[from] IdentityError),
    #[error("the consumer's inbox")]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Upcasts(#[from] UpcastCycle),
    #[error("consumer \"{consumer}\": {missing}")]
    Incomplete {
        consumer: String,
        missing: &'static str,
    },
    #[error("consumer \"{consumer}\"")]
    Property {
        consumer: String,
        #[source]
        source: PropertyError,
    },
    #[error("kafka's client of consumer \"{consumer}\"")]
    Kafka {
        consumer: String,
        #[source]
        source: KafkaError,
    },
    /// A part of the consumer ended that must not: start it again.
    #[error("consumer \"{consumer}\": {reason}")]
    Broken { consumer: String, reason: String },
}

/// How a consumer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Batches that did not end before the deadline. They were rolled back, and their events come again.
    pub unfinished_batches: usize,
}

/// A consumer, before it runs. See the module's documentation.
#[must_use = "a consumer does nothing before it runs"]
pub struct Consumer {
    name: String,
    pool: PgPool,
    schema: Option<String>,
    properties: Properties,
    topics: Vec<String>,
    routes: Routes,
    upcasters: Upcasters,
    decoders: Vec<Box<dyn Decoder>>,
    dead_letter_topic: Option<String>,
    metrics: Metrics,
    workers: NonZeroUsize,
    batch: NonZeroUsize,
    attempts: NonZeroU32,
    limits: Limits,
    backoff: Backoff,
    handler_timeout: Duration,
    shutdown_deadline: Duration,
    reject_unhandled: bool,
    hold_key: bool,
}

impl Consumer {
    /// `name` is the identity of all that was processed, and Kafka's group unless that is set.
    pub fn new(name: impl Into<String>, pool: PgPool) -> Consumer {
        Consumer {
            name: name.into(),
            pool,
            schema: None,
            properties: Properties::default(),
            topics: Vec::new(),
            routes: Routes::default(),
            upcasters: Upcasters::default(),
            decoders: decode::known(),
            dead_letter_topic: None,
            metrics: Metrics::default(),
            workers: WORKERS,
            batch: BATCH,
            attempts: ATTEMPTS,
            limits: LIMITS,
            backoff: BACKOFF,
            handler_timeout: HANDLER_TIMEOUT,
            shutdown_deadline: SHUTDOWN_DEADLINE,
            reject_unhandled: false,
            hold_key: false,
        }
    }

    /// Properties of librdkafka; `bootstrap.servers` at least. Offsets are committed by the runtime: what
    /// switches librdkafka's own commits on is overridden.
    pub fn kafka<N: Into<String>, V: Into<String>>(
        mut self,
        properties: impl IntoIterator<Item = (N, V)>,
    ) -> Consumer {
        let properties = properties.into_iter();
        self.properties
            .0
            .extend(properties.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The topics to read.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Consumer {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Handles the events of a type. Types without a handler are passed over, without a claim.
    pub fn on<T, F, R>(mut self, event_type: &str, handler: F) -> Consumer
    where
        T: FromPayload + 'static,
        F: Fn(Tx, Event<T>) -> R + Send + Sync + 'static,
        R: Future<Output = HandlerResult> + Send + 'static,
    {
        self.routes.add(event_type, handler);
        self
    }

    /// Turns JSON data of version `from` of a type into version `to`, before the handler sees it. Upcasts
    /// are chained.
    pub fn upcast(
        mut self,
        event_type: &str,
        from: &str,
        to: &str,
        upcast: impl Fn(Value) -> Result<Value, HandlerError> + Send + Sync + 'static,
    ) -> Consumer {
        self.upcasters.add(event_type, from, to, Box::new(upcast));
        self
    }

    /// Reads one more format. It is asked before those that are known: outboxd's own and CloudEvents.
    pub fn decoder(mut self, decoder: impl Decoder) -> Consumer {
        self.decoders.insert(0, Box::new(decoder));
        self
    }

    /// Where `processed_events` is (default the search path of the connections).
    pub fn schema(mut self, schema: impl Into<String>) -> Consumer {
        self.schema = Some(schema.into());
        self
    }

    /// The dead-letter topic (default `{name}-dead-letters`). It is made if it does not exist.
    pub fn dead_letter_topic(mut self, topic: impl Into<String>) -> Consumer {
        self.dead_letter_topic = Some(topic.into());
        self
    }

    /// Counts into these metrics.
    pub fn metrics(mut self, metrics: &Metrics) -> Consumer {
        self.metrics = metrics.clone();
        self
    }

    /// Transactions at a time (default 4), and no more than the pool has connections. Connections that
    /// handlers take from the same pool come on top.
    pub fn workers(mut self, workers: NonZeroUsize) -> Consumer {
        self.workers = workers;
        self
    }

    /// Events of one transaction, at most (default 200).
    pub fn batch(mut self, events: NonZeroUsize) -> Consumer {
        self.batch = events;
        self
    }

    /// How often a handler is run alone for an event before that is dead-lettered (default 3).
    pub fn attempts(mut self, attempts: NonZeroU32) -> Consumer {
        self.attempts = attempts;
        self
    }

    /// How long a key waits after a failure: doubled each time, with jitter (default 500 ms to 30 s).
    pub fn backoff(mut self, first: Duration, most: Duration) -> Consumer {
        self.backoff = Backoff { first, most };
        self
    }

    /// How much of one partition may be in memory before it is paused (default 5,000 messages, 16 MiB).
    pub fn buffer(mut self, messages: NonZeroUsize, bytes: NonZeroUsize) -> Consumer {
        self.limits.partition.messages = messages.get();
        self.limits.partition.bytes = bytes.get();
        self
    }

    /// How much of all partitions together (default 40,000 messages, 128 MiB). From half of it on, those
    /// that hold more than their share are paused; so it is best many times a batch.
    pub fn total_buffer(mut self, messages: NonZeroUsize, bytes: NonZeroUsize) -> Consumer {
        self.limits.all.messages = messages.get();
        self.limits.all.bytes = bytes.get();
        self
    }

    /// When a handler counts as failed (default 30 s).
    pub fn handler_timeout(mut self, timeout: Duration) -> Consumer {
        self.handler_timeout = timeout;
        self
    }

    /// How long the end waits for what is at work (default 20 s).
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Consumer {
        self.shutdown_deadline = deadline;
        self
    }

    /// Dead-letters events of types without a handler, instead of passing them over.
    pub fn reject_unhandled(mut self) -> Consumer {
        self.reject_unhandled = true;
        self
    }

    /// A dead letter holds the later events of its key, until a person has redriven or discarded it. They
    /// stay in memory and keep the partition's position back: when they fill [`Consumer::buffer`], the whole
    /// partition waits.
    pub fn hold_key_on_reject(mut self) -> Consumer {
        self.hold_key = true;
        self
    }

    /// Consumes until `stop` ends; then finishes what is at work, commits, and leaves the group. Postgres
    /// and Kafka may come and go meanwhile.
    ///
    /// Dropped instead of stopped, it rolls back what is at work, and its events come again.
    ///
    /// # Errors
    /// When it is not complete, or a part of it ends that must not.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<Ended, ConsumerError> {
        let consumer = self.name.clone();
        let (dispatcher, arrivals) = self.start().await?;
        let ended = dispatcher.run(arrivals, stop).await;
        ended
            .map(|unfinished_batches| Ended { unfinished_batches })
            .map_err(|broken| ConsumerError::Broken {
                consumer,
                reason: match broken {
                    Broken::Kafka(error) => chain(&error),
                    Broken::Worker(error) => chain(&error),
                    Broken::Feed => "the thread that polls kafka ended".to_owned(),
                },
            })
    }

    async fn start(
        self,
    ) -> Result<(Dispatcher, tokio::sync::mpsc::Receiver<feed::Arrival>), ConsumerError> {
        self.check()?;
        let name = ConsumerName::new(self.name.clone())?;
        let outcomes = Outcomes::new(name.clone(), self.schema.as_deref())?;
        let inbox = match &self.schema {
            Some(schema) => Inbox::in_schema(name, schema)?,
            None => Inbox::new(name),
        };
        let kafka = |source| ConsumerError::Kafka {
            consumer: self.name.clone(),
            source,
        };
        let topic = self.dead_letter_topic.clone();
        let topic = topic.unwrap_or_else(|| format!("{}-dead-letters", self.name));
        let client = self.properties.client();
        let dead_letters = DeadLetters::new(&self.name, &topic, client).map_err(kafka)?;
        if let Err(error) = dead_letters.ensure_topic().await {
            // Its letters wait for it, and say so.
            tracing::warn!(
                topic.name = topic,
                error = chain(&error),
                "the dead-letter topic cannot be used yet"
            );
        }
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let feed = Feed::start(
            &self.properties.consumer(&self.name),
            &topics,
            REBALANCE_PATIENCE,
        )
        .map_err(kafka)?;
        let settings = Settings {
            workers: self.usable_workers(),
            batch: self.batch.get(),
            limits: self.limits,
            backoff: self.backoff,
            shutdown_deadline: self.shutdown_deadline,
        };
        let worker = Worker {
            metrics: self.metrics.consumer(&self.name),
            pool: self.pool,
            inbox,
            outcomes,
            decoders: self.decoders,
            upcasters: self.upcasters,
            routes: self.routes,
            dead_letters,
            postgres: Outage::new("postgres"),
            distrust: AtomicBool::new(false),
            attempts: self.attempts,
            handler_timeout: self.handler_timeout,
            reject_unhandled: self.reject_unhandled,
            hold_key: self.hold_key,
        };
        Ok(Dispatcher::new(settings, worker, feed))
    }

    /// A worker that waits for a connection until the pool gives up would take that for an outage.
    fn usable_workers(&self) -> usize {
        let workers = self.workers.get();
        let connections = self.pool.options().get_max_connections();
        let usable = workers.min(usize::try_from(connections).unwrap_or(usize::MAX));
        if usable < workers {
            tracing::warn!(
                consumer = self.name,
                workers,
                connections,
                "the pool has fewer connections than the consumer has workers, so some stay idle"
            );
        }
        usable
    }

    fn check(&self) -> Result<(), ConsumerError> {
        self.upcasters.check()?;
        self.properties
            .check()
            .map_err(|source| ConsumerError::Property {
                consumer: self.name.clone(),
                source,
            })?;
        let missing = if self.topics.is_empty() {
            "no topics to read"
        } else if !self.properties.0.contains_key("bootstrap.servers") {
            "the property bootstrap.servers is not set"
        } else if self.routes.is_empty() && !self.reject_unhandled {
            "no handlers: every event would be passed over"
        } else if self.routes.has_repeats() {
            "two handlers for one type of event"
        } else {
            return Ok(());
        };
        Err(ConsumerError::Incomplete {
            consumer: self.name.clone(),
            missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::decode::{Decoded, Payload};
    use super::{Consumer, ConsumerError};
    use crate::inbox::EventId;
    use crate::outage::chain;

    #[tokio::test]
    async fn the_protocol_of_a_group_that_a_consumer_cannot_speak_is_refused_by_name() {
        let pool = sqlx::PgPool::connect_lazy("postgres://localhost").expect("a pool");
        let consumer = Consumer::new("billing", pool)
            .kafka([("bootstrap.servers", "b"), ("group.protocol", "consumer")])
            .topics(["t"])
            .reject_unhandled();
        let refused = consumer.check().expect_err("refused");
        assert!(matches!(refused, ConsumerError::Property { .. }));
        assert_eq!(
            chain(&refused),
            "consumer \"billing\": kafka property group.protocol: must be \"classic\", \
             since the consumer takes part in assigning partitions, is \"consumer\""
        );
    }

    /// An event of this type, version and data.
    pub(super) fn decoded(event_type: &str, event_version: &str, data: &str) -> Decoded {
        Decoded {
            id: EventId::from(uuid::Uuid::from_u128(1)),
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            created_at: None,
            source: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            tracestate: None,
            aggregate_type: None,
            aggregate_id: None,
            payload: Payload::Json(serde_json::from_str(data).expect("JSON")),
        }
    }
}
