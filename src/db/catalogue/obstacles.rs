//! What stands between a relay and the rows of a table: privileges it has not, policies that hide rows, triggers and
//! rules that can refuse a mark.

use sqlx::postgres::PgArguments;
use sqlx::postgres::types::Oid;
use sqlx::query::Query;
use sqlx::{Executor, Postgres, Row};

use super::mistakes::{Aspect, Mistake, Mistakes};
use super::table::{Column, Table};
use crate::db::sequence::Sequence;
use crate::db::{DbError, Session};

/// What the statements of a relay do to a table.
#[derive(Debug)]
pub struct Usage {
    /// The columns that they read.
    pub reads: Vec<String>,
    /// The columns that a mark sets.
    pub marks: Vec<String>,
    /// Sent rows are deleted rather than marked.
    pub deletes: bool,
    /// Marked rows are deleted after a while.
    pub expires: bool,
    /// Triggers that may run before a mark; nothing: they cannot be configured.
    pub trusted_triggers: Option<Vec<String>>,
}

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

/// Logical replication of marks: without a replica identity Postgres refuses them.
const PUBLICATIONS: &str = "select p.pubname::text as name \
     from pg_catalog.pg_class c \
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     join pg_catalog.pg_publication_tables t on t.schemaname = n.nspname and t.tablename = c.relname \
     join pg_catalog.pg_publication p on p.pubname = t.pubname \
     where c.oid = $1 and (case when $2 then p.pubdelete else p.pubupdate end) \
       and (c.relreplident = 'n' or (c.relreplident = 'd' and not exists ( \
            select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary))) \
     order by 1";

/// Adds where the ids come from if that will not do, and every obstacle.
///
/// # Errors
/// Whatever Postgres says.
pub async fn add(
    mistakes: &mut Mistakes,
    session: &mut Session,
    table: &Table,
    id: Option<&Column>,
    usage: &Usage,
) -> Result<(), DbError> {
    let mut sequence = None;
    if let Some(id) = id {
        match Sequence::look_up(session, &table.name, &id.name).await? {
            Ok(found) => sequence = Some(found.oid()),
            Err(problem) => mistakes.0.push(Mistake::new(Aspect::Ids, problem)),
        }
    }
    mistakes.extend(find(session, table, sequence, usage).await?);
    Ok(())
}

async fn find(
    session: &mut Session,
    table: &Table,
    sequence: Option<Oid>,
    usage: &Usage,
) -> Result<Vec<Mistake>, DbError> {
    let verb = if usage.deletes { "DELETE" } else { "UPDATE" };
    let mut obstacles = Vec::new();
    let query = question(session, PRIVILEGES, table, usage)
        .bind(usage.marks.clone())
        .bind(usage.reads.clone())
        .bind(usage.deletes || usage.expires)
        .bind(sequence);
    for [role, needed] in answers(session, table, query).await? {
        let problem = format!("role {role:?} needs the privilege {needed}");
        obstacles.push(Mistake::new(Aspect::Privileges, problem));
    }
    let query = question(session, POLICIES, table, usage);
    for [role] in answers(session, table, query).await? {
        let problem = format!("row level security may hide rows from role {role:?}");
        let remedy = "give it BYPASSRLS, or policies using (true)";
        obstacles.push(Mistake::new(Aspect::Policies, problem).mended_by(remedy));
    }
    let query = question(session, TRIGGERS, table, usage)
        .bind(usage.marks.clone())
        .bind(usage.trusted_triggers.clone().unwrap_or_default());
    for [kind, name] in answers(session, table, query).await? {
        let (problem, remedy) = match kind.as_str() {
            "trigger" => (
                format!("trigger {name:?} runs before each {verb} and can refuse or change it"),
                match usage.trusted_triggers {
                    Some(_) => "drop it, or name it in trusted_triggers if it does neither",
                    None => "drop it",
                },
            ),
            _ => (format!("rule {name:?} rewrites each {verb}"), "drop it"),
        };
        obstacles.push(Mistake::new(Aspect::Triggers, problem).mended_by(remedy));
    }
    let query = question(session, PUBLICATIONS, table, usage);
    for [name] in answers(session, table, query).await? {
        let problem = format!(
            "publication {name:?} publishes each {verb}, which Postgres refuses without a replica identity"
        );
        let remedy =
            "give the table a primary key or a replica identity, or take it out of the publication";
        obstacles.push(Mistake::new(Aspect::Publications, problem).mended_by(remedy));
    }
    Ok(obstacles)
}

type Question = Query<'static, Postgres, PgArguments>;

/// One of the statements above, for this table and what is done to its sent rows.
fn question(session: &Session, sql: &'static str, table: &Table, usage: &Usage) -> Question {
    let query = session.query(&sql.into());
    query.bind(table.oid).bind(usage.deletes)
}

/// The texts of each row.
async fn answers<const N: usize>(
    session: &mut Session,
    table: &Table,
    query: Question,
) -> Result<Vec<[String; N]>, DbError> {
    let action = || DbError::query(format!("looking for what is in the way of {}", table.name));
    let rows = session.connection().fetch_all(query).await;
    let mut answers = Vec::new();
    for row in rows.map_err(action())? {
        let mut texts = [const { String::new() }; N];
        for (column, text) in texts.iter_mut().enumerate() {
            *text = row.try_get(column).map_err(action())?;
        }
        answers.push(texts);
    }
    Ok(answers)
}
