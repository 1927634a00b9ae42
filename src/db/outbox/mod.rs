//! One outbox table: what the relay asks of it and does to it.

pub mod backlog;
pub mod inspect;
mod row;
mod select;
pub mod sent_rows;
mod shape;
mod statements;
pub mod traced;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{Executor, Row};
use uuid::Uuid;

use super::lease::Fence;
use super::{DbError, Session, TableName, catalogue, event_ref};
use crate::config::{OnSent, OutboxConfig};
use crate::event::{CreatedAt, Event, EventRef};

use statements::Statements;

pub(super) use row::{PayloadForm, RowForm};
pub(super) use select::{Column, Length};
pub(super) use shape::{Sent, Shape};

/// What a row costs besides its values, roughly.
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

/// One outbox table.
#[derive(Debug, Clone)]
pub struct Outbox {
    table: TableName,
    id_column: Arc<str>,
    form: RowForm,
    other_columns: usize,
    statements: Statements,
}

impl Outbox {
    /// A table of outboxd's own shape; `relay_schema` is where the leases are. Of a value that is larger than
    /// any message, only the length is read.
    pub fn new(
        table: &TableName,
        relay_schema: &str,
        on_sent: OnSent,
        max_message_bytes: usize,
    ) -> Outbox {
        Outbox::of(&Shape::own(table), relay_schema, on_sent, max_message_bytes)
    }

    /// The configured table: of outboxd's own shape, or one that is compared with its mapping first.
    ///
    /// # Errors
    /// [`DbError::Schema`] with every mistake of the mapping; else whatever Postgres says.
    pub async fn open(
        session: &mut Session,
        config: &OutboxConfig,
        relay_schema: &str,
        max_message_bytes: usize,
    ) -> Result<Outbox, DbError> {
        let shape = Outbox::shape(session, config).await?;
        Ok(Outbox::of(
            &shape,
            relay_schema,
            config.on_sent,
            max_message_bytes,
        ))
    }

    async fn shape(session: &mut Session, config: &OutboxConfig) -> Result<Shape, DbError> {
        match &config.mapping {
            None => catalogue::own_shape(session, config).await,
            Some(mapping) => catalogue::shape(session, config, mapping).await,
        }
    }

    fn of(shape: &Shape, relay_schema: &str, on_sent: OnSent, max_message_bytes: usize) -> Outbox {
        Outbox {
            table: shape.table.clone(),
            id_column: shape.id_column.as_str().into(),
            form: shape.form,
            other_columns: shape.other_columns,
            statements: Statements::new(shape, relay_schema, on_sent, max_message_bytes),
        }
    }

    fn row(&self) -> (RowForm, usize) {
        (self.form, self.other_columns)
    }

    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The monotonic column, as the catalogue spells it.
    pub fn id_column(&self) -> &str {
        &self.id_column
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
            .query(&self.statements.forward)
            .bind(position)
            .bind(limit.rows as i64);
        read(session, query, self.row(), limit, take)
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
            .query(&self.statements.late)
            .bind(first)
            .bind(last)
            .bind(limit.rows as i64);
        read(session, query, self.row(), limit, take)
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
            .query(&self.statements.unsent)
            .bind(after)
            .bind(limit.rows as i64)
            .bind(upto);
        read(session, query, self.row(), limit, take)
            .await
            .map_err(DbError::query(format!(
                "sweeping the unsent rows of {}",
                self.table
            )))
    }

    /// What tells the unsent rows from above `after` up to `upto`, in order, up to `most` of them; nothing else of
    /// them is read.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn references(
        &self,
        session: &mut Session,
        after: i64,
        upto: i64,
        most: usize,
    ) -> Result<Vec<EventRef>, DbError> {
        let query = session
            .query(&self.statements.references)
            .bind(after)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .bind(upto);
        let rows = session.connection().fetch_all(query).await;
        let action = || DbError::query(format!("listing the unsent rows of {}", self.table));
        let rows = rows.map_err(action())?;
        rows.iter()
            .map(event_ref)
            .collect::<sqlx::Result<_>>()
            .map_err(action())
    }

    /// The unsent ones among the rows with these ids, in order.
    ///
    /// # Errors
    /// As [`Outbox::forward`].
    pub async fn unsent_with_ids<T>(
        &self,
        session: &mut Session,
        ids: Vec<i64>,
        limit: BatchLimit,
        take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Batch<T>, DbError> {
        let query = session
            .query(&self.statements.unsent_with_ids)
            .bind(ids)
            .bind(limit.rows as i64);
        read(session, query, self.row(), limit, take)
            .await
            .map_err(DbError::query(format!(
                "reading unsent rows of {}",
                self.table
            )))
    }

    /// The rows with these ids, in order, whether they were sent or not.
    ///
    /// # Errors
    /// As [`Outbox::forward`].
    pub async fn with_ids<T>(
        &self,
        session: &mut Session,
        ids: Vec<i64>,
        limit: BatchLimit,
        take: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Batch<T>, DbError> {
        let query = session
            .query(&self.statements.with_ids)
            .bind(ids)
            .bind(limit.rows as i64);
        read(session, query, self.row(), limit, take)
            .await
            .map_err(DbError::query(format!("reading rows of {}", self.table)))
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
            .query(&self.statements.settle)
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
        let query = session
            .query(&self.statements.pending)
            .bind(position)
            .bind(most);
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(DbError::query(format!(
                "counting the pending rows of {}",
                self.table
            )))
    }

    /// The first unsent row above `after` that is not parked; nothing of it is read. `outbox` is named as in its lease.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn first(
        &self,
        session: &mut Session,
        outbox: &str,
        after: i64,
    ) -> Result<Option<EventRef>, DbError> {
        let action = || DbError::query(format!("looking for the first row of {}", self.table));
        let query = session
            .query(&self.statements.first)
            .bind(outbox.to_owned())
            .bind(after);
        let row = session.connection().fetch_optional(query).await;
        let event = row.map_err(action())?.as_ref().map(event_ref);
        event.transpose().map_err(action())
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
        let Some(oldest) = &self.statements.oldest else {
            return Ok(None);
        };
        let query = session.query(oldest).bind(position);
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
        let created_at = row.map(|row| row::created_at(&row, 0)).transpose();
        created_at.map(Option::flatten).map_err(action())
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
        let Some(expiry) = &self.statements.expiry else {
            return Ok(Expired::nothing(after));
        };
        let query = session
            .query(&expiry.find)
            .bind(after)
            .bind(rows)
            .bind(retention.as_secs_f64());
        let found = session
            .connection()
            .fetch_all(query)
            .await
            .map_err(action())?;
        let mut walk = Expired {
            seen: found.len(),
            ..Expired::nothing(after)
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
                .query(&expiry.delete)
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
        most: usize,
    ) -> Result<Vec<Remaining>, DbError> {
        let limit = BatchLimit {
            rows: most,
            bytes: usize::MAX,
        };
        let batch = self.forward(session, i64::MIN, limit, |event| Remaining {
            id: event.reference.id,
            event_id: event.event_id.to_string(),
            aggregate_type: event.aggregate_type.map(str::to_owned),
            event_type: event.event_type.map(str::to_owned),
        });
        Ok(batch.await?.rows)
    }
}

/// A row that is still unsent.
#[derive(Debug, Clone)]
pub struct Remaining {
    pub id: i64,
    pub event_id: String,
    pub aggregate_type: Option<String>,
    pub event_type: Option<String>,
}

/// One step of the janitor's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The last id seen.
    pub last: i64,
    pub seen: usize,
    pub deleted: u64,
}

impl Expired {
    fn nothing(after: i64) -> Expired {
        Expired {
            last: after,
            seen: 0,
            deleted: 0,
        }
    }
}

/// Reads rows until the end or a limit. What Postgres had sent beyond the limit is drained by the
/// connection's next statement, so memory stays bounded, and the statement ends before anything is
/// published: an open one would pin a snapshot.
async fn read<T>(
    session: &mut Session,
    query: sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>,
    (form, other_columns): (RowForm, usize),
    limit: BatchLimit,
    mut take: impl FnMut(&Event<'_>) -> T,
) -> sqlx::Result<Batch<T>> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let mut rows = session.connection().fetch(query);
    while let Some(row) = rows.try_next().await? {
        let others = row::others(&row, form, other_columns)?;
        let event = row::event(&row, form, &others)?;
        bytes += ROW_OVERHEAD + event.bytes();
        batch.rows.push(take(&event));
        if batch.rows.len() >= limit.rows || bytes >= limit.bytes {
            batch.full = true;
            break;
        }
    }
    Ok(batch)
}
