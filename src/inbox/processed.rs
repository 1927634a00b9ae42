//! Which consumers have done what about given events, for whoever traces them.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::error::InboxError;
use super::identity::ConsumerName;
use super::sql::{Statements, is_identifier};
use super::status::consumers;

/// What one consumer did about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessedEvent {
    pub consumer: String,
    pub event_id: String,
    /// As the table has it.
    pub outcome: String,
    /// In microseconds since 1970.
    pub at_us: i64,
}

/// What the consumers of a database did about these events, given as the table has their ids.
///
/// # Errors
/// When the schema's name is none, or whatever Postgres says.
pub async fn processed(
    connection: &mut PgConnection,
    schema: &str,
    event_ids: &[String],
) -> Result<Vec<ProcessedEvent>, InboxError> {
    if !is_identifier(schema) {
        return Err(InboxError::Schema(schema.to_owned()));
    }
    let action = "asking what was done about events";
    let names = consumers(connection, schema).await?;
    let names: Vec<&str> = names.iter().map(ConsumerName::as_str).collect();
    let sql = Statements::new(Some(schema)).processed;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .bind(&names)
        .bind(event_ids)
        .fetch_all(connection)
        .await
        .map_err(InboxError::query(action))?;
    let event = |row: &sqlx::postgres::PgRow| {
        Ok(ProcessedEvent {
            consumer: row.try_get(0)?,
            event_id: row.try_get(1)?,
            outcome: row.try_get(2)?,
            at_us: row.try_get(3)?,
        })
    };
    let events: sqlx::Result<_> = rows.iter().map(event).collect();
    events.map_err(InboxError::query(action))
}

/// The consumers of a database that were pruned, each with the time before which it may have forgotten events, in
/// microseconds since 1970.
///
/// # Errors
/// As [`processed`].
pub async fn forgotten(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<(String, i64)>, InboxError> {
    if !is_identifier(schema) {
        return Err(InboxError::Schema(schema.to_owned()));
    }
    let action = "asking what was forgotten";
    let sql = Statements::new(Some(schema)).forgotten;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(connection)
        .await
        .map_err(InboxError::query(action))?;
    let consumers: sqlx::Result<_> = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect();
    consumers.map_err(InboxError::query(action))
}
