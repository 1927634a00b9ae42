//! The schema: forward-only migrations, applied or printed, and the comparison that `run` makes.
//!
//! Written here rather than taken from sqlx's migrator, because each outbox table has a history of its
//! own, because a newer schema can say which older relays still work with it, and because teams with
//! their own migration tool want the very same SQL as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::grants::Roles;
use super::{DbError, Session, TableName};
use crate::config::{Config, Name, OnSent, OutboxConfig, Retention};

/// `outb` in ASCII: the class number of every advisory lock that outboxd takes.
pub const ADVISORY_LOCK_CLASS: i32 = 1_869_968_482;

/// One step of a component's history.
#[derive(Debug, Clone, Copy)]
struct Migration {
    version: i32,
    name: &'static str,
    /// The oldest relay, by the version it was made for, that works with the schema after this step.
    compatible_with: i32,
    sql: &'static str,
}

const RELAY: &[Migration] = &[
    Migration {
        version: 1,
        name: "leases",
        compatible_with: 1,
        sql: include_str!("../../migrations/relay/0001_leases.sql"),
    },
    Migration {
        version: 2,
        name: "parked",
        compatible_with: 1,
        sql: include_str!("../../migrations/relay/0002_parked.sql"),
    },
];

const OUTBOX: &[Migration] = &[Migration {
    version: 1,
    name: "outbox_events",
    compatible_with: 1,
    sql: include_str!("../../migrations/outbox/0001_outbox_events.sql"),
}];

const INBOX: &[Migration] = &[Migration {
    version: 1,
    name: "processed_events",
    compatible_with: 1,
    sql: include_str!("../../migrations/inbox/0001_processed_events.sql"),
}];

/// The inbox's component; there is one per schema.
const INBOX_NAME: &str = "inbox";

const NOTIFY: &str = include_str!("../../migrations/outbox/notify.sql");

/// How long a migration waits for a lock on a table that the application uses.
const LOCK_TIMEOUT: &str = "2s";

/// What the schema is to hold.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Where outboxd's own tables are.
    pub schema: String,
    /// The outbox tables; the relay's own come with the first.
    pub outboxes: Vec<PlannedOutbox>,
    /// The consumer's side: `processed_events` and its functions.
    pub inbox: bool,
    pub roles: Roles,
}

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
    fn of(outbox: &OutboxConfig) -> PlannedOutbox {
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

/// The history of one part of the schema.
#[derive(Debug, Clone)]
struct Component {
    /// Its name in `outboxd_migrations`.
    name: String,
    steps: &'static [Migration],
    /// Where its unqualified names go.
    search_path: String,
    /// The outbox table that stands for `outbox_events` in the files.
    table: Option<String>,
}

impl Plan {
    /// What the configured outboxes need; no grants.
    pub fn of(config: &Config) -> Plan {
        Plan {
            schema: config.postgres.schema.to_string(),
            outboxes: config.outboxes.values().map(PlannedOutbox::of).collect(),
            ..Plan::default()
        }
    }

    /// What a consumer's database needs; no grants.
    pub fn of_inbox(config: &Config) -> Plan {
        Plan {
            schema: config.postgres.schema.to_string(),
            inbox: true,
            ..Plan::default()
        }
    }

    fn components(&self) -> Vec<Component> {
        let relay = Component {
            name: "relay".to_owned(),
            steps: RELAY,
            search_path: format!("\"{}\"", self.schema),
            table: None,
        };
        let outboxes = self.own_tables().map(|outbox| Component {
            name: component_name(&outbox.table),
            steps: OUTBOX,
            search_path: format!("{}, \"{}\"", outbox.table.schema.quoted(), self.schema),
            table: Some(outbox.table.name.as_str().to_owned()),
        });
        let inbox = Component {
            name: INBOX_NAME.to_owned(),
            steps: INBOX,
            search_path: format!("\"{}\"", self.schema),
            table: None,
        };
        let relay = (!self.outboxes.is_empty()).then_some(relay);
        relay
            .into_iter()
            .chain(outboxes)
            .chain(self.inbox.then_some(inbox))
            .collect()
    }

    fn bookkeeping(&self) -> String {
        let mut sql = String::new();
        for schema in self.schemas() {
            if schema == "public" {
                continue;
            }
            let _ = writeln!(sql, "create schema if not exists \"{schema}\";");
        }
        let _ = writeln!(
            sql,
            "create table if not exists \"{}\".outboxd_migrations (\n    \
                 component        text        not null,\n    \
                 version          integer     not null,\n    \
                 name             text        not null,\n    \
                 compatible_with  integer     not null,\n    \
                 applied_at       timestamptz not null default clock_timestamp(),\n    \
                 primary key (component, version)\n);",
            self.schema
        );
        sql
    }

    /// The SQL of one step with its record, to run in a transaction.
    fn step(&self, component: &Component, migration: &Migration) -> String {
        let sql = match &component.table {
            Some(table) => for_table(migration.sql, table),
            None => migration.sql.to_owned(),
        };
        format!(
            "set local lock_timeout = '{LOCK_TIMEOUT}';\n\
             set local search_path = {};\n\n{sql}\n\
             insert into \"{}\".outboxd_migrations (component, version, name, compatible_with)\n\
             values ('{}', {}, '{}', {});\n",
            component.search_path,
            self.schema,
            component.name,
            migration.version,
            migration.name,
            migration.compatible_with,
        )
    }

    /// The opt-in triggers and the grants: statements that can be repeated.
    fn extras(&self) -> String {
        let mut sql = String::new();
        for outbox in self.outboxes.iter().filter(|outbox| outbox.notify) {
            let _ = write!(
                sql,
                "set local lock_timeout = '{LOCK_TIMEOUT}';\nset local search_path = {};\n{}",
                outbox.table.schema.quoted(),
                for_table(NOTIFY, outbox.table.name.as_str())
            );
        }
        sql.push_str(&self.grants());
        sql
    }

    /// The schemas of what the plan makes.
    pub(super) fn schemas(&self) -> BTreeSet<&str> {
        let tables = self.own_tables().map(|outbox| &outbox.table);
        std::iter::once(self.schema.as_str())
            .chain(tables.map(|table| table.schema.as_str()))
            .collect()
    }

    /// The outbox tables that outboxd makes.
    pub(super) fn own_tables(&self) -> impl Iterator<Item = &PlannedOutbox> {
        let outboxes = self.outboxes.iter();
        outboxes.filter(|outbox| outbox.foreign.is_none())
    }

    /// All of it as plain SQL, for a fresh database.
    pub fn print(&self) -> String {
        let mut sql = format!("begin;\n\n{}\n", self.bookkeeping());
        for component in self.components() {
            for migration in component.steps {
                let _ = writeln!(
                    sql,
                    "-- {} {}: {}\n{}",
                    component.name,
                    migration.version,
                    migration.name,
                    self.step(&component, migration)
                );
            }
        }
        sql.push_str(&self.extras());
        sql.push_str("\ncommit;\n");
        sql
    }

    /// Applies what is missing, one transaction a step, and says what it applied. Two at once are safe:
    /// each step is taken under an advisory lock.
    ///
    /// # Errors
    /// Whatever Postgres says; the steps before the failing one stay applied. Cancel-safe: an
    /// unfinished step rolls back.
    pub async fn apply(&self, connection: &mut PgConnection) -> Result<Vec<String>, DbError> {
        let mut applied = Vec::new();
        self.locked(connection, "preparing the migrations", &self.bookkeeping())
            .await?;
        for component in self.components() {
            for migration in component.steps {
                if self.apply_step(connection, &component, migration).await? {
                    applied.push(format!(
                        "{} {}: {}",
                        component.name, migration.version, migration.name
                    ));
                }
            }
        }
        self.locked(connection, "applying grants and triggers", &self.extras())
            .await?;
        Ok(applied)
    }

    async fn apply_step(
        &self,
        connection: &mut PgConnection,
        component: &Component,
        migration: &Migration,
    ) -> Result<bool, DbError> {
        let action = || {
            DbError::query(format!(
                "applying migration {} of {}",
                migration.version, component.name
            ))
        };
        let mut transaction = connection.begin().await.map_err(action())?;
        transaction
            .execute(AssertSqlSafe(lock()))
            .await
            .map_err(action())?;
        let done = sqlx::query(AssertSqlSafe(format!(
            "select from \"{}\".outboxd_migrations where component = $1 and version = $2",
            self.schema
        )))
        .bind(component.name.clone())
        .bind(migration.version)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(action())?;
        if done.is_some() {
            return Ok(false);
        }
        let sql = self.step(component, migration);
        transaction
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .map_err(action())?;
        transaction.commit().await.map_err(action())?;
        Ok(true)
    }

    async fn locked(
        &self,
        connection: &mut PgConnection,
        action: &str,
        sql: &str,
    ) -> Result<(), DbError> {
        let mut transaction = connection.begin().await.map_err(DbError::query(action))?;
        transaction
            .execute(AssertSqlSafe(lock()))
            .await
            .map_err(DbError::query(action))?;
        transaction
            .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
            .await
            .map_err(DbError::query(action))?;
        transaction.commit().await.map_err(DbError::query(action))
    }
}

fn lock() -> String {
    format!("select pg_advisory_xact_lock({ADVISORY_LOCK_CLASS}, 0)")
}

fn component_name(table: &TableName) -> String {
    format!("outbox {table}")
}

/// The files speak of `outbox_events` and `outbox_append`; another table gets names of its own.
fn for_table(sql: &str, table: &str) -> String {
    if table == "outbox_events" {
        return sql.to_owned();
    }
    sql.replace("outbox_append", &format!("{table}_append"))
        .replace("outbox_events", table)
}

/// Compares the relay's schema with what this relay was made for.
///
/// # Errors
/// [`DbError::Schema`] when it is missing or older, or newer and not compatible; else what Postgres
/// says.
pub async fn verify(
    session: &mut Session,
    relay_schema: &str,
    outbox: &OutboxConfig,
) -> Result<(), DbError> {
    let own = (outbox.mapping.is_none()).then(|| (component_name(&outbox.table), OUTBOX));
    let relay = ("relay".to_owned(), RELAY);
    let components: Vec<_> = std::iter::once(relay).chain(own).collect();
    verify_components(session, relay_schema, &components, "run outboxd migrate").await
}

/// Compares the inbox's schema with what this program was made for.
///
/// # Errors
/// As [`verify`].
pub async fn verify_inbox(session: &mut Session, schema: &str) -> Result<(), DbError> {
    let components = [(INBOX_NAME.to_owned(), INBOX)];
    verify_components(session, schema, &components, "run outboxd migrate --inbox").await
}

async fn verify_components(
    session: &mut Session,
    schema: &str,
    components: &[(String, &[Migration])],
    remedy: &str,
) -> Result<(), DbError> {
    let action = || DbError::query("comparing the schema's version");
    let query = session
        .query(&"select to_regclass($1) is not null".into())
        .bind(format!("\"{schema}\".outboxd_migrations"));
    let exists: bool = session
        .fetch_one(query)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(action())?;
    if !exists {
        return Err(DbError::Schema(format!(
            "schema \"{schema}\" has no table outboxd_migrations: {remedy}"
        )));
    }
    for (name, steps) in components {
        let sql = format!(
            "select coalesce(max(version), 0), coalesce(max(compatible_with), 0) \
             from \"{schema}\".outboxd_migrations where component = $1"
        );
        let query = session.query(&sql.into()).bind(name.clone());
        let row = session.fetch_one(query).await.map_err(action())?;
        let (version, compatible_with): (i32, i32) = (
            row.try_get(0).map_err(action())?,
            row.try_get(1).map_err(action())?,
        );
        compare(name, version, compatible_with, steps.len() as i32, remedy)
            .map_err(DbError::Schema)?;
    }
    Ok(())
}

/// `made_for`: the version this relay was made for.
fn compare(
    component: &str,
    version: i32,
    compatible_with: i32,
    made_for: i32,
    remedy: &str,
) -> Result<(), String> {
    if version < made_for {
        return Err(format!(
            "the schema of {component} must be at version {made_for}, is {version}: {remedy}"
        ));
    }
    if compatible_with > made_for {
        return Err(format!(
            "the schema of {component} is at version {version}, which needs a relay made for version \
             {compatible_with} or later, this one was made for {made_for}: upgrade outboxd"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_compared_by_version_and_by_what_it_says_of_older_relays() {
        assert_eq!(compare("relay", 2, 2, 2, "run outboxd migrate"), Ok(()));
        assert_eq!(
            compare("relay", 3, 2, 2, "run outboxd migrate"),
            Ok(()),
            "newer but marked compatible"
        );
        let older = compare("relay", 1, 1, 2, "run outboxd migrate").unwrap_err();
        assert!(older.contains("outboxd migrate"), "{older}");
        let newer = compare("relay", 3, 3, 2, "run outboxd migrate").unwrap_err();
        assert!(newer.contains("upgrade outboxd"), "{newer}");
    }

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
