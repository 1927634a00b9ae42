//! The history of each part of the schema, as SQL.

use crate::db::TableName;

/// One step of a component's history.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    /// The oldest relay, by the version it was made for, that works with the schema after this step.
    pub compatible_with: i32,
    pub sql: &'static str,
}

pub const RELAY: &[Migration] = &[
    Migration {
        version: 1,
        name: "leases",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0001_leases.sql"),
    },
    Migration {
        version: 2,
        name: "parked",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0002_parked.sql"),
    },
    Migration {
        version: 3,
        name: "pauses",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0003_pauses.sql"),
    },
    Migration {
        version: 4,
        name: "copies",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0004_copies.sql"),
    },
    Migration {
        version: 5,
        name: "bypasses",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0005_bypasses.sql"),
    },
    Migration {
        version: 6,
        name: "unreadable",
        compatible_with: 1,
        sql: include_str!("../../../migrations/relay/0006_unreadable.sql"),
    },
];

pub const OUTBOX: &[Migration] = &[Migration {
    version: 1,
    name: "outbox_events",
    compatible_with: 1,
    sql: include_str!("../../../migrations/outbox/0001_outbox_events.sql"),
}];

pub const INBOX: &[Migration] = &[Migration {
    version: 1,
    name: "processed_events",
    compatible_with: 1,
    sql: include_str!("../../../migrations/inbox/0001_processed_events.sql"),
}];

/// The inbox's component; there is one per schema.
pub const INBOX_NAME: &str = "inbox";

pub const NOTIFY: &str = include_str!("../../../migrations/outbox/notify.sql");

/// What the names of outbox tables' components begin with.
pub const OUTBOX_PREFIX: &str = "outbox ";

/// The component of an outbox table in `outboxd_migrations`.
pub fn component_name(table: &TableName) -> String {
    format!("{OUTBOX_PREFIX}{table}")
}

/// The files speak of `outbox_events` and `outbox_append`; another table gets names of its own.
pub fn for_table(sql: &str, table: &str) -> String {
    if table == "outbox_events" {
        return sql.to_owned();
    }
    sql.replace("outbox_append", &format!("{table}_append"))
        .replace("outbox_events", table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbered_without_gaps() {
        for steps in [RELAY, OUTBOX, INBOX] {
            for (index, step) in steps.iter().enumerate() {
                assert_eq!(step.version as usize, index + 1);
            }
        }
    }

    #[test]
    fn another_table_gets_names_of_its_own() {
        let sql = for_table(OUTBOX[0].sql, "billing");
        assert!(sql.contains("create table billing ("));
        assert!(sql.contains("create function billing_append("));
        assert!(!sql.contains("outbox_events"));
    }
}
