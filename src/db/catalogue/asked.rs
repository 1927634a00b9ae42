//! What a mapped outbox wants of its table.

use super::obstacles::Usage;
use crate::config::{Mapping, OnSent, OutboxConfig, Retention};

/// What an outbox's options ask of a table.
pub struct Asked<'a> {
    pub mapping: &'a Mapping,
    /// Sent rows are deleted rather than marked.
    pub deletes: bool,
    /// Marked rows are deleted after a while.
    pub expires: bool,
}

impl<'a> Asked<'a> {
    pub fn of(config: &OutboxConfig, mapping: &'a Mapping) -> Asked<'a> {
        let deletes = config.on_sent == OnSent::Delete;
        Asked {
            mapping,
            deletes,
            expires: !deletes && config.retention != Retention::Forever,
        }
    }

    /// What the statements do to the table.
    pub fn usage(&self) -> Usage {
        let mapped = self.mapping.columns.iter().map(|(_, column)| column);
        let reads = mapped.chain(self.mapping.marked_columns());
        Usage {
            reads: reads.map(|name| name.as_str().to_owned()).collect(),
            marks: self.marked_columns(),
            deletes: self.deletes,
            expires: self.expires,
            trusted_triggers: Some(self.mapping.trusted_triggers.clone()),
        }
    }

    /// The columns that a mark sets.
    pub fn marked_columns(&self) -> Vec<String> {
        let columns = self.mapping.marked_columns();
        columns.map(|name| name.as_str().to_owned()).collect()
    }
}
