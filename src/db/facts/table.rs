//! An outbox table, beyond what the relay's statements take for granted of it.

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use crate::config::OutboxConfig;
use crate::db::{DbError, Session};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct TableFacts {
    /// Its rows are lost in a crash.
    pub is_unlogged: bool,
    /// Clients can give ids of their own.
    pub takes_ids: bool,
    /// The role owns it, or is a member of the role that does.
    pub is_owned: bool,
    /// Privileges on it that the relay has no use for.
    pub needless: Vec<String>,
    /// An index holds the unsent rows alone, or tells them from others.
    pub has_unsent_index: bool,
    pub autovacuum: Autovacuum,
    /// Enabled triggers that are not the server's own.
    pub triggers: Vec<Trigger>,
}

/// What a queue's table wants of vacuum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Autovacuum {
    pub is_on: bool,
    /// The part of the table that may be dead before it is vacuumed.
    pub scale_factor: f64,
    /// Whether the end of the table is cut off under an exclusive lock.
    pub truncates: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub name: String,
    /// It runs when the application inserts, and not only when a row is marked.
    pub on_insert: bool,
}

const FACTS: &str = "select c.relpersistence = 'u' as is_unlogged, \
            a.attidentity <> 'a' as takes_ids, \
            pg_catalog.pg_has_role(c.relowner, 'usage') as is_owned, \
            array_remove(array[ \
                case when pg_catalog.has_any_column_privilege(c.oid, 'insert') then 'INSERT' end, \
                (select 'UPDATE (' || string_agg(quote_ident(u.attname), ', ' order by u.attnum) || ')' \
                 from pg_catalog.pg_attribute u \
                 where u.attrelid = c.oid and u.attnum > 0 and not u.attisdropped and u.attname <> all ($4) \
                   and pg_catalog.has_column_privilege(c.oid, u.attnum, 'update')), \
                case when pg_catalog.has_table_privilege(c.oid, 'truncate') then 'TRUNCATE' end, \
                case when pg_catalog.has_table_privilege(c.oid, 'trigger') then 'TRIGGER' end], null) as needless, \
            exists (select from pg_catalog.pg_index i \
                    where i.indrelid = c.oid and i.indisvalid and a.attnum = any (i.indkey::smallint[]) \
                      and (i.indpred is not null and i.indkey[0] = a.attnum \
                           or cardinality($4) = 0 \
                           or exists (select from pg_catalog.pg_attribute m \
                                      where m.attrelid = c.oid and m.attname = any ($4) \
                                        and m.attnum = any (i.indkey::smallint[])))) as has_unsent_index, \
            coalesce((select option_value::bool from pg_catalog.pg_options_to_table(c.reloptions) \
                      where option_name = 'autovacuum_enabled'), true) as vacuums, \
            coalesce((select option_value::float8 from pg_catalog.pg_options_to_table(c.reloptions) \
                      where option_name = 'autovacuum_vacuum_scale_factor'), \
                     current_setting('autovacuum_vacuum_scale_factor')::float8) as scale_factor, \
            coalesce((select option_value::bool from pg_catalog.pg_options_to_table(c.reloptions) \
                      where option_name = 'vacuum_truncate'), true) as truncates \
     from pg_catalog.pg_class c \
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = $3 \
     where n.nspname = $1 and c.relname = $2";

/// Bit 4 of `tgtype` is INSERT.
const TRIGGERS: &str = "select t.tgname::text as name, t.tgtype & 4 <> 0 as on_insert \
     from pg_catalog.pg_trigger t \
     join pg_catalog.pg_class c on c.oid = t.tgrelid \
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = $1 and c.relname = $2 \
       and not t.tgisinternal and t.tgparentid = 0 and t.tgenabled in ('O', 'A') \
     order by t.tgname";

impl TableFacts {
    /// Nothing if the table or its id is not there.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn ask(
        session: &mut Session,
        outbox: &OutboxConfig,
    ) -> Result<Option<TableFacts>, DbError> {
        let (schema, name) = (&outbox.table.schema, &outbox.table.name);
        let action = || DbError::query(format!("looking at table {}", outbox.table));
        let (id, marks) = match &outbox.mapping {
            Some(mapping) => (
                mapping.columns.id.as_str(),
                mapping
                    .marked_columns()
                    .map(|name| name.as_str().to_owned())
                    .collect(),
            ),
            None => ("id", vec!["sent_at".to_owned()]),
        };
        let named = |sql: &'static str| {
            let query = session.query(&sql.into());
            let query = query.bind(schema.as_str().to_owned());
            query.bind(name.as_str().to_owned())
        };
        let facts = named(FACTS).bind(id.to_owned()).bind(marks);
        let triggers = named(TRIGGERS);
        let facts = session.connection().fetch_optional(facts).await;
        let Some(facts) = facts.map_err(action())? else {
            return Ok(None);
        };
        let triggers = session.connection().fetch_all(triggers).await;
        let triggers = triggers.map_err(action())?;
        read(&facts, &triggers).map(Some).map_err(action())
    }
}

fn read(facts: &PgRow, triggers: &[PgRow]) -> sqlx::Result<TableFacts> {
    let trigger = |row: &PgRow| {
        Ok(Trigger {
            name: row.try_get("name")?,
            on_insert: row.try_get("on_insert")?,
        })
    };
    Ok(TableFacts {
        is_unlogged: facts.try_get("is_unlogged")?,
        takes_ids: facts.try_get("takes_ids")?,
        is_owned: facts.try_get("is_owned")?,
        needless: facts.try_get("needless")?,
        has_unsent_index: facts.try_get("has_unsent_index")?,
        autovacuum: Autovacuum {
            is_on: facts.try_get("vacuums")?,
            scale_factor: facts.try_get("scale_factor")?,
            truncates: facts.try_get("truncates")?,
        },
        triggers: triggers.iter().map(trigger).collect::<sqlx::Result<_>>()?,
    })
}
