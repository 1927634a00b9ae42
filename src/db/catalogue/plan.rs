//! Asks the planner whether the statements find an index. That answers for every kind of index, for its
//! predicate and for partitions at once.

use sqlx::{Executor, Row};

use super::{Asked, Aspect, Mistake};
use crate::db::outbox::Shape;
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
    if !is_ordered(session, shape, unsent).await? {
        missing.push(advice(shape, unsent, "unsent rows"));
    }
    if let (true, Some(sent)) = (asked.expires, &shape.sent)
        && !is_ordered(session, shape, Some(&sent.condition)).await?
    {
        missing.push(advice(shape, None, "sent rows, which retention walks,"));
    }
    Ok(missing)
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
