//! Rows that were set aside, and what was decided about them.
//!
//! The rows stay in their outbox, unsent; `outboxd_parked` says why they are passed over. A decision is
//! written there by whoever takes it, and acted upon by the owner of the lane alone, fenced like a mark.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use super::lease::{Fence, fenced, with_fence};
use super::{DbError, Session, as_arrays, event_ref, event_refs};
use crate::event::EventRef;

/// Why a row is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    pub event: EventRef,
    pub event_type: Option<Box<str>>,
    pub topic: Arc<str>,
    pub key: Option<Box<[u8]>>,
    pub class: Class,
    pub reason: Box<str>,
    pub attempts: u32,
    /// Since its first failure.
    pub failing_for: Duration,
    /// The later rows of its key wait for a decision.
    pub blocks_key: bool,
}

/// What kind of failure parked a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The row itself cannot be a message of its topic.
    Row,
    /// Relays died at it.
    Crash,
    /// Postgres cannot read it, or not so that anybody else can.
    Unreadable,
    /// An error that nobody has classified, again and again.
    Unknown,
}

impl Class {
    /// As it stands in the table.
    pub fn name(self) -> &'static str {
        match self {
            Class::Row => "row",
            Class::Crash => "crash",
            Class::Unreadable => "unreadable",
            Class::Unknown => "unknown",
        }
    }
}

/// What a relay must know of the rows that were parked before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parked {
    /// In any order.
    pub events: Vec<EventRef>,
    /// The ids of those that block their keys, and these.
    pub blocks: Vec<(i64, Blocked)>,
}

/// An order key whose rows wait for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub topic: Box<str>,
    pub key: Box<[u8]>,
}

/// What is to become of a parked row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Retry,
    Discard,
}

impl Decision {
    /// As it stands in the tables, and as its command is called.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Retry => "retry",
            Decision::Discard => "discard",
        }
    }
}

/// A decision that was acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub event: EventRef,
    pub decision: Decision,
    /// The key that nothing blocks any more.
    pub unblocks: Option<Blocked>,
}

/// The statements on parked rows.
#[derive(Debug, Clone)]
pub struct ParkedRows {
    park: Arc<str>,
    load: Arc<str>,
    blocking: Arc<str>,
    decided: Arc<str>,
    apply: Arc<str>,
}

/// One decision's rows of a batch, at most: a short transaction.
const DECISIONS: i64 = 1_000;

impl ParkedRows {
    pub fn new(relay_schema: &str) -> ParkedRows {
        let s = format!("\"{relay_schema}\"");
        let fence = with_fence(relay_schema);
        ParkedRows {
            park: format!(
                "{fence} insert into {s}.outboxd_parked as p \
                     (outbox, id, event_id, event_type, topic, key, class, reason, attempts, \
                      first_failed_at, blocks_key) \
                 select $1, r.id, r.event_id, r.event_type, r.topic, r.key, r.class, r.reason, r.attempts, \
                        clock_timestamp() - make_interval(secs => r.failing_for), r.blocks_key \
                 from unnest($5::bigint[], $6::uuid[], $7::text[], $8::text[], $9::bytea[], $10::text[], \
                             $11::text[], $12::integer[], $13::float8[], $14::boolean[]) \
                      as r (id, event_id, event_type, topic, key, class, reason, attempts, failing_for, blocks_key) \
                 where exists (select from fence) \
                 on conflict (outbox, id) do update \
                 set event_id = excluded.event_id, event_type = excluded.event_type, topic = excluded.topic, \
                     key = excluded.key, class = excluded.class, reason = excluded.reason, \
                     attempts = excluded.attempts, first_failed_at = excluded.first_failed_at, \
                     parked_at = excluded.parked_at, copied_at = null, blocks_key = excluded.blocks_key, decision = null, \
                     decided_at = null, decided_by = null, decided_why = null"
            )
            .into(),
            // In no order: a sort spills to disk where the table was not analysed, and takes as long as the rest.
            load: as_arrays(&format!(
                "select id, event_id from {s}.outboxd_parked where outbox = $1 limit $2"
            ))
            .into(),
            blocking: format!(
                "select id, event_id, topic, key from {s}.outboxd_parked \
                 where outbox = $1 and blocks_key order by id limit $2"
            )
            .into(),
            decided: format!(
                "select id, event_id, decision from {s}.outboxd_parked \
                 where outbox = $1 and decision is not null order by id limit {DECISIONS}"
            )
            .into(),
            apply: format!(
                "{fence}, gone as (\
                     delete from {s}.outboxd_parked p using unnest($5::bigint[], $6::uuid[]) as m (id, event_id) \
                     where p.outbox = $1 and p.id = m.id and p.event_id = m.event_id and p.decision = $7 \
                       and exists (select from fence) \
                     returning p.*), \
                 logged as (\
                     insert into {s}.outboxd_decisions \
                         (outbox, id, event_id, event_type, topic, class, reason, parked_at, decision, \
                          decided_at, decided_by, decided_why) \
                     select outbox, id, event_id, event_type, topic, class, reason, parked_at, decision, \
                            decided_at, decided_by, decided_why from gone) \
                 select g.id, g.event_id, g.topic, g.key, g.blocks_key and not exists (\
                     select from {s}.outboxd_parked o \
                     where o.outbox = $1 and sha256(o.key) = sha256(g.key) and o.key = g.key and o.topic = g.topic \
                       and o.blocks_key and o.id <> all ($5)) as unblocks \
                 from gone g order by g.id"
            )
            .into(),
        }
    }

    /// Parks rows, all or, when the fence fell, none; says whether it held.
    ///
    /// # Errors
    /// Whatever Postgres says; then nothing is parked, or the answer was lost.
    pub async fn park(
        &self,
        session: &mut Session,
        fence: &Fence,
        rows: &[Parking],
    ) -> Result<bool, DbError> {
        let mut columns = Columns::default();
        rows.iter().for_each(|row| columns.push(row));
        let query = fenced(session, &self.park, fence)
            .bind(columns.ids)
            .bind(columns.event_ids)
            .bind(columns.event_types)
            .bind(columns.topics)
            .bind(columns.keys)
            .bind(columns.classes)
            .bind(columns.reasons)
            .bind(columns.attempts)
            .bind(columns.failing_for)
            .bind(columns.blocks);
        let done = session.connection().execute(query).await;
        done.map(|done| done.rows_affected() == rows.len() as u64)
            .map_err(DbError::query(format!("parking rows of {}", fence.outbox)))
    }

    /// The parked rows of an outbox, up to `most`, in any order.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn load(
        &self,
        session: &mut Session,
        outbox: &str,
        most: usize,
    ) -> Result<Parked, DbError> {
        let action = || DbError::query(format!("listing the parked rows of {outbox}"));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let query = |session: &Session, sql| session.query(sql).bind(outbox.to_owned()).bind(most);
        let load = query(session, &self.load);
        let row = session.fetch_one(load).await;
        let events = row.and_then(|row| event_refs(&row)).map_err(action())?;
        let blocking = query(session, &self.blocking);
        // One after the other: an answer's row takes far more room than what is kept of it.
        let rows = session.connection().fetch(blocking);
        let blocks = rows.try_filter_map(async |row| {
            let id = row.try_get(0)?;
            Ok(blocked(&row)?.map(|blocked| (id, blocked)))
        });
        let blocks = blocks.try_collect().await.map_err(action())?;
        Ok(Parked { events, blocks })
    }

    /// Decisions that nobody has acted upon.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn decided(
        &self,
        session: &mut Session,
        outbox: &str,
    ) -> Result<Vec<(EventRef, Decision)>, DbError> {
        let action = || DbError::query(format!("looking for decisions about {outbox}"));
        let query = session.query(&self.decided).bind(outbox.to_owned());
        let rows = session.connection().fetch_all(query).await;
        let rows = rows.map_err(action())?;
        rows.iter()
            .map(|row| {
                let decision: String = row.try_get(2)?;
                // The table's constraint knows these two.
                let decision = match decision.as_str() {
                    "discard" => Decision::Discard,
                    _ => Decision::Retry,
                };
                Ok((event_ref(row)?, decision))
            })
            .collect::<sqlx::Result<_>>()
            .map_err(action())
    }

    /// Notes that one decision about these rows was acted upon, and forgets that they are parked. Returns
    /// those for which that was so, and none when the fence fell.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn apply(
        &self,
        session: &mut Session,
        fence: &Fence,
        decision: Decision,
        events: &[EventRef],
    ) -> Result<Vec<Decided>, DbError> {
        let action = || DbError::query(format!("acting upon decisions about {}", fence.outbox));
        let (ids, event_ids): (Vec<i64>, Vec<uuid::Uuid>) = events
            .iter()
            .map(|event| (event.id, event.event_id))
            .unzip();
        let query = fenced(session, &self.apply, fence)
            .bind(ids)
            .bind(event_ids)
            .bind(decision.name());
        let rows = session.connection().fetch_all(query).await;
        let rows = rows.map_err(action())?;
        rows.iter()
            .map(|row| {
                let unblocks: bool = row.try_get(4)?;
                Ok(Decided {
                    event: event_ref(row)?,
                    decision,
                    unblocks: if unblocks { blocked(row)? } else { None },
                })
            })
            .collect::<sqlx::Result<_>>()
            .map_err(action())
    }
}

/// Rows as one array a column, for `unnest`.
#[derive(Default)]
struct Columns {
    ids: Vec<i64>,
    event_ids: Vec<uuid::Uuid>,
    event_types: Vec<Option<String>>,
    topics: Vec<String>,
    keys: Vec<Option<Vec<u8>>>,
    classes: Vec<String>,
    reasons: Vec<String>,
    attempts: Vec<i32>,
    failing_for: Vec<f64>,
    blocks: Vec<bool>,
}

impl Columns {
    fn push(&mut self, row: &Parking) {
        self.ids.push(row.event.id);
        self.event_ids.push(row.event.event_id);
        self.event_types
            .push(row.event_type.as_deref().map(str::to_owned));
        self.topics.push(row.topic.to_string());
        self.keys.push(row.key.as_deref().map(<[u8]>::to_vec));
        self.classes.push(row.class.name().to_owned());
        // Postgres takes no zero bytes in text.
        self.reasons.push(row.reason.replace('\0', "\\0"));
        self.attempts
            .push(i32::try_from(row.attempts).unwrap_or(i32::MAX));
        self.failing_for.push(row.failing_for.as_secs_f64());
        self.blocks.push(row.blocks_key);
    }
}

/// Topic and key, which stand third and fourth; nothing for a row without a key, which blocks nobody.
fn blocked(row: &PgRow) -> sqlx::Result<Option<Blocked>> {
    let (topic, key): (String, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
    Ok(key.map(|key| Blocked {
        topic: topic.into(),
        key: key.into(),
    }))
}
