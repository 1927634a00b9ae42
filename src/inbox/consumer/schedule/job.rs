//! What is handed to workers and comes back from them.

use std::sync::Arc;

/// A partition of a topic that was given a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub topic: u32,
    pub number: i32,
}

/// What orders messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Order {
    Key(Arc<[u8]>),
    /// A message without a key, by its offset.
    None(i64),
}

/// One message handed to a worker.
#[derive(Debug, Clone)]
pub struct Job<T> {
    pub partition: Partition,
    /// Of the assignment of the partition, so that a late result meets no later one.
    pub(super) generation: u64,
    pub(super) order: Order,
    pub offset: i64,
    /// How often it has failed before.
    pub failures: u32,
    /// It failed or could not be tried the last time, and goes alone.
    pub suspect: bool,
    pub item: T,
}

impl<T> Job<T> {
    /// Whether both have an order among each other.
    pub fn is_of_same_key<U>(&self, other: &Job<U>) -> bool {
        self.partition == other.partition && self.order == other.order
    }
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect is committed, or there is none to be had.
    Done,
    /// It failed: its key waits, and it goes alone.
    Failed,
    /// It could not be tried, or what comes after it could not: its key waits, and this is no failure.
    Blocked,
    /// It was not tried: it is ready again.
    NotTried,
}
