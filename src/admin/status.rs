//! What a running relay says of itself: the numbers and words of its lanes as a report.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Shown, describe, readiness};
use crate::kafka::ClusterHealth;
use crate::relay::Postgres;
use crate::relay::status::Ownership;
use crate::status::report::{
    Health, Held, OutboxReport, Owner, Parked, RelayFacts, Report, SaidBy, Services, Who, Window,
};

/// This process, and what it needs.
#[derive(Debug)]
pub struct Process {
    /// As it stands in its leases.
    pub owner: Uuid,
    pub started: Instant,
    pub postgres: Arc<Postgres>,
    pub kafka: Arc<ClusterHealth>,
}

/// How everything stands, as far as this process knows.
pub fn report(process: &Process, outboxes: &[Shown]) -> Report {
    Report {
        at: Timestamp::now().to_string(),
        said_by: SaidBy::Relay,
        relay: Some(RelayFacts {
            id: process.owner.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: process.started.elapsed().as_secs(),
        }),
        services: Services {
            postgres: process.postgres.state().into(),
            kafka: process.kafka.state().into(),
        },
        stuck: Vec::new(),
        outboxes: outboxes
            .iter()
            .map(|shown| outbox(shown, process.owner))
            .collect(),
    }
    .diagnosed()
}

fn outbox(shown: &Shown, this: Uuid) -> OutboxReport {
    let (progress, metrics) = (&shown.progress, &shown.metrics);
    let ownership = progress.ownership();
    let is_owner = ownership == Ownership::Owner;
    let standing = progress.standing();
    let fill = progress.fill();
    OutboxReport {
        name: shown.name.clone(),
        table: shown.table.clone(),
        owner: Owner {
            who: match ownership {
                Ownership::Owner => Who::ThisRelay,
                Ownership::Standby { .. } => Who::AnotherRelay,
                Ownership::Unknown => Who::Unknown,
            },
            id: match ownership {
                Ownership::Owner => Some(this.to_string()),
                Ownership::Standby { owner } => Some(owner.to_string()),
                Ownership::Unknown => None,
            },
            lease_seconds: None,
        },
        health: Some(Health {
            is_ready: readiness(progress).is_ready(),
            text: describe(progress),
        }),
        published: Some(metrics.published.get()),
        per_second: Some(progress.per_second()),
        // Counted with the standing, every few seconds.
        pending_rows: standing.as_ref().map(|_| metrics.pending.get()),
        oldest_pending_seconds: standing.as_ref().and_then(|_| metrics.oldest_pending_age()),
        late_rows: Some(metrics.late_rows.get()),
        window: is_owner.then_some(Window {
            rows: fill.rows,
            bytes: fill.bytes,
            in_flight: fill.in_flight,
            unmarked: fill.unmarked,
        }),
        held: held(shown),
        parked: standing
            .as_ref()
            .map(|standing| Parked::from(&standing.parked))
            .unwrap_or_default(),
        paused: standing
            .iter()
            .flat_map(|standing| standing.pauses.iter().cloned())
            .map(Into::into)
            .collect(),
        bypassed: standing
            .iter()
            .flat_map(|standing| standing.bypasses.iter().cloned())
            .map(Into::into)
            .collect(),
        last_error: progress.last_error().map(Into::into),
    }
}

fn held(shown: &Shown) -> Held {
    let progress = &shown.progress;
    let (fill, held, listing) = (progress.fill(), progress.held(), progress.listing());
    let blocked = progress.standing().into_iter();
    let blocked = blocked.flat_map(|standing| standing.parked.blocked);
    let failing = listing.keys.into_iter().map(Into::into);
    Held {
        rows: Some(held.rows),
        key_count: (fill.held_keys + held.blocked_keys) as u64,
        topic_count: Some(held.topics as u64),
        keys: failing.chain(blocked.map(Into::into)).collect(),
        topics: listing.topics.into_iter().map(Into::into).collect(),
    }
}
