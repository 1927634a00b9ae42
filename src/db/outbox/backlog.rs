//! What of an outbox is pending, by what the table alone says: for whoever looks while no relay knows better.

use std::sync::Arc;

use sqlx::Executor;
use sqlx::Row;

use super::Outbox;
use crate::config::OutboxConfig;
use crate::db::shape::{Shape, row};
use crate::db::{DbError, Session, TableName};
use crate::event::CreatedAt;

/// Counting stops here.
const COUNTED: i64 = 1_000_000;

/// Rows that are neither sent nor parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Up to 1,000,000.
    pub rows: i64,
    /// When the first of them was created, if the table says so.
    pub oldest: Option<CreatedAt>,
}

/// The statements on the pending rows of one outbox.
#[derive(Debug, Clone)]
pub struct Backlog {
    table: TableName,
    count: Arc<str>,
    oldest: Option<Arc<str>>,
}

impl Backlog {
    /// # Errors
    /// As [`Outbox::open`].
    pub async fn open(
        session: &mut Session,
        config: &OutboxConfig,
        relay_schema: &str,
    ) -> Result<Backlog, DbError> {
        Ok(Backlog::of(
            &Outbox::shape(session, config).await?,
            relay_schema,
        ))
    }

    fn of(shape: &Shape, relay_schema: &str) -> Backlog {
        let (table, id) = (shape.table.quoted(), &shape.id);
        let pending = format!(
            "from {table} e where {}{}",
            shape.unsent_and(),
            shape.not_parked(relay_schema)
        );
        Backlog {
            table: shape.table.clone(),
            count: format!("select count(*) from (select {pending} limit {COUNTED}) e").into(),
            oldest: shape.created_at.as_ref().map(|created_at| {
                format!("select {created_at} {pending} order by {id} limit 1").into()
            }),
        }
    }

    /// Counts; `outbox` as it is named in its lease.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn look(&self, session: &mut Session, outbox: &str) -> Result<Pending, DbError> {
        let action = || DbError::query(format!("counting the pending rows of {}", self.table));
        let query = session.query(&self.count).bind(outbox.to_owned());
        let count = session.fetch_one(query).await;
        let rows = count.and_then(|row| row.try_get(0)).map_err(action())?;
        let oldest = match &self.oldest {
            None => None,
            Some(oldest) => {
                let query = session.query(oldest).bind(outbox.to_owned());
                let found = session.connection().fetch_optional(query).await;
                let found = found
                    .and_then(|found| found.map(|found| row::created_at(&found, 0)).transpose());
                found.map_err(action())?.flatten()
            }
        };
        Ok(Pending { rows, oldest })
    }
}
