//! Asks the planner whether the statements find an index. That answers for every kind of index, for its
//! predicate and for partitions at once.

use sqlx::{Executor, Row};

use super::asked::Asked;
use super::mistakes::{Aspect, Mistake};
use crate::db::shape::Shape;
use crate::db::{DbError, Session};

/// What an index is missing for.
///
/// # Errors
/// Whatever Postgres says.
pub async fn missing_indexes(
    session: &mut Session,
    shape: &Shape,
    asked: &Asked<'_>,
) -> Result<Vec<Mistake>, DbError> {
    let mut missing = Vec::new();
    let unsent = shape.unsent.as_deref();
    if !has_index(session, shape, unsent).await? {
        missing.push(advice(shape, unsent, "unsent rows"));
    }
    if let (true, Some(sent)) = (asked.expires, &shape.sent)
        && !has_index(session, shape, Some(&sent.condition)).await?
    {
        missing.push(advice(shape, None, "sent rows, which retention walks,"));
    }
    Ok(missing)
}

/// Whether an index gives the rows in their order, now or soon.
async fn has_index(
    session: &mut Session,
    shape: &Shape,
    condition: Option<&str>,
) -> Result<bool, DbError> {
    let is_used = is_ordered(session, shape, condition).await?;
    Ok(is_used || is_not_used_yet(session, shape).await?)
}

/// Whether an index gives the rows in their order. The session's settings have sequential scans and sorts
/// be the last resort, so that no statistics are in it.
async fn is_ordered(
    session: &mut Session,
    shape: &Shape,
    condition: Option<&str>,
) -> Result<bool, DbError> {
    let action = || DbError::query(format!("asking for plans on {}", shape.table));
    let condition = condition.map_or(String::new(), |condition| format!("{condition} and "));
    let (table, id) = (shape.table.quoted(), &shape.id);
    let sql = format!(
        "explain (costs off) select {id} from {table} e where {condition}{id} > 0 order by {id} limit 1"
    );
    let query = session.query(&sql.into());
    let lines = session.connection().fetch_all(query).await;
    for line in lines.map_err(action())? {
        let line: String = line.try_get(0).map_err(action())?;
        let node = line.trim_start_matches([' ', '-', '>']);
        if ["Seq Scan", "Parallel Seq Scan", "Sort", "Incremental Sort"]
            .iter()
            .any(|bad| node.starts_with(bad) && !node.starts_with("Sort Key"))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is an index on the order that the planner leaves alone for as long as a transaction runs that is
/// older: so it does if rows were updated shortly before the index was made (`indcheckxmin` in `pg_index`). Until
/// then polls sort.
async fn is_not_used_yet(session: &mut Session, shape: &Shape) -> Result<bool, DbError> {
    let action = || DbError::query(format!("looking at the indexes of {}", shape.table));
    let sql = "select exists (\
                   select from pg_index i \
                   join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
                   where i.indrelid = to_regclass($1) and a.attname = $2 and i.indisvalid and i.indcheckxmin)";
    let query = session
        .query(&sql.into())
        .bind(shape.table.quoted())
        .bind(shape.id_column.clone());
    let row = session.fetch_one(query).await;
    row.and_then(|row| row.try_get(0)).map_err(action())
}

fn advice(shape: &Shape, condition: Option<&str>, whose: &str) -> Mistake {
    // The expressions name the table's alias, which an index has not.
    let bare = |sql: &str| sql.replace("e.\"", "\"");
    let partial = condition.map_or(String::new(), |condition| {
        format!(" where {}", bare(condition))
    });
    let (column, id) = (&shape.id_column, bare(&shape.id));
    let problem =
        format!("no index gives the {whose} in the order of column {column:?} (columns.id)");
    let remedy = format!("create index on {} ({id}){partial}", shape.table);
    Mistake::new(Aspect::Indexes, problem).mended_by(remedy)
}
