//! Names of things in Postgres.

use std::fmt;

use super::values::Value;

/// A name that needs no quotes in SQL: `[a-z_][a-z0-9_]*`, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier(String);

/// The longest identifier Postgres keeps, in bytes (`NAMEDATALEN - 1`).
const MAX_IDENTIFIER_BYTES: usize = 63;

impl Identifier {
    /// The identifier, ready to stand in a statement.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Identifier {
    fn read(text: &str) -> Result<Self, String> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let legal = text
            .bytes()
            .enumerate()
            .all(|(index, byte)| first(byte) || (index > 0 && byte.is_ascii_digit()));
        if text.is_empty() || !legal || text.len() > MAX_IDENTIFIER_BYTES {
            return Err(format!(
                "must match [a-z_][a-z0-9_]* and have at most {MAX_IDENTIFIER_BYTES} bytes"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A table with its schema. The table's name has at most 48 bytes, so that the names of indexes
/// derived from it still fit Postgres' 63.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The schema: the one written before the dot, or `[postgres] schema`.
    pub schema: Identifier,
    /// The table's own name.
    pub name: Identifier,
}

/// Room for a suffix in the names that are derived from a table.
const MAX_TABLE_BYTES: usize = 48;

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A table as it is written, with or without its schema.
#[derive(Debug, Clone)]
pub(super) struct WrittenTable {
    schema: Option<Identifier>,
    name: Identifier,
}

impl WrittenTable {
    pub(super) fn in_schema(self, default: &Identifier) -> TableName {
        TableName {
            schema: self.schema.unwrap_or_else(|| default.clone()),
            name: self.name,
        }
    }
}

impl Value for WrittenTable {
    fn read(text: &str) -> Result<Self, String> {
        let rule = || {
            format!(
                "must be table or schema.table, each part matching [a-z_][a-z0-9_]*, the table with at most {MAX_TABLE_BYTES} bytes"
            )
        };
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(Identifier::read(schema).map_err(|_| rule())?), name),
            None => (None, text),
        };
        if name.len() > MAX_TABLE_BYTES {
            return Err(rule());
        }
        Ok(Self {
            schema,
            name: Identifier::read(name).map_err(|_| rule())?,
        })
    }

    fn show(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.show(),
        }
    }
}
