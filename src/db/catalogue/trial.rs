//! Asks the server whether a row could be marked, without one: the checks that a table makes of the marked
//! columns alone, on the values that a mark sets.

use sqlx::{Executor, Row};

use super::asked::Asked;
use super::mistakes::{Aspect, Mistake};
use super::sent::{marked_value, now};
use super::table::{Column, Table};
use crate::db::{DbError, Session};

/// The constraints on no other columns than these. Whatever else a constraint looks at, a mark does not change.
const CONSTRAINTS: &str = "select c.conname::text as name, pg_catalog.pg_get_expr(c.conbin, c.conrelid) as expression \
     from pg_catalog.pg_constraint c \
     where c.conrelid = $1 and c.contype = 'c' and cardinality(c.conkey) > 0 and c.conkey <@ array( \
         select a.attnum from pg_catalog.pg_attribute a \
         where a.attrelid = $1 and a.attname = any ($2)) \
     order by c.conname";

/// The constraints that refuse a mark.
///
/// # Errors
/// Whatever Postgres says.
pub async fn refusals(
    session: &mut Session,
    table: &Table,
    asked: &Asked<'_>,
) -> Result<Vec<Mistake>, DbError> {
    let Some(sent) = asked.mapping.sent.as_ref().filter(|_| !asked.deletes) else {
        return Ok(Vec::new());
    };
    let action = || DbError::query(format!("trying the constraints of {}", table.name));
    let column = |name: &str| table.column(name);
    let Some(status) = column(sent.column.as_str()) else {
        return Ok(Vec::new());
    };
    let at = sent.at.as_ref().and_then(|name| column(name.as_str()));
    let values = sent.values.as_ref();
    let mut refusals = Vec::new();

    let mut marked = vec![value(status, &marked_value(status, values))];
    marked.extend(
        at.filter(|at| at.name != status.name)
            .map(|at| value(at, &now(at))),
    );
    let query = session.query(&CONSTRAINTS.into());
    let query = query.bind(table.oid).bind(asked.marked_columns());
    let constraints = session.connection().fetch_all(query).await;
    for constraint in constraints.map_err(action())? {
        let name: String = constraint.try_get("name").map_err(action())?;
        // The catalogue's own text of the constraint, over a row of nothing but what a mark sets.
        let expression: String = constraint.try_get("expression").map_err(action())?;
        let sql = format!(
            "select ({expression}) is not false from (select {}) as marked",
            marked.join(", ")
        );
        let query = session.query(&sql.into());
        let row = session.fetch_one(query).await;
        let holds: bool = row.and_then(|row| row.try_get(0)).map_err(action())?;
        if !holds {
            let (column, value) = (&status.name, marked_value(status, values));
            let problem = format!(
                "constraint {name:?} refuses what marks a row: column {column:?} (sent.column) set to {value}"
            );
            refusals.push(Mistake::new(Aspect::Constraints, problem));
        }
    }
    if let Some(values) = values {
        for value in [&values.unsent, &values.sent] {
            let longest = status.longest.unwrap_or(usize::MAX);
            if value.chars().count() > longest {
                let (name, kind) = (&status.name, &status.type_name);
                let problem =
                    format!("column {name:?} (sent.column) is {kind}, too short for {value:?}");
                refusals.push(Mistake::new(Aspect::Columns, problem));
            }
        }
    }
    Ok(refusals)
}

fn value(column: &Column, value: &str) -> String {
    format!("({value})::{} as {}", column.type_name, column.quoted())
}
