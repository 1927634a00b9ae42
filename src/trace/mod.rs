//! The journey of a correlation id: its events across outboxes, and what consumers did about them.
//!
//! [`look`] gathers, `tree` puts together (pure), [`text`] and [`json`] show.

pub mod json;
mod place;
pub mod text;
mod tree;

use std::collections::HashSet;

use crate::config::{Config, PostgresUrl};
use crate::db::DbError;
use crate::inbox::InboxError;

use place::Place;

pub use tree::{Effect, Node, Step, Tree};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub correlation_id: String,
    /// Besides the configured one: consumers' databases, and those of other services.
    pub databases: Vec<PostgresUrl>,
    /// Rows that are looked through of an outbox without an index, the newest.
    pub most_scanned: i64,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub correlation_id: String,
    pub tree: Tree,
    /// What is beyond what was looked at: retention, bounds.
    pub notes: Vec<String>,
}

/// Why a database could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("database at {address}")]
    Postgres {
        address: String,
        #[source]
        source: DbError,
    },
    #[error("database \"{database}\"")]
    Inbox {
        database: String,
        #[source]
        source: InboxError,
    },
}

/// Looks into every database.
///
/// # Errors
/// When one of them does not answer, or has no tables of outboxd.
pub async fn look(config: &Config, wanted: &Wanted) -> Result<Trace, TraceError> {
    let mut places = vec![Place::configured(config).await?];
    for url in &wanted.databases {
        places.push(Place::of(config, url).await?);
    }
    let mut notes = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for place in &mut places {
        steps.extend(place.steps(wanted, &mut notes).await?);
    }
    // A database can be named twice.
    let mut seen = HashSet::new();
    steps.retain(|step| seen.insert(step.row.event_id.clone()));
    let ids: Vec<String> = seen.into_iter().collect();
    let first_us = steps.iter().filter_map(|step| step.row.created_us).min();
    let mut effects: Vec<Effect> = Vec::new();
    for place in &mut places {
        for effect in place.effects(&ids, first_us, &mut notes).await? {
            let is_known = effects.iter().any(|e| e.processed == effect.processed);
            if !is_known {
                effects.push(effect);
            }
        }
    }
    Ok(Trace {
        correlation_id: wanted.correlation_id.clone(),
        tree: Tree::of(steps, effects),
        notes,
    })
}
