//! What every Kafka client of the relay has in common: its properties, and where its errors go.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::causes::{Causes, News};
use super::{ClientRules, Login, tls};
use crate::config::KafkaConfig;
use crate::outage::{Outage, ServiceState};

/// librdkafka's default of `message.max.bytes` and of `batch.size`.
const DEFAULT_BYTES: usize = 1_000_000;

/// Makes clients of the configured cluster.
#[derive(Debug, Clone)]
pub struct KafkaClient {
    pub(super) config: KafkaConfig,
    pub(super) health: Arc<ClusterHealth>,
    pub(super) login: Login,
}

impl KafkaClient {
    pub fn new(config: &KafkaConfig) -> KafkaClient {
        KafkaClient {
            config: config.clone(),
            health: Arc::new(ClusterHealth {
                outage: Outage::new("kafka"),
                causes: Causes::new(&base(config, &[])),
            }),
            login: Login::new(config.oauth.as_ref(), config.properties.password()),
        }
    }

    pub fn health(&self) -> &Arc<ClusterHealth> {
        &self.health
    }

    /// How the clients log in.
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    fn property(&self, wanted: &str) -> Option<&str> {
        let mut all = self.config.properties.expose();
        all.find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    }

    fn bytes(&self, property: &str) -> usize {
        let bytes = self.property(property).and_then(|bytes| bytes.parse().ok());
        bytes.unwrap_or(DEFAULT_BYTES)
    }

    /// The bytes of a message set, at most.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.bytes("batch.size")
            .min(self.bytes("message.max.bytes"))
    }

    /// What the client itself does not take.
    pub(crate) fn rules(&self) -> ClientRules {
        let codec = self.property("compression.codec");
        let codec = codec.or(self.property("compression.type"));
        ClientRules {
            max_message_bytes: self.bytes("message.max.bytes"),
            compresses: codec.is_some_and(|codec| codec != "none"),
        }
    }

    /// The properties that all clients share: ours as defaults, then the configured ones.
    pub(crate) fn base(&self, ours: &[(&str, &str)]) -> ClientConfig {
        base(&self.config, ours)
    }
}

fn base(kafka: &KafkaConfig, ours: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "outboxd")
        // librdkafka waits up to 10 s between two attempts; a broker that is back is wanted sooner.
        .set("reconnect.backoff.max.ms", "2000");
    for (name, value) in ours {
        config.set(*name, *value);
    }
    for (name, value) in kafka.properties.expose() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", kafka.bootstrap_servers.to_string());
    config.set("allow.auto.create.topics", "false");
    tls::trust_the_system(&mut config);
    config
}

/// Whether the cluster answers, as the clients of one process see it together.
#[derive(Debug)]
pub struct ClusterHealth {
    outage: Outage,
    causes: Causes,
}

impl ClusterHealth {
    /// No broker can be reached.
    pub fn is_down(&self) -> bool {
        self.outage.is_down()
    }

    pub fn state(&self) -> ServiceState {
        self.outage.state()
    }

    /// A broker answered.
    pub(super) fn note_up(&self) {
        self.outage.note_up();
    }

    /// An error that a client reports outside of any message.
    pub(super) fn note_error(&self, error: &KafkaError, reason: &str) {
        // The reaction is the lane's, when the messages come back.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::warn!(error.reason = reason, "a kafka producer gave up");
            return;
        }
        match self.causes.take_in(error, reason) {
            News::Down(cause) => self.outage.note_down(&cause),
            News::Refused(cause) => self.outage.note_cause(&cause),
            // librdkafka makes new connections.
            News::Passing => {}
        }
    }
}
