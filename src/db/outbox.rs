//! The statements on one outbox table.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row, ValueRef};
use uuid::Uuid;

use super::lease::Fence;
use super::{DbError, Session, TableName};
use crate::config::OnSent;
use crate::event::{CreatedAt, Event, EventRef, Payload};

/// Bytes that a batch may take beyond its limit: one row is always taken, and what the row costs
/// besides its payload is estimated.
const ROW_OVERHEAD: usize = 256;

/// How much one read may bring.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimit {
    pub rows: usize,
    pub bytes: usize,
}

/// What one read brought.
#[derive(Debug)]
pub struct Batch<T> {
    pub rows: Vec<T>,
    /// The limit was reached: there may be more.
    pub full: bool,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch {
            rows: Vec::new(),
            full: false,
        }
    }
}

/// The statements of one outbox, built once.
#[derive(Debug, Clone)]
pub struct Outbox {
    table: TableName,
    forward: Arc<str>,
    late: Arc<str>,
    unsent: Arc<str>,
    settle: Arc<str>,
    pending: Arc<str>,
    oldest: Arc<str>,
    expired: Arc<str>,
    delete_expired: Arc<str>,
    remaining: Arc<str>,
}

const COLUMNS: &str = "e.id, e.event_id, e.aggregate_type, e.aggregate_id, e.event_type, e.event_version, \
     e.payload, e.payload_bytes, e.correlation_id, e.causation_id, e.traceparent, e.tracestate, \
     e.headers, e.topic, e.partition_key, e.created_at";

impl Outbox {
    /// `relay_schema` is where the leases are.
    pub fn new(table: &TableName, relay_schema: &str, on_sent: OnSent) -> Outbox {
        let t = format!("\"{}\".\"{}\"", table.schema, table.name);
        let fence = format!(
            "with fence as materialized (\
                 select 1 from \"{relay_schema}\".outboxd_leases \
                 where outbox = $3 and lane = $4 and owner = $5 and epoch = $6 for key share) "
        );
        let matching = "from unnest($1::bigint[], $2::uuid[]) as m (id, event_id)";
        let condition = "e.id = m.id and e.event_id = m.event_id and e.sent_at is null \
                         and exists (select from fence)";
        let settle = match on_sent {
            OnSent::Mark => format!(
                "{fence} update {t} as e set sent_at = clock_timestamp() {matching} where {condition}"
            ),
            OnSent::Delete => format!(
                "{fence} delete from {t} as e using {} where {condition}",
                matching.trim_start_matches("from ")
            ),
        };
        Outbox {
            forward: format!(
                "select {COLUMNS} from {t} e where e.sent_at is null and e.id > $1 order by e.id limit $2"
            )
            .into(),
            late: format!(
                "select e.* from unnest($1::bigint[], $2::bigint[]) as gap (first, last) \
                 cross join lateral (\
                     select {COLUMNS} from {t} e \
                     where e.sent_at is null and e.id between gap.first and gap.last \
                     order by e.id limit $3) e \
                 order by e.id limit $3"
            )
            .into(),
            unsent: format!(
                "select {COLUMNS} from {t} e where e.sent_at is null and e.id > $1 and e.id <= $3 \
                 order by e.id limit $2"
            )
            .into(),
            settle: settle.into(),
            // Bounded, so that a gauge never walks a backlog of any size.
            pending: format!(
                "select count(*) from (select from {t} where sent_at is null and id > $1 limit $2) e"
            )
            .into(),
            oldest: format!(
                "select created_at from {t} where sent_at is null and id > $1 order by id limit 1"
            )
            .into(),
            expired: format!(
                "select id, sent_at < clock_timestamp() - make_interval(secs => $3) as expired \
                 from {t} where sent_at is not null and id > $1 order by id limit $2"
            )
            .into(),
            delete_expired: format!(
                "delete from {t} where id = any($1) and sent_at < clock_timestamp() - make_interval(secs => $2)"
            )
            .into(),
            remaining: format!(
                "select id, event_id, aggregate_type, event_type from {t} \
                 where sent_at is null order by id limit $1"
            )
            .into(),
            table: table.clone(),
        }
    }

    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The unsent rows above `position`, in order, each turned by `take` into what is kept of it.
    ///
    /// # Errors
    /// Whatever Postgres says. Must not be cancelled between rows, or the connection has to drain.
    pub async fn forward<T>(
        &self,
        session: &mut Session,
        position: i64,
        limit: BatchLimit,
        take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Batch<T>, DbError> {
        let query = session
            .query(&self.forward)
            .bind(position)
            .bind(limit.rows as i64);
        read(session, query, limit, take)
            .await
            .map_err(DbError::query(format!(
                "reading the unsent rows of {}",
                self.table
            )))
    }

    /// The unsent rows within `gaps`, in order.
    ///
    /// # Errors
    /// As [`Outbox::forward`].
    pub async fn late<T>(
        &self,
        session: &mut Session,
        gaps: &[RangeInclusive<i64>],
        limit: BatchLimit,
        take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Batch<T>, DbError> {
        let (first, last): (Vec<i64>, Vec<i64>) =
            gaps.iter().map(|gap| (*gap.start(), *gap.end())).unzip();
        let query = session
            .query(&self.late)
            .bind(first)
            .bind(last)
            .bind(limit.rows as i64);
        read(session, query, limit, take)
            .await
            .map_err(DbError::query(format!(
                "asking for late rows of {}",
                self.table
            )))
    }

    /// The unsent rows from above `after` up to `upto`: the sweep, which looks where nothing should be.
    ///
    /// # Errors
    /// As [`Outbox::forward`].
    pub async fn unsent_between<T>(
        &self,
        session: &mut Session,
        after: i64,
        upto: i64,
        limit: BatchLimit,
        take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Batch<T>, DbError> {
        let query = session
            .query(&self.unsent)
            .bind(after)
            .bind(limit.rows as i64)
            .bind(upto);
        read(session, query, limit, take)
            .await
            .map_err(DbError::query(format!(
                "sweeping the unsent rows of {}",
                self.table
            )))
    }

    /// Marks or deletes acknowledged rows, matching `(id, event_id)`, if `fence` still holds. Returns
    /// how many rows it touched: fewer than given when rows are gone, or marked, or the fence fell.
    ///
    /// # Errors
    /// Whatever Postgres says; then nothing is marked, or the answer was lost.
    pub async fn settle(
        &self,
        session: &mut Session,
        fence: &Fence,
        events: &[EventRef],
    ) -> Result<u64, DbError> {
        let (ids, event_ids): (Vec<i64>, Vec<Uuid>) =
            events.iter().map(|e| (e.id, e.event_id)).unzip();
        let query = session
            .query(&self.settle)
            .bind(ids)
            .bind(event_ids)
            .bind(fence.outbox.clone())
            .bind(fence.lane)
            .bind(fence.owner)
            .bind(fence.epoch);
        session
            .connection()
            .execute(query)
            .await
            .map(|done| done.rows_affected())
            .map_err(DbError::query(format!("marking rows of {}", self.table)))
    }

    /// How many rows above `position` are unsent, counted up to `most`.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn pending_above(
        &self,
        session: &mut Session,
        position: i64,
        most: i64,
    ) -> Result<i64, DbError> {
        let query = session.query(&self.pending).bind(position).bind(most);
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(DbError::query(format!(
                "counting the pending rows of {}",
                self.table
            )))
    }

    /// When the first unsent row above `position` was created.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn oldest_above(
        &self,
        session: &mut Session,
        position: i64,
    ) -> Result<Option<CreatedAt>, DbError> {
        let query = session.query(&self.oldest).bind(position);
        let action = || {
            DbError::query(format!(
                "looking for the oldest pending row of {}",
                self.table
            ))
        };
        let row = session
            .connection()
            .fetch_optional(query)
            .await
            .map_err(action())?;
        row.map(|row| created_at(&row, 0))
            .transpose()
            .map_err(action())
    }

    /// Walks sent rows above `after` in order and deletes those sent longer ago than `retention`.
    /// Returns where the walk stands and how many rows it saw and deleted.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn expire(
        &self,
        session: &mut Session,
        after: i64,
        rows: i64,
        retention: Duration,
    ) -> Result<Expired, DbError> {
        let action = || DbError::query(format!("deleting expired rows of {}", self.table));
        let query = session
            .query(&self.expired)
            .bind(after)
            .bind(rows)
            .bind(retention.as_secs_f64());
        let found = session
            .connection()
            .fetch_all(query)
            .await
            .map_err(action())?;
        let mut walk = Expired {
            last: after,
            seen: found.len(),
            deleted: 0,
        };
        let mut ids: Vec<i64> = Vec::new();
        for row in &found {
            walk.last = row.try_get(0).map_err(action())?;
            if row.try_get(1).map_err(action())? {
                ids.push(walk.last);
            }
        }
        if !ids.is_empty() {
            let query = session
                .query(&self.delete_expired)
                .bind(ids)
                .bind(retention.as_secs_f64());
            let done = session
                .connection()
                .execute(query)
                .await
                .map_err(action())?;
            walk.deleted = done.rows_affected();
        }
        Ok(walk)
    }

    /// The first unsent rows, for a person to read.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn remaining(
        &self,
        session: &mut Session,
        most: i64,
    ) -> Result<Vec<Remaining>, DbError> {
        let action = || DbError::query(format!("listing the unsent rows of {}", self.table));
        let query = session.query(&self.remaining).bind(most);
        let rows = session
            .connection()
            .fetch_all(query)
            .await
            .map_err(action())?;
        rows.iter()
            .map(|row| {
                Ok(Remaining {
                    event: EventRef {
                        id: row.try_get(0)?,
                        event_id: row.try_get(1)?,
                    },
                    aggregate_type: row.try_get(2)?,
                    event_type: row.try_get(3)?,
                })
            })
            .collect::<sqlx::Result<_>>()
            .map_err(action())
    }
}

/// A row that is still unsent.
#[derive(Debug, Clone)]
pub struct Remaining {
    pub event: EventRef,
    pub aggregate_type: String,
    pub event_type: String,
}

/// One step of the janitor's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The last id seen.
    pub last: i64,
    pub seen: usize,
    pub deleted: u64,
}

/// Reads rows until the end or a limit. What Postgres had sent beyond the limit is drained by the
/// connection's next statement, so memory stays bounded, and the statement ends before anything is
/// published: an open one would pin a snapshot.
async fn read<T>(
    session: &mut Session,
    query: sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>,
    limit: BatchLimit,
    mut take: impl FnMut(&Event<'_>) -> T,
) -> sqlx::Result<Batch<T>> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let mut rows = session.connection().fetch(query);
    while let Some(row) = rows.try_next().await? {
        let event = event(&row)?;
        bytes += ROW_OVERHEAD + payload_len(&event);
        batch.rows.push(take(&event));
        if batch.rows.len() >= limit.rows || bytes >= limit.bytes {
            batch.full = true;
            break;
        }
    }
    Ok(batch)
}

fn payload_len(event: &Event<'_>) -> usize {
    match event.payload {
        Payload::Json(bytes) | Payload::Bytes(bytes) => bytes.len(),
        Payload::Tombstone => 0,
    }
}

/// Borrows an event from a row of [`COLUMNS`].
fn event(row: &PgRow) -> sqlx::Result<Event<'_>> {
    let payload = match (bytes(row, 6)?, bytes(row, 7)?) {
        (Some(json), _) => Payload::Json(json),
        (None, Some(bytes)) => Payload::Bytes(bytes),
        (None, None) => Payload::Tombstone,
    };
    Ok(Event {
        id: row.try_get(0)?,
        event_id: row.try_get(1)?,
        aggregate_type: required(row, 2)?,
        aggregate_id: required(row, 3)?,
        event_type: required(row, 4)?,
        event_version: required(row, 5)?,
        payload,
        correlation_id: text(row, 8)?,
        causation_id: text(row, 9)?,
        traceparent: text(row, 10)?,
        tracestate: text(row, 11)?,
        headers: match bytes(row, 12)? {
            // The binary form of jsonb: its version, which is 1, then the text.
            Some([1, text @ ..]) => Some(utf8(12, text)?),
            Some(_) => return Err(decode(12, "an unknown version of jsonb".into())),
            None => None,
        },
        topic: text(row, 13)?,
        partition_key: text(row, 14)?,
        created_at: created_at(row, 15)?,
    })
}

fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Option<&[u8]>> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_bytes()
        .map(Some)
        .map_err(|error| decode(column, error))
}

fn text(row: &PgRow, column: usize) -> sqlx::Result<Option<&str>> {
    bytes(row, column)?
        .map(|bytes| utf8(column, bytes))
        .transpose()
}

fn required(row: &PgRow, column: usize) -> sqlx::Result<&str> {
    text(row, column)?.ok_or_else(|| decode(column, "unexpected null".into()))
}

/// The client encoding is UTF-8, so this fails only if the server breaks the protocol.
fn utf8(column: usize, bytes: &[u8]) -> sqlx::Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| decode(column, error.into()))
}

fn created_at(row: &PgRow, column: usize) -> sqlx::Result<CreatedAt> {
    let value = bytes(row, column)?.ok_or_else(|| decode(column, "unexpected null".into()))?;
    let micros = value
        .try_into()
        .map_err(|_| decode(column, "not 8 bytes".into()))?;
    Ok(CreatedAt::from_postgres_micros(i64::from_be_bytes(micros)))
}

fn decode(column: usize, source: sqlx::error::BoxDynError) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source,
    }
}
