//! What a consumer is told before it runs, with what holds where it is told nothing.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;

use super::decode::{self, Decoder};
use super::event::{Event, FromPayload};
use super::handler::{HandlerError, HandlerResult, Routes};
use super::metrics::Metrics;
use super::properties::Properties;
use super::schedule::{Backoff, Limits, Load};
use super::upcast::Upcasters;
use crate::inbox::Tx;
use crate::oauth::ClientCredentials;

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

const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// A consumer, before it runs. See the module's documentation.
#[must_use = "a consumer does nothing before it runs"]
pub struct Consumer {
    pub(super) name: String,
    pub(super) pool: PgPool,
    pub(super) schema: Option<String>,
    pub(super) properties: Properties,
    pub(super) oauth: Option<ClientCredentials>,
    pub(super) topics: Vec<String>,
    pub(super) routes: Routes,
    pub(super) upcasters: Upcasters,
    pub(super) decoders: Vec<Box<dyn Decoder>>,
    pub(super) dead_letter_topic: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) workers: NonZeroUsize,
    pub(super) batch: NonZeroUsize,
    pub(super) attempts: NonZeroU32,
    pub(super) limits: Limits,
    pub(super) backoff: Backoff,
    pub(super) handler_timeout: Duration,
    pub(super) shutdown_deadline: Duration,
    pub(super) reject_unhandled: bool,
    pub(super) hold_key: bool,
}

impl Consumer {
    /// `name` is the identity of all that was processed, and Kafka's group unless that is set.
    ///
    /// `pool`: through PgBouncer in transaction mode its options need `extra_float_digits(None)` and
    /// `statement_cache_capacity(0)`, and the handler's own queries `persistent(false)`.
    pub fn new(name: impl Into<String>, pool: PgPool) -> Consumer {
        Consumer {
            name: name.into(),
            pool,
            schema: None,
            properties: Properties::default(),
            oauth: None,
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

    /// Logs in with tokens that are fetched for these credentials: with the property `sasl.mechanism` set to
    /// `OAUTHBEARER`.
    pub fn oauth(mut self, credentials: ClientCredentials) -> Consumer {
        self.oauth = Some(credentials);
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
}
