//! What there is to know of the outboxes, as `/status` answers it.

use serde::{Deserialize, Serialize};

/// How everything stands. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub at: String,
    pub said_by: SaidBy,
    /// The relay that says it.
    pub relay: Option<RelayFacts>,
    pub services: Services,
    /// What is stuck, and why; the gravest first.
    pub stuck: Vec<Stuck>,
    pub outboxes: Vec<OutboxReport>,
}

/// Where a report comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SaidBy {
    /// A running relay.
    Relay,
    /// The database, which knows less.
    Postgres,
}

/// A running relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayFacts {
    /// As it stands in its leases.
    pub id: String,
    pub version: String,
    pub up_seconds: u64,
}

/// The services that a relay needs, as it has seen them last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    pub postgres: Service,
    pub kafka: Service,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub state: ServiceWord,
    /// Of an outage.
    pub since: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceWord {
    Up,
    Down,
    Unknown,
}

impl Service {
    /// Nobody has asked it.
    pub const UNKNOWN: Service = Service {
        state: ServiceWord::Unknown,
        since: None,
        reason: None,
    };

    pub const UP: Service = Service {
        state: ServiceWord::Up,
        since: None,
        reason: None,
    };
}

/// Something that does not move, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Nothing: all of them are concerned.
    pub outbox: Option<String>,
    pub what: String,
}

/// One outbox. What is null is not known to whoever made the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxReport {
    pub name: String,
    pub table: String,
    pub owner: Owner,
    /// As `/readyz` has it.
    pub health: Option<Health>,
    /// Events that this relay published since its start.
    pub published: Option<u64>,
    /// The same a second, of late.
    pub per_second: Option<f64>,
    /// Committed rows that are neither acknowledged nor parked, counted up to 1,000,000 or a little more.
    pub pending_rows: Option<i64>,
    /// Since the oldest of them was created.
    pub oldest_pending_seconds: Option<f64>,
    /// Rows that committed behind the position since this relay's start.
    pub late_rows: Option<u64>,
    pub window: Option<Window>,
    pub held: Held,
    pub parked: Parked,
    pub paused: Vec<Pause>,
    pub bypassed: Vec<Bypass>,
    /// It may long be over.
    pub last_error: Option<LastError>,
}

/// Whose an outbox is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub who: Who,
    /// The relay's, as it stands in its lease.
    pub id: Option<String>,
    /// Below zero: its lease ran out so long ago.
    pub lease_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Who {
    ThisRelay,
    AnotherRelay,
    Nobody,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub is_ready: bool,
    /// Why, or why not.
    pub text: String,
}

/// What is read and not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    pub rows: usize,
    pub bytes: usize,
    pub in_flight: usize,
    pub unmarked: usize,
}

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Outside of the window.
    pub rows: Option<u64>,
    /// How many; with nobody running, those that are blocked.
    pub key_count: u64,
    pub topic_count: Option<u64>,
    /// The first 20 that fail and the first 20 that are blocked.
    pub keys: Vec<HeldKey>,
    /// The first 20.
    pub topics: Vec<HeldTopic>,
}

/// An order key whose rows wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldKey {
    pub topic: String,
    pub key: Option<String>,
    pub hold: KeyHold,
    pub why: String,
    pub since: String,
    /// How often the row was tried alone.
    pub attempts: Option<u32>,
    /// As far as they were read.
    pub rows: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyHold {
    /// A row of it does not get through, and is tried again.
    Failing,
    /// A row of it is parked: its later rows wait for a decision.
    Blocked,
}

/// A topic whose rows wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldTopic {
    pub topic: String,
    pub hold: TopicHold,
    pub why: Option<String>,
    pub since: Option<String>,
    /// As far as they were read.
    pub rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TopicHold {
    Paused,
    /// It is missing, or cannot be used for another reason.
    Unusable,
    /// Kafka refuses row after row of it: one at a time is tried.
    BreakerOpen,
}

/// Rows that are set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Up to 100,000.
    pub rows: Option<i64>,
    /// The one with the highest id.
    pub last: Option<ParkedRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRow {
    pub id: i64,
    pub topic: String,
    pub reason: String,
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Nothing: all of the outbox.
    pub topic: Option<String>,
    pub since: String,
    pub by: String,
    pub why: Option<String>,
}

/// A topic whose refused rows are parked until Kafka takes one, whatever its breaker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    pub topic: String,
    pub since: String,
    pub by: String,
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    pub at: String,
    pub text: String,
}
