//! How the outboxes stand: what `/status` answers and `outboxd status` shows.
//!
//! A running relay makes its [`report::Report`] of what its lanes show (`admin::status`); when none answers, the
//! database alone says what it knows (`database`). What is stuck is told from the report (`diagnosis`).

pub mod ask;
pub mod convert;
mod database;
mod diagnosis;
pub mod report;
pub mod text;
pub mod view;
mod words;

use crate::config::Config;
use crate::db::DbError;
use crate::outage::chain;

use report::{OutboxReport, Report, Who};

pub use ask::AskError;

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
#[error("{}, and postgres does not say anything either", chain(relay))]
pub struct Unknown {
    relay: AskError,
    #[source]
    postgres: DbError,
}

/// Asks the relay at `relay`, `host:port`, and the database about what it does not know; or the database alone.
///
/// # Errors
/// When neither answers, or the relay wants another token.
pub async fn look(config: &Config, relay: Option<&str>) -> Result<Report, LookError> {
    let asked = match relay {
        None => None,
        Some(address) => Some(ask::ask(address, config.admin.token.as_ref()).await),
    };
    match asked {
        Some(Ok(report)) if report.is_complete() => Ok(report),
        Some(Ok(report)) => Ok(match database::look(config).await {
            Ok(database) => report.completed_by(database),
            // What the relay says of Postgres stands in its report.
            Err(_) => report,
        }),
        // It is there, and whoever asks is to know that it was not asked.
        Some(Err(relay @ AskError::Unauthorized { .. })) => Err(LookError::Relay(relay)),
        Some(Err(relay)) => {
            let looked = database::look(config).await;
            looked.map_err(|postgres| LookError::Neither(Box::new(Unknown { relay, postgres })))
        }
        None => database::look(config).await.map_err(LookError::Postgres),
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Postgres(DbError),
    #[error(transparent)]
    Neither(Box<Unknown>),
    #[error(transparent)]
    Relay(AskError),
}

impl LookError {
    /// What Postgres said, if it was asked.
    pub fn postgres(&self) -> Option<&DbError> {
        match self {
            LookError::Postgres(error) => Some(error),
            LookError::Neither(unknown) => Some(&unknown.postgres),
            LookError::Relay(_) => None,
        }
    }
}

impl Report {
    /// Says what is stuck.
    #[must_use]
    pub(crate) fn diagnosed(mut self) -> Report {
        self.stuck = diagnosis::diagnose(&self);
        self
    }

    /// Whether the relay that says it owns everything.
    fn is_complete(&self) -> bool {
        let mut outboxes = self.outboxes.iter();
        outboxes.all(|outbox| outbox.owner.who == Who::ThisRelay)
    }

    /// The database knows of those outboxes that are not this relay's.
    fn completed_by(mut self, database: Report) -> Report {
        for known in database.outboxes {
            let of_table = |outbox: &&mut OutboxReport| outbox.table == known.table;
            match self.outboxes.iter_mut().find(of_table) {
                Some(outbox) if outbox.owner.who == Who::ThisRelay => {}
                Some(outbox) => {
                    *outbox = OutboxReport {
                        name: outbox.name.clone(),
                        health: outbox.health.take(),
                        last_error: outbox.last_error.take(),
                        ..known
                    };
                }
                None => self.outboxes.push(known),
            }
        }
        self.diagnosed()
    }
}
