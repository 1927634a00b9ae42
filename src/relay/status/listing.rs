//! Which keys and topics are held, for a person to read.

use std::time::SystemTime;

/// Keys, and topics, that are listed at most.
pub const LISTED: usize = 20;

/// Those that wait longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub keys: Vec<HeldKey>,
    pub topics: Vec<HeldTopic>,
}

/// A key whose rows wait, because one of them does not get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    pub topic: String,
    /// The Kafka key; nothing for a row without one.
    pub key: Option<String>,
    pub why: String,
    pub since: SystemTime,
    /// How often the row was tried alone.
    pub attempts: u32,
    /// That row and those behind it, as far as they were read.
    pub rows: u64,
}

/// A topic whose rows wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTopic {
    pub topic: String,
    pub hold: TopicHold,
    /// As far as they were read.
    pub rows: u64,
}

/// Why the rows of a topic wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicHold {
    /// Somebody has paused it, or its outbox.
    Paused,
    /// It cannot be used.
    Unusable { why: String, since: SystemTime },
    /// Its breaker is open: row after row of it was refused.
    Refused { why: String, since: SystemTime },
}
