//! The two services of the demo: throwaway ones, or the user's.

use std::time::Duration;

use anyhow::Context;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Options;
use super::hints::{Hints, POLL_INTERVAL};
use crate::config::{Config, Sources};
use crate::db::migrate::{ADVISORY_LOCK_CLASS, Plan};
use crate::local::{LocalPostgres, LocalPostgresOptions, StopMode, free_port};

/// The aggregate types of the sample events.
pub const AGGREGATE_TYPES: [&str; 2] = ["order", "payment"];

/// Partitions of each topic.
const PARTITIONS: i32 = 3;

/// How long a server may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The only schema that is touched on a Postgres of the user's, and what tells that it is ours.
const SCHEMA: &str = "outboxd_demo";
const SCHEMA_COMMENT: &str = "made by outboxd demo, dropped at its end";

const DROP_SCHEMA: &str = "set lock_timeout = '5s'; set client_min_messages = warning; drop schema if exists outboxd_demo cascade;";

/// The second key of the advisory lock that keeps two demos apart on one database.
const DEMO_LOCK: i32 = 1;

/// What runs for the demo, and what is to be undone at its end.
///
/// Invariant: it outlives the runtime, and so every client of these services.
#[derive(Default)]
pub struct Services {
    postgres: Option<LocalPostgres>,
    kafka: Option<MockCluster<'static, DefaultProducerContext>>,
    /// The URL of a Postgres on which our schema is to be dropped.
    borrowed: Option<String>,
}

/// How to reach the services, and what was made on them.
#[derive(Debug)]
pub struct Site {
    pub config: Config,
    pub hints: Hints,
    /// The topics of the sample events.
    pub topics: Vec<String>,
    /// Where our tables are.
    pub schema: &'static str,
    /// Holds the lock that keeps a second demo off a Postgres of the user's.
    _lock: Option<PgConnection>,
}

impl Services {
    /// Starts or reaches the services, and makes the tables and topics.
    ///
    /// # Errors
    /// When one does not start, cannot be reached, or refuses.
    ///
    /// Cancel-safe: what was started stays here, to be ended by [`Services::end`].
    pub async fn start(
        &mut self,
        options: &Options,
        say: &mut impl FnMut(&str),
    ) -> anyhow::Result<Site> {
        let (postgres_url, schema) = match &options.postgres_url {
            Some(url) => (url.clone(), SCHEMA),
            None => {
                say("starting a throwaway PostgreSQL");
                // Nothing of it is kept, so nothing needs to reach the disk.
                let settings = LocalPostgresOptions::default()
                    .prefer_installed()
                    .setting("fsync", "off");
                let server = self.postgres.insert(LocalPostgres::start(settings).await?);
                (server.url("postgres"), "public")
            }
        };
        let prefix = match options.kafka {
            // Nobody who reads the user's own topics may see orders that were made up.
            Some(_) => "outboxd-demo-",
            None => "",
        };
        let topics: Vec<String> = AGGREGATE_TYPES
            .iter()
            .map(|name| format!("{prefix}{name}-events"))
            .collect();
        let brokers = match &options.kafka {
            Some(brokers) => brokers.clone(),
            None => {
                say("starting a Kafka inside this process");
                let cluster = MockCluster::new(1).context("starting a Kafka in this process")?;
                let cluster = self.kafka.insert(cluster);
                for topic in &topics {
                    cluster
                        .create_topic(topic, PARTITIONS, 1)
                        .with_context(|| format!("creating the topic {topic}"))?;
                }
                cluster.bootstrap_servers()
            }
        };
        let config = configuration(options, &postgres_url, schema, &brokers, prefix)?;
        let lock = match options.postgres_url {
            Some(_) => {
                say("making the schema outboxd_demo");
                Some(self.borrow(&postgres_url).await?)
            }
            None => None,
        };
        migrate(&config, schema).await?;
        let hints = Hints::new(options, &config, schema, &topics);
        Ok(Site {
            config,
            hints,
            topics,
            schema,
            _lock: lock,
        })
    }

    /// Takes the schema on a Postgres of the user's: removes what a demo that was killed left there,
    /// and never what somebody else made.
    async fn borrow(&mut self, url: &str) -> anyhow::Result<PgConnection> {
        let mut connection = connect(url, SCHEMA).await?;
        let lock = format!("select pg_try_advisory_lock({ADVISORY_LOCK_CLASS}, {DEMO_LOCK})");
        let is_alone: bool = sqlx::query_scalar(AssertSqlSafe(lock))
            .fetch_one(&mut connection)
            .await
            .context("asking for other demos")?;
        anyhow::ensure!(is_alone, "another outboxd demo runs on this database");
        let ours: Option<bool> = sqlx::query_scalar(
            "select coalesce(obj_description(oid, 'pg_namespace') = $1, false) \
             from pg_namespace where nspname = $2",
        )
        .bind(SCHEMA_COMMENT)
        .bind(SCHEMA)
        .fetch_optional(&mut connection)
        .await
        .context("looking for the schema")?;
        anyhow::ensure!(
            ours != Some(false),
            "the schema {SCHEMA} exists and was not made by outboxd demo: rename or drop it first"
        );
        // From here on it is to be dropped, even if making it fails half-way.
        self.borrowed = Some(url.to_owned());
        let fresh = format!(
            "{DROP_SCHEMA} create schema {SCHEMA}; comment on schema {SCHEMA} is '{SCHEMA_COMMENT}';"
        );
        execute(&mut connection, fresh)
            .await
            .context("making the schema")?;
        Ok(connection)
    }

    /// Ends the services, once nobody uses them.
    ///
    /// # Errors
    /// When our schema cannot be dropped; the rest is ended all the same.
    pub fn end(&mut self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime to clean up")?;
        let dropped = runtime.block_on(async {
            if let Some(mut server) = self.postgres.take() {
                // Nothing of it is kept, so nothing needs a checkpoint. Dropping it ends it in any case.
                let _ = server.stop(StopMode::Immediate).await;
            }
            match self.borrowed.take() {
                Some(url) => drop_borrowed(&url).await,
                None => Ok(()),
            }
        });
        self.kafka = None;
        dropped
    }
}

/// The relay's configuration. Neither files nor variables take part: the demo is the same everywhere.
fn configuration(
    options: &Options,
    postgres_url: &str,
    schema: &str,
    brokers: &str,
    prefix: &str,
) -> anyhow::Result<Config> {
    // A relay of the user's own may have the default port, now or in a moment.
    let admin = free_port().context("finding a port for the metrics")?;
    let mut overrides = vec![
        ("postgres.url", postgres_url.to_owned()),
        ("postgres.schema", schema.to_owned()),
        ("kafka.bootstrap_servers", brokers.to_owned()),
        ("kafka.create_topics.enabled", "true".to_owned()),
        ("kafka.create_topics.partitions", PARTITIONS.to_string()),
        ("admin.listen", format!("127.0.0.1:{admin}")),
        ("relay.shutdown_deadline", "5s".to_owned()),
        ("outbox.default.poll_interval", POLL_INTERVAL.to_owned()),
        ("outbox.default.source", "outboxd-demo".to_owned()),
        (
            "outbox.default.topic",
            format!("{prefix}{{aggregate_type}}-events"),
        ),
    ]
    .into_iter()
    .map(|(path, value)| (path.to_owned(), value))
    .collect::<Vec<_>>();
    for (name, value) in &options.properties {
        overrides.push((format!("kafka.properties.{name}"), value.clone()));
    }
    let config = Config::load(Sources {
        file: None,
        environment: Vec::new().into_iter(),
        overrides,
    })?;
    Ok(config)
}

/// Makes the outbox, and the table of the shop that it belongs to.
async fn migrate(config: &Config, schema: &str) -> anyhow::Result<()> {
    let mut connection = connect(&config.postgres.url.expose(), schema).await?;
    Plan::of(config).apply(&mut connection).await?;
    execute(&mut connection, super::shop::TABLES.to_owned())
        .await
        .context("making the tables of the shop")?;
    // Best effort: the server notices a dropped socket as well.
    let _ = connection.close().await;
    Ok(())
}

/// A connection whose unqualified names are those of `schema`.
///
/// # Errors
/// When no server answers.
pub async fn connect(url: &str, schema: &str) -> anyhow::Result<PgConnection> {
    let connecting = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("set search_path = {schema}")))
            .execute(&mut connection)
            .await?;
        Ok::<_, sqlx::Error>(connection)
    };
    tokio::time::timeout(CONNECT_PATIENCE, connecting)
        .await
        .context("connecting to postgres: no answer")?
        .context("connecting to postgres")
}

async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

async fn drop_borrowed(url: &str) -> anyhow::Result<()> {
    let dropping = async {
        let mut connection = connect(url, SCHEMA).await?;
        execute(&mut connection, DROP_SCHEMA.to_owned()).await
    };
    dropping.await.with_context(|| {
        format!("dropping the schema {SCHEMA} (the next demo on this database will)")
    })
}
