//! Who may do what: the least that each role needs.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::planned::{ForeignTable, PlannedOutbox};
use crate::config::{Name, TableName};
use crate::db::literal;

/// Grants are made to these roles, as far as they are named.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// Publishes and marks events.
    pub relay: Option<String>,
    /// Inserts events.
    pub app: Option<String>,
    /// Claims events.
    pub consumer: Option<String>,
    /// Prunes the inbox and sees to dead letters.
    pub maintenance: Option<String>,
}

/// The relay's own tables, and what it does to them.
pub const RELAY_TABLES: [(&str, &str); 6] = [
    ("outboxd_migrations", "select"),
    ("outboxd_leases", "select, insert, update"),
    ("outboxd_parked", "select, insert, update, delete"),
    ("outboxd_pauses", "select, insert, delete"),
    ("outboxd_bypasses", "select, insert, update"),
    ("outboxd_decisions", "select, insert"),
];

/// What the roles are granted rights on.
pub(super) struct Grants<'a> {
    /// Where outboxd's own tables are.
    pub schema: &'a str,
    /// The schemas of all tables that outboxd made.
    pub schemas: BTreeSet<&'a str>,
    pub outboxes: &'a [PlannedOutbox],
}

impl Grants<'_> {
    /// The grants of the named roles: statements that can be repeated.
    pub fn sql(&self, roles: &Roles) -> String {
        let mut sql = String::new();
        if let Some(role) = &roles.relay {
            self.grant_relay(role, &mut sql);
        }
        if let Some(role) = &roles.app {
            self.grant_app(role, &mut sql);
        }
        if let Some(role) = &roles.consumer {
            self.grant_consumer(role, &mut sql);
        }
        if let Some(role) = &roles.maintenance {
            self.grant_maintenance(role, &mut sql);
        }
        sql
    }

    /// The outbox tables that outboxd made.
    fn own_tables(&self) -> impl Iterator<Item = &TableName> {
        let own = self
            .outboxes
            .iter()
            .filter(|outbox| outbox.foreign.is_none());
        own.map(|outbox| &outbox.table)
    }

    /// The relay: reads and settles events, keeps its leases, sees the sequence. It can neither insert
    /// nor change an event.
    fn grant_relay(&self, role: &str, sql: &mut String) {
        let (role, schema) = (quote(role), self.schema);
        let _ = writeln!(sql, "\n-- The relay's role.");
        for schema in &self.schemas {
            let _ = writeln!(sql, "grant usage on schema \"{schema}\" to {role};");
        }
        for (table, privileges) in RELAY_TABLES {
            let _ = writeln!(sql, "grant {privileges} on \"{schema}\".{table} to {role};");
        }
        for TableName { schema, name } in self.own_tables() {
            let _ = writeln!(
                sql,
                "grant select, delete, update (sent_at) on \"{schema}\".\"{name}\" to {role};"
            );
            let _ = writeln!(
                sql,
                "grant select on sequence \"{schema}\".\"{name}_id_seq\" to {role};"
            );
        }
        for outbox in self.outboxes {
            if let Some(foreign) = &outbox.foreign {
                foreign.grant_relay(&outbox.table, &role, sql);
            }
        }
    }

    /// The application: inserts events and nothing else, and cannot touch what the relay owns.
    fn grant_app(&self, role: &str, sql: &mut String) {
        if self.own_tables().next().is_none() {
            return;
        }
        let role = quote(role);
        let _ = writeln!(sql, "\n-- The application's role.");
        for schema in &self.schemas {
            let _ = writeln!(sql, "grant usage on schema \"{schema}\" to {role};");
        }
        for TableName { schema, name } in self.own_tables() {
            let _ = writeln!(
                sql,
                "grant insert (event_id, aggregate_type, aggregate_id, event_type, event_version, payload, \
                 payload_bytes, correlation_id, causation_id, traceparent, tracestate, headers, topic, \
                 partition_key, created_at) on \"{schema}\".\"{name}\" to {role};"
            );
        }
    }

    /// A consumer: claims events, and records what became of them. It forgets nothing.
    fn grant_consumer(&self, role: &str, sql: &mut String) {
        let (role, schema) = (quote(role), self.schema);
        let _ = writeln!(
            sql,
            "\n-- A consumer's role.\n\
             grant usage on schema \"{schema}\" to {role};\n\
             grant select on \"{schema}\".outboxd_migrations to {role};\n\
             grant select, insert, update (outcome, processed_at) on \"{schema}\".processed_events to {role};\n\
             grant select on \"{schema}\".processed_consumers to {role};"
        );
    }

    /// Whoever prunes, and sees to the dead letters.
    fn grant_maintenance(&self, role: &str, sql: &mut String) {
        let (role, schema) = (quote(role), self.schema);
        let _ = writeln!(
            sql,
            "\n-- The role of maintenance: inbox status, prune and dlq.\n\
             grant usage on schema \"{schema}\" to {role};\n\
             grant select on \"{schema}\".outboxd_migrations to {role};\n\
             grant select, insert, update (outcome, processed_at), delete \
             on \"{schema}\".processed_events to {role};\n\
             grant select, insert, update on \"{schema}\".processed_consumers to {role};"
        );
    }
}

impl ForeignTable {
    /// `role` is quoted.
    fn grant_relay(&self, table: &TableName, role: &str, sql: &mut String) {
        let mut privileges = vec!["select".to_owned()];
        if self.deletes {
            privileges.push("delete".to_owned());
        }
        if !self.marks.is_empty() {
            let marks: Vec<String> = self.marks.iter().map(Name::quoted).collect();
            privileges.push(format!("update ({})", marks.join(", ")));
        }
        let (schema, quoted) = (table.schema.quoted(), table.quoted());
        let _ = writeln!(sql, "grant usage on schema {schema} to {role};");
        let _ = writeln!(
            sql,
            "grant {} on {quoted} to {role};",
            privileges.join(", ")
        );
        // Only the catalogue knows the sequence; one that the column does not own is for its owner to grant.
        let (quoted, id) = (literal(&quoted), literal(self.id.as_str()));
        let grant = literal(&format!(
            "grant select on sequence %s to {}",
            role.replace('%', "%%")
        ));
        let _ = writeln!(
            sql,
            "do $grant$ begin\n    \
                 if pg_get_serial_sequence({quoted}, {id}) is not null then\n        \
                     execute format({grant}, pg_get_serial_sequence({quoted}, {id}));\n    \
                 end if;\n\
             end $grant$;"
        );
    }
}

fn quote(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}
