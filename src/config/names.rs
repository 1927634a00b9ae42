//! Names of things in Postgres.

use std::fmt;
use std::str::FromStr;

use super::values::Value;
use crate::inbox::{MAX_IDENTIFIER_BYTES, is_identifier};

/// A name that needs no quotes in SQL: `[a-z_][a-z0-9_]*`, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier(String);

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
        if !is_identifier(text) {
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

/// The name of anything in Postgres, as the catalogue spells it: 1 to 63 bytes without control characters.
/// It is shown as SQL has it, in double quotes where it needs them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// As the catalogue spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In double quotes, ready to stand in a statement.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }

    fn is_plain(&self) -> bool {
        Identifier::read(&self.0).is_ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_plain() {
            true => f.write_str(&self.0),
            false => f.write_str(&self.quoted()),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text)
    }
}

impl From<Identifier> for Name {
    fn from(identifier: Identifier) -> Self {
        Self(identifier.0)
    }
}

impl Value for Name {
    fn read(text: &str) -> Result<Self, String> {
        let length = 1..=MAX_IDENTIFIER_BYTES;
        if !length.contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(format!(
                "must be a name of 1 to {MAX_IDENTIFIER_BYTES} bytes, without control characters"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A table with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The schema: the one written before the dot, or `[postgres] schema`.
    pub schema: Name,
    /// The table's own name.
    pub name: Name,
}

impl TableName {
    /// `schema.table`, each as SQL has it.
    pub fn parse(text: &str) -> Option<Self> {
        let WrittenTable { schema, name } = WrittenTable::parse(text)?;
        let schema = schema?;
        Some(Self { schema, name })
    }

    /// Both parts in double quotes, ready to stand in a statement.
    pub fn quoted(&self) -> String {
        format!("{}.{}", self.schema.quoted(), self.name.quoted())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A table as it is written, with or without its schema.
#[derive(Debug, Clone)]
pub(super) struct WrittenTable {
    schema: Option<Name>,
    name: Name,
}

impl WrittenTable {
    pub(super) fn in_schema(self, default: &Identifier) -> TableName {
        TableName {
            schema: self.schema.unwrap_or_else(|| default.clone().into()),
            name: self.name,
        }
    }

    /// Reads one or two names joined by a dot, each as SQL has it.
    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = split_name(text)?;
        match rest.strip_prefix('.') {
            None if rest.is_empty() => Some(Self {
                schema: None,
                name: first,
            }),
            None => None,
            Some(rest) => {
                let (name, rest) = split_name(rest)?;
                let schema = Some(first);
                rest.is_empty().then_some(Self { schema, name })
            }
        }
    }

    fn show(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.to_string(),
        }
    }
}

/// The name that `text` begins with, and what follows it.
fn split_name(text: &str) -> Option<(Name, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return Some((Identifier::read(name).ok()?.into(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((Name::read(&name).ok()?, after)),
        }
    }
}

/// A table of outboxd's own shape. Its name has at most 48 bytes, so that the names of indexes derived
/// from it still fit Postgres' 63.
#[derive(Debug, Clone)]
pub(super) struct OwnTable(pub(super) WrittenTable);

/// Room for a suffix in the names that are derived from a table.
const MAX_TABLE_BYTES: usize = 48;

impl Value for OwnTable {
    fn read(text: &str) -> Result<Self, String> {
        let fits = |table: &WrittenTable| {
            !text.contains('"') && table.name.as_str().len() <= MAX_TABLE_BYTES
        };
        WrittenTable::parse(text).filter(fits).map(Self).ok_or_else(|| {
            format!(
                "must be table or schema.table, each part matching [a-z_][a-z0-9_]*, the table with at most {MAX_TABLE_BYTES} bytes"
            )
        })
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// Any table, as SQL has it.
#[derive(Debug, Clone)]
pub(super) struct AnyTable(pub(super) WrittenTable);

impl Value for AnyTable {
    fn read(text: &str) -> Result<Self, String> {
        WrittenTable::parse(text).map(Self).ok_or_else(|| {
            format!(
                "must be table or schema.table, each part matching [a-z_][a-z0-9_]* or in double quotes, \
                 such as sales.\"OutboxEvent\", of at most {MAX_IDENTIFIER_BYTES} bytes"
            )
        })
    }

    fn show(&self) -> String {
        self.0.show()
    }
}
