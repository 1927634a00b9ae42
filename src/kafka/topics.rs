//! Which topics exist. librdkafka reports a missing topic only after half a minute, and by then a
//! window of rows is stuck behind it: so a lane asks before it sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::Semaphore;

use super::{
    ClusterHealth, KafkaClient, KafkaSetupError, Login, PolledAdmin, TopicRetention, TopicRules,
    topic_retention,
};
use crate::config::CreateTopicsConfig;

/// How long one question to the cluster may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions at a time: each occupies a thread.
const QUESTIONS: usize = 4;

/// Whether a topic can take messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicStatus {
    Ready {
        partitions: usize,
        /// Nothing is known to be refused if the brokers have not said in time what is.
        rules: Option<TopicRules>,
    },
    /// It cannot, for this reason; later perhaps.
    Unusable(String),
}

/// Asks for topics and, where allowed, creates them.
#[derive(Clone)]
pub struct Topics {
    admin: Arc<Admin>,
    login: Login,
    create: CreateTopicsConfig,
    health: Arc<ClusterHealth>,
    questions: Arc<Semaphore>,
    asks_rules: bool,
    /// That configurations cannot be read was said.
    has_warned: Arc<AtomicBool>,
}

/// The client that asks. Its certificates may be replaced: then there is another.
struct Admin {
    client: KafkaClient,
    current: Mutex<Arc<PolledAdmin>>,
}

impl Admin {
    fn new(client: &KafkaClient) -> Result<Admin, KafkaSetupError> {
        Ok(Admin {
            client: client.clone(),
            current: Mutex::new(Arc::new(Admin::open(client)?)),
        })
    }

    fn open(client: &KafkaClient) -> Result<PolledAdmin, KafkaSetupError> {
        let config = client.base(&[]);
        PolledAdmin::new(&config, &client.login).map_err(KafkaSetupError::create(&config))
    }

    fn current(&self) -> Arc<PolledAdmin> {
        // Replaced as a whole, whoever panicked.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_outdated()
            && let Ok(new) = Admin::open(&self.client)
        {
            let old = std::mem::replace(&mut *current, Arc::new(new));
            // Its destructor joins a thread.
            tokio::task::spawn_blocking(move || drop(old));
        }
        Arc::clone(&current)
    }
}

impl Topics {
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(client: &KafkaClient) -> Result<Topics, KafkaSetupError> {
        Ok(Topics {
            admin: Arc::new(Admin::new(client)?),
            login: client.login.clone(),
            create: client.config.create_topics.clone(),
            health: Arc::clone(&client.health),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            asks_rules: true,
            has_warned: Arc::default(),
        })
    }

    /// For a Kafka that says nothing of its topics' configuration, like the one in a process.
    pub fn without_rules(self) -> Topics {
        Topics {
            asks_rules: false,
            ..self
        }
    }

    /// Asks for the topic, and creates it if it is missing and that is allowed. If it is there, its rules are
    /// waited for as long as `rules_within`.
    ///
    /// # Errors
    /// When the cluster did not answer, which says nothing about the topic. Cancel-safe: the question
    /// ends by itself.
    pub async fn ensure(
        &self,
        topic: &str,
        rules_within: Duration,
    ) -> Result<TopicStatus, KafkaSetupError> {
        let status = self.ask(topic).await?;
        self.health.note_up();
        match status {
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
                if self.create.enabled =>
            {
                self.create(topic).await?;
                // It is usable when the brokers have its leaders; the caller asks again.
                Ok(TopicStatus::Unusable(
                    "the topic was created and is not ready yet".to_owned(),
                ))
            }
            Err(code) => Ok(TopicStatus::Unusable(code.to_string())),
            Ok(partitions) => Ok(TopicStatus::Ready {
                partitions,
                rules: self.rules(topic, rules_within).await,
            }),
        }
    }

    /// How long the topics keep their records, in the order given.
    ///
    /// # Errors
    /// As [`topic_retention`], or when one of them does not exist.
    pub async fn retention(&self, topics: &[&str]) -> Result<Vec<TopicRetention>, KafkaSetupError> {
        for topic in topics {
            use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
            // The brokers show an empty configuration of one.
            if let Err(UnknownTopic | UnknownTopicOrPartition) = self.ask(topic).await? {
                let topic = (*topic).to_owned();
                return Err(KafkaSetupError::NoTopic { topic });
            }
        }
        topic_retention(&self.admin.current(), topics).await
    }

    /// Whether a broker answers at all.
    pub async fn answers(&self) -> bool {
        let (admin, login) = (self.admin.current(), self.login.clone());
        let question = tokio::task::spawn_blocking(move || {
            // Any one name: without one the answer lists every topic of the cluster.
            login.prepare(admin.inner()).is_ok()
                && admin
                    .inner()
                    .fetch_metadata(Some("__consumer_offsets"), REQUEST_TIMEOUT)
                    .is_ok()
        });
        question.await.unwrap_or(false)
    }

    /// How many partitions the topic has, or why it cannot be used.
    async fn ask(&self, topic: &str) -> Result<Result<usize, RDKafkaErrorCode>, KafkaSetupError> {
        // Closed only with the process: then there is nobody to ask.
        let _turn = self.questions.acquire().await;
        let (admin, login) = (self.admin.current(), self.login.clone());
        let name = topic.to_owned();
        let answer = tokio::task::spawn_blocking(move || {
            login.prepare(admin.inner())?;
            let metadata = admin.inner().fetch_metadata(Some(&name), REQUEST_TIMEOUT);
            let metadata = metadata.map_err(|source| unanswered(&name, source))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else {
                return Ok(Err(RDKafkaErrorCode::UnknownTopic));
            };
            let leaderless =
                found.partitions().is_empty() || found.partitions().iter().any(|p| p.leader() < 0);
            Ok(match found.error() {
                Some(error) => Err(RDKafkaErrorCode::from(error)),
                None if leaderless => Err(RDKafkaErrorCode::LeaderNotAvailable),
                None => Ok(found.partitions().len()),
            })
        })
        .await;
        // The question panicked or the runtime is going down: as good as no answer.
        answer.unwrap_or_else(|_| Err(unanswered(topic, KafkaError::Canceled)))
    }

    /// What the topic takes, if the brokers answer in time; anything where that may not be asked.
    async fn rules(&self, topic: &str, within: Duration) -> Option<TopicRules> {
        if !self.asks_rules {
            return Some(TopicRules::default());
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let resource = [ResourceSpecifier::Topic(topic)];
        let admin = self.admin.current();
        let described = admin.describe_configs(&resource, &options);
        let described = tokio::time::timeout(within, described).await;
        let is_answered = described.is_ok();
        let reason = match described {
            Err(_) => "no answer".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(answers)) => match answers.into_iter().next() {
                Some(Ok(resource)) => match TopicRules::read(&resource) {
                    Some(rules) => return Some(rules),
                    None => "the brokers show none of it".to_owned(),
                },
                Some(Err(code)) => code.to_string(),
                None => "no answer".to_owned(),
            },
        };
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                topic.name = topic,
                error = reason,
                "a topic's configuration cannot be read, so its limits show only when kafka refuses a message \
                 (grant DescribeConfigs)"
            );
        }
        is_answered.then(TopicRules::default)
    }

    async fn create(&self, topic: &str) -> Result<(), KafkaSetupError> {
        let partitions = i32::try_from(self.create.partitions.get()).unwrap_or(i32::MAX);
        let replication = i32::from(self.create.replication.get());
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let fail = |reason: String| KafkaSetupError::CreateTopic {
            topic: topic.to_owned(),
            reason,
        };
        let admin = self.admin.current();
        let results = admin
            .create_topics([&new], &options)
            .await
            .map_err(|error| fail(error.to_string()))?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(fail(code.to_string()))
            }
            _ => {
                tracing::info!(
                    topic.name = topic,
                    topic.partitions = partitions,
                    "created the topic"
                );
                Ok(())
            }
        }
    }
}

fn unanswered(topic: &str, source: KafkaError) -> KafkaSetupError {
    KafkaSetupError::Metadata {
        topic: topic.to_owned(),
        source,
    }
}
