//! Whether an outbox gets on, from the numbers that its lane shows.

use std::fmt;
use std::time::Duration;

use crate::relay::status::{Ownership, Progress};

/// Longer than any healthy poll, acknowledgement or mark; short enough that a lane which makes no
/// progress is not ready within half a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// The readiness of one outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Owned here, and it moves.
    Owner,
    /// Owned by another live relay.
    Standby,
    /// The schema was not seen yet.
    NoSchema,
    /// Nobody is known to own it.
    NoOwner,
    /// The source does not get to read.
    NotReading { for_seconds: u64 },
    /// Messages or marks wait, and none comes through.
    NotMoving {
        in_flight: usize,
        unmarked: usize,
        for_seconds: u64,
    },
}

impl Health {
    pub fn is_ready(&self) -> bool {
        matches!(self, Health::Owner | Health::Standby)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Owner => f.write_str("ready, owned here"),
            Health::Standby => f.write_str("ready, standing by for another relay"),
            Health::NoSchema => f.write_str("not ready, the schema was not seen yet"),
            Health::NoOwner => f.write_str("not ready, no owner is known"),
            Health::NotReading { for_seconds } => {
                write!(f, "not ready, postgres was not read for {for_seconds} s")
            }
            Health::NotMoving {
                in_flight,
                unmarked,
                for_seconds,
            } => write!(
                f,
                "not ready, {in_flight} messages wait for kafka and {unmarked} rows for their mark, none came through for {for_seconds} s"
            ),
        }
    }
}

/// Judges one outbox.
pub fn readiness(progress: &Progress) -> Health {
    if !progress.is_schema_seen() {
        return Health::NoSchema;
    }
    match progress.ownership() {
        Ownership::Unknown => return Health::NoOwner,
        Ownership::Standby => return Health::Standby,
        Ownership::Owner => {}
    }
    let fill = progress.fill();
    if let Some(waiting) = progress.waiting().filter(|waiting| *waiting > PATIENCE) {
        return Health::NotMoving {
            in_flight: fill.in_flight,
            unmarked: fill.unmarked,
            for_seconds: waiting.as_secs(),
        };
    }
    // A full window stops the reading; then the reports or the marks are what must move.
    let since_poll = progress.since_poll();
    if since_poll > PATIENCE && progress.waiting().is_none() {
        return Health::NotReading {
            for_seconds: since_poll.as_secs(),
        };
    }
    Health::Owner
}
