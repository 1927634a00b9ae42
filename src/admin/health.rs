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
    /// Another relay owned it when the lease was last seen.
    NotSeen { for_seconds: u64 },
    /// The source does not get to read.
    NotReading { for_seconds: u64 },
    /// Messages, or questions about topics, wait for Kafka, and nothing comes back.
    NotPublishing {
        in_flight: usize,
        unanswered: usize,
        for_seconds: u64,
    },
    /// Rows wait for their mark, and none is confirmed.
    NotMarking { unmarked: usize, for_seconds: u64 },
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
            Health::NotSeen { for_seconds } => write!(
                f,
                "not ready, standing by, and the lease was not seen for {for_seconds} s"
            ),
            Health::NotReading { for_seconds } => {
                write!(f, "not ready, postgres was not read for {for_seconds} s")
            }
            Health::NotPublishing {
                in_flight,
                unanswered: 0,
                for_seconds,
            } => write!(
                f,
                "not ready, {in_flight} messages wait for kafka, which acknowledged none for {for_seconds} s"
            ),
            Health::NotPublishing {
                in_flight,
                unanswered,
                for_seconds,
            } => write!(
                f,
                "not ready, {in_flight} messages and {unanswered} rows whose topic it was asked about wait for kafka, \
                 which answered nothing for {for_seconds} s"
            ),
            Health::NotMarking {
                unmarked,
                for_seconds,
            } => write!(
                f,
                "not ready, {unmarked} rows wait for their mark, postgres confirmed none for {for_seconds} s"
            ),
        }
    }
}

/// Judges one outbox.
pub fn readiness(progress: &Progress) -> Health {
    if !progress.is_schema_seen() {
        return Health::NoSchema;
    }
    let too_long = |time: Duration| (time > PATIENCE).then_some(time.as_secs());
    let unpolled = too_long(progress.since_poll());
    match (progress.ownership(), unpolled) {
        (Ownership::Unknown, _) => return Health::NoOwner,
        (Ownership::Standby { .. }, None) => return Health::Standby,
        (Ownership::Standby { .. }, Some(for_seconds)) => return Health::NotSeen { for_seconds },
        (Ownership::Owner, _) => {}
    }
    let fill = progress.fill();
    let (unmarked_for, unacknowledged_for) =
        (progress.unmarked_for(), progress.unacknowledged_for());
    if let Some(for_seconds) = unmarked_for.and_then(too_long) {
        return Health::NotMarking {
            unmarked: fill.unmarked,
            for_seconds,
        };
    }
    if let Some(for_seconds) = unacknowledged_for.and_then(too_long) {
        return Health::NotPublishing {
            in_flight: fill.in_flight,
            unanswered: progress.unanswered(),
            for_seconds,
        };
    }
    // A full window stops the reading; then the reports or the marks are what must move.
    match unpolled {
        Some(for_seconds) if unmarked_for.is_none() && unacknowledged_for.is_none() => {
            Health::NotReading { for_seconds }
        }
        _ => Health::Owner,
    }
}

/// The same in words, with what went wrong last if it is not ready.
pub fn describe(progress: &Progress) -> String {
    let health = readiness(progress);
    match progress.last_error().filter(|_| !health.is_ready()) {
        Some(error) => {
            let ago = error.at.elapsed().unwrap_or_default().as_secs();
            format!("{health}; {ago} s ago: {}", error.text)
        }
        None => health.to_string(),
    }
}
