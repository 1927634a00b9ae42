//! Marks acknowledged rows in batches, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Postgres;
use crate::admin::metrics::OutboxMetrics;
use crate::db::lease::Fence;
use crate::db::outbox::Outbox;
use crate::db::{DbError, Role, Session};
use crate::event::EventRef;
use crate::outage::Retry;

/// Rows of one statement. Field measurements: 100 a statement 26 k/s, 2,000 a statement ten times that;
/// beyond, the statement only gets longer.
const MAX_ROWS: usize = 5_000;

/// Rows that are worth a statement at once.
const ENOUGH_ROWS: usize = 2_000;

/// How long fewer rows wait for more: it saves most statements of a steady trickle, and costs nothing
/// that an application or a consumer can see.
const GATHER: Duration = Duration::from_millis(10);

/// What the marker tells the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// So many of the rows that were handed over are done with.
    Done(usize),
    /// The lease is somebody else's: nothing was marked, and nothing will be.
    Fenced,
}

/// The task that marks.
pub struct Marker {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub fence: Fence,
    pub metrics: OutboxMetrics,
}

impl Marker {
    /// Marks what comes in until the sender is gone, or the fence falls.
    pub async fn run(
        self,
        mut acknowledged: mpsc::UnboundedReceiver<Vec<EventRef>>,
        done: mpsc::UnboundedSender<Marked>,
    ) {
        let mut session: Option<Session> = None;
        let mut retry = Retry::new(Duration::from_secs(2));
        let mut rows: Vec<EventRef> = Vec::new();
        while gather(&mut acknowledged, &mut rows).await {
            // In the order of the table, which is how its pages lie, and how locks are taken.
            rows.sort_unstable();
            for batch in rows.chunks(MAX_ROWS) {
                let marked = loop {
                    match self.mark(&mut session, batch).await {
                        Ok(marked) => break marked,
                        Err(error) => {
                            session = None;
                            self.postgres
                                .note(&error, &mut retry, "marking failed, trying again");
                            tokio::time::sleep(retry.next_wait()).await;
                        }
                    }
                };
                retry.reset();
                // The lane is gone: then nobody waits for marks either.
                if done.send(marked).is_err() || marked == Marked::Fenced {
                    return;
                }
            }
            rows.clear();
        }
    }

    async fn mark(
        &self,
        session: &mut Option<Session>,
        batch: &[EventRef],
    ) -> Result<Marked, DbError> {
        let started = Instant::now();
        let session = self
            .postgres
            .session(session, self.outbox.table(), Role::Marker)
            .await?;
        let marked = self
            .postgres
            .deadline("marking rows", async {
                session.begin().await?;
                let touched = self.outbox.settle(session, &self.fence, batch).await?;
                // Fewer can mean that rows are gone or marked, or that the lease is.
                let fenced = touched < batch.len() as u64
                    && !self.postgres.leases.is_held(session, &self.fence).await?;
                session.commit().await?;
                Ok(if fenced {
                    Marked::Fenced
                } else {
                    Marked::Done(batch.len())
                })
            })
            .await?;
        self.metrics
            .mark_seconds
            .observe(started.elapsed().as_secs_f64());
        Ok(marked)
    }
}

/// Waits for rows, then a little for more; false when no more will come.
async fn gather(
    acknowledged: &mut mpsc::UnboundedReceiver<Vec<EventRef>>,
    rows: &mut Vec<EventRef>,
) -> bool {
    let Some(first) = acknowledged.recv().await else {
        return false;
    };
    rows.extend(first);
    let deadline = tokio::time::Instant::now() + GATHER;
    while rows.len() < ENOUGH_ROWS {
        match tokio::time::timeout_at(deadline, acknowledged.recv()).await {
            Ok(Some(more)) => rows.extend(more),
            // What is here is marked before the end is noticed.
            Ok(None) | Err(_) => break,
        }
    }
    while rows.len() < MAX_ROWS
        && let Ok(more) = acknowledged.try_recv()
    {
        rows.extend(more);
    }
    true
}
