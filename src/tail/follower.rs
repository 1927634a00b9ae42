//! Reads topics from their ends on, without a group: whoever watches is nobody's consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::topics::Wanted;
use crate::inbox::consumer::Record;
use crate::kafka::{KafkaClient, Login, REQUEST_TIMEOUT};

/// How often it is asked for topics that are new.
const REFRESH: Duration = Duration::from_secs(2);

/// A partition.
type Place = (String, i32);

/// See the module's documentation.
pub struct Follower {
    config: ClientConfig,
    login: Login,
    wanted: Arc<Wanted>,
    consumer: StreamConsumer<Login>,
    names: BTreeMap<String, Arc<str>>,
    places: BTreeSet<Place>,
    refresh: tokio::time::Interval,
    is_down: bool,
}

/// What happens next.
#[derive(Debug)]
pub enum Next {
    Record(Record),
    /// More topics are followed from now on, from their beginnings.
    Topics(Vec<String>),
    /// No broker answers; reading goes on when one does.
    Down,
}

impl Follower {
    /// Stands at the end of the topics: what is published from now on is read.
    ///
    /// # Errors
    /// When the cluster does not say which topics there are and where they end.
    pub async fn at_the_end(client: &KafkaClient, wanted: Wanted) -> Result<Follower, KafkaError> {
        let mut config = client.base(&[]);
        config
            // Partitions are assigned by hand and nothing is committed; librdkafka asks for a name all the same.
            .set("group.id", "outboxd-tail")
            .set("enable.auto.commit", "false");
        let wanted = Arc::new(wanted);
        let login = client.login();
        let ends = ask(&config, login, &wanted, |client, place| {
            let (_, end) = client.fetch_watermarks(&place.0, place.1, REQUEST_TIMEOUT)?;
            Ok(Offset::Offset(end))
        });
        let ends = ends.await?;
        let consumer: StreamConsumer<Login> = config.create_with_context(login.clone())?;
        consumer.assign(&list(&ends)?)?;
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Follower {
            config,
            login: login.clone(),
            wanted,
            consumer,
            names: BTreeMap::new(),
            places: ends.into_keys().collect(),
            refresh,
            is_down: false,
        })
    }

    /// The topics that are followed.
    pub fn topics(&self) -> BTreeSet<&str> {
        let topics = self.places.iter();
        topics.map(|(topic, _)| topic.as_str()).collect()
    }

    /// Waits for what happens next.
    ///
    /// # Errors
    /// When librdkafka refuses to read a new topic.
    pub async fn next(&mut self) -> Result<Next, KafkaError> {
        loop {
            tokio::select! {
                biased;
                // 1. Time to look for topics. A tick keeps its beat.
                _ = self.refresh.tick() => {
                    let new = self.look_for_more().await?;
                    if !new.is_empty() {
                        return Ok(Next::Topics(new));
                    }
                }
                // 2. A message. `recv` loses none.
                received = self.consumer.recv() => match received {
                    Ok(message) => {
                        let topic = message.topic();
                        let name = self.names.entry(topic.to_owned());
                        let name = Arc::clone(name.or_insert_with(|| topic.into()));
                        self.is_down = false;
                        return Ok(Next::Record(Record::of(name, &message)));
                    }
                    Err(error) => {
                        let is_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
                        if is_down && !std::mem::replace(&mut self.is_down, true) {
                            return Ok(Next::Down);
                        }
                    }
                },
            }
        }
    }

    /// Topics and partitions that were made meanwhile: they are read from their beginning.
    async fn look_for_more(&mut self) -> Result<Vec<String>, KafkaError> {
        let Ok(found) = ask(&self.config, &self.login, &self.wanted, |_, _| {
            Ok(Offset::Beginning)
        })
        .await
        else {
            // It is asked again.
            return Ok(Vec::new());
        };
        let is_new = |place: &Place| !self.places.contains(place);
        let new: BTreeMap<Place, Offset> = found.into_iter().filter(|(p, _)| is_new(p)).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.consumer.incremental_assign(&list(&new)?)?;
        self.places.extend(new.keys().cloned());
        let mut topics: Vec<String> = new.into_keys().map(|(topic, _)| topic).collect();
        topics.dedup();
        Ok(topics)
    }
}

/// Asks which partitions there are of the topics that are wanted, and of each where to begin.
async fn ask(
    config: &ClientConfig,
    login: &Login,
    wanted: &Arc<Wanted>,
    start: fn(&BaseConsumer, &Place) -> Result<Offset, KafkaError>,
) -> Result<BTreeMap<Place, Offset>, KafkaError> {
    let (config, login, wanted) = (config.clone(), login.clone(), Arc::clone(wanted));
    // Questions block, so they are asked on a thread where that is allowed.
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = config.create()?;
        login
            .prepare(client.client())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT)?;
        let topics = metadata.topics().iter();
        let mut starts = BTreeMap::new();
        for topic in topics.filter(|topic| wanted.includes(topic.name())) {
            for partition in topic.partitions() {
                let place = (topic.name().to_owned(), partition.id());
                let start = start(&client, &place)?;
                starts.insert(place, start);
            }
        }
        Ok(starts)
    });
    // The question panicked, or the runtime is going down.
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

fn list(starts: &BTreeMap<Place, Offset>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), start) in starts {
        list.add_partition_offset(topic, *partition, *start)?;
    }
    Ok(list)
}
