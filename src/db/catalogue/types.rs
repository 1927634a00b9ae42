//! The types that the columns of each field may have, and how each is read.

use std::fmt;

use super::table::Column;
use crate::config::Field;
use crate::db::outbox::{Column as Selected, Length};

/// A type of Postgres, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Bigint,
    Integer,
    Smallint,
    Text,
    Varchar,
    Char,
    Uuid,
    Json,
    Jsonb,
    Bytea,
    Timestamptz,
    Timestamp,
    Boolean,
    Enum,
    Other,
}

impl Type {
    /// By its OID, which built-in types keep for ever.
    pub fn of(oid: u32, is_enum: bool) -> Type {
        match oid {
            20 => Type::Bigint,
            23 => Type::Integer,
            21 => Type::Smallint,
            25 => Type::Text,
            1043 => Type::Varchar,
            1042 => Type::Char,
            2950 => Type::Uuid,
            114 => Type::Json,
            3802 => Type::Jsonb,
            17 => Type::Bytea,
            1184 => Type::Timestamptz,
            1114 => Type::Timestamp,
            16 => Type::Boolean,
            _ if is_enum => Type::Enum,
            _ => Type::Other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Bigint => "bigint",
            Type::Integer => "integer",
            Type::Smallint => "smallint",
            Type::Text => "text",
            Type::Varchar => "varchar",
            Type::Char => "char",
            Type::Uuid => "uuid",
            Type::Json => "json",
            Type::Jsonb => "jsonb",
            Type::Bytea => "bytea",
            Type::Timestamptz => "timestamptz",
            Type::Timestamp => "timestamp",
            Type::Boolean => "boolean",
            Type::Enum => "an enumeration",
            Type::Other => "another type",
        })
    }
}

pub const TIMES: &[Type] = &[Type::Timestamptz, Type::Timestamp];

/// What the column of a field may be.
pub fn of(field: Field) -> &'static [Type] {
    use Type::{Bigint, Bytea, Char, Enum, Integer, Json, Jsonb, Smallint, Text, Uuid, Varchar};
    match field {
        Field::Id => &[Bigint, Integer],
        Field::EventId => &[Uuid, Text, Varchar, Char, Bigint, Integer],
        Field::Payload => &[Json, Jsonb, Text, Varchar, Bytea],
        Field::PayloadBytes => &[Bytea],
        Field::Headers => &[Json, Jsonb, Text, Varchar],
        Field::CreatedAt => TIMES,
        Field::AggregateType
        | Field::AggregateId
        | Field::EventType
        | Field::EventVersion
        | Field::CorrelationId
        | Field::CausationId
        | Field::Traceparent
        | Field::Tracestate
        | Field::Topic
        | Field::PartitionKey
        | Field::ContentType => &[Text, Varchar, Char, Enum, Uuid, Bigint, Integer, Smallint],
    }
}

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

/// A list as a sentence has it.
pub fn any_of(types: &[Type]) -> String {
    let names: Vec<String> = types.iter().map(Type::to_string).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.join(""),
    }
}
