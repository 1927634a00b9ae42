//! The server that holds the outbox tables, and the relay's role on it.

use std::time::Duration;

use super::outbox::{self, Waiting};
use super::{Finding, Notebook, Options};
use crate::config::{Config, Pooler};
use crate::db::facts::{self, Asynchronous, Lacking, Server, Slot, Transaction};
use crate::db::{Database, DbError, Role, Session};
use crate::outage::chain;

/// The releases that outboxd is made for and tested with.
const VERSIONS: std::ops::RangeInclusive<i32> = 13..=18;

/// Clocks may differ by so much. Kafka takes timestamps up to an hour ahead, and latencies are read in
/// milliseconds: what is in between is somebody's time service that does not run.
const CLOCK_TOLERANCE: f64 = 2.0;

/// Long transactions that are listed.
const LISTED: i64 = 5;

/// Rows that were needed so many transactions ago are dead and stay: a poll walks over them.
const MAX_BEHIND: i64 = 1_000_000;

/// The connections of a relay for each outbox: reader, marker, lease, parker, gauges, janitor; and LISTEN.
const CONNECTIONS: usize = 7;

/// What was asked and what came of it.
pub struct Answers {
    pub findings: Vec<Finding>,
    /// What the outboxes have to send.
    pub waiting: Vec<Waiting>,
}

/// Asks about the server, the role and each outbox.
pub async fn probe(config: &Config, options: &Options) -> Answers {
    let mut book = Notebook::of("postgres");
    let mut waiting = Vec::new();
    if let Err(error) = ask(config, options, &mut book, &mut waiting).await {
        note_failure(&error, &mut book);
    }
    Answers {
        findings: book.findings,
        waiting,
    }
}

async fn ask(
    config: &Config,
    options: &Options,
    book: &mut Notebook,
    waiting: &mut Vec<Waiting>,
) -> Result<(), DbError> {
    let database = Database::new(&config.postgres)?;
    for (option, host, mode) in database.unverified()? {
        book.warning(
            "postgres-unverified",
            format!("{option} has sslmode={mode} for {host}, so whoever answers there is taken for the server"),
            "set sslmode=verify-full, and sslrootcert if the server's authority is not one of the system's",
        );
    }
    judge_pooler(config, &database, book).await?;
    if book.has_errors() {
        // Whatever else is asked there may be answered by anybody.
        return Ok(());
    }
    let mut session = bounded(&database, database.connect("", Role::Check)).await?;
    let facts = session.group(async |session| Facts::ask(session, config, options).await);
    let facts = bounded(&database, facts).await?;
    facts.judge(config, book);
    for outbox in config.outboxes.values() {
        let mut session = bounded(&database, database.connect(&outbox.name, Role::Check)).await?;
        let probe = outbox::probe(&mut session, config, outbox, &facts.lacking);
        let (findings, rows) = bounded(&database, async { Ok(probe.await) }).await?;
        book.findings.extend(findings);
        waiting.extend(rows);
    }
    Ok(())
}

/// As long as a statement may take, and the time to say so.
async fn bounded<T>(
    database: &Database,
    work: impl Future<Output = Result<T, DbError>>,
) -> Result<T, DbError> {
    let deadline = database.statement_deadline();
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(DbError::Timeout {
            action: "checking the database".to_owned(),
            seconds: deadline.as_secs_f64(),
        }),
    }
}

fn note_failure(error: &DbError, book: &mut Notebook) {
    let said = chain(error);
    match error {
        DbError::Recovery => book.error(
            "postgres-replica",
            "every server of postgres.url is in recovery, and a standby cannot take marks",
            "name the primary, or all servers of the cluster",
        ),
        // PgBouncer's way to say so.
        DbError::Connect { hint, .. } if !hint.is_empty() => book.error(
            "pooler",
            said,
            "set postgres.pooler = \"transaction\", and postgres.direct_url for migrate",
        ),
        DbError::Certificate { .. } => book.error(
            "postgres-certificate",
            said,
            "see sslmode, sslrootcert, sslcert and sslkey in postgres.url, and what certificate the server has",
        ),
        DbError::Connect { .. } | DbError::ConnectTimeout { .. } | DbError::Secret(_) => book.error(
            "postgres-unreachable",
            said,
            "see that the server runs, and that address, role and password in postgres.url are right",
        ),
        _ => book.error("postgres-refused", said, "see the server's log"),
    }
}

async fn judge_pooler(
    config: &Config,
    database: &Database,
    book: &mut Notebook,
) -> Result<(), DbError> {
    let is_declared = config.postgres.pooler == Pooler::Transaction;
    if is_declared && config.postgres.direct_url.is_none() {
        return Ok(());
    }
    if bounded(database, database.shares_processes()).await? {
        match config.postgres.direct_url {
            Some(_) => book.error(
                "direct-url",
                "postgres.direct_url leads through a pooler in transaction mode, where nothing keeps a session",
                "name the server itself",
            ),
            None => book.error(
                "pooler",
                "postgres.url leads through a pooler in transaction mode, where nothing keeps a session",
                "set postgres.pooler = \"transaction\", and postgres.direct_url for migrate",
            ),
        }
    }
    Ok(())
}

/// What the server says.
struct Facts {
    server: Server,
    transactions: Vec<Transaction>,
    slots: Vec<Slot>,
    asynchronous: Vec<Asynchronous>,
    lacking: Vec<Lacking>,
    other_tables: (i64, Vec<String>),
}

impl Facts {
    async fn ask(
        session: &mut Session,
        config: &Config,
        options: &Options,
    ) -> Result<Facts, DbError> {
        let schema = config.postgres.schema.as_str();
        let outboxes = config.outboxes.values();
        let tables: Vec<String> = outboxes.map(|outbox| outbox.table.to_string()).collect();
        Ok(Facts {
            server: Server::ask(session).await?,
            transactions: facts::transactions(session, options.long_transaction, LISTED).await?,
            slots: facts::slots(session).await?,
            asynchronous: facts::asynchronous(session, tables.clone()).await?,
            lacking: facts::lacking(session, schema).await?,
            other_tables: facts::other_tables(session, schema, tables).await?,
        })
    }

    fn judge(&self, config: &Config, book: &mut Notebook) {
        judge_server(&self.server, book);
        judge_role(&self.server, config.outboxes.len(), book);
        self.judge_rights(config, book);
        for whose in &self.asynchronous {
            judge_asynchronous(whose, book);
        }
        for transaction in &self.transactions {
            judge_transaction(transaction, book);
        }
        for slot in &self.slots {
            judge_slot(slot, book);
        }
    }

    fn judge_rights(&self, config: &Config, book: &mut Notebook) {
        let role = &self.server.role;
        for lacking in &self.lacking {
            match lacking {
                Lacking::Table(table) => book.error(
                    "schema",
                    format!("table {}.{table} does not exist", config.postgres.schema),
                    "run outboxd migrate",
                ),
                Lacking::Privilege(what) => book.error(
                    "privileges",
                    format!("role {role:?} needs the privilege {what}"),
                    format!("run outboxd migrate --relay-role {role} as the owner"),
                ),
            }
        }
        let (count, first) = &self.other_tables;
        // A superuser may do anything, which was said.
        if *count > 0 && !self.server.is_superuser {
            let more = match usize::try_from(*count).unwrap_or(usize::MAX) - first.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            book.warning(
                "other-tables",
                format!(
                    "role {role:?} has rights on tables that are not the relay's: {}{more}",
                    first.join(", ")
                ),
                "give the relay a role of its own (outboxd migrate --relay-role)",
            );
        }
    }
}

fn judge_server(server: &Server, book: &mut Notebook) {
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

fn judge_role(server: &Server, outboxes: usize, book: &mut Notebook) {
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

fn judge_asynchronous(whose: &Asynchronous, book: &mut Notebook) {
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

fn judge_transaction(transaction: &Transaction, book: &mut Notebook) {
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

fn judge_slot(slot: &Slot, book: &mut Notebook) {
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
        judge_server(server, &mut book);
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
            judge_slot(&slot, &mut book);
            book.findings.len()
        };
        assert_eq!(
            [slot(None), slot(Some(1_000_000)), slot(Some(1_000_001))],
            [0, 0, 1]
        );
    }
}
