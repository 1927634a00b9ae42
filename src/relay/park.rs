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
use crate::db::pauses::{Paused, Pauses};
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
#[derive(Debug, PartialEq, Eq)]
pub enum Parks {
    /// The rows that were parked before, and what is paused: the first that is told.
    Loaded(Vec<Parked>, Paused),
    /// Something else is paused now.
    Paused(Paused),
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
    pub pauses: Pauses,
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
        let mut paused: Option<Paused> = None;
        let mut look_at = Instant::now();
        loop {
            let done = match (&mut paused, rows.is_empty()) {
                (None, _) => self.load(&mut session, &mut paused).await,
                (Some(_), false) => self.park(&mut session, &rows).await,
                (Some(paused), true) => self.look(&mut session, paused).await,
            };
            match done {
                Ok(news) => {
                    retry.reset();
                    rows.clear();
                    let is_fenced = news.contains(&Parks::Fenced);
                    // The lane is gone: then nobody waits for this either.
                    let is_gone = news.into_iter().any(|news| told.send(news).is_err());
                    if is_gone || is_fenced {
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

    async fn load(
        &self,
        session: &mut Option<Session>,
        paused: &mut Option<Paused>,
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let load = async {
            session.begin().await?;
            let outbox = &self.fence.outbox;
            let parked = self.rows.load(session, outbox, MAX_PARKED).await?;
            let pauses = self.pauses.list(session).await?;
            session.commit().await?;
            Ok((parked, Paused::from_iter(pauses)))
        };
        let loaded = self.postgres.deadline("listing parked rows", load).await;
        let (parked, now) = loaded?;
        *paused = Some(now.clone());
        Ok(vec![Parks::Loaded(parked, now)])
    }

    async fn park(
        &self,
        session: &mut Option<Session>,
        rows: &[ToPark],
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let parkings: Vec<Parking> = rows.iter().map(|row| row.parking.clone()).collect();
        let park = async {
            session.begin().await?;
            let is_held = self.rows.park(session, &self.fence, &parkings).await?;
            session.commit().await?;
            Ok(is_held)
        };
        if !self.postgres.deadline("parking rows", park).await? {
            return Ok(vec![Parks::Fenced]);
        }
        self.metrics.parked.inc_by(rows.len() as u64);
        let tickets = rows.iter().map(|row| row.ticket).collect();
        Ok(vec![Parks::Done(tickets)])
    }

    /// What somebody has decided or paused since the last look, if anything.
    async fn look(
        &self,
        session: &mut Option<Session>,
        paused: &mut Paused,
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let look = async {
            session.begin().await?;
            let decided = self.decide(session).await?;
            let pauses = self.pauses.list(session).await?;
            session.commit().await?;
            Ok((decided, Paused::from_iter(pauses)))
        };
        let (decided, now) = self
            .postgres
            .deadline("looking for decisions", look)
            .await?;
        let mut news = Vec::new();
        if !decided.is_empty() {
            news.push(Parks::Decided(decided));
        }
        if now != *paused {
            paused.clone_from(&now);
            news.push(Parks::Paused(now));
        }
        Ok(news)
    }

    /// Acts upon decisions, if there are any. A row to be discarded is marked first: if we die between, the
    /// next owner finds the decision and marks it again.
    async fn decide(&self, session: &mut Session) -> Result<Vec<Decided>, DbError> {
        let decided = self.rows.decided(session, &self.fence.outbox).await?;
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
        Ok(done)
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
