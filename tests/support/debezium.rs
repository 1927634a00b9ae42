//! The real Debezium: its connector for PostgreSQL with the outbox event router, in Kafka Connect.
//!
//! Maven fetches the jars once (`debezium-pom.xml`), Java runs them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use outboxd::local::{Sandbox, free_port, last_lines};
use rustix::process::Signal;
use sqlx::PgConnection;

use super::fixture::boolean;
use super::java::{self, Java};

/// The version that `debezium-pom.xml` names.
pub const DEBEZIUM_VERSION: &str = "3.6.0.Final";

const WORKER: &str = "worker.properties";
const CONNECTOR: &str = "connector.properties";
const LOG: &str = "connect.log";

/// How long the connector may take until it reads the log of Postgres: some 5 s on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Reads a table for as long as it lives, and routes its rows to topics.
#[derive(Debug)]
pub struct Debezium {
    _sandbox: Sandbox,
}

impl Debezium {
    /// Starts on the local Postgres of `port` and its `database`, of which it captures `table` (with its schema),
    /// with string converters. `properties` are added to the connector's, and replace ours of the same
    /// name. Returns when it reads every later insert.
    pub async fn start(
        (port, database): (u16, &str),
        bootstrap: &str,
        table: &str,
        properties: &[(&str, &str)],
    ) -> Result<Debezium> {
        let java = Java::of(&format!("debezium-{DEBEZIUM_VERSION}"), "debezium-pom.xml")
            .await
            .context("no Debezium for the tests")?;
        let mut sandbox = Sandbox::create("debezium", None, Signal::KILL)
            .context("making a directory for Debezium")?;
        let (logging, configuration) = java::LOGGING;
        sandbox.write(logging, configuration)?;
        sandbox.write(WORKER, &worker(&sandbox, bootstrap)?)?;
        sandbox.write(CONNECTOR, &connector(port, database, table, properties))?;
        let mut command = java.command(&sandbox, "org.apache.kafka.connect.cli.ConnectStandalone");
        command.args([WORKER, CONNECTOR]);
        sandbox.run(command, LOG).context("starting Debezium")?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{database}");
        let mut connection = super::fixture::connect(&url).await;
        reads(&mut sandbox, &mut connection).await?;
        Ok(Debezium { _sandbox: sandbox })
    }
}

/// Waits until the connector's replication slot is in use: all that commits from then on is in its log.
async fn reads(sandbox: &mut Sandbox, connection: &mut PgConnection) -> Result<()> {
    let active = "select exists (select from pg_replication_slots \
                  where database = current_database() and active)";
    let deadline = Instant::now() + START_PATIENCE;
    while !boolean(connection, active).await {
        let ended = sandbox.exit_status().is_some();
        if ended || Instant::now() > deadline {
            let what = if ended { "ended" } else { "does not read" };
            let log = last_lines(&sandbox.directory().join(LOG), 40);
            bail!("Debezium {what} within {START_PATIENCE:?}:\n{log}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn worker(sandbox: &Sandbox, bootstrap: &str) -> Result<String> {
    let strings = "org.apache.kafka.connect.storage.StringConverter";
    Ok(format!(
        "bootstrap.servers={bootstrap}\n\
         listeners=http://127.0.0.1:{}\n\
         key.converter={strings}\n\
         value.converter={strings}\n\
         plugin.discovery=only_scan\n\
         offset.storage.file.filename={}\n\
         offset.flush.interval.ms=1000\n",
        free_port()?,
        sandbox.directory().join("offsets").display(),
    ))
}

fn connector(port: u16, database: &str, table: &str, properties: &[(&str, &str)]) -> String {
    let mut text = format!(
        "name=outbox\n\
         connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
         tasks.max=1\n\
         plugin.name=pgoutput\n\
         slot.name={database}\n\
         database.hostname=127.0.0.1\n\
         database.port={port}\n\
         database.user=postgres\n\
         database.password=unused\n\
         database.dbname={database}\n\
         topic.prefix=shop\n\
         table.include.list={table}\n\
         publication.autocreate.mode=filtered\n\
         snapshot.mode=no_data\n\
         tombstones.on.delete=false\n\
         transforms=outbox\n\
         transforms.outbox.type=io.debezium.transforms.outbox.EventRouter\n"
    );
    // Of several properties of a name the last counts.
    for (name, value) in properties {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}
