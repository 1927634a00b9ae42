//! What the role may do: too little for the relay, or more than it needs.

use sqlx::{Executor, Row};

use crate::db::migrate::RELAY_TABLES;
use crate::db::{DbError, Session};

/// Something of the relay's own that the role cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// The table is not there.
    Table(String),
    /// It is, but this privilege is not.
    Privilege(String),
}

const LACKING: &str = "with needed as ( \
         select * from unnest($2::text[], $3::text[]) with ordinality as n (name, privileges, place)), \
     found as ( \
         select needed.*, c.oid from needed \
         left join (pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1) \
             on c.relname = needed.name) \
     select is_there, what from ( \
         select 0 as place, true as is_there, 'USAGE on schema ' || quote_ident(n.nspname) as what \
         from pg_catalog.pg_namespace n \
         where n.nspname = $1 and not pg_catalog.has_schema_privilege(n.oid, 'usage') \
         union all \
         select place, false, name from found where oid is null \
         union all \
         select place, true, upper(string_agg(privilege, ', ')) || ' on table ' || name \
         from found cross join lateral regexp_split_to_table(privileges, ', ') as privilege \
         where oid is not null and not pg_catalog.has_table_privilege(oid, privilege) \
         group by place, name) as lacking \
     order by place";

/// What of the relay's own tables is missing, or may not be used.
///
/// # Errors
/// Whatever Postgres says.
pub async fn lacking(session: &mut Session, schema: &str) -> Result<Vec<Lacking>, DbError> {
    let action = || DbError::query("asking for privileges on the relay's tables");
    let (names, privileges): (Vec<&str>, Vec<&str>) = RELAY_TABLES.into_iter().unzip();
    let query = session
        .query(&LACKING.into())
        .bind(schema.to_owned())
        .bind(owned(&names))
        .bind(owned(&privileges));
    let rows = session.connection().fetch_all(query).await;
    let read = |row: &sqlx::postgres::PgRow| {
        let what = row.try_get("what")?;
        Ok(match row.try_get("is_there")? {
            true => Lacking::Privilege(what),
            false => Lacking::Table(what),
        })
    };
    let rows = rows.map_err(action())?;
    rows.iter()
        .map(read)
        .collect::<sqlx::Result<_>>()
        .map_err(action())
}

/// Tables that the role may read or change beside those that are the relay's or the inbox's business. What
/// belongs to an extension is everybody's.
const OTHER_TABLES: &str = "select count(*) over () as count, name from ( \
         select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p', 'v', 'm', 'f') \
           and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)' \
           and not (n.nspname = $1 and (c.relname = any ($2) or c.relname ~ '^processed_(events|consumers)')) \
           and not exists (select from pg_catalog.pg_partition_ancestors(c.oid) as a (oid) \
                           join pg_catalog.pg_class p on p.oid = a.oid \
                           join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace \
                           where quote_ident(pn.nspname) || '.' || quote_ident(p.relname) = any ($3)) \
           and not quote_ident(n.nspname) || '.' || quote_ident(c.relname) = any ($3) \
           and not exists (select from pg_catalog.pg_depend d \
                           where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') \
           and pg_catalog.has_schema_privilege(n.oid, 'usage') \
           and (pg_catalog.has_table_privilege(c.oid, 'select, insert, update, delete, truncate, references, trigger') \
                or pg_catalog.has_any_column_privilege(c.oid, 'select, insert, update, references'))) as others \
     order by name limit 3";

/// How many tables the role has rights on that are none of the relay's business, and the first of them.
/// `outboxes` are in the form of [`TableName`]'s `Display`.
///
/// [`TableName`]: crate::db::TableName
///
/// # Errors
/// Whatever Postgres says.
pub async fn other_tables(
    session: &mut Session,
    schema: &str,
    outboxes: Vec<String>,
) -> Result<(i64, Vec<String>), DbError> {
    let action = || DbError::query("asking for privileges on other tables");
    let names = RELAY_TABLES.map(|(name, _)| name);
    let query = session
        .query(&OTHER_TABLES.into())
        .bind(schema.to_owned())
        .bind(owned(&names))
        .bind(outboxes);
    let rows = session.connection().fetch_all(query).await;
    let rows = rows.map_err(action())?;
    let names = rows.iter().map(|row| row.try_get("name"));
    let names = names.collect::<sqlx::Result<_>>().map_err(action())?;
    let count = rows.first().map(|row| row.try_get("count"));
    let count = count.transpose().map_err(action())?;
    Ok((count.unwrap_or(0), names))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
