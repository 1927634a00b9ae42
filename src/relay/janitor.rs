//! Retention: deletes sent rows that are old enough, in bounded steps. It can never touch an unsent row:
//! the statement itself asks for a mark older than the retention.

use std::sync::Arc;
use std::time::Duration;

use super::Postgres;
use crate::admin::metrics::OutboxMetrics;
use crate::db::outbox::{Expired, Outbox};
use crate::db::{DbError, Role, Session};
use crate::outage::{Retry, jittered};

/// Rows of one step: a short transaction, even on a slow disk.
const ROWS: i64 = 2_000;

/// Between two steps of a walk, so that it never takes the server for itself.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two walks, at most.
const WALK_EVERY: Duration = Duration::from_secs(60);

/// The task that deletes.
pub struct Janitor {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub retention: Duration,
    pub metrics: OutboxMetrics,
}

impl Janitor {
    /// Walks the sent rows from the lowest id, again and again. Cancel-safe: an unfinished step rolls
    /// back.
    pub async fn run(self) {
        let mut retry = Retry::new(WALK_EVERY);
        let pause = WALK_EVERY.min(self.retention.max(Duration::from_secs(1)));
        loop {
            tokio::time::sleep(jittered(pause)).await;
            match self.walk().await {
                Ok(()) => retry.reset(),
                Err(error) => self.postgres.note(
                    &error,
                    &mut retry,
                    "deleting expired rows failed, trying again",
                ),
            }
        }
    }

    /// One walk: ids grow with time, nearly, so it ends with the first step that finds nothing to delete.
    async fn walk(&self) -> Result<(), DbError> {
        let mut session = None;
        let session = self
            .postgres
            .session(&mut session, self.outbox.table(), Role::Janitor)
            .await?;
        let mut after = i64::MIN;
        loop {
            let step = self
                .postgres
                .deadline("deleting expired rows", self.step(session, after))
                .await?;
            self.metrics.expired.inc_by(step.deleted);
            if step.deleted == 0 {
                return Ok(());
            }
            after = step.last;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn step(&self, session: &mut Session, after: i64) -> Result<Expired, DbError> {
        session.begin().await?;
        let step = self
            .outbox
            .expire(session, after, ROWS, self.retention)
            .await?;
        session.commit().await?;
        Ok(step)
    }
}
