//! What a cluster says of itself and its topics, for `outboxd check`.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::{
    Causes, KafkaClient, KafkaSetupError, Login, REQUEST_TIMEOUT, TopicRetention, TopicRules,
    forward_log, retention,
};

/// How long the events are taken in that tell why.
const EVENTS: Duration = Duration::from_millis(100);

/// Asked about where no topic is known: without a name the answer lists every topic of the cluster.
const ANY_TOPIC: &str = "__consumer_offsets";

/// What the cluster says.
#[derive(Debug)]
pub struct Cluster {
    pub brokers: usize,
    /// The error is why the topic cannot be used.
    pub topics: BTreeMap<String, Result<TopicFacts, RDKafkaErrorCode>>,
}

/// A topic that exists.
#[derive(Debug, Clone)]
pub struct TopicFacts {
    /// Of the partition that has the fewest.
    pub replicas: usize,
    /// The same of replicas that are in sync now.
    pub in_sync: usize,
    /// The error is why it cannot be read.
    pub config: Result<TopicConfig, String>,
}

/// A topic's configuration, the brokers' defaults included.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    pub rules: TopicRules,
    /// The broker keeps the timestamps of messages.
    pub keeps_timestamps: bool,
    /// Bounds of timestamps are known to the broker, which they are from Kafka 3.6 on.
    pub has_timestamp_bounds: bool,
    /// Records are removed by age.
    pub deletes: bool,
    pub retention: Option<TopicRetention>,
    pub min_in_sync: Option<usize>,
    /// A replica that lags may become leader.
    pub elects_unclean: bool,
}

impl TopicConfig {
    /// Nothing if the brokers do not let us see it.
    fn read(topic: &ConfigResource) -> Option<TopicConfig> {
        let value = |name| topic.get(name)?.value.as_deref();
        let policy = value("cleanup.policy").unwrap_or_default();
        Some(TopicConfig {
            rules: TopicRules::read(topic)?,
            keeps_timestamps: value("message.timestamp.type") != Some("LogAppendTime"),
            has_timestamp_bounds: value("message.timestamp.after.max.ms").is_some(),
            deletes: policy.split(',').any(|policy| policy == "delete"),
            retention: retention::read(topic),
            min_in_sync: value("min.insync.replicas").and_then(|count| count.parse().ok()),
            elects_unclean: value("unclean.leader.election.enable") == Some("true"),
        })
    }
}

/// Asks, and changes nothing.
pub struct Describer {
    admin: Arc<AdminClient<Login>>,
    login: Login,
    /// An admin client tells nobody why it cannot connect; this one is polled.
    asker: Arc<Asker>,
}

/// Of each topic its fewest replicas and fewest in sync, or why it cannot be used.
type Found = BTreeMap<String, Result<(usize, usize), RDKafkaErrorCode>>;

/// Keeps what the client last said went wrong: the errors of its questions only say that nobody answered.
struct Context {
    causes: Causes,
    login: Login,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.causes.take_in(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl Describer {
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(client: &KafkaClient) -> Result<Describer, KafkaSetupError> {
        let (config, login) = (client.base(&[]), client.login());
        let admin = config.create_with_context(login.clone());
        let asker = config.create_with_context(Context {
            causes: Causes::new(&config),
            login: login.clone(),
        });
        Ok(Describer {
            admin: Arc::new(admin.map_err(KafkaSetupError::create(&config))?),
            login: login.clone(),
            asker: Arc::new(Asker(asker.map_err(KafkaSetupError::create(&config))?)),
        })
    }

    /// Asks for these topics, one after the other.
    ///
    /// # Errors
    /// When the cluster does not answer a question within 5 s. Cancel-safe: the questions end by themselves.
    pub async fn ask(&self, topics: Vec<String>) -> Result<Cluster, KafkaSetupError> {
        let (asker, admin) = (Arc::clone(&self.asker), Arc::clone(&self.admin));
        let login = self.login.clone();
        let asked = tokio::task::spawn_blocking(move || {
            login.prepare(admin.inner())?;
            login.prepare(asker.0.client())?;
            asker.ask_all(topics)
        });
        let (brokers, found) = asked.await.unwrap_or_else(|panic| {
            let reason = panic.to_string();
            Err(KafkaSetupError::Unreachable { reason })
        })?;
        let usable = found.iter().filter(|(_, replicas)| replicas.is_ok());
        let mut configs = self.configs(usable.map(|(name, _)| name.as_str())).await;
        let topics = found.into_iter().map(|(name, replicas)| {
            let facts = replicas.map(|(replicas, in_sync)| TopicFacts {
                replicas,
                in_sync,
                config: configs
                    .remove(&name)
                    .unwrap_or_else(|| Err("no answer".to_owned())),
            });
            (name, facts)
        });
        Ok(Cluster {
            brokers,
            topics: topics.collect(),
        })
    }

    async fn configs(
        &self,
        topics: impl Iterator<Item = &str>,
    ) -> BTreeMap<String, Result<TopicConfig, String>> {
        let names: Vec<&str> = topics.collect();
        if names.is_empty() {
            return BTreeMap::new();
        }
        let resources: Vec<_> = names
            .iter()
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let described = self.admin.describe_configs(&resources, &options).await;
        let named = |name: &&str| (*name).to_owned();
        match described {
            Ok(described) => {
                let configs = described.into_iter().map(|resource| match resource {
                    Ok(resource) => {
                        let unseen = || RDKafkaErrorCode::TopicAuthorizationFailed.to_string();
                        TopicConfig::read(&resource).ok_or_else(unseen)
                    }
                    Err(code) => Err(code.to_string()),
                });
                names.iter().map(named).zip(configs).collect()
            }
            Err(error) => {
                let failed = |name| (named(name), Err(error.to_string()));
                names.iter().map(failed).collect()
            }
        }
    }
}

/// Blocks its thread while it waits for answers.
struct Asker(BaseProducer<Context>);

impl Asker {
    /// How many brokers there are, and the replicas of each topic.
    fn ask_all(&self, topics: Vec<String>) -> Result<(usize, Found), KafkaSetupError> {
        let brokers = self.ask(ANY_TOPIC)?.brokers().len();
        let found = topics.into_iter().map(|name| {
            let replicas = replicas(&self.ask(&name)?, &name);
            Ok((name, replicas))
        });
        Ok((brokers, found.collect::<Result<_, _>>()?))
    }

    fn ask(&self, topic: &str) -> Result<Metadata, KafkaSetupError> {
        let answer = self.0.client().fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        answer.map_err(|error| {
            // Has the client tell what happened meanwhile.
            self.0.poll(EVENTS);
            let last = self.0.context().causes.find();
            let reason = last.unwrap_or_else(|| error.to_string());
            KafkaSetupError::Unreachable { reason }
        })
    }
}

/// The fewest replicas of a partition, and the fewest in sync.
fn replicas(metadata: &Metadata, name: &str) -> Result<(usize, usize), RDKafkaErrorCode> {
    let mut topics = metadata.topics().iter();
    let topic = topics.find(|found| found.name() == name);
    let topic: &MetadataTopic = topic.ok_or(RDKafkaErrorCode::UnknownTopic)?;
    if let Some(error) = topic.error() {
        return Err(error.into());
    }
    let partitions = topic.partitions().iter();
    let counts = partitions.map(|partition| (partition.replicas().len(), partition.isr().len()));
    let least = counts.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
    least.ok_or(RDKafkaErrorCode::LeaderNotAvailable)
}
