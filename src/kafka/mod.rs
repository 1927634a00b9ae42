//! Kafka: the supervised producers of a lane, what their errors mean to the librdkafka side, and the
//! topics a lane may use.

mod admin;
mod causes;
#[cfg(feature = "relay")]
mod client;
#[cfg(feature = "relay")]
mod describe;
mod log;
mod login;
#[cfg(feature = "relay")]
mod polled;
#[cfg(feature = "relay")]
mod producer;
mod retention;
#[cfg(feature = "relay")]
mod rules;
mod tls;
mod token_endpoint;
mod tokens;
#[cfg(feature = "relay")]
mod topics;
mod upkeep;
mod verdict;

pub(crate) use admin::PolledAdmin;
pub(crate) use causes::{Causes, News};
#[cfg(feature = "relay")]
pub use client::{ClusterHealth, KafkaClient};
#[cfg(feature = "relay")]
pub use describe::{Cluster, Describer, TopicConfig, TopicFacts};
pub(crate) use log::forward_log;
pub(crate) use login::Login;
#[cfg(feature = "relay")]
pub use producer::{Producer, ProducerSizes, Report, Reports, SendError, Sharing};
pub use retention::{TopicRetention, topic_retention};
#[cfg(feature = "relay")]
pub use rules::{ClientRules, TopicRules};
pub(crate) use tls::trust_the_system;
#[cfg(feature = "relay")]
pub use topics::{REQUEST_TIMEOUT, TopicStatus, Topics};

/// Why something could not be set up with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSetupError {
    #[error("creating a kafka client: {reason}")]
    Create { reason: String },
    #[error("asking for the metadata of topic \"{topic}\"")]
    Metadata {
        topic: String,
        #[source]
        source: rdkafka::error::KafkaError,
    },
    #[error("{reason}")]
    Unreachable { reason: String },
    #[error("creating topic \"{topic}\": {reason}")]
    CreateTopic { topic: String, reason: String },
    #[error("topic \"{topic}\" does not exist")]
    NoTopic { topic: String },
    #[error("asking how long topics keep their records ({topics}): {reason}")]
    Retention { topics: String, reason: String },
}

impl KafkaSetupError {
    /// librdkafka refuses what a client is to be made of.
    #[cfg(feature = "relay")]
    fn create(
        config: &rdkafka::ClientConfig,
    ) -> impl Fn(rdkafka::error::KafkaError) -> KafkaSetupError {
        |error| KafkaSetupError::Create {
            reason: tls::refusal(config, &error),
        }
    }
}
