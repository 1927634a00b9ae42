//! What the answers of the server mean.

use std::time::Duration;

use crate::check::Notebook;
use crate::db::facts::{Asynchronous, Server, Slot, Transaction};

/// The releases that outboxd is made for and tested with.
const VERSIONS: std::ops::RangeInclusive<i32> = 13..=18;

/// Clocks may differ by so much. Kafka takes timestamps up to an hour ahead, and latencies are read in
/// milliseconds: what is in between is somebody's time service that does not run.
const CLOCK_TOLERANCE: f64 = 2.0;

/// Rows that were needed so many transactions ago are dead and stay: a poll walks over them.
const MAX_BEHIND: i64 = 1_000_000;

/// The connections of a relay for each outbox: reader, marker, lease, parker, gauges, janitor; and LISTEN.
const CONNECTIONS: usize = 7;

pub fn server(server: &Server, book: &mut Notebook) {
    let (major, name) = (server.version / 10_000, &server.version_name);
    if major < *VERSIONS.start() {
        book.error(
            "postgres-version",
            format!(
                "the server is PostgreSQL {name}, outboxd needs {} or later",
                VERSIONS.start()
            ),
            "upgrade the server",
        );
    } else if major > *VERSIONS.end() {
        book.note(
            "postgres-version",
            format!("the server is PostgreSQL {name}, newer than what this outboxd was tested with ({})", VERSIONS.end()),
            "look for a newer outboxd",
        );
    }
    for (setting, is_on) in [
        ("fsync", server.fsync),
        ("full_page_writes", server.full_page_writes),
    ] {
        if !is_on {
            book.error(
                "durability",
                format!(
                    "{setting} is off: a crash of the server can lose or damage committed rows"
                ),
                format!("set {setting} = on"),
            );
        }
    }
    if !server.autovacuum {
        book.warning(
            "autovacuum",
            "autovacuum is off on the server: every mark leaves a dead row, and polls walk over them",
            "set autovacuum = on and track_counts = on",
        );
    }
    if server.is_read_only {
        book.error(
            "read-only",
            "default_transaction_read_only is on: nothing can be marked",
            format!(
                "alter role {:?} set default_transaction_read_only = off",
                server.role
            ),
        );
    }
    let off = server.clock_ahead.abs() - server.clock_error.as_secs_f64();
    if off > CLOCK_TOLERANCE {
        let where_it_is = if server.clock_ahead > 0.0 {
            "ahead of"
        } else {
            "behind"
        };
        book.warning(
            "clock",
            format!("the server's clock is {:.1} s {where_it_is} this machine's, so that latencies are wrong and timestamps may be refused", server.clock_ahead.abs()),
            "run a time service on both",
        );
    }
}

pub fn role(server: &Server, outboxes: usize, book: &mut Notebook) {
    let role = &server.role;
    let own_role = "give the relay a role of its own (outboxd migrate --relay-role)";
    if server.is_superuser {
        book.warning(
            "superuser",
            format!("role {role:?} is a superuser"),
            own_role,
        );
    } else if !server.attributes.is_empty() {
        let attributes = server.attributes.join(", ");
        book.warning(
            "attributes",
            format!("role {role:?} has {attributes}"),
            own_role,
        );
    }
    let needed = CONNECTIONS * outboxes;
    if let Ok(limit) = usize::try_from(server.connection_limit)
        && limit < needed
    {
        book.error(
            "connection-limit",
            format!("role {role:?} may have {limit} connections, a relay of {outboxes} outboxes has up to {needed}"),
            format!("alter role {role:?} connection limit {}", 2 * needed),
        );
    }
}

pub fn asynchronous(whose: &Asynchronous, book: &mut Notebook) {
    let lost = "a commit can be published and then lost in a crash";
    let (problem, remedy) = match whose {
        Asynchronous::Server => (
            "synchronous_commit is off on the server".to_owned(),
            "set synchronous_commit = on".to_owned(),
        ),
        Asynchronous::Database(name) => (
            format!("synchronous_commit is off in database {name:?}"),
            format!("alter database {name:?} reset synchronous_commit"),
        ),
        Asynchronous::Role(name) => (
            format!("synchronous_commit is off for role {name:?}"),
            format!("alter role {name:?} reset synchronous_commit"),
        ),
    };
    let remedy = format!("{remedy}, or set it on in the transactions that insert events");
    book.warning("synchronous-commit", format!("{problem}: {lost}"), remedy);
}

pub fn transaction(transaction: &Transaction, book: &mut Notebook) {
    let age = |seconds: f64| {
        humantime::format_duration(Duration::from_secs(seconds.max(0.0) as u64)).to_string()
    };
    let held = "ids it has drawn are asked for until it ends, and rows that died since stay";
    match transaction {
        Transaction::Prepared { gid, seconds } => book.warning(
            "prepared-transaction",
            format!("transaction {gid:?} was prepared {} ago: {held}", age(*seconds)),
            format!("decide: commit prepared '{0}', or rollback prepared '{0}'", gid.replace('\'', "''")),
        ),
        Transaction::Open { pid, role, application, state, seconds } => book.warning(
            "long-transaction",
            format!("process {pid} of role {role:?} ({application:?}, {state}) has a transaction open for {}: {held}", age(*seconds)),
            format!("end it: select pg_terminate_backend({pid}); and set idle_in_transaction_session_timeout"),
        ),
    }
}

pub fn slot(slot: &Slot, book: &mut Notebook) {
    let name = &slot.name;
    let drop = format!("let its consumer catch up, or select pg_drop_replication_slot('{name}')");
    if !slot.is_active {
        let problem =
            format!("nobody reads replication slot {name:?}: it keeps the server's log for ever");
        book.warning("replication-slot", problem, drop);
    } else if let Some(behind) = slot.behind.filter(|behind| *behind > MAX_BEHIND) {
        let problem = format!(
            "replication slot {name:?} is {behind} transactions behind, and rows that died since stay"
        );
        book.warning("replication-slot", problem, drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Finding;

    fn server() -> Server {
        Server {
            version: 180_001,
            version_name: "18.1".to_owned(),
            fsync: true,
            full_page_writes: true,
            autovacuum: true,
            is_read_only: false,
            role: "relay".to_owned(),
            is_superuser: false,
            attributes: Vec::new(),
            connection_limit: -1,
            clock_ahead: 0.0,
            clock_error: Duration::ZERO,
        }
    }

    fn found(server: &Server) -> Vec<String> {
        let mut book = Notebook::of("postgres");
        super::server(server, &mut book);
        book.findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn releases_outside_of_those_tested_are_named() {
        assert_eq!(found(&server()), [""; 0]);
        let (version, version_name) = (120_022, "12.22".to_owned());
        let old = found(&Server {
            version,
            version_name,
            ..server()
        });
        assert!(
            old[0].starts_with("error [postgres-version] postgres: the server is PostgreSQL 12.22")
        );
        let (version, version_name) = (190_000, "19.0".to_owned());
        let new = found(&Server {
            version,
            version_name,
            ..server()
        });
        assert!(new[0].starts_with("note [postgres-version]"), "{new:?}");
    }

    #[test]
    fn clocks_are_told_apart_beyond_what_the_way_can_explain() {
        let at = |clock_ahead, clock_error| {
            let clock_error = Duration::from_secs(clock_error);
            found(&Server {
                clock_ahead,
                clock_error,
                ..server()
            })
        };
        assert_eq!(at(1.9, 0), [""; 0]);
        assert_eq!(at(-4.0, 3), [""; 0]);
        assert!(at(61.0, 1)[0].contains("61.0 s ahead of this machine's"));
        assert!(at(-61.0, 1)[0].starts_with("warning [clock]"));
        assert!(at(-61.0, 1)[0].contains("61.0 s behind this machine's"));
    }

    #[test]
    fn a_slot_that_is_read_is_judged_by_how_far_it_is_behind() {
        let slot = |behind| {
            let mut book = Notebook::of("postgres");
            let slot = Slot {
                name: "s".to_owned(),
                is_active: true,
                behind,
            };
            super::slot(&slot, &mut book);
            book.findings.len()
        };
        assert_eq!(
            [slot(None), slot(Some(1_000_000)), slot(Some(1_000_001))],
            [0, 0, 1]
        );
    }
}
