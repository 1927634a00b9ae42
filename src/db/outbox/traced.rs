//! The rows of one correlation id: what a trace is made of.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use super::Outbox;
use crate::config::OutboxConfig;
use crate::db::migrate::trace_index;
use crate::db::shape::Shape;
use crate::db::{DbError, Session, TableName};

/// Rows of one correlation id that are read of an outbox, at most.
pub const MOST: i64 = 1_000;

/// The columns that a trace is made of: payloads stay where they are.
const TRACED: &[&str] = &[
    "id",
    "event_id",
    "event_type",
    "aggregate_type",
    "correlation_id",
    "causation_id",
];

/// Rows that one statement looks through without an index.
const STEP: i64 = 20_000;

/// One row, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedRow {
    pub id: i64,
    /// As Postgres writes it.
    pub event_id: String,
    pub event_type: Option<String>,
    pub aggregate_type: Option<String>,
    pub causation_id: Option<String>,
    /// In microseconds since 1970, here and below.
    pub created_us: Option<i64>,
    pub fate: Fate,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Pending,
    /// Since then, if the table says.
    Sent {
        at_us: Option<i64>,
    },
    Parked {
        reason: String,
    },
    /// Somebody gave it up: it never went out.
    Discarded,
}

/// What was found of a correlation id.
#[derive(Debug, Clone, Default)]
pub struct Traced {
    pub rows: Vec<TracedRow>,
    /// There are more than are read.
    pub is_cut: bool,
    pub looked: Looked,
}

/// Where was looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Looked {
    /// The index answered.
    #[default]
    ByIndex,
    /// Everything was looked through.
    Everywhere,
    /// Only rows above this id were looked through.
    Above(i64),
}

/// The first row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    pub id: i64,
    pub created_us: Option<i64>,
}

/// The statements on one outbox.
#[derive(Debug, Clone)]
pub struct TracedRows {
    table: TableName,
    /// Its trace index, if it can have one.
    index: Option<String>,
    has_index: Arc<str>,
    found: Arc<str>,
    scanned: Arc<str>,
    step: Arc<str>,
    last: Arc<str>,
    oldest: Arc<str>,
}

impl TracedRows {
    /// A configured outbox.
    ///
    /// # Errors
    /// As [`Outbox::open`].
    pub async fn open(
        session: &mut Session,
        config: &OutboxConfig,
        relay_schema: &str,
    ) -> Result<TracedRows, DbError> {
        let shape = Outbox::shape(session, config).await?;
        let is_own = config.mapping.is_none();
        Ok(TracedRows::of(&shape, relay_schema, is_own))
    }

    /// A table of outboxd's own shape.
    pub fn own(table: &TableName, relay_schema: &str) -> TracedRows {
        TracedRows::of(&Shape::own(table), relay_schema, true)
    }

    fn of(shape: &Shape, relay_schema: &str, is_own: bool) -> TracedRows {
        let (table, id, value) = (shape.table.quoted(), &shape.id, &shape.id_value);
        let is_sent = shape.is_sent.as_deref().unwrap_or("false");
        let sent_at = shape.sent.as_ref().map(|sent| sent.at.as_str());
        let sent_at = sent_at.unwrap_or("null::timestamptz");
        let created_at = shape.created_at.as_deref().unwrap_or("null::timestamptz");
        let micros = |time: &str| {
            format!(
                "case when isfinite({time}) then (extract(epoch from {time}) * 1000000)::bigint end"
            )
        };
        let columns = shape.columns.iter();
        let columns = columns.filter(|column| TRACED.contains(&column.name.as_str()));
        let fields: Vec<String> = columns
            .map(|column| format!("{} as {}", column.sql, column.name))
            .collect();
        // What an event without a correlation id causes has the event's own id for one.
        let select = format!(
            "select f.id, f.event_id::text as event_id, f.event_type, f.aggregate_type, \
                    f.causation_id, {} as created_us, f.outboxd_is_sent as is_sent, {} as sent_us, \
                    (select p.reason from \"{relay_schema}\".outboxd_parked p \
                     where p.outbox = $2 and p.id = f.id and p.event_id = f.outboxd_fingerprint) as parked, \
                    exists (select from \"{relay_schema}\".outboxd_decisions d \
                     where d.outbox = $2 and d.id = f.id and d.event_id = f.outboxd_fingerprint \
                       and d.decision = 'discard') as is_discarded \
             from (select {}, {} as outboxd_fingerprint, {created_at} as outboxd_created_at, \
                          {is_sent} as outboxd_is_sent, {sent_at} as outboxd_sent_at \
                   from {table} e",
            micros("f.outboxd_created_at"),
            micros("f.outboxd_sent_at"),
            fields.join(", "),
            shape.fingerprint,
        );
        let matching = "coalesce(f.correlation_id, f.event_id::text) = $1";
        TracedRows {
            index: is_own.then(|| trace_index(&shape.table)),
            has_index: "select exists (select from pg_catalog.pg_index \
                 where indexrelid = pg_catalog.to_regclass($1) and indisvalid)"
                .into(),
            // Not in order: the planner would walk the primary key for it.
            found: format!("{select}) f where {matching} limit $3").into(),
            scanned: format!(
                "{select} where {id} > $4 and {id} <= $5) f where {matching} limit $3"
            )
            .into(),
            step: format!(
                "select count(*), min(s.id) from (\
                     select {value} as id from {table} e where {id} <= $1 \
                     order by {id} desc limit $2) s"
            )
            .into(),
            last: format!("select {value} from {table} e order by {id} desc limit 1").into(),
            oldest: format!(
                "select f.id, {} from (select {value} as id, {created_at} as at from {table} e \
                 order by {id} limit 1) f",
                micros("f.at")
            )
            .into(),
            table: shape.table.clone(),
        }
    }

    /// The rows of the correlation id; without an index the newest `most_scanned` rows are looked through.
    /// `outbox` as it is named in its lease.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn find(
        &self,
        session: &mut Session,
        correlation_id: &str,
        outbox: &str,
        most_scanned: i64,
    ) -> Result<Traced, DbError> {
        let action = || DbError::query(format!("looking for traces in {}", self.table));
        let mut traced = match self.has_index(session).await.map_err(action())? {
            true => {
                let query = session
                    .query(&self.found)
                    .bind(correlation_id.to_owned())
                    .bind(outbox.to_owned())
                    .bind(MOST + 1);
                Traced {
                    rows: fetch(session, query).await.map_err(action())?,
                    ..Traced::default()
                }
            }
            false => self
                .scan(session, correlation_id, outbox, most_scanned)
                .await
                .map_err(action())?,
        };
        traced.rows.sort_unstable_by_key(|row| row.id);
        traced.is_cut = traced.rows.len() as i64 > MOST;
        traced.rows.truncate(MOST as usize);
        Ok(traced)
    }

    /// The first row that is still there.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn oldest(&self, session: &mut Session) -> Result<Option<Oldest>, DbError> {
        let query = session.query(&self.oldest);
        let row = session.connection().fetch_optional(query).await;
        let oldest = |row: PgRow| {
            Ok(Oldest {
                id: row.try_get(0)?,
                created_us: row.try_get(1)?,
            })
        };
        row.and_then(|row| row.map(oldest).transpose())
            .map_err(DbError::query(format!(
                "looking for the first row of {}",
                self.table
            )))
    }

    async fn has_index(&self, session: &mut Session) -> sqlx::Result<bool> {
        let Some(index) = &self.index else {
            return Ok(false);
        };
        let query = session.query(&self.has_index).bind(index.clone());
        session.fetch_one(query).await?.try_get(0)
    }

    /// From the newest row back, in steps of ids, so that no statement is long.
    async fn scan(
        &self,
        session: &mut Session,
        correlation_id: &str,
        outbox: &str,
        most: i64,
    ) -> sqlx::Result<Traced> {
        let mut traced = Traced {
            looked: Looked::Everywhere,
            ..Traced::default()
        };
        let query = session.query(&self.last);
        let last = session.connection().fetch_optional(query).await?;
        let Some(mut upto) = last.map(|row| row.try_get::<i64, _>(0)).transpose()? else {
            return Ok(traced);
        };
        let mut left = most;
        while left > 0 && traced.rows.len() as i64 <= MOST {
            let step = left.min(STEP);
            let query = session.query(&self.step).bind(upto).bind(step);
            let row = session.fetch_one(query).await?;
            let (rows, first): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
            let Some(first) = first else {
                return Ok(traced);
            };
            let query = session
                .query(&self.scanned)
                .bind(correlation_id.to_owned())
                .bind(outbox.to_owned())
                .bind(MOST + 1)
                .bind(first.saturating_sub(1))
                .bind(upto);
            traced.rows.extend(fetch(session, query).await?);
            if rows < step || first == i64::MIN {
                return Ok(traced);
            }
            left -= rows;
            upto = first - 1;
        }
        traced.looked = Looked::Above(upto);
        Ok(traced)
    }
}

async fn fetch(
    session: &mut Session,
    query: sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> sqlx::Result<Vec<TracedRow>> {
    let rows = session.connection().fetch_all(query).await?;
    rows.iter().map(row).collect()
}

fn row(row: &PgRow) -> sqlx::Result<TracedRow> {
    let parked: Option<String> = row.try_get("parked")?;
    let fate = match (
        parked,
        row.try_get("is_discarded")?,
        row.try_get("is_sent")?,
    ) {
        (Some(reason), _, _) => Fate::Parked { reason },
        (None, true, _) => Fate::Discarded,
        (None, false, true) => Fate::Sent {
            at_us: row.try_get("sent_us")?,
        },
        (None, false, false) => Fate::Pending,
    };
    Ok(TracedRow {
        id: row.try_get("id")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        aggregate_type: row.try_get("aggregate_type")?,
        causation_id: row.try_get("causation_id")?,
        created_us: row.try_get("created_us")?,
        fate,
    })
}
