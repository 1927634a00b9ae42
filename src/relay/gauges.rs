//! How much is pending, and since when: asked of the table above the position, since the window knows
//! the rest. And how the outbox stands by what Postgres alone knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Postgres;
use super::status::Progress;
use crate::admin::metrics::OutboxMetrics;
use crate::db::outbox::Outbox;
use crate::db::standing::Standings;
use crate::db::{DbError, Role, Session};
use crate::event::CreatedAt;
use crate::outage::{Retry, jittered};

/// Between two counts.
const EVERY: Duration = Duration::from_secs(2);

/// Counting stops here: a larger backlog is shown as this much.
const COUNT_MOST: i64 = 1_000_000;

/// A count that took long is repeated so many times its duration later, so that it takes at most two
/// percent of one server process,
const IDLE_FACTOR: u32 = 50;

/// unless it takes very long: nobody should look at older figures.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// The task that counts.
pub struct Gauges {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub standings: Standings,
    pub progress: Arc<Progress>,
    pub metrics: OutboxMetrics,
}

impl Gauges {
    /// Counts until it is dropped. Cancel-safe: it only reads.
    pub async fn run(self) {
        let mut session = None;
        let mut retry = Retry::new(EVERY);
        loop {
            let started = Instant::now();
            match self.count(&mut session).await {
                Ok(()) => retry.reset(),
                Err(error) => {
                    session = None;
                    self.postgres.note(
                        &error,
                        &mut retry,
                        "counting the pending rows failed, trying again",
                    );
                }
            }
            let wait = (started.elapsed() * IDLE_FACTOR).clamp(EVERY, MOST_WAIT);
            tokio::time::sleep(jittered(wait)).await;
        }
    }

    async fn count(&self, session: &mut Option<Session>) -> Result<(), DbError> {
        let session = self
            .postgres
            .session(session, self.outbox.table(), Role::Gauge)
            .await?;
        // Together with the position, so that no row is counted on both of its sides.
        let position = self.progress.position();
        let read = self.progress.fill().rows + self.progress.on_the_way();
        let read = read as u64 + self.progress.held().rows;
        let (unread, oldest, standing) = self
            .postgres
            .deadline("counting the pending rows", async {
                session.begin().await?;
                let unread = self
                    .outbox
                    .pending_above(session, position, COUNT_MOST)
                    .await?;
                let oldest = self.outbox.oldest_above(session, position).await?;
                let standing = self.standings.look(session).await?;
                session.commit().await?;
                Ok((unread, oldest, standing))
            })
            .await?;
        let pending = unread.saturating_add(i64::try_from(read).unwrap_or(i64::MAX));
        self.metrics
            .set_decisions(&standing.pauses, &standing.bypasses);
        self.progress.set_standing(standing);
        self.metrics.pending.set(pending);
        let oldest = [
            oldest.map(CreatedAt::unix_micros),
            self.progress.oldest_us(),
        ]
        .into_iter()
        .flatten()
        .min();
        self.metrics.set_oldest_pending(oldest);
        Ok(())
    }
}
