//! One outbox table: what the relay asks of it and does to it.

pub mod backlog;
mod expire;
pub mod inspect;
mod read;
pub mod sent_rows;
mod statements;
pub mod traced;

use std::sync::Arc;

use sqlx::{Executor, Row};
use uuid::Uuid;

use super::lease::Fence;
use super::shape::{RowForm, Shape, row};
use super::{DbError, Session, TableName, catalogue, event_ref};
use crate::config::{OnSent, OutboxConfig};
use crate::event::{CreatedAt, EventRef};

use statements::Statements;

pub use expire::Expired;
pub use read::{Batch, BatchLimit, Remaining};

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
}
