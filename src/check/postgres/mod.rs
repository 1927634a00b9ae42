//! The server that holds the outbox tables, and the relay's role on it.

mod judge;

use super::outbox::{self, Waiting};
use super::{Finding, Notebook, Options};
use crate::config::{Config, Pooler};
use crate::db::facts::{self, Asynchronous, Lacking, Server, Slot, Transaction};
use crate::db::{Database, DbError, Role, Session};
use crate::outage::chain;

/// Long transactions that are listed.
const LISTED: i64 = 5;

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
        judge::server(&self.server, book);
        judge::role(&self.server, config.outboxes.len(), book);
        self.judge_rights(config, book);
        for whose in &self.asynchronous {
            judge::asynchronous(whose, book);
        }
        for transaction in &self.transactions {
            judge::transaction(transaction, book);
        }
        for slot in &self.slots {
            judge::slot(slot, book);
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
