//! The schema: forward-only migrations, applied or printed, and the comparison that `run` makes.
//!
//! Written here rather than taken from sqlx's migrator, because each outbox table has a history of its
//! own, because a newer schema can say which older relays still work with it, and because teams with
//! their own migration tool want the very same SQL as text.

mod grants;
mod installed;
mod planned;
mod steps;
mod trace_index;
mod verify;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{DbError, TableName};
use crate::config::Config;

use grants::Grants;
use steps::{INBOX, INBOX_NAME, Migration, NOTIFY, OUTBOX, RELAY, component_name, for_table};

pub use grants::{RELAY_TABLES, Roles};
pub use installed::{Installed, installed};
pub use planned::{ForeignTable, PlannedOutbox};
pub use trace_index::trace_index;
pub use verify::{verify, verify_inbox};

/// `outb` in ASCII: the class number of every advisory lock that outboxd takes.
pub const ADVISORY_LOCK_CLASS: i32 = 1_869_968_482;

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
    /// The index that traces need, on each outbox table of outboxd's own.
    pub trace_index: bool,
    pub roles: Roles,
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

/// A step that was missing.
#[derive(Debug)]
pub struct Applied {
    /// As in `outboxd_migrations`.
    pub component: String,
    /// None for an index, which has no history.
    pub version: Option<i32>,
    pub name: &'static str,
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.component)?;
        if let Some(version) = self.version {
            write!(formatter, " {version}")?;
        }
        write!(formatter, ": {}", self.name)
    }
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
        let grants = Grants {
            schema: &self.schema,
            schemas: self.schemas(),
            outboxes: &self.outboxes,
        };
        sql.push_str(&grants.sql(&self.roles));
        sql
    }

    /// The schemas of what the plan makes.
    fn schemas(&self) -> BTreeSet<&str> {
        let tables = self.own_tables().map(|outbox| &outbox.table);
        std::iter::once(self.schema.as_str())
            .chain(tables.map(|table| table.schema.as_str()))
            .collect()
    }

    /// The outbox tables that outboxd makes.
    fn own_tables(&self) -> impl Iterator<Item = &PlannedOutbox> {
        let outboxes = self.outboxes.iter();
        outboxes.filter(|outbox| outbox.foreign.is_none())
    }

    fn traced_tables(&self) -> impl Iterator<Item = &TableName> {
        let tables = self.own_tables().map(|outbox| &outbox.table);
        tables.filter(|_| self.trace_index)
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
        for table in self.traced_tables() {
            let _ = write!(
                sql,
                "\n-- For outboxd trace. Outside of the transaction, so that writers go on.\n{}",
                trace_index::create(table)
            );
        }
        sql
    }

    /// Applies what is missing, one transaction a step, and says what it applied. Two at once are safe:
    /// each step is taken under an advisory lock.
    ///
    /// # Errors
    /// Whatever Postgres says; the steps before the failing one stay applied. Cancel-safe: an
    /// unfinished step rolls back.
    pub async fn apply(&self, connection: &mut PgConnection) -> Result<Vec<Applied>, DbError> {
        let mut applied = Vec::new();
        self.locked(connection, "preparing the migrations", &self.bookkeeping())
            .await?;
        for component in self.components() {
            for migration in component.steps {
                if self.apply_step(connection, &component, migration).await? {
                    applied.push(Applied {
                        component: component.name.clone(),
                        version: Some(migration.version),
                        name: migration.name,
                    });
                }
            }
        }
        self.locked(connection, "applying grants and triggers", &self.extras())
            .await?;
        for table in self.traced_tables() {
            if trace_index::ensure(connection, table).await? {
                applied.push(Applied {
                    component: component_name(table),
                    version: None,
                    name: "the index for traces",
                });
            }
        }
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
