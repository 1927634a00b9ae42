//! Kafka as the scenario sees it: how much has arrived, and in the end all of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use uuid::Uuid;

use super::plan::AGGREGATE_TYPES;
use crate::support::services::{self, alter_topic};

/// Partitions of each topic.
const PARTITIONS: i32 = 3;

/// Bounds a hang of a broker that just came back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the topic.
    pub topic: usize,
    pub partition: i32,
    pub offset: i64,
}

/// One record, as much of it as the verdict needs.
#[derive(Debug, Clone)]
pub struct Record {
    pub place: Place,
    /// The header `event-id`.
    pub event_id: Option<Uuid>,
    pub key: String,
    /// Of key, headers, value and timestamp: equal for copies that are the same byte for byte.
    pub digest: u64,
    pub value: Vec<u8>,
}

/// The end of every partition at one moment.
pub type Ends = BTreeMap<(usize, i32), i64>;

/// The topics of one scenario.
#[derive(Clone)]
pub struct Topics {
    names: Vec<String>,
    bootstrap: String,
    consumer: Arc<BaseConsumer>,
}

impl Topics {
    /// Makes a topic of each aggregate type: `prefix-order` and so on.
    pub async fn create(bootstrap: &str, prefix: &str) -> Topics {
        let names: Vec<String> = AGGREGATE_TYPES
            .iter()
            .map(|aggregate_type| format!("{prefix}-{aggregate_type}"))
            .collect();
        for name in &names {
            services::create_topic(bootstrap, name, PARTITIONS, &[]).await;
        }
        Topics {
            names,
            bootstrap: bootstrap.to_owned(),
            consumer: Arc::new(consumer(bootstrap)),
        }
    }

    pub fn name(&self, topic: usize) -> &str {
        &self.names[topic]
    }

    /// The end of every partition now.
    pub async fn ends(&self) -> Ends {
        let topics = self.clone();
        tokio::task::spawn_blocking(move || topics.ends_now())
            .await
            .expect("asking for the ends of partitions")
    }

    fn ends_now(&self) -> Ends {
        self.partitions()
            .map(|(topic, partition)| {
                let end = self.end(&self.names[topic], partition);
                ((topic, partition), end)
            })
            .collect()
    }

    fn end(&self, topic: &str, partition: i32) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        let mut fresh = None;
        loop {
            let client = fresh.as_ref().unwrap_or(&*self.consumer);
            match client.fetch_watermarks(topic, partition, Duration::from_secs(5)) {
                Ok((_, end)) => return end,
                Err(error) => assert!(Instant::now() < deadline, "the end of {topic}: {error}"),
            }
            // A client goes on for minutes with what a broker on its way up has told it ("unknown
            // partition", answered from its own memory for a whole minute, seen once).
            fresh = Some(consumer(&self.bootstrap));
        }
    }

    /// Sets `max.message.bytes` of a topic, counted round from the first.
    pub async fn limit_records(&self, topic: usize, bytes: &str) {
        let topic = &self.names[topic % self.names.len()];
        alter_topic(&self.bootstrap, topic, "max.message.bytes", bytes).await;
    }

    /// How many records there are.
    pub async fn published(&self) -> i64 {
        self.ends().await.values().sum()
    }

    /// Calls `each` with every record, partition by partition in the order of offsets.
    pub async fn read(&self, mut each: impl FnMut(Record) + Send + 'static) {
        let topics = self.clone();
        tokio::task::spawn_blocking(move || topics.read_now(&mut each))
            .await
            .expect("reading the topics");
    }

    fn read_now(&self, each: &mut dyn FnMut(Record)) {
        let mut left = self.ends_now();
        left.retain(|_, end| *end > 0);
        let mut start = TopicPartitionList::new();
        for &(topic, partition) in left.keys() {
            start
                .add_partition_offset(&self.names[topic], partition, Offset::Beginning)
                .expect("an offset");
        }
        // The one that answers questions has no assignment to disturb.
        let consumer = consumer(&self.bootstrap);
        consumer.assign(&start).expect("assigning the partitions");
        let mut deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "records do not come: {left:?}");
            // Errors of a broker that is still coming up are not the end of the matter.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            deadline = Instant::now() + PATIENCE;
            let topic = self.names.iter().position(|name| name == message.topic());
            let topic = topic.expect("a topic of ours");
            let place = Place {
                topic,
                partition: message.partition(),
                offset: message.offset(),
            };
            if left.get(&(topic, place.partition)) == Some(&(place.offset + 1)) {
                left.remove(&(topic, place.partition));
            }
            each(record(place, &message));
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (usize, i32)> {
        (0..self.names.len()).flat_map(|topic| (0..PARTITIONS).map(move |p| (topic, p)))
    }
}

fn consumer(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "scenario")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .expect("a consumer")
}

fn record(place: Place, message: &impl Message) -> Record {
    let mut digest = DefaultHasher::new();
    message.key().hash(&mut digest);
    message.payload().hash(&mut digest);
    message.timestamp().to_millis().hash(&mut digest);
    let mut event_id = None;
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        (header.key, header.value).hash(&mut digest);
        if header.key == "event-id" {
            let text = String::from_utf8_lossy(header.value.unwrap_or_default());
            event_id = Uuid::parse_str(&text).ok();
        }
    }
    Record {
        place,
        event_id,
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        digest: digest.finish(),
        value: message.payload().unwrap_or_default().to_owned(),
    }
}
