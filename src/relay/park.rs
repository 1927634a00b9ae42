//! Parks rows, and acts upon what is decided about them, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Postgres;
use super::window::Ticket;
use crate::admin::metrics::OutboxMetrics;
use crate::db::lease::Fence;
use crate::db::outbox::Outbox;
use crate::db::parked::{Decided, Decision, Parked, ParkedRows, Parking};
use crate::db::{DbError, Role, Session};
use crate::outage::{Retry, jittered};

/// Rows of one statement.
const MAX_ROWS: usize = 500;

/// How often decisions are looked for: soon enough for whoever waits for one, and one look into an index
/// that is nearly always empty.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Parked rows of one outbox, at most: each takes about 50 bytes for as long as the relay runs. Beyond, rows
/// that fail are tried again and again instead.
pub const MAX_PARKED: usize = 200_000;

/// A row that is to be parked.
#[derive(Debug)]
pub struct ToPark {
    pub ticket: Ticket,
    pub parking: Parking,
}

/// What the parker tells the lane.
#[derive(Debug)]
pub enum Parks {
    /// The rows that were parked before: the first that is told.
    Loaded(Vec<Parked>),
    /// These rows are parked.
    Done(Vec<Ticket>),
    Decided(Vec<Decided>),
    /// The lease is somebody else's.
    Fenced,
}

/// The task that parks.
pub struct Parker {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub fence: Fence,
    pub rows: ParkedRows,
    pub metrics: OutboxMetrics,
}

impl Parker {
    /// Parks what comes in, until the sender is gone or the fence fell.
    pub async fn run(
        self,
        mut to_park: mpsc::UnboundedReceiver<ToPark>,
        told: mpsc::UnboundedSender<Parks>,
    ) {
        let mut session: Option<Session> = None;
        let mut retry = Retry::new(Duration::from_secs(2));
        let mut rows: Vec<ToPark> = Vec::new();
        let mut is_loaded = false;
        let mut look_at = Instant::now();
        loop {
            let done = match (is_loaded, rows.is_empty()) {
                (false, _) => self.load(&mut session).await.map(Some),
                (true, false) => self.park(&mut session, &rows).await.map(Some),
                (true, true) => self.decide(&mut session).await,
            };
            match done {
                Ok(news) => {
                    retry.reset();
                    is_loaded = true;
                    rows.clear();
                    let is_fenced = matches!(news, Some(Parks::Fenced));
                    // The lane is gone: then nobody waits for this either.
                    if news.is_some_and(|news| told.send(news).is_err()) || is_fenced {
                        return;
                    }
                }
                Err(error) => {
                    session = None;
                    self.postgres
                        .note(&error, &mut retry, "parking failed, trying again");
                    tokio::time::sleep(retry.next_wait()).await;
                    continue;
                }
            }
            tokio::select! {
                biased;
                // 1. Rows. Cancel-safe: none is lost.
                count = to_park.recv_many(&mut rows, MAX_ROWS) => if count == 0 { return },
                // 2. A sleep keeps nothing.
                () = tokio::time::sleep_until(look_at) => look_at = Instant::now() + jittered(LOOK_EVERY),
            }
        }
    }

    async fn load(&self, session: &mut Option<Session>) -> Result<Parks, DbError> {
        let session = self.session(session).await?;
        let load = async {
            session.begin().await?;
            let outbox = &self.fence.outbox;
            let parked = self.rows.load(session, outbox, MAX_PARKED).await?;
            session.commit().await?;
            Ok(Parks::Loaded(parked))
        };
        self.postgres.deadline("listing parked rows", load).await
    }

    async fn park(&self, session: &mut Option<Session>, rows: &[ToPark]) -> Result<Parks, DbError> {
        let session = self.session(session).await?;
        let parkings: Vec<Parking> = rows.iter().map(|row| row.parking.clone()).collect();
        let park = async {
            session.begin().await?;
            let is_held = self.rows.park(session, &self.fence, &parkings).await?;
            session.commit().await?;
            Ok(is_held)
        };
        if !self.postgres.deadline("parking rows", park).await? {
            return Ok(Parks::Fenced);
        }
        self.metrics.parked.inc_by(rows.len() as u64);
        Ok(Parks::Done(rows.iter().map(|row| row.ticket).collect()))
    }

    /// Acts upon decisions, if there are any. A row to be discarded is marked first: if we die between, the
    /// next owner finds the decision and marks it again.
    async fn decide(&self, session: &mut Option<Session>) -> Result<Option<Parks>, DbError> {
        let session = self.session(session).await?;
        let outbox = &self.fence.outbox;
        let act = async {
            session.begin().await?;
            let decided = self.rows.decided(session, outbox).await?;
            let mut done = Vec::new();
            for decision in [Decision::Discard, Decision::Retry] {
                let rows = decided.iter().filter(|(_, decided)| *decided == decision);
                let rows: Vec<_> = rows.map(|(event, _)| *event).collect();
                if rows.is_empty() {
                    continue;
                }
                if decision == Decision::Discard {
                    self.outbox.settle(session, &self.fence, &rows).await?;
                }
                done.extend(
                    self.rows
                        .apply(session, &self.fence, decision, &rows)
                        .await?,
                );
            }
            session.commit().await?;
            Ok(done)
        };
        let done = self.postgres.deadline("acting upon decisions", act).await?;
        Ok((!done.is_empty()).then_some(Parks::Decided(done)))
    }

    async fn session<'s>(
        &self,
        session: &'s mut Option<Session>,
    ) -> Result<&'s mut Session, DbError> {
        self.postgres
            .session(session, self.outbox.table(), Role::Parker)
            .await
    }
}
