//! A table as the catalogue describes it.

use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;
use sqlx::{Executor, Row};

use super::types::{Type, any_of};
use crate::config::{Name, TableName};
use crate::db::{DbError, Session};

/// A table.
#[derive(Debug)]
pub struct Table {
    pub name: TableName,
    pub oid: Oid,
    /// `pg_class.relkind`
    kind: String,
    columns: Vec<Column>,
}

/// One of its columns.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    /// The type as SQL has it.
    pub type_name: String,
    pub not_null: bool,
    pub is_generated: bool,
    /// What a row has that is inserted without it, as SQL.
    pub default: Option<String>,
    /// Of an enumeration.
    pub labels: Vec<String>,
    /// How many characters fit, where the type says so.
    pub longest: Option<usize>,
}

const TABLE: &str = "select c.oid, c.relkind::text as kind \
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = $1 and c.relname = $2";

const COLUMNS: &str = "select a.attname::text as name, a.attnotnull as not_null, a.attgenerated <> '' as is_generated, \
            case when a.attgenerated = '' then coalesce( \
                pg_catalog.pg_get_expr(d.adbin, d.adrelid), pg_catalog.pg_get_expr(t.typdefaultbin, 0)) \
            end as default_value, \
            pg_catalog.format_type(a.atttypid, a.atttypmod) as type_name, base.oid as type, \
            base.typtype = 'e' as is_enum, \
            case when base.oid in (1042, 1043) and a.atttypmod > 4 then a.atttypmod - 4 end as longest, \
            array(select l.enumlabel::text from pg_catalog.pg_enum l \
                  where l.enumtypid = base.oid order by l.enumsortorder) as labels \
     from pg_catalog.pg_attribute a \
     join pg_catalog.pg_type t on t.oid = a.atttypid \
     join pg_catalog.pg_type base on base.oid = case t.typtype when 'd' then t.typbasetype else t.oid end \
     left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped \
     order by a.attnum";

impl Table {
    /// Nothing if there is none of this name.
    pub async fn read(session: &mut Session, name: &TableName) -> Result<Option<Table>, DbError> {
        let action = || DbError::query(format!("looking up table {name}"));
        let query = session
            .query(&TABLE.into())
            .bind(name.schema.as_str().to_owned())
            .bind(name.name.as_str().to_owned());
        let found = session.connection().fetch_optional(query).await;
        let Some(found) = found.map_err(action())? else {
            return Ok(None);
        };
        let oid: Oid = found.try_get("oid").map_err(action())?;
        let query = session.query(&COLUMNS.into()).bind(oid);
        let columns = session.connection().fetch_all(query).await;
        let columns = columns.map_err(action())?;
        let columns: sqlx::Result<_> = columns.iter().map(Column::read).collect();
        Ok(Some(Table {
            name: name.clone(),
            oid,
            kind: found.try_get("kind").map_err(action())?,
            columns: columns.map_err(action())?,
        }))
    }

    /// The error is what it is instead.
    pub fn is_table(&self) -> Result<(), &'static str> {
        match self.kind.as_str() {
            // Ordinary and partitioned.
            "r" | "p" => Ok(()),
            "v" => Err("a view"),
            "m" => Err("a materialized view"),
            "f" => Err("a foreign table"),
            _ => Err("no table"),
        }
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column that `option` names, of one of these types.
    ///
    /// # Errors
    /// The mistake.
    pub fn typed(&self, name: &Name, option: &str, types: &[Type]) -> Result<&Column, String> {
        let name = name.as_str();
        let column = self
            .column(name)
            .ok_or_else(|| format!("column {name:?} ({option}) does not exist"))?;
        if types.contains(&column.kind) {
            return Ok(column);
        }
        let (types, found) = (any_of(types), &column.type_name);
        Err(format!(
            "column {name:?} ({option}) must be {types}, is {found}"
        ))
    }
}

impl Column {
    fn read(row: &PgRow) -> sqlx::Result<Column> {
        let oid: Oid = row.try_get("type")?;
        Ok(Column {
            name: row.try_get("name")?,
            kind: Type::of(oid.0, row.try_get("is_enum")?),
            type_name: row.try_get("type_name")?,
            not_null: row.try_get("not_null")?,
            is_generated: row.try_get("is_generated")?,
            default: row.try_get("default_value")?,
            labels: row.try_get("labels")?,
            longest: row
                .try_get::<Option<i32>, _>("longest")?
                .and_then(|longest| usize::try_from(longest).ok()),
        })
    }

    /// In double quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }

    /// As the statements name it.
    pub fn sql(&self) -> String {
        format!("e.{}", self.quoted())
    }

    /// A timestamp without time zone is taken as UTC.
    pub fn as_timestamptz(&self) -> String {
        match self.kind {
            Type::Timestamp => format!("({} at time zone 'UTC')", self.sql()),
            _ => self.sql(),
        }
    }
}
