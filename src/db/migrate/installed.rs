//! What of outboxd is in a database, by what its migrations have noted.

use sqlx::{Executor, Row};

use super::steps::{INBOX_NAME, OUTBOX_PREFIX};
use crate::db::{DbError, Session, TableName};

/// What was found in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The database's name.
    pub database: String,
    /// Tables of outboxd's own shape.
    pub outboxes: Vec<TableName>,
    pub inbox: bool,
}

/// Looks into `schema`.
///
/// # Errors
/// [`DbError::Schema`] if there is nothing; else whatever Postgres says.
pub async fn installed(session: &mut Session, schema: &str) -> Result<Installed, DbError> {
    let action = || DbError::query("looking for outboxd's tables");
    let query = session
        .query(&"select current_database()::text, to_regclass($1) is not null".into())
        .bind(format!("\"{schema}\".outboxd_migrations"));
    let row = session.fetch_one(query).await.map_err(action())?;
    let (database, is_there): (String, bool) = (
        row.try_get(0).map_err(action())?,
        row.try_get(1).map_err(action())?,
    );
    if !is_there {
        return Err(DbError::Schema(format!(
            "schema \"{schema}\" of database \"{database}\" has neither an outbox nor an inbox"
        )));
    }
    let sql = format!(
        "select distinct component from \"{schema}\".outboxd_migrations order by component"
    );
    let query = session.query(&sql.into());
    let rows = session.connection().fetch_all(query).await;
    let rows = rows.map_err(action())?;
    let components: sqlx::Result<Vec<String>> = rows.iter().map(|row| row.try_get(0)).collect();
    let components = components.map_err(action())?;
    let outboxes = components
        .iter()
        .filter_map(|name| TableName::parse(name.strip_prefix(OUTBOX_PREFIX)?));
    Ok(Installed {
        database,
        outboxes: outboxes.collect(),
        inbox: components.iter().any(|name| name == INBOX_NAME),
    })
}
