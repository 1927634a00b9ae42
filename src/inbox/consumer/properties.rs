//! librdkafka's properties, as the application gave them and as the promise needs them.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use crate::kafka::trust_the_system;

/// The consumer's properties that the promise depends on.
const FIXED: [(&str, &str); 3] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "false"),
];

/// The beginnings of properties that only a consumer has.
const CONSUMER_ONLY: [&str; 11] = [
    "auto.offset",
    "enable.auto",
    "enable.partition",
    "fetch.",
    "group.",
    "heartbeat.",
    "isolation.",
    "max.poll",
    "partition.assignment",
    "queued.",
    "session.",
];

/// A property that a consumer cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka property {name}: must be {rule}, is \"{value}\"")]
pub struct PropertyError {
    pub name: &'static str,
    pub rule: &'static str,
    pub value: String,
}

/// What the application gave.
#[derive(Debug, Default)]
pub(super) struct Properties(pub(super) BTreeMap<String, String>);

impl Properties {
    /// librdkafka takes some properties that the runtime cannot do without only with others.
    pub(super) fn check(&self) -> Result<(), PropertyError> {
        let name = "group.protocol";
        match self.0.get(name) {
            Some(value) if !value.eq_ignore_ascii_case("classic") => Err(PropertyError {
                name,
                rule: "\"classic\", since the consumer takes part in assigning partitions",
                value: value.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the client logs in with tokens.
    pub(super) fn need_tokens(&self) -> bool {
        let mut names = ["sasl.mechanism", "sasl.mechanisms"].iter();
        names.any(|name| {
            self.0
                .get(*name)
                .is_some_and(|value| value == "OAUTHBEARER")
        })
    }

    /// The properties of any client.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "outboxd-inbox")
            // librdkafka waits up to 10 s between two attempts; a broker that is back is wanted sooner.
            .set("reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.0 {
            if !CONSUMER_ONLY.iter().any(|only| name.starts_with(only)) {
                config.set(name, value);
            }
        }
        trust_the_system(&mut config);
        config
    }

    pub(super) fn consumer(&self, name: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", name)
            // An event is never too old for a new consumer.
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // What a pause throws away and a resume fetches again.
            .set("queued.max.messages.kbytes", "16384")
            // For the lag.
            .set("statistics.interval.ms", "5000");
        for (name, value) in &self.0 {
            config.set(name, value);
        }
        for (name, value) in FIXED {
            config.set(name, value);
        }
        config
    }
}
