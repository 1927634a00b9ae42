//! The configuration: embedded defaults, a TOML file, the environment, flags.
//!
//! [`Config::load`] reads them in this order, the later ones stronger, and reports every broken
//! rule at once. A [`Config`] that exists is valid: its values are of types that cannot hold what
//! the rules refuse. Every option is described in `config/outboxd.toml`, which is also where the
//! defaults are.
//!
//! Secrets are kept out of `Debug`, of messages and of [`Config::redacted_toml`].

mod error;
mod field;
mod load;
mod mapping;
mod named;
mod names;
mod oauth;
mod origin;
mod outboxes;
mod preset;
mod print;
mod properties;
mod read;
mod secret;
mod security;
mod sources;
mod template;
mod templates;
mod times;
mod topic;
mod topic_name;
mod url;
mod values;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use bytesize::ByteSize;

use crate::oauth::ClientCredentials;

pub use error::{ConfigError, ConfigErrors};
pub use field::Field;
pub use load::Loaded;
pub use mapping::{Columns, Mapping, SentColumn, SentValues};
pub use named::NamedTemplates;
pub use names::{Identifier, Name, TableName};
pub use origin::Origin;
pub use print::{Setting, Shown};
pub use properties::KafkaProperties;
pub use secret::{AdminToken, SecretFile};
pub use sources::{DEFAULTS, Sources};
pub use template::{OtherColumns, Segment, Template};
pub use templates::Templates;
pub use topic::TopicTemplate;
pub use topic_name::{MAX_TOPIC_BYTES, is_topic_name};
pub use url::{PostgresUrl, REDACTED};
pub use values::{
    BootstrapServers, LogFilter, OtlpEndpoint, Retention, is_address, parse_duration,
};
pub use words::{
    EnvelopeFormat, EventTimestamp, LogFormat, OnPoison, OnSent, PayloadEncoding, Pooler, Preset,
};

/// The effective configuration of outboxd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[postgres]`
    pub postgres: PostgresConfig,
    /// `[kafka]`
    pub kafka: KafkaConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[otlp]`
    pub otlp: OtlpConfig,
    /// `[relay]`
    pub relay: RelayConfig,
    /// `[inbox]`
    pub inbox: InboxConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[outbox.<name>]` by name: at least one, no two on the same table. Their windows add up to
    /// at most [`MAX_WINDOWS_ROWS`] and [`MAX_WINDOWS_BYTES`].
    pub outboxes: BTreeMap<String, OutboxConfig>,
}

/// The most rows that the windows of all outboxes may hold together: one producer holds them all.
pub const MAX_WINDOWS_ROWS: u64 = 2_000_000;

/// The most bytes that the windows of all outboxes may hold together.
pub const MAX_WINDOWS_BYTES: ByteSize = ByteSize::gib(1);

/// How to reach the database with the outbox tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The database; several hosts are tried in order.
    pub url: PostgresUrl,
    /// A way around the pooler, for what needs a session.
    pub direct_url: Option<PostgresUrl>,
    /// The file that `url` is from: each connection reads it again.
    pub url_file: Option<SecretFile>,
    /// The same for `direct_url`.
    pub direct_url_file: Option<SecretFile>,
    /// What `url` goes through.
    pub pooler: Pooler,
    /// The schema of outboxd's own tables and of outbox tables that name none.
    pub schema: Identifier,
    /// How long a connection may take to be made, 1 ms to 1 h.
    pub connect_timeout: Duration,
    /// Postgres' `statement_timeout` of the relay's connections, 1 ms to 1 h.
    pub statement_timeout: Duration,
    /// Postgres' `lock_timeout` of the relay's connections, 1 ms to 1 h.
    pub lock_timeout: Duration,
}

/// How to reach the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The brokers to start from.
    pub bootstrap_servers: BootstrapServers,
    /// Whether and how missing topics are created.
    pub create_topics: CreateTopicsConfig,
    /// librdkafka's properties, without those that the promise depends on.
    pub properties: KafkaProperties,
    /// Where tokens come from, if it logs in with tokens.
    pub oauth: Option<ClientCredentials>,
}

/// Whether and how missing topics are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicsConfig {
    /// Whether outboxd creates a topic that is missing.
    pub enabled: bool,
    /// Partitions of a new topic, 1 to 10,000.
    pub partitions: NonZeroU32,
    /// Replicas of a new topic, 1 to 32,767.
    pub replication: NonZeroU16,
}

/// The server for health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; `None`: it is off.
    pub listen: Option<SocketAddr>,
    /// What whoever asks it for metrics or the status must know; `None`: nothing.
    pub token: Option<AdminToken>,
}

/// Traces and metrics for a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Nothing: none are sent.
    pub endpoint: Option<OtlpEndpoint>,
    pub traces: bool,
    pub metrics: bool,
    /// Between two times that metrics are sent, 1 s to 1 h.
    pub interval: Duration,
}

/// The relay as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// How long a clean stop may take to settle the windows, 0 s to 1 h.
    pub shutdown_deadline: Duration,
    /// How long a lane stays with an owner that does not renew its lease, 1 s to 5 min.
    pub lease: Duration,
    /// How long a lane may have events in flight without progress before it counts as stalled,
    /// 1 s to 1 h.
    pub stall_timeout: Duration,
}

/// The consumers' side, for `outboxd inbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// How long processed ids are kept, 1 min to 100 years.
    pub retention: Duration,
    /// The topics whose own retention is compared with it.
    pub topics: Vec<String>,
}

/// The log, on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged.
    pub level: LogFilter,
    /// In which form.
    pub format: LogFormat,
}

/// One outbox table and how its events are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxConfig {
    /// `[a-z][a-z0-9_]*`, at most 63 bytes.
    pub name: String,
    /// The table, with its schema.
    pub table: TableName,
    /// Which columns hold what; none: the table is of outboxd's own shape.
    pub mapping: Option<Mapping>,
    /// The project that designed the table; its options are below the outbox's own.
    pub preset: Option<Preset>,
    /// Topic, key, headers and fields of its messages.
    pub templates: Templates,
    /// The envelope's `source`: not empty, at most 255 bytes.
    pub source: String,
    /// The form of the published event.
    pub envelope: EnvelopeFormat,
    /// Whether a payload of nothing but white space is none, for `raw`.
    pub tombstone_on_empty: bool,
    /// The content type of `payload_bytes`: not empty, at most 255 bytes.
    pub bytes_content_type: String,
    /// The Kafka timestamp of the event.
    pub timestamp: EventTimestamp,
    /// What becomes of the key of a row that is parked.
    pub on_poison: OnPoison,
    /// Where parked rows are copied to.
    pub dead_letter_topic: Option<String>,
    /// How often a row is tried that fails for a reason nobody has classified, 1 to 1,000.
    pub max_attempts: NonZeroU32,
    /// Rows of one topic that the brokers refuse in turn before its topic counts as unusable, 1 to 100,000.
    pub breaker_errors: NonZeroU32,
    /// What is done with a sent row.
    pub on_sent: OnSent,
    /// How long a marked row is kept.
    pub retention: Retention,
    /// The longest pause between two polls of an idle lane, 1 ms to 1 min.
    pub poll_interval: Duration,
    /// Whether LISTEN/NOTIFY wakes the relay before the next poll.
    pub notify: bool,
    /// The most rows of one read, 1 to 100,000.
    pub batch_rows: NonZeroU32,
    /// The most rows read and not yet settled, `batch_rows` to 1,000,000.
    pub window_rows: NonZeroU32,
    /// The most bytes read and not yet settled, 1 MiB to 1 GiB.
    pub window_bytes: ByteSize,
    /// The pause between two sweeps for rows that the reader may have missed, 1 s to 1 day.
    pub sweep_interval: Duration,
}

impl PostgresConfig {
    /// The URL for what needs a session (LISTEN, session locks), if there is one.
    pub fn session_url(&self) -> Option<&PostgresUrl> {
        match self.pooler {
            Pooler::None => Some(self.direct_url.as_ref().unwrap_or(&self.url)),
            Pooler::Transaction => self.direct_url.as_ref(),
        }
    }
}
