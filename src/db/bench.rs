//! The statements of `outboxd bench`: a schema of its own, its load, and what it asks while it measures.
//!
//! They run on plain connections: what is measured is the relay, with statements of its own.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use uuid::Uuid;

use super::{DbError, TableName};

/// How a backlog is drawn. The same values draw the same rows, but for their ids.
#[derive(Debug, Clone)]
pub struct Backlog {
    pub keys: i64,
    pub seed: i64,
    /// What fills the payloads up, a power of two of them; each as long as the payload asks for.
    pub pads: Vec<String>,
    /// The key of all rows, instead of drawn ones.
    pub key: Option<String>,
}

/// What [`Backlog::pads`] leaves to the payload's frame: `{"n":"0000000001","pad":""}`.
pub const PAYLOAD_FRAME: usize = 27;

/// The statements on the benchmark's table.
#[derive(Debug, Clone)]
pub struct BenchTable {
    table: TableName,
    fill: Arc<str>,
    park: Arc<str>,
    insert: Arc<str>,
    unsent: Arc<str>,
    first_unsent: Arc<str>,
    owned: Arc<str>,
}

impl BenchTable {
    pub fn new(table: &TableName, relay_schema: &str) -> BenchTable {
        let t = format!("\"{}\".\"{}\"", table.schema, table.name);
        BenchTable {
            // A tenth of the rows falls on ten hot keys, so that a batch of the relay surely holds a key
            // several times: with keys in a cycle a check of the order would be blind.
            fill: format!(
                "insert into {t} (aggregate_type, aggregate_id, event_type, payload) \
                 select 'bench', \
                        coalesce($6, 'key-' || lpad(((draw >> 10) % case when draw & 1023 < 102 then least($3, 10) else $3 end)::text, 8, '0')), \
                        'bench.event', \
                        ('{{\"n\":\"' || lpad(n::text, 10, '0') || '\",\"pad\":\"' \
                            || ($4::text[])[1 + ((draw >> 40) & (cardinality($4::text[]) - 1))] || '\"}}')::json \
                 from generate_series($1::bigint, $2::bigint) as n \
                 cross join lateral (select hashint8extended(n, $5) & 9223372036854775807 as draw) as drawn"
            )
            .into(),
            park: format!(
                "insert into \"{relay_schema}\".outboxd_parked \
                     (outbox, id, event_id, topic, key, class, reason, attempts, first_failed_at, blocks_key) \
                 select $1, id, event_id, $2, convert_to(aggregate_id, 'UTF8'), 'row', 'a benchmark', 1, \
                        clock_timestamp(), $3 \
                 from {t} order by id limit $4"
            )
            .into(),
            insert: format!(
                "insert into {t} (event_id, aggregate_type, aggregate_id, event_type, payload) \
                 values ($1, 'bench', $2, 'bench.event', $3::json)"
            )
            .into(),
            unsent: format!(
                "select exists (select from {t} where sent_at is null and id between $1 and $2)"
            )
            .into(),
            first_unsent: format!(
                "select min(id), max(id) from {t} where sent_at is null and id > $1"
            )
            .into(),
            // A lease is set to expire its duration after it was taken.
            owned: format!(
                "select extract(epoch from clock_timestamp() - expires_at)::float8 \
                 from \"{relay_schema}\".outboxd_leases where outbox = $1 and owner is not null"
            )
            .into(),
            table: table.clone(),
        }
    }

    /// Inserts the rows `first` to `last` of a backlog.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn fill(
        &self,
        connection: &mut PgConnection,
        (first, last): (i64, i64),
        backlog: &Backlog,
    ) -> Result<(), DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.fill)))
            .bind(first)
            .bind(last)
            .bind(backlog.keys)
            .bind(backlog.pads.clone())
            .bind(backlog.seed)
            .bind(backlog.key.clone());
        let done = connection.execute(query).await;
        done.map(|_| ()).map_err(DbError::query(format!(
            "filling {} with rows {first} to {last}",
            self.table
        )))
    }

    /// Parks the first `rows` rows, for the relay to find at its start; with `blocks` they block their keys.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn park(
        &self,
        connection: &mut PgConnection,
        topic: &str,
        rows: i64,
        blocks: bool,
    ) -> Result<(), DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.park)))
            .bind(self.table.to_string())
            .bind(topic.to_owned())
            .bind(blocks)
            .bind(rows);
        let done = connection.execute(query).await;
        done.map(|_| ())
            .map_err(DbError::query(format!("parking rows of {}", self.table)))
    }

    /// Vacuums and analyzes the table, so that neither happens by itself during a measurement, and asks
    /// for a checkpoint, so that the fill's pages are not written during it. A role that may not ask for
    /// one measures without.
    ///
    /// # Errors
    /// Whatever Postgres says, but for the checkpoint.
    pub async fn settle_down(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        let TableName { schema, name } = &self.table;
        let vacuum = format!("vacuum (analyze) \"{schema}\".\"{name}\"");
        let action = || DbError::query(format!("vacuuming {}", self.table));
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(vacuum)))
            .await
            .map_err(action())?;
        match connection.execute(sqlx::raw_sql("checkpoint")).await {
            Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
            Err(error) => Err(action()(error)),
        }
    }

    /// Inserts one event in a transaction of its own.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn insert(
        &self,
        connection: &mut PgConnection,
        event_id: Uuid,
        key: &str,
        payload: &str,
    ) -> Result<(), DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)))
            .bind(event_id)
            .bind(key.to_owned())
            .bind(payload.to_owned());
        let done = connection.execute(query).await;
        done.map(|_| ())
            .map_err(DbError::query(format!("inserting into {}", self.table)))
    }

    /// Whether any of these rows is unsent.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn any_unsent(
        &self,
        connection: &mut PgConnection,
        (first, last): (i64, i64),
    ) -> Result<bool, DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.unsent)))
            .bind(first)
            .bind(last);
        let row = connection.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(DbError::query(format!(
                "looking for unsent rows of {}",
                self.table
            )))
    }

    /// The first and the last unsent row above `after`. Walks the entries of all rows that were sent: not for every
    /// moment.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn unsent_range(
        &self,
        connection: &mut PgConnection,
        after: i64,
    ) -> Result<Option<(i64, i64)>, DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.first_unsent))).bind(after);
        let action = || DbError::query(format!("looking for the unsent rows of {}", self.table));
        let row = connection.fetch_one(query).await.map_err(action())?;
        let first: Option<i64> = row.try_get(0).map_err(action())?;
        let last: Option<i64> = row.try_get(1).map_err(action())?;
        Ok(first.zip(last))
    }

    /// How many seconds ago the lease of the table expired that somebody holds; negative while it is
    /// valid. Nothing when nobody holds it.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn lease_expired_for(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<f64>, DbError> {
        let query =
            sqlx::query(AssertSqlSafe(Arc::clone(&self.owned))).bind(self.table.to_string());
        let action = || DbError::query(format!("looking at the lease of {}", self.table));
        let row = connection.fetch_optional(query).await.map_err(action())?;
        row.map(|row| row.try_get(0).map_err(action())).transpose()
    }
}

/// Drops a schema with everything in it, if it is there. Waits for locks: those of a relay that was
/// killed a moment ago are about to go.
///
/// # Errors
/// Whatever Postgres says.
pub async fn drop_schema(connection: &mut PgConnection, schema: &str) -> Result<(), DbError> {
    // Without the notices that name every object.
    let sql = format!(
        "set client_min_messages = warning; set lock_timeout = '30s'; \
         drop schema if exists \"{schema}\" cascade"
    );
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    done.map(|_| ())
        .map_err(DbError::query(format!("dropping schema {schema}")))
}
