//! What stands between a relay and the rows of a table: privileges it has not, policies that hide rows, triggers and
//! rules that can refuse a mark.

use sqlx::postgres::types::Oid;
use sqlx::{Executor, Row};

use super::Asked;
use super::table::Table;
use crate::db::{DbError, Session};

/// Row triggers that run before the mark, and rules: both can refuse or change it. A trigger of a partition
/// counts, a partition's copy of its parent's does not.
const TRIGGERS: &str = "select 'trigger' as kind, t.tgname::text as name \
     from pg_catalog.pg_trigger t \
     where (t.tgrelid = $1 or t.tgrelid in (select relid from pg_catalog.pg_partition_tree($1))) \
       and not t.tgisinternal and t.tgparentid = 0 and t.tgenabled in ('O', 'A') \
       and t.tgtype & 3 = 3 and t.tgtype & (case when $2 then 8 else 16 end) <> 0 \
       and ($2 or cardinality(t.tgattr::smallint[]) = 0 or exists ( \
            select from pg_catalog.pg_attribute a \
            where a.attrelid = t.tgrelid and a.attnum = any (t.tgattr::smallint[]) and a.attname = any ($3))) \
       and t.tgname <> all ($4) \
     union \
     select 'rule', r.rulename::text from pg_catalog.pg_rewrite r \
     where r.ev_class = $1 and r.ev_type = (case when $2 then '4' else '2' end)::\"char\" \
       and r.ev_enabled in ('O', 'A') \
     order by 1, 2";

/// Rows that policies may hide. A policy that lets every row through hides none.
const POLICIES: &str = "with policies as ( \
         select p.polpermissive as permissive, p.polcmd::text as command, \
                coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'true') = 'true' as lets_all \
         from pg_catalog.pg_policy p \
         where p.polrelid = $1 and exists ( \
             select from unnest(p.polroles) as r (oid) \
             where r.oid = 0 or pg_catalog.pg_has_role(r.oid, 'usage'))) \
     select current_user::text as role \
     where pg_catalog.row_security_active($1) and ( \
         exists (select from policies where not permissive and not lets_all) \
         or not exists (select from policies where permissive and lets_all and command in ('*', 'r')) \
         or not exists (select from policies where permissive and lets_all \
                        and command in ('*', case when $2 then 'd' else 'w' end)))";

/// What the statements need, and the role has not.
const PRIVILEGES: &str = "select current_user::text as role, needed from ( \
         select 1 as n, 'USAGE on schema ' || quote_ident(n.nspname) as needed \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where c.oid = $1 and not pg_catalog.has_schema_privilege(n.oid, 'usage') \
         union all \
         select 2, 'SELECT (' || string_agg(quote_ident(a.attname), ', ' order by a.attnum) || ')' \
         from pg_catalog.pg_attribute a \
         where a.attrelid = $1 and a.attname = any ($4) \
           and not pg_catalog.has_column_privilege($1, a.attnum, 'select') \
         having count(*) > 0 \
         union all \
         select 3, 'UPDATE (' || string_agg(quote_ident(a.attname), ', ' order by a.attnum) || ')' \
         from pg_catalog.pg_attribute a \
         where not $2 and a.attrelid = $1 and a.attname = any ($3) \
           and not pg_catalog.has_column_privilege($1, a.attnum, 'update') \
         having count(*) > 0 \
         union all \
         select 4, 'DELETE' where $5 and not pg_catalog.has_table_privilege($1, 'delete') \
         union all \
         select 5, 'SELECT on sequence ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where c.oid = $6 and not pg_catalog.has_sequence_privilege(c.oid, 'select')) as lacking \
     order by n";

/// Every obstacle.
///
/// # Errors
/// Whatever Postgres says.
pub async fn find(
    session: &mut Session,
    table: &Table,
    sequence: Option<Oid>,
    asked: &Asked<'_>,
) -> Result<Vec<String>, DbError> {
    let action = || DbError::query(format!("looking for what is in the way of {}", table.name));
    let mut obstacles = Vec::new();

    let query = session.query(&PRIVILEGES.into());
    let query = query.bind(table.oid).bind(asked.deletes);
    let query = query
        .bind(asked.marked_columns())
        .bind(asked.read_columns());
    let query = query.bind(asked.deletes || asked.expires).bind(sequence);
    for row in session
        .connection()
        .fetch_all(query)
        .await
        .map_err(action())?
    {
        let role: String = row.try_get("role").map_err(action())?;
        let needed: String = row.try_get("needed").map_err(action())?;
        obstacles.push(format!("role {role:?} needs the privilege {needed}"));
    }

    let query = session.query(&POLICIES.into());
    let query = query.bind(table.oid).bind(asked.deletes);
    for row in session
        .connection()
        .fetch_all(query)
        .await
        .map_err(action())?
    {
        let role: String = row.try_get("role").map_err(action())?;
        obstacles.push(format!(
            "row level security may hide rows from role {role:?}: give it BYPASSRLS, or policies using (true)"
        ));
    }

    let query = session.query(&TRIGGERS.into());
    let query = query.bind(table.oid).bind(asked.deletes);
    let query = query.bind(asked.marked_columns());
    let query = query.bind(asked.mapping.trusted_triggers.clone());
    for row in session
        .connection()
        .fetch_all(query)
        .await
        .map_err(action())?
    {
        let kind: String = row.try_get("kind").map_err(action())?;
        let name: String = row.try_get("name").map_err(action())?;
        let verb = if asked.deletes { "DELETE" } else { "UPDATE" };
        obstacles.push(match kind.as_str() {
            "trigger" => format!(
                "trigger {name:?} runs before each {verb} and can refuse or change it: drop it, or name it in \
                 trusted_triggers if it does neither"
            ),
            _ => format!("rule {name:?} rewrites each {verb}: drop it"),
        });
    }
    Ok(obstacles)
}
