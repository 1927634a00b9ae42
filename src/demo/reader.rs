//! The consumer of the demo: reads the topics from where they ended when it began.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use uuid::Uuid;

use super::SharedBooks;
use super::books::Received;
use super::shop::RUN_HEADER;
use crate::config::KafkaConfig;
use crate::envelope::header;
use crate::kafka::{KafkaClient, REQUEST_TIMEOUT, TopicStatus, Topics};

/// How long a cluster may take to have the topics ready.
const TOPICS_PATIENCE: Duration = Duration::from_secs(15);

/// How often waiting is checked.
const POLL: Duration = Duration::from_millis(50);

/// Every partition that is read, and the offset that comes next.
type Ends = HashMap<(String, i32), i64>;

/// Reads the topics into the books.
pub struct Reader {
    consumer: StreamConsumer,
    books: SharedBooks,
    run: String,
    positions: Positions,
}

/// How far the reader is.
#[derive(Debug, Clone)]
pub struct Positions {
    config: ClientConfig,
    topics: Vec<String>,
    next: Arc<Mutex<Ends>>,
}

/// Waits until the topics exist, and asks for those that do not: as the relay itself does.
///
/// # Errors
/// When the cluster does not answer, refuses, or takes too long.
pub async fn topics_ready(config: &KafkaConfig, topics: &[String]) -> anyhow::Result<()> {
    let cluster = Topics::new(&KafkaClient::new(config))?.without_rules();
    let deadline = Instant::now() + TOPICS_PATIENCE;
    for topic in topics {
        while let TopicStatus::Unusable(reason) = cluster
            .ensure(topic, REQUEST_TIMEOUT)
            .await
            .with_context(|| format!("reaching Kafka at {}", config.bootstrap_servers))?
        {
            anyhow::ensure!(
                Instant::now() < deadline,
                "the topic {topic} is not usable: {reason}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

impl Reader {
    /// Stands at the end of the topics: what comes later is read.
    ///
    /// # Errors
    /// When the cluster does not say where the topics end.
    pub async fn new(
        config: &KafkaConfig,
        topics: &[String],
        run: Uuid,
        books: SharedBooks,
    ) -> anyhow::Result<Reader> {
        let mut client = ClientConfig::new();
        for (name, value) in config.properties.expose() {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", config.bootstrap_servers.to_string())
            .set("client.id", "outboxd-demo")
            // Partitions are assigned by hand and nothing is committed: the name joins no group.
            .set("group.id", "outboxd-demo")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            // The Kafka in this process answers an empty fetch only after this time, whatever arrives
            // meanwhile; a real one answers at once when something does.
            .set("fetch.wait.max.ms", "5");
        let mut positions = Positions {
            config: client,
            topics: topics.to_vec(),
            next: Arc::default(),
        };
        let ends = positions.ends().await?;
        let mut assignment = TopicPartitionList::new();
        for ((topic, partition), end) in &ends {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*end))?;
        }
        let consumer: StreamConsumer = positions.config.create()?;
        consumer.assign(&assignment)?;
        positions.next = Arc::new(Mutex::new(ends));
        Ok(Reader {
            consumer,
            books,
            run: run.to_string(),
            positions,
        })
    }

    pub fn positions(&self) -> Positions {
        self.positions.clone()
    }

    /// Reads until it is dropped. Outages pass: librdkafka connects again by itself.
    pub async fn run(self) {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let now = Instant::now();
                    self.books.lock().received(self.received(&message), now);
                    self.positions.passed(&message);
                }
                Err(error) => {
                    tracing::debug!(error = %error, "reading the topics of the demo");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    fn received(&self, message: &BorrowedMessage<'_>) -> Received {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let header = |name: &str| {
            let mut headers = message.headers()?.iter();
            let header = headers.find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(header.value?).into_owned())
        };
        Received {
            event_id: header(header::EVENT_ID).and_then(|id| id.parse().ok()),
            is_sample: header(RUN_HEADER).is_some_and(|run| run == self.run),
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            value: text(message.payload()),
        }
    }
}

impl Positions {
    fn passed(&self, message: &BorrowedMessage<'_>) {
        let at = (message.topic().to_owned(), message.partition());
        self.lock().insert(at, message.offset() + 1);
    }

    /// Waits until everything that is in the topics now has been read, at most until `deadline`.
    ///
    /// # Errors
    /// When the cluster does not say where the topics end.
    pub async fn reach_the_end(&self, deadline: Instant) -> anyhow::Result<()> {
        let ends = self.ends().await?;
        let is_behind = |ends: &Ends| {
            let next = self.lock();
            ends.iter().any(|(at, end)| next.get(at) < Some(end))
        };
        while is_behind(&ends) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn ends(&self) -> anyhow::Result<Ends> {
        let (config, topics) = (self.config.clone(), self.topics.clone());
        // A question blocks, so it is asked on a thread where that is allowed.
        tokio::task::spawn_blocking(move || {
            let client: BaseConsumer = config.create()?;
            let mut ends = Ends::new();
            for topic in topics {
                let metadata = client.fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                let partitions = found.map(|found| found.partitions()).unwrap_or_default();
                for partition in partitions {
                    let id = partition.id();
                    let (_, end) = client.fetch_watermarks(&topic, id, REQUEST_TIMEOUT)?;
                    ends.insert((topic.clone(), id), end);
                }
            }
            anyhow::Ok(ends)
        })
        .await
        .context("asking for the ends of the topics")?
        .context("asking for the ends of the topics")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ends> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
