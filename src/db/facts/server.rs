//! The server and the role that the relay has on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::{Executor, Row};

use crate::db::{DbError, Session};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Server {
    /// Such as 180001.
    pub version: i32,
    /// The same for a person.
    pub version_name: String,
    pub fsync: bool,
    pub full_page_writes: bool,
    pub autovacuum: bool,
    /// What transactions are unless they say otherwise.
    pub is_read_only: bool,
    pub role: String,
    pub is_superuser: bool,
    /// Attributes that a relay has no use for.
    pub attributes: Vec<String>,
    /// How many connections the role may have, -1 for any number.
    pub connection_limit: i32,
    /// The server's clock less ours, in seconds, wrong by less than `clock_error`.
    pub clock_ahead: f64,
    pub clock_error: Duration,
}

const SERVER: &str = "select current_setting('server_version_num')::int as version, \
            current_setting('server_version') as version_name, \
            current_setting('fsync')::bool as fsync, \
            current_setting('full_page_writes')::bool as full_page_writes, \
            current_setting('autovacuum')::bool and current_setting('track_counts')::bool as autovacuum, \
            current_setting('default_transaction_read_only')::bool as is_read_only, \
            r.rolname::text as role, r.rolsuper as is_superuser, r.rolconnlimit as connection_limit, \
            array_remove(array[case when r.rolcreaterole then 'CREATEROLE' end, \
                               case when r.rolcreatedb then 'CREATEDB' end, \
                               case when r.rolreplication then 'REPLICATION' end], null) as attributes \
     from pg_catalog.pg_roles r where r.rolname = current_user";

const CLOCK: &str = "select extract(epoch from clock_timestamp())::float8";

impl Server {
    /// # Errors
    /// Whatever Postgres says.
    pub async fn ask(session: &mut Session) -> Result<Server, DbError> {
        let action = || DbError::query("asking for the server's settings");
        let row = session.fetch_one(session.query(&SERVER.into())).await;
        let row = row.map_err(action())?;
        let (clock_ahead, clock_error) = clock(session).await?;
        let read = || {
            Ok(Server {
                version: row.try_get("version")?,
                version_name: row.try_get("version_name")?,
                fsync: row.try_get("fsync")?,
                full_page_writes: row.try_get("full_page_writes")?,
                autovacuum: row.try_get("autovacuum")?,
                is_read_only: row.try_get("is_read_only")?,
                role: row.try_get("role")?,
                is_superuser: row.try_get("is_superuser")?,
                attributes: row.try_get("attributes")?,
                connection_limit: row.try_get("connection_limit")?,
                clock_ahead,
                clock_error,
            })
        };
        read().map_err(action())
    }
}

/// Asked alone and twice, the first time to have it prepared, so that nothing but the way is in the error.
async fn clock(session: &mut Session) -> Result<(f64, Duration), DbError> {
    let mut answer = (0.0, Duration::MAX);
    for _ in 0..2 {
        let sent = SystemTime::now();
        let row = session.fetch_one(session.query(&CLOCK.into())).await;
        let way = sent.elapsed().unwrap_or_default();
        let server: f64 = row
            .and_then(|row| row.try_get(0))
            .map_err(DbError::query("asking for the server's time"))?;
        let here = sent.duration_since(UNIX_EPOCH).unwrap_or_default() + way / 2;
        answer = (server - here.as_secs_f64(), way / 2);
    }
    Ok(answer)
}

/// Commits that are confirmed before they are durable, and who makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asynchronous {
    /// Everybody's, by the server's configuration.
    Server,
    /// Everybody's in this database.
    Database(String),
    /// This role's, which may insert into an outbox.
    Role(String),
}

/// `setrole` 0 is everybody; a role counts if it is ours or may insert into one of the tables.
const ASYNCHRONOUS: &str = "select case when s.setrole <> 0 then 'role' when s.setdatabase <> 0 then 'database' else 'server' end as kind, \
            coalesce(r.rolname::text, current_database()::text) as name \
     from pg_catalog.pg_db_role_setting s \
     cross join unnest(s.setconfig) as setting \
     left join pg_catalog.pg_roles r on r.oid = s.setrole \
     where setting = 'synchronous_commit=off' \
       and s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database())) \
       and (s.setrole = 0 or r.rolname = current_user or exists ( \
            select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
            where quote_ident(n.nspname) || '.' || quote_ident(c.relname) = any ($1) \
              and pg_catalog.has_any_column_privilege(r.oid, c.oid, 'insert'))) \
     union \
     select 'server', '' from pg_catalog.pg_settings \
     where name = 'synchronous_commit' and reset_val = 'off' \
       and source not in ('database', 'user', 'database user', 'session', 'client') \
     order by 1, 2";

/// Whose commits are not durable when they are confirmed; `tables` are in the form of [`TableName`]'s `Display`.
///
/// [`TableName`]: crate::db::TableName
///
/// # Errors
/// Whatever Postgres says.
pub async fn asynchronous(
    session: &mut Session,
    tables: Vec<String>,
) -> Result<Vec<Asynchronous>, DbError> {
    let action = || DbError::query("asking for synchronous_commit");
    let query = session.query(&ASYNCHRONOUS.into()).bind(tables);
    let rows = session.connection().fetch_all(query).await;
    let read = |row: &sqlx::postgres::PgRow| {
        let (kind, name): (String, String) = (row.try_get("kind")?, row.try_get("name")?);
        Ok(match kind.as_str() {
            "role" => Asynchronous::Role(name),
            "database" => Asynchronous::Database(name),
            _ => Asynchronous::Server,
        })
    };
    let rows = rows.map_err(action())?;
    rows.iter()
        .map(read)
        .collect::<sqlx::Result<_>>()
        .map_err(action())
}
