//! Names of topics, as Kafka takes them (`org.apache.kafka.common.internals.Topic`).

use super::values::Value;

/// The longest topic name Kafka accepts, in bytes.
pub const MAX_TOPIC_BYTES: usize = 249;

/// A name that Kafka takes.
pub fn is_topic_name(name: &str) -> bool {
    let dots = name == "." || name == "..";
    (1..=MAX_TOPIC_BYTES).contains(&name.len()) && !dots && name.bytes().all(is_legal)
}

pub(super) fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// A topic by its name.
#[derive(Debug, Clone)]
pub(super) struct TopicName(pub(super) String);

impl Value for TopicName {
    fn read(text: &str) -> Result<Self, String> {
        match is_topic_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err("must be a topic of 1 to 249 of a-z A-Z 0-9 . _ -".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Topics by their names, separated by commas.
#[derive(Debug, Clone)]
pub(super) struct TopicNames(pub(super) Vec<String>);

impl Value for TopicNames {
    fn read(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().all(|name| is_topic_name(name)) {
            true => Ok(Self(names)),
            false => Err("must be topics of a-z A-Z 0-9 . _ -, separated by commas".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}
