//! The least that each principal needs of a Kafka with authorization. Nothing is asked of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::{Config, Segment, TopicTemplate};

/// What a principal is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// As Kafka has it: `User:outboxd`.
    pub principal: String,
    pub resource: Resource,
    /// As Kafka names them.
    pub operations: BTreeSet<&'static str>,
}

/// What it is allowed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// One topic, or `*` for all.
    Topic(String),
    /// All topics whose names begin so.
    TopicsFrom(String),
    Group(String),
}

impl Resource {
    /// The kind, name and pattern, as Kafka has them.
    pub fn parts(&self) -> (&'static str, &str, &'static str) {
        match self {
            Resource::Topic(name) => ("topic", name, "literal"),
            Resource::TopicsFrom(prefix) => ("topic", prefix, "prefixed"),
            Resource::Group(name) => ("group", name, "literal"),
        }
    }
}

/// A command for Kafka's own tool, but for the address and credentials of an administrator.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let (kind, name, pattern) = self.resource.parts();
        let principal = quoted(&self.principal);
        write!(f, "kafka-acls.sh --add --allow-principal {principal}")?;
        for operation in &self.operations {
            write!(f, " --operation {operation}")?;
        }
        write!(f, " --{kind} {}", quoted(name))?;
        match pattern {
            "literal" => Ok(()),
            pattern => write!(f, " --resource-pattern-type {pattern}"),
        }
    }
}

/// The relay's: it publishes, asks what its topics take, and makes them where that is allowed.
pub fn of_relay(config: &Config, principal: &str) -> Vec<Acl> {
    let mut acls = Acls::of(principal);
    let create = config.kafka.create_topics.enabled.then_some("Create");
    let outboxes = config.outboxes.values();
    let letters = outboxes.filter_map(|outbox| outbox.dead_letter_topic.clone());
    let written = topics(config)
        .into_iter()
        .chain(letters.map(Resource::Topic));
    for topic in without_covered(written.collect()) {
        // Write brings Describe. An idempotent producer needs no more, from Kafka 2.8 on.
        let operations = ["Write", "DescribeConfigs"].into_iter().chain(create);
        acls.allow(topic, operations);
    }
    acls.finish()
}

/// A consumer's, as the consumer runtime is: it reads in a group, and makes and writes its dead-letter topic.
pub fn of_consumer(config: &Config, consumer: &str, principal: &str) -> Vec<Acl> {
    let mut acls = Acls::of(principal);
    for topic in consumed(config) {
        acls.allow(topic, ["Read"]);
    }
    acls.allow(Resource::Group(consumer.to_owned()), ["Read"]);
    acls.allow(dead_letters(consumer), ["Create", "Write"]);
    acls.finish()
}

/// Those of whoever runs `outboxd inbox`: reads a consumer's dead letters and sends them back.
pub fn of_maintenance(config: &Config, consumer: &str, principal: &str) -> Vec<Acl> {
    let mut acls = Acls::of(principal);
    for topic in consumed(config) {
        acls.allow(topic, ["Write", "DescribeConfigs"]);
    }
    acls.allow(dead_letters(consumer), ["Read"]);
    acls.finish()
}

fn dead_letters(consumer: &str) -> Resource {
    Resource::Topic(format!("{consumer}-dead-letters"))
}

/// The operations of one principal by resource.
struct Acls {
    principal: String,
    operations: BTreeMap<Resource, BTreeSet<&'static str>>,
}

impl Acls {
    fn of(principal: &str) -> Acls {
        Acls {
            principal: principal.to_owned(),
            operations: BTreeMap::new(),
        }
    }

    fn allow(&mut self, resource: Resource, operations: impl IntoIterator<Item = &'static str>) {
        self.operations
            .entry(resource)
            .or_default()
            .extend(operations);
    }

    fn finish(self) -> Vec<Acl> {
        let operations = self.operations.into_iter();
        let acl = |(resource, operations)| Acl {
            principal: self.principal.clone(),
            resource,
            operations,
        };
        operations.map(acl).collect()
    }
}

/// Where the outboxes' events go, as far as the configuration says. The rows' own topics are not known.
fn topics(config: &Config) -> BTreeSet<Resource> {
    let outboxes = config.outboxes.values();
    let templates = outboxes.flat_map(|outbox| {
        let templates = &outbox.templates;
        std::iter::once(&templates.topic).chain(templates.topics.values())
    });
    without_covered(templates.map(resource).collect())
}

/// All topics are all topics.
fn without_covered(topics: BTreeSet<Resource>) -> BTreeSet<Resource> {
    let all = Resource::Topic("*".to_owned());
    match topics.contains(&all) {
        true => BTreeSet::from([all]),
        false => topics,
    }
}

/// What consumers read: `inbox.topics`, or else everything.
fn consumed(config: &Config) -> BTreeSet<Resource> {
    let named = config.inbox.topics.iter().cloned().map(Resource::Topic);
    match config.inbox.topics.is_empty() {
        true => topics(config),
        false => named.collect(),
    }
}

/// Kafka knows names and their beginnings, nothing else.
fn resource(template: &TopicTemplate) -> Resource {
    let mut beginning = String::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => beginning.push_str(text),
            Segment::Field(_) | Segment::Other { .. } if beginning.is_empty() => {
                return Resource::Topic("*".to_owned());
            }
            Segment::Field(_) | Segment::Other { .. } => return Resource::TopicsFrom(beginning),
        }
    }
    Resource::Topic(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(options: &[(&str, &str)]) -> Config {
        let needed = [
            ("postgres.url", "postgres://localhost/shop"),
            ("kafka.bootstrap_servers", "localhost:9092"),
        ];
        let all = needed.iter().chain(options);
        Config::load(Sources {
            file: None,
            environment: std::iter::empty(),
            overrides: all
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        })
        .expect("a valid configuration")
    }

    fn lines(acls: &[Acl]) -> Vec<String> {
        let command = "kafka-acls.sh --add --allow-principal 'User:x' ";
        let line = |acl: &Acl| acl.to_string().strip_prefix(command).map(str::to_owned);
        acls.iter().filter_map(line).collect()
    }

    #[test]
    fn a_template_is_allowed_as_far_as_kafka_can_say_it() {
        let options = [
            ("outbox.a.topic", "orders"),
            ("outbox.a.table", "a"),
            ("outbox.a.dead_letter_topic", "letters"),
            ("outbox.b.topic", "shop.{aggregate_type}-events"),
            ("outbox.b.topics.x", "archive"),
        ];
        let publish = "--operation DescribeConfigs --operation Write --topic";
        assert_eq!(
            lines(&of_relay(&config(&options), "User:x")),
            [
                format!("{publish} 'archive'"),
                format!("{publish} 'letters'"),
                format!("{publish} 'orders'"),
                format!("{publish} 'shop.' --resource-pattern-type prefixed"),
            ]
        );
        // The default names the end alone.
        let all = [&options[..], &[("outbox.c.table", "c")]].concat();
        assert_eq!(
            lines(&of_relay(&config(&all), "User:x")),
            [format!("{publish} '*'")]
        );
    }

    #[test]
    fn topics_are_made_only_by_who_is_told_to() {
        let create = ("kafka.create_topics.enabled", "true");
        let acls = of_relay(&config(&[create]), "User:x");
        let create = "--operation Create --operation DescribeConfigs --operation Write --topic '*'";
        assert_eq!(lines(&acls), [create]);
    }

    #[test]
    fn a_consumer_reads_its_topics_and_writes_its_dead_letters() {
        let config = config(&[("inbox.topics", "orders")]);
        assert_eq!(
            lines(&of_consumer(&config, "billing", "User:x")),
            [
                "--operation Create --operation Write --topic 'billing-dead-letters'",
                "--operation Read --topic 'orders'",
                "--operation Read --group 'billing'",
            ]
        );
        assert_eq!(
            lines(&of_maintenance(&config, "billing", "User:x")),
            [
                "--operation Read --topic 'billing-dead-letters'",
                "--operation DescribeConfigs --operation Write --topic 'orders'",
            ]
        );
    }
}
