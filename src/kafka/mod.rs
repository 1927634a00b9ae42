//! Kafka: the supervised producers of a lane, what their errors mean to the librdkafka side, and the
//! topics a lane may use.

mod client;
mod polled;
mod producer;
mod topics;

pub use client::{ClusterHealth, KafkaClient};
pub use producer::{Producer, ProducerSizes, Report, Reports, SendError, Sharing};
pub use topics::{TopicStatus, Topics};

/// Why something could not be set up with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSetupError {
    #[error("creating a kafka client")]
    Create(#[source] rdkafka::error::KafkaError),
    #[error("asking for the metadata of topic \"{topic}\"")]
    Metadata {
        topic: String,
        #[source]
        source: rdkafka::error::KafkaError,
    },
    #[error("creating topic \"{topic}\": {reason}")]
    CreateTopic { topic: String, reason: String },
}
