//! The types that the columns of each field may have.

use std::fmt;

use crate::config::Field;

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

/// A list as a sentence has it.
pub fn any_of(types: &[Type]) -> String {
    let names: Vec<String> = types.iter().map(Type::to_string).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.join(""),
    }
}
