//! How columns are read.

use super::mistakes::Mistakes;
use super::table::{Column, Table};
use super::types::Type;
use crate::config::{Field, OutboxConfig};
use crate::db::shape::{Column as Selected, Length, Shape};

/// How the field is read. The casts are to what the column is or to text, so that what arrives stays what
/// is expected even if the column is altered meanwhile.
pub fn select(field: Field, column: &Column) -> Selected {
    let sql = column.sql();
    let (sql, length) = match field {
        Field::Id => (format!("{sql}::bigint"), Length::Short),
        Field::EventId if column.kind == Type::Uuid => (format!("{sql}::uuid"), Length::Short),
        Field::Payload if column.kind == Type::Json => {
            let json = format!("{sql}::json");
            let length = Length::of_json(&json);
            (json, length)
        }
        Field::Payload | Field::PayloadBytes if column.kind == Type::Bytea => {
            (format!("{sql}::bytea"), Length::Bytes)
        }
        Field::CreatedAt => (column.as_timestamptz(), Length::Short),
        _ => return select_text(field.name(), column),
    };
    Selected::new(field.name(), sql, length)
}

/// How a column is read as text.
pub fn select_text(name: &str, column: &Column) -> Selected {
    let sql = column.sql();
    let text = format!("{sql}::text");
    match column.kind {
        Type::Text | Type::Varchar | Type::Char => Selected::new(name, text, Length::Text),
        Type::Json | Type::Jsonb | Type::Bytea | Type::Other => {
            let length = Length::of_any(&sql);
            Selected::new(name, sql, length)
        }
        Type::Bigint
        | Type::Integer
        | Type::Smallint
        | Type::Uuid
        | Type::Timestamptz
        | Type::Timestamp
        | Type::Boolean
        | Type::Enum => Selected::new(name, text, Length::Short),
    }
}

/// The columns that only templates name, as text.
pub fn add_other_columns(
    shape: &mut Shape,
    table: &Table,
    config: &OutboxConfig,
    mistakes: &mut Mistakes,
) {
    for (place, (name, option)) in config.templates.other_columns.iter().enumerate() {
        match table.column(name.as_str()) {
            Some(column) => {
                let other = select_text(&format!("other_{place}"), column);
                let label = format!("column {:?}", name.as_str());
                shape.columns.push(Selected { label, ..other });
                shape.other_columns += 1;
            }
            None => mistakes.add(format!(
                "column {:?} ({option}) does not exist",
                name.as_str()
            )),
        }
    }
}
