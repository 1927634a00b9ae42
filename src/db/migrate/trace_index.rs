//! The index that `outboxd trace` looks correlation ids up by: opt-in, and made beside the writers.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use super::ADVISORY_LOCK_CLASS;
use crate::db::{DbError, TableName};

/// Its name with its schema, in double quotes.
pub fn trace_index(table: &TableName) -> String {
    // A table of outboxd's own has a name that leaves room.
    format!(
        "{}.\"{}_trace\"",
        table.schema.quoted(),
        table.name.as_str()
    )
}

/// The statement that makes it, outside of any transaction.
///
/// What an event without a correlation id causes has that event's id for one: so both are found by one index.
pub fn create(table: &TableName) -> String {
    format!(
        "create index concurrently \"{}_trace\" on {} ((coalesce(correlation_id, event_id::text)));\n",
        table.name.as_str(),
        table.quoted()
    )
}

/// Makes it if it is not there; says whether it was not. What an attempt that was cut off has left is made anew.
///
/// # Errors
/// Whatever Postgres says, or that somebody else is at it.
pub async fn ensure(connection: &mut PgConnection, table: &TableName) -> Result<bool, DbError> {
    let index = trace_index(table);
    let action = || DbError::query(format!("making the index {index}"));
    // Never waited for: the statement below waits for every transaction, and so for one that waits for it.
    let lock = format!("select pg_try_advisory_lock({ADVISORY_LOCK_CLASS}, 1)");
    let row = connection.fetch_one(AssertSqlSafe(lock)).await;
    let is_ours: bool = row.and_then(|row| row.try_get(0)).map_err(action())?;
    if !is_ours {
        return Err(DbError::Schema(format!(
            "the index {index} is being made by another outboxd migrate: try again when it has ended"
        )));
    }
    let is_valid = sqlx::query(
        "select indisvalid from pg_catalog.pg_index where indexrelid = pg_catalog.to_regclass($1)",
    )
    .bind(&index)
    .fetch_optional(&mut *connection)
    .await
    .and_then(|row| row.map(|row| row.try_get::<bool, _>(0)).transpose())
    .map_err(action())?;
    let is_new = is_valid != Some(true);
    if is_valid == Some(false) {
        let drop = format!("drop index concurrently {index}");
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(drop)))
            .await
            .map_err(action())?;
    }
    if is_new {
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(create(table))))
            .await
            .map_err(action())?;
    }
    let unlock = format!("select pg_advisory_unlock({ADVISORY_LOCK_CLASS}, 1)");
    connection
        .execute(AssertSqlSafe(unlock))
        .await
        .map_err(action())?;
    Ok(is_new)
}
