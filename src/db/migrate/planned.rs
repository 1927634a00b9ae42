//! The outbox tables of a plan.

use crate::config::{Name, OnSent, OutboxConfig, Retention, TableName};

/// One outbox table of a plan.
#[derive(Debug, Clone)]
pub struct PlannedOutbox {
    pub table: TableName,
    pub notify: bool,
    /// The table is somebody else's: it is there, and nothing but grants is made on it.
    pub foreign: Option<ForeignTable>,
}

/// What a relay does to a table that is not outboxd's own.
#[derive(Debug, Clone)]
pub struct ForeignTable {
    /// The monotonic column.
    pub id: Name,
    /// The columns that a mark sets.
    pub marks: Vec<Name>,
    pub deletes: bool,
}

impl PlannedOutbox {
    pub(super) fn of(outbox: &OutboxConfig) -> PlannedOutbox {
        PlannedOutbox {
            table: outbox.table.clone(),
            notify: outbox.notify,
            foreign: outbox.mapping.as_ref().map(|mapping| ForeignTable {
                id: mapping.columns.id.clone(),
                marks: match outbox.on_sent {
                    OnSent::Mark => mapping.marked_columns().cloned().collect(),
                    OnSent::Delete => Vec::new(),
                },
                deletes: outbox.on_sent == OnSent::Delete || outbox.retention != Retention::Forever,
            }),
        }
    }
}
