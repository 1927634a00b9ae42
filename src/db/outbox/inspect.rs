//! A row of an outbox with all its columns, whatever the table's shape, for a person to read.

use sqlx::{Executor, Row};

use super::Outbox;
use crate::config::OutboxConfig;
use crate::db::{DbError, Session, TableName};
use crate::event::EventRef;

/// A column's value as Postgres writes it.
#[derive(Debug, Clone)]
pub struct Cell {
    pub column: String,
    pub value: Option<Text>,
}

/// As much of a text as was asked for.
#[derive(Debug, Clone)]
pub struct Text {
    pub shown: String,
    /// Of the whole; of one that was not looked into, what is stored of it.
    pub bytes: i64,
    pub is_whole: bool,
}

/// Finds rows by what the relay knows of them.
#[derive(Debug)]
pub struct Inspector {
    table: TableName,
    condition: String,
}

/// A value of another type than these is not turned into text if more of it is stored and not all is wanted.
const MOST_STORED: i64 = 1 << 20;

const COLUMNS: &str = "select a.attname::text, case a.atttypid when 'pg_catalog.bytea'::pg_catalog.regtype then 'bytes' \
            when 'pg_catalog.text'::pg_catalog.regtype then 'text' \
            when 'pg_catalog.varchar'::pg_catalog.regtype then 'text' else 'other' end \
     from pg_catalog.pg_attribute a \
     where a.attrelid = $1::pg_catalog.regclass and a.attnum > 0 and not a.attisdropped order by a.attnum";

impl Inspector {
    /// # Errors
    /// As [`Outbox::open`].
    pub async fn open(session: &mut Session, config: &OutboxConfig) -> Result<Inspector, DbError> {
        let shape = Outbox::shape(session, config).await?;
        Ok(Inspector {
            condition: format!("{} = $1 and {} = $2", shape.id, shape.fingerprint),
            table: shape.table,
        })
    }

    /// The row, each value cut off after `most` characters; nothing if it is gone. No more than that of a
    /// value is sent by the server.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn row(
        &self,
        session: &mut Session,
        event: EventRef,
        most: i32,
    ) -> Result<Option<Vec<Cell>>, DbError> {
        let action = || DbError::query(format!("looking at row {} of {}", event.id, self.table));
        let columns = self.columns(session).await.map_err(action())?;
        let fields: Vec<String> = columns.iter().map(field).collect();
        let (table, fields) = (self.table.quoted(), fields.join(", "));
        let sql = format!("select {fields} from {table} e where {}", self.condition);
        let query = session
            .query(&sql.into())
            .bind(event.id)
            .bind(event.event_id)
            .bind(most);
        let row = session.connection().fetch_optional(query).await;
        let Some(row) = row.map_err(action())? else {
            return Ok(None);
        };
        let cells = columns.into_iter().enumerate().map(|(index, (column, _))| {
            let shown: Option<String> = row.try_get(2 * index)?;
            let bytes: Option<i64> = row.try_get(2 * index + 1)?;
            let value = shown.zip(bytes).map(|(shown, bytes)| Text {
                is_whole: shown.len() as i64 == bytes,
                shown,
                bytes,
            });
            Ok(Cell { column, value })
        });
        cells
            .collect::<sqlx::Result<_>>()
            .map(Some)
            .map_err(action())
    }

    /// Names, and what they hold: `text`, `bytes` or `other`.
    async fn columns(&self, session: &mut Session) -> sqlx::Result<Vec<(String, String)>> {
        let query = session.query(&COLUMNS.into()).bind(self.table.quoted());
        let rows = session.connection().fetch_all(query).await?;
        let column = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(column).collect()
    }
}

/// The beginning of a column as text, and the length of that text. Neither reads all of a large text or of large
/// bytes; the text of bytes is hexadecimal, and as a whole would not fit into one of Postgres'.
fn field((name, holds): &(String, String)) -> String {
    let column = format!("e.\"{}\"", name.replace('"', "\"\""));
    match holds.as_str() {
        "bytes" => format!(
            "'\\x' || encode(substring({column} from 1 for $3), 'hex'), 2 + 2 * octet_length({column})::bigint"
        ),
        "text" => format!("left({column}, $3), octet_length({column})::bigint"),
        _ => {
            let is_large = format!("pg_column_size({column}) > greatest($3, {MOST_STORED})");
            format!(
                "case when {is_large} then '' else left({column}::text, $3) end, \
                 case when {is_large} then pg_column_size({column}) else octet_length({column}::text) end::bigint"
            )
        }
    }
}
