//! Parks rows, and acts upon what is decided about them, on a connection of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Postgres;
use super::caution::{Plan, plan};
use super::window::Ticket;
use crate::admin::metrics::OutboxMetrics;
use crate::db::bypasses::{Bypasses, EndBypasses};
use crate::db::lease::{Deaths, Fence};
use crate::db::outbox::Outbox;
use crate::db::parked::{Class, Decided, Decision, Parked, ParkedRows, Parking};
use crate::db::pauses::{Paused, Pauses};
use crate::db::{DbError, Role, Session};
use crate::event::EventRef;
use crate::outage::{Retry, jittered};

/// Rows of one statement.
const MAX_ROWS: usize = 500;

/// How often decisions are looked for: soon enough for whoever waits for one, and one look into an index
/// that is nearly always empty.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Parked rows of one outbox, at most: each takes about 50 bytes for as long as the relay runs. Beyond, rows
/// that fail are tried again and again instead.
pub const MAX_PARKED: usize = 200_000;

/// Rows under suspicion of ending every relay, at most: so many are counted.
const MAX_SUSPECTS: u32 = 1_000_000;

/// What the lane wants of the parker.
#[derive(Debug)]
pub enum Order {
    Park(ToPark),
    /// How this and former owners stand, should this one die.
    Note(Deaths),
    /// A topic whose breaker was bypassed has taken a row.
    EndBypass(String),
}

/// A row that is to be parked.
#[derive(Debug)]
pub struct ToPark {
    pub ticket: Ticket,
    pub parking: Parking,
}

/// What people want of the outbox until it is taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub paused: Paused,
    /// Topics whose breakers are bypassed.
    pub bypassed: BTreeSet<String>,
}

/// What was there before this owner.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    pub parked: Parked,
    pub wishes: Wishes,
    pub plan: Plan,
}

/// What the parker tells the lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Parks {
    /// The first that is told.
    Loaded(Loaded),
    /// People want something else now.
    Wished(Wishes),
    /// These rows are parked, for reasons of these classes.
    Done(Vec<(Ticket, Class)>),
    /// What somebody has decided since the last look, often nothing.
    Decided(Vec<Decided>),
    /// Postgres knows how the owners stand.
    Noted,
    /// The lease is somebody else's.
    Fenced,
}

/// The task that parks.
pub struct Parker {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub fence: Fence,
    pub deaths: Deaths,
    pub rows: ParkedRows,
    pub pauses: Pauses,
    pub bypasses: Bypasses,
    pub end_bypasses: EndBypasses,
    pub metrics: OutboxMetrics,
}

impl Parker {
    /// Does what it is told, until the sender is gone or the fence fell.
    pub async fn run(
        self,
        mut orders_rx: mpsc::UnboundedReceiver<Order>,
        told: mpsc::UnboundedSender<Parks>,
    ) {
        let mut session: Option<Session> = None;
        let mut retry = Retry::new(Duration::from_secs(2));
        let mut orders: Vec<Order> = Vec::new();
        let mut wishes: Option<Wishes> = None;
        let mut look_at = Instant::now();
        loop {
            let done = match (&mut wishes, orders.is_empty()) {
                (None, _) => self.load(&mut session, &mut wishes).await,
                (Some(wishes), false) => self.obey(&mut session, wishes, &orders).await,
                (Some(wishes), true) => self.look(&mut session, wishes).await,
            };
            match done {
                Ok(news) => {
                    retry.reset();
                    orders.clear();
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
                // 1. Orders. Cancel-safe: none is lost.
                count = orders_rx.recv_many(&mut orders, MAX_ROWS) => if count == 0 { return },
                // 2. A sleep keeps nothing.
                () = tokio::time::sleep_until(look_at) => look_at = Instant::now() + jittered(LOOK_EVERY),
            }
        }
    }

    async fn load(
        &self,
        session: &mut Option<Session>,
        wishes: &mut Option<Wishes>,
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let load = async {
            session.begin().await?;
            let outbox = &self.fence.outbox;
            let mut parked = self.rows.load(session, outbox, MAX_PARKED).await?;
            let wishes = self.wishes(session).await?;
            let plan = self.plan(session, &parked).await?;
            if let Plan::ParkFirst { after } = plan {
                parked.events.extend(self.park_first(session, after).await?);
            }
            session.commit().await?;
            Ok(Loaded {
                parked,
                wishes,
                plan,
            })
        };
        let loaded = self.postgres.deadline("listing parked rows", load).await?;
        *wishes = Some(loaded.wishes.clone());
        Ok(vec![Parks::Loaded(loaded)])
    }

    /// What to do after the deaths of former owners.
    async fn plan(&self, session: &mut Session, parked: &Parked) -> Result<Plan, DbError> {
        if self.deaths == Deaths::default() {
            return Ok(Plan::Normal);
        }
        let after = self.deaths.suspects.map_or(i64::MIN, |rows| rows.after);
        let parked = parked
            .events
            .iter()
            .filter(|event| event.id > after)
            .count() as i64;
        let most = i64::from(MAX_SUSPECTS) + parked;
        let pending = self.outbox.pending_above(session, after, most).await? - parked;
        Ok(plan(self.deaths, u32::try_from(pending).unwrap_or(0)))
    }

    /// Parks the first row unread, at which relays died.
    async fn park_first(
        &self,
        session: &mut Session,
        after: i64,
    ) -> Result<Option<EventRef>, DbError> {
        let outbox = &self.fence.outbox;
        let Some(event) = self.outbox.first(session, outbox, after).await? else {
            return Ok(None);
        };
        let count = self.deaths.count;
        let reason =
            format!("{count} relays died in succession, the last of them at this row alone");
        tracing::error!(
            outbox = self.fence.outbox,
            event.row = event.id,
            event.id = %event.event_id,
            error = reason,
            "parking a row unread"
        );
        let parking = Parking {
            event,
            event_type: None,
            topic: "".into(),
            key: None,
            class: Class::Crash,
            reason: reason.into(),
            attempts: count,
            failing_for: Duration::ZERO,
            blocks_key: false,
        };
        let leases = &self.postgres.leases;
        let is_held = self.rows.park(session, &self.fence, &[parking]).await?
            && leases.note(session, &self.fence, Deaths::default()).await?;
        self.metrics.parked.inc_by(u64::from(is_held));
        // The first order finds out that the lease is gone.
        Ok(is_held.then_some(event))
    }

    async fn obey(
        &self,
        session: &mut Option<Session>,
        wishes: &mut Wishes,
        orders: &[Order],
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let (mut parked, mut parkings) = (Vec::new(), Vec::new());
        let (mut deaths, mut taking) = (None, Vec::new());
        for order in orders {
            match order {
                Order::Park(row) => {
                    parked.push((row.ticket, row.parking.class));
                    parkings.push(row.parking.clone());
                }
                Order::Note(noted) => deaths = Some(*noted),
                Order::EndBypass(topic) => taking.push(topic.clone()),
            }
        }
        let obeyed = async {
            session.begin().await?;
            let mut is_held = true;
            if !parkings.is_empty() {
                is_held = self.rows.park(session, &self.fence, &parkings).await?;
            }
            if let Some(deaths) = deaths {
                is_held &= self
                    .postgres
                    .leases
                    .note(session, &self.fence, deaths)
                    .await?;
            }
            if !taking.is_empty() {
                is_held &= self.end_bypasses.end(session, &self.fence, &taking).await?;
            }
            session.commit().await?;
            Ok(is_held)
        };
        if !self.postgres.deadline("parking rows", obeyed).await? {
            return Ok(vec![Parks::Fenced]);
        }
        // The lane knows: if somebody wishes the same again, that is news.
        wishes.bypassed.retain(|topic| !taking.contains(topic));
        self.metrics.parked.inc_by(parked.len() as u64);
        let mut news = Vec::new();
        if !parked.is_empty() {
            news.push(Parks::Done(parked));
        }
        news.extend(deaths.map(|_| Parks::Noted));
        Ok(news)
    }

    /// What somebody has decided or wished since the last look, if anything.
    async fn look(
        &self,
        session: &mut Option<Session>,
        wishes: &mut Wishes,
    ) -> Result<Vec<Parks>, DbError> {
        let session = self.session(session).await?;
        let look = async {
            session.begin().await?;
            let decided = self.decide(session).await?;
            let now = self.wishes(session).await?;
            session.commit().await?;
            Ok((decided, now))
        };
        let (decided, now) = self
            .postgres
            .deadline("looking for decisions", look)
            .await?;
        let mut news = vec![Parks::Decided(decided)];
        if now != *wishes {
            wishes.clone_from(&now);
            news.push(Parks::Wished(now));
        }
        Ok(news)
    }

    async fn wishes(&self, session: &mut Session) -> Result<Wishes, DbError> {
        let pauses = self.pauses.list(session).await?;
        let bypasses = self.bypasses.list(session).await?;
        Ok(Wishes {
            paused: Paused::from_iter(pauses),
            bypassed: bypasses.into_iter().map(|bypass| bypass.topic).collect(),
        })
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
