//! How an outbox stands by what Postgres alone knows of it: who owns it, what is parked, what is paused.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};
use uuid::Uuid;

use super::bypasses::{Bypass, Bypasses};
use super::lease::LANE;
use super::pauses::{Pause, Pauses};
use super::{DbError, Session, rfc3339};

/// Parked rows are counted up to here.
const COUNTED: i64 = 100_000;

/// Blocked keys that are listed at most.
const LISTED: i64 = 20;

/// How an outbox stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Nothing: nobody ever owned it.
    pub lease: Option<LeaseState>,
    pub parked: ParkedState,
    pub pauses: Vec<Pause>,
    pub bypasses: Vec<Bypass>,
}

/// The lease of its lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseState {
    /// Nothing after a clean stop.
    pub owner: Option<Uuid>,
    pub epoch: i64,
    /// Below zero: it ran out so long ago.
    pub expires_in_seconds: f64,
}

impl LeaseState {
    /// Who owns the lane, if anybody does.
    pub fn live_owner(&self) -> Option<Uuid> {
        self.owner.filter(|_| self.expires_in_seconds > 0.0)
    }
}

/// Its parked rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedState {
    /// Up to 100,000.
    pub rows: i64,
    /// The one with the highest id.
    pub last: Option<ParkedRow>,
    /// Keys that wait for a decision about one of them, up to 100,000 rows that block one.
    pub blocked_keys: i64,
    /// The first of them.
    pub blocked: Vec<BlockedKey>,
}

/// One parked row. Times are RFC 3339 in UTC, here and below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    pub id: i64,
    pub topic: String,
    pub reason: String,
    pub at: String,
}

/// An order key whose rows wait for a decision about a parked row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedKey {
    pub key: Vec<u8>,
    /// The row.
    pub by: ParkedRow,
}

/// The statements on the standing of one outbox, named as in its lease.
#[derive(Debug, Clone)]
pub struct Standings {
    outbox: String,
    lease: Arc<str>,
    count: Arc<str>,
    last: Arc<str>,
    blocked_count: Arc<str>,
    blocked: Arc<str>,
    pauses: Pauses,
    bypasses: Bypasses,
}

impl Standings {
    pub fn new(relay_schema: &str, outbox: &str) -> Standings {
        let s = format!("\"{relay_schema}\"");
        let parked_at = rfc3339("p.parked_at");
        let note = format!("p.id, p.topic, p.reason, {parked_at} as at");
        Standings {
            outbox: outbox.to_owned(),
            lease: format!(
                "select owner, epoch, case when isfinite(expires_at) \
                     then extract(epoch from expires_at - clock_timestamp())::float8 \
                     else '-infinity' end as expires_in \
                 from {s}.outboxd_leases where outbox = $1 and lane = $2"
            )
            .into(),
            count: format!(
                "select count(*) from (\
                     select from {s}.outboxd_parked where outbox = $1 limit {COUNTED}) p"
            )
            .into(),
            last: format!(
                "select {note} from {s}.outboxd_parked p where outbox = $1 order by p.id desc limit 1"
            )
            .into(),
            // The index on blocked keys has them in this order.
            blocked_count: format!(
                "select count(*) from (select distinct topic, key from (\
                     select topic, key from {s}.outboxd_parked where outbox = $1 and blocks_key \
                     order by outbox, topic, key limit {COUNTED}) p) k"
            )
            .into(),
            blocked: format!(
                "select {note}, p.key from {s}.outboxd_parked p \
                 where p.outbox = $1 and p.blocks_key and p.key is not null \
                 order by p.outbox, p.topic, p.key limit {LISTED}"
            )
            .into(),
            pauses: Pauses::new(relay_schema, outbox),
            bypasses: Bypasses::new(relay_schema, outbox),
        }
    }

    /// Looks. Every statement is bounded.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn look(&self, session: &mut Session) -> Result<Standing, DbError> {
        let action = || DbError::query(format!("looking how {} stands", self.outbox));
        let query = session
            .query(&self.lease)
            .bind(self.outbox.clone())
            .bind(LANE);
        let found = session.connection().fetch_optional(query).await;
        let lease = found
            .and_then(|row| row.as_ref().map(lease).transpose())
            .map_err(action())?;
        let parked = self.parked(session).await.map_err(action())?;
        Ok(Standing {
            lease,
            parked,
            pauses: self.pauses.list(session).await?,
            bypasses: self.bypasses.list(session).await?,
        })
    }

    async fn parked(&self, session: &mut Session) -> sqlx::Result<ParkedState> {
        let query = session.query(&self.count).bind(self.outbox.clone());
        let rows: i64 = session.fetch_one(query).await?.try_get(0)?;
        if rows == 0 {
            return Ok(ParkedState::default());
        }
        let query = session.query(&self.last).bind(self.outbox.clone());
        let last = session.connection().fetch_optional(query).await?;
        let query = session.query(&self.blocked_count).bind(self.outbox.clone());
        let blocked_keys = session.fetch_one(query).await?.try_get(0)?;
        let query = session.query(&self.blocked).bind(self.outbox.clone());
        let blocked = session.connection().fetch_all(query).await?;
        let blocked = blocked.iter().map(|row| {
            Ok(BlockedKey {
                key: row.try_get("key")?,
                by: parked_row(row)?,
            })
        });
        Ok(ParkedState {
            rows,
            last: last.as_ref().map(parked_row).transpose()?,
            blocked_keys,
            blocked: blocked.collect::<sqlx::Result<_>>()?,
        })
    }
}

fn lease(row: &PgRow) -> sqlx::Result<LeaseState> {
    Ok(LeaseState {
        owner: row.try_get("owner")?,
        epoch: row.try_get("epoch")?,
        expires_in_seconds: row.try_get("expires_in")?,
    })
}

fn parked_row(row: &PgRow) -> sqlx::Result<ParkedRow> {
    Ok(ParkedRow {
        id: row.try_get("id")?,
        topic: row.try_get("topic")?,
        reason: row.try_get("reason")?,
        at: row.try_get("at")?,
    })
}
