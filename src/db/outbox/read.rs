//! How rows are read, as events that are borrowed from the answer.

use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use sqlx::Executor;

use super::Outbox;
use crate::db::shape::row::{self, RowForm};
use crate::db::{DbError, Session, event_refs};
use crate::event::{Event, EventRef};

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

impl Outbox {
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
        let row = session.fetch_one(query).await;
        row.and_then(|row| event_refs(&row))
            .map_err(DbError::query(format!(
                "listing the unsent rows of {}",
                self.table
            )))
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

/// Reads rows until the end or a limit. What Postgres had sent beyond the limit is drained by the
/// connection's next statement, so memory stays bounded, and the statement ends before anything is
/// published: an open one would pin a snapshot.
pub(super) async fn read<T>(
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
