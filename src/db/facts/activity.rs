//! What others do on the server, as far as it holds a relay back.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use crate::db::{DbError, Session};

/// A transaction that has been open for long.
#[derive(Debug, Clone)]
pub enum Transaction {
    /// Prepared and neither committed nor rolled back.
    Prepared { gid: String, seconds: f64 },
    /// Of a session.
    Open {
        pid: i32,
        role: String,
        application: String,
        state: String,
        seconds: f64,
    },
}

/// Sessions of others show their times only to members of pg_read_all_stats.
const TRANSACTIONS: &str = "select gid as name, null::int as pid, '' as role, '' as state, \
            extract(epoch from clock_timestamp() - prepared)::float8 as seconds \
     from pg_catalog.pg_prepared_xacts \
     where database = current_database() and prepared < clock_timestamp() - make_interval(secs => $1) \
     union all \
     select coalesce(application_name, ''), pid, coalesce(usename::text, ''), coalesce(state, ''), \
            extract(epoch from clock_timestamp() - xact_start)::float8 \
     from pg_catalog.pg_stat_activity \
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid() \
       and xact_start < clock_timestamp() - make_interval(secs => $1) \
     order by seconds desc limit $2";

/// The oldest transactions of the database that are older than `age`, at most so many.
///
/// # Errors
/// Whatever Postgres says.
pub async fn transactions(
    session: &mut Session,
    age: Duration,
    most: i64,
) -> Result<Vec<Transaction>, DbError> {
    let action = || DbError::query("looking for long transactions");
    let query = session
        .query(&TRANSACTIONS.into())
        .bind(age.as_secs_f64())
        .bind(most);
    let rows = session.connection().fetch_all(query).await;
    let read = |row: &PgRow| {
        let (name, seconds) = (row.try_get("name")?, row.try_get("seconds")?);
        Ok(match row.try_get("pid")? {
            None => Transaction::Prepared { gid: name, seconds },
            Some(pid) => Transaction::Open {
                pid,
                role: row.try_get("role")?,
                application: name,
                state: row.try_get("state")?,
                seconds,
            },
        })
    };
    let rows = rows.map_err(action())?;
    rows.iter()
        .map(read)
        .collect::<sqlx::Result<_>>()
        .map_err(action())
}

/// A replication slot that may keep dead rows from being removed.
#[derive(Debug, Clone)]
pub struct Slot {
    pub name: String,
    pub is_active: bool,
    /// How many transactions ago the rows were last needed that it keeps.
    pub behind: Option<i64>,
}

/// Another database's logical slot keeps only the rows of the catalogues from being removed.
const SLOTS: &str = "select slot_name::text as name, active as is_active, \
            greatest(age(xmin), age(catalog_xmin))::bigint as behind \
     from pg_catalog.pg_replication_slots \
     where database is null or database = current_database() \
     order by slot_name";

/// The slots of the server that concern this database.
///
/// # Errors
/// Whatever Postgres says.
pub async fn slots(session: &mut Session) -> Result<Vec<Slot>, DbError> {
    let action = || DbError::query("looking at the replication slots");
    let rows = session.connection();
    let rows = rows.fetch_all(sqlx::query(SLOTS).persistent(false)).await;
    let read = |row: &PgRow| {
        Ok(Slot {
            name: row.try_get("name")?,
            is_active: row.try_get("is_active")?,
            behind: row.try_get("behind")?,
        })
    };
    let rows = rows.map_err(action())?;
    rows.iter()
        .map(read)
        .collect::<sqlx::Result<_>>()
        .map_err(action())
}
