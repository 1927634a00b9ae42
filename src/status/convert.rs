//! From what Postgres and the lanes say to what a report has.

use std::time::SystemTime;

use jiff::Timestamp;

use super::report;
use crate::db::bypasses::Bypass;
use crate::db::pauses::Pause;
use crate::db::standing::{BlockedKey, LeaseState, ParkedRow, ParkedState};
use crate::outage::ServiceState;
use crate::relay::status::{HeldKey, HeldTopic, LastError, TopicHold};

/// RFC 3339 in UTC.
pub fn time(time: SystemTime) -> String {
    // Clocks of this side of the year 9999.
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Seconds since an instant, given in microseconds since 1970.
pub fn age(micros: i64) -> f64 {
    let now = Timestamp::now().as_microsecond();
    now.saturating_sub(micros).max(0) as f64 / 1e6
}

/// Whose an outbox is, by its lease.
pub fn owner(lease: Option<&LeaseState>) -> report::Owner {
    let owner = lease.and_then(LeaseState::live_owner);
    report::Owner {
        who: match owner {
            Some(_) => report::Who::AnotherRelay,
            None => report::Who::Nobody,
        },
        id: lease
            .and_then(|lease| lease.owner)
            .map(|owner| owner.to_string()),
        // Of a lease that nobody ever took there is nothing to say, and JSON has no infinity.
        lease_seconds: lease
            .map(|lease| lease.expires_in_seconds)
            .filter(|seconds| seconds.is_finite()),
    }
}

impl From<ServiceState> for report::Service {
    fn from(state: ServiceState) -> Self {
        match state {
            ServiceState::Unknown => report::Service::UNKNOWN,
            ServiceState::Up => report::Service::UP,
            ServiceState::Down { since, reason } => report::Service {
                state: report::ServiceWord::Down,
                since: Some(time(since)),
                reason: Some(reason),
            },
        }
    }
}

impl From<Pause> for report::Pause {
    fn from(pause: Pause) -> Self {
        report::Pause {
            topic: pause.topic,
            since: pause.since,
            by: pause.by,
            why: pause.why,
        }
    }
}

impl From<Bypass> for report::Bypass {
    fn from(bypass: Bypass) -> Self {
        report::Bypass {
            topic: bypass.topic,
            since: bypass.since,
            by: bypass.by,
            why: bypass.why,
        }
    }
}

impl From<ParkedRow> for report::ParkedRow {
    fn from(row: ParkedRow) -> Self {
        report::ParkedRow {
            id: row.id,
            topic: row.topic,
            reason: row.reason,
            at: row.at,
        }
    }
}

impl From<&ParkedState> for report::Parked {
    fn from(parked: &ParkedState) -> Self {
        report::Parked {
            rows: Some(parked.rows),
            last: parked.last.clone().map(Into::into),
        }
    }
}

impl From<BlockedKey> for report::HeldKey {
    fn from(blocked: BlockedKey) -> Self {
        let BlockedKey { key, by } = blocked;
        report::HeldKey {
            topic: by.topic,
            key: Some(String::from_utf8_lossy(&key).into_owned()),
            hold: report::KeyHold::Blocked,
            why: format!("row {} is parked, {}", by.id, by.reason),
            since: by.at,
            attempts: None,
            rows: None,
        }
    }
}

impl From<HeldKey> for report::HeldKey {
    fn from(held: HeldKey) -> Self {
        report::HeldKey {
            topic: held.topic,
            key: held.key,
            hold: report::KeyHold::Failing,
            why: held.why,
            since: time(held.since),
            attempts: Some(held.attempts),
            rows: Some(held.rows),
        }
    }
}

impl From<HeldTopic> for report::HeldTopic {
    fn from(held: HeldTopic) -> Self {
        let (hold, said) = match held.hold {
            TopicHold::Paused => (report::TopicHold::Paused, None),
            TopicHold::Unusable { why, since } => (report::TopicHold::Unusable, Some((why, since))),
            TopicHold::Refused { why, since } => {
                (report::TopicHold::BreakerOpen, Some((why, since)))
            }
        };
        let (why, since) = said.unzip();
        report::HeldTopic {
            topic: held.topic,
            hold,
            why,
            since: since.map(time),
            rows: held.rows,
        }
    }
}

impl From<LastError> for report::LastError {
    fn from(error: LastError) -> Self {
        report::LastError {
            at: time(error.at),
            text: error.text,
        }
    }
}
