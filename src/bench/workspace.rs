//! Where a benchmark happens: a schema and topics of its own, and the configuration that names them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use sqlx::PgConnection;

use super::BenchError;
use crate::config::{Config, OutboxConfig, TopicTemplate};
use crate::db::bench::{BenchTable, drop_schema};
use crate::db::migrate::{Plan, PlannedOutbox};
use crate::db::{Database, DbError};
use crate::kafka::{KafkaClient, PolledAdmin, REQUEST_TIMEOUT, TopicStatus, Topics};

/// How long a new topic may take until its leaders are known.
const TOPIC_DEADLINE: Duration = Duration::from_secs(30);

/// How long the cluster may take to make or delete a topic.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);

/// The names that a benchmark uses, drawn at random: two at a time do not meet, and neither meets
/// anything of the user's.
#[derive(Debug, Clone)]
pub struct Names {
    pub schema: String,
    topic_prefix: String,
}

impl Names {
    pub fn draw() -> Names {
        let unique = fastrand::u64(..1 << 48);
        Names {
            schema: format!("outboxd_bench_{unique:012x}"),
            topic_prefix: format!("outboxd-bench-{unique:012x}"),
        }
    }

    /// The table, with its schema.
    pub fn table(&self) -> String {
        format!("{}.bench_events", self.schema)
    }
}

/// See the module's documentation.
pub struct Workspace {
    names: Names,
    config: Config,
    outbox: OutboxConfig,
    database: Database,
    kafka: KafkaClient,
    admin: PolledAdmin,
    topics: Topics,
    partitions: i32,
    made_topics: Mutex<Vec<String>>,
}

/// One topic and a fresh table, and the configuration of a relay between them.
pub struct Stage {
    pub config: Config,
    pub outbox: OutboxConfig,
    pub topic: String,
    pub table: BenchTable,
    /// Rows up to this id were set aside before the relay started, and stay unsent.
    pub aside_upto: i64,
    /// For what the benchmark itself asks.
    pub connection: PgConnection,
}

impl Stage {
    /// The first and the last unsent row of what is to be published.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn unsent_range(&mut self) -> Result<Option<(i64, i64)>, DbError> {
        self.table
            .unsent_range(&mut self.connection, self.aside_upto)
            .await
    }

    /// Whether any row from `first` to `last` is unsent.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn any_unsent(&mut self, first: i64, last: i64) -> Result<bool, DbError> {
        self.table
            .any_unsent(&mut self.connection, (first, last))
            .await
    }
}

impl Workspace {
    /// `config` has [`Names::schema`] as its schema and one outbox, on [`Names::table`]. Nothing is made
    /// yet.
    ///
    /// # Errors
    /// When a client refuses its configuration.
    pub fn new(
        names: Names,
        config: Config,
        outbox: OutboxConfig,
        partitions: i32,
    ) -> Result<Workspace, BenchError> {
        let kafka = KafkaClient::new(&config.kafka);
        let admin = PolledAdmin::new(&kafka.base(&[]), kafka.login())
            .map_err(BenchError::kafka("creating a kafka admin client"))?;
        Ok(Workspace {
            database: Database::new(&config.postgres)?,
            topics: Topics::new(&kafka)?,
            admin,
            kafka,
            names,
            config,
            outbox,
            partitions,
            made_topics: Mutex::default(),
        })
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn kafka(&self) -> &KafkaClient {
        &self.kafka
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn outbox(&self) -> &OutboxConfig {
        &self.outbox
    }

    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// A plain connection to the database.
    ///
    /// # Errors
    /// When no server can be used.
    pub async fn connect(&self) -> Result<PgConnection, DbError> {
        self.database.connect_direct("bench").await
    }

    /// Makes the schema anew and a new topic; what the last stage had is gone.
    ///
    /// # Errors
    /// Whatever Postgres or Kafka says.
    pub async fn stage(&self) -> Result<Stage, BenchError> {
        let mut connection = self.connect().await?;
        drop_schema(&mut connection, &self.names.schema).await?;
        self.delete_topics().await?;
        let plan = Plan {
            schema: self.names.schema.clone(),
            outboxes: vec![PlannedOutbox {
                table: self.outbox.table.clone(),
                notify: self.outbox.notify,
                foreign: None,
            }],
            ..Plan::default()
        };
        plan.apply(&mut connection).await?;
        let topic = self.make_topic().await?;
        let mut outbox = self.outbox.clone();
        outbox.templates.topic = literal(&topic);
        let mut config = self.config.clone();
        config.outboxes = [(outbox.name.clone(), outbox.clone())].into();
        Ok(Stage {
            table: BenchTable::new(&outbox.table, &self.names.schema),
            aside_upto: i64::MIN,
            config,
            outbox,
            topic,
            connection,
        })
    }

    /// Removes everything that was made, in the database and in Kafka, whatever fails first.
    ///
    /// # Errors
    /// What could not be removed, and why.
    pub async fn clear(&self) -> Result<(), BenchError> {
        let schema = async {
            let mut connection = self.connect().await?;
            drop_schema(&mut connection, &self.names.schema).await
        };
        let (schema, topics) = tokio::join!(schema, self.delete_topics());
        schema?;
        topics
    }

    /// What [`Workspace::clear`] would remove, for whoever wants to look at it.
    pub fn made(&self) -> (&str, Vec<String>) {
        (&self.names.schema, self.topics_made().clone())
    }

    /// A Vec of names is whole at any moment, whoever panicked.
    fn topics_made(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.made_topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn make_topic(&self) -> Result<String, BenchError> {
        let name = format!("{}-{:04x}", self.names.topic_prefix, fastrand::u16(..));
        // Before it is made, so that an interruption finds it.
        self.topics_made().push(name.clone());
        let replication = i32::from(self.config.kafka.create_topics.replication.get());
        let topic = NewTopic::new(&name, self.partitions, TopicReplication::Fixed(replication));
        let options = admin_options();
        let action = format!("creating topic \"{name}\"");
        let results = self
            .admin
            .create_topics([&topic], &options)
            .await
            .map_err(BenchError::kafka(action.clone()))?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(BenchError::kafka(action)(
                rdkafka::error::KafkaError::AdminOp(code),
            ));
        }
        let deadline = Instant::now() + TOPIC_DEADLINE;
        while !matches!(
            self.topics.ensure(&name, REQUEST_TIMEOUT).await?,
            TopicStatus::Ready { .. }
        ) {
            if Instant::now() > deadline {
                return Err(BenchError::Stalled {
                    awaited: format!("the leaders of topic \"{name}\""),
                    seconds: TOPIC_DEADLINE.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(name)
    }

    async fn delete_topics(&self) -> Result<(), BenchError> {
        let names = self.topics_made().clone();
        if names.is_empty() {
            return Ok(());
        }
        let topics: Vec<&str> = names.iter().map(String::as_str).collect();
        let options = admin_options();
        let action = format!("deleting the topics {}", topics.join(", "));
        let results = self
            .admin
            .delete_topics(&topics, &options)
            .await
            .map_err(BenchError::kafka(action.clone()))?;
        let unknown = rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition;
        for result in results {
            match result {
                Err((_, code)) if code != unknown => {
                    return Err(BenchError::kafka(action)(
                        rdkafka::error::KafkaError::AdminOp(code),
                    ));
                }
                // One that was never made is as good as deleted.
                Ok(_) | Err(_) => {}
            }
        }
        self.topics_made().retain(|made| !names.contains(made));
        Ok(())
    }
}

/// Both the broker's time for the work and ours for its answer.
fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(ADMIN_TIMEOUT))
        .request_timeout(Some(ADMIN_TIMEOUT + Duration::from_secs(5)))
}

/// The names are of letters, digits and hyphens, which is what a template takes literally.
fn literal(topic: &str) -> TopicTemplate {
    TopicTemplate::literal(topic).unwrap_or_else(|rule| unreachable!("topic {topic:?}: {rule}"))
}
