//! One topic: whether it takes the events, and keeps what it has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::types::RDKafkaErrorCode;

use super::outbox::Waiting;
use super::{Finding, Notebook};
use crate::config::{
    Config, EventTimestamp, Field, OutboxConfig, Segment, TopicTemplate, is_topic_name,
};
use crate::kafka::{ClientRules, TopicConfig, TopicFacts, TopicRetention};
use crate::relay::window::Outgoing;

/// A topic must take rows that have waited for so long, and keep them for so long: an outage over a night.
const BACKLOG: Duration = Duration::from_secs(24 * 60 * 60);

/// Clocks differ by so much, and no row should be refused for it.
const MIN_AHEAD: Duration = Duration::from_secs(60);

/// What a topic is used for.
#[derive(Default)]
pub struct Usage<'a> {
    outboxes: BTreeSet<&'a str>,
    /// Unsent rows that go to it.
    rows: Vec<&'a Outgoing>,
    /// `inbox.topics` names it.
    is_consumed: bool,
}

/// Every topic that the configuration names without a placeholder, and those that the rows go to.
pub fn uses<'a>(config: &'a Config, waiting: &'a [Waiting]) -> BTreeMap<String, Usage<'a>> {
    let mut uses: BTreeMap<String, Usage<'a>> = BTreeMap::new();
    for outbox in config.outboxes.values() {
        let templates = &outbox.templates;
        let topics = std::iter::once(&templates.topic).chain(templates.topics.values());
        let dead_letters = outbox.dead_letter_topic.clone();
        for topic in topics.filter_map(constant).chain(dead_letters) {
            let usage = uses.entry(topic).or_default();
            usage.outboxes.insert(&outbox.name);
        }
    }
    for outbox in waiting {
        let rows = outbox.rows.iter();
        // A row whose topic can have no such name is its outbox's finding.
        for (topic, rows) in rows.filter(|(topic, _)| is_topic_name(topic)) {
            let usage = uses.entry(topic.to_string()).or_default();
            usage.outboxes.insert(&outbox.outbox);
            usage.rows.extend(rows);
        }
    }
    for topic in &config.inbox.topics {
        uses.entry(topic.clone()).or_default().is_consumed = true;
    }
    uses
}

/// The topic, if it is the same for every row.
fn constant(template: &TopicTemplate) -> Option<String> {
    let mut name = String::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => name.push_str(text),
            Segment::Field(_) | Segment::Other { .. } => return None,
        }
    }
    Some(name)
}

/// Judges what the cluster says of a topic.
pub fn judge(
    name: &str,
    facts: &Result<TopicFacts, RDKafkaErrorCode>,
    usage: &Usage<'_>,
    config: &Config,
    client: &ClientRules,
) -> Vec<Finding> {
    let mut book = Notebook::of(format!("topic {name:?}"));
    match facts {
        Err(code) => judge_unusable(*code, usage, config, &mut book),
        Ok(facts) => {
            judge_replicas(facts, &mut book);
            match &facts.config {
                Ok(topic) => {
                    judge_durability(topic, facts.replicas, facts.in_sync, &mut book);
                    judge_timestamps(topic, usage, config, &mut book);
                    judge_sizes(topic, client, &mut book);
                    judge_cleanup(topic, usage, config, &mut book);
                    judge_rows(topic, usage, client, &mut book);
                }
                Err(reason) => book.warning(
                    "describe-configs",
                    format!(
                        "its configuration cannot be read ({reason}), so its limits show only when Kafka refuses a message"
                    ),
                    "grant DescribeConfigs on it",
                ),
            }
        }
    }
    book.findings
}

fn judge_unusable(code: RDKafkaErrorCode, usage: &Usage<'_>, config: &Config, book: &mut Notebook) {
    let users: Vec<&str> = usage.outboxes.iter().copied().collect();
    let waits = match users.as_slice() {
        [] => String::new(),
        users => format!(", and outbox {} sends to it", users.join(", ")),
    };
    match code {
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
            if usage.outboxes.is_empty() || !config.kafka.create_topics.enabled {
                book.error(
                    "topic-missing",
                    format!("does not exist{waits}"),
                    "create it, or set kafka.create_topics.enabled",
                );
            }
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => book.error(
            "topic-authorization",
            format!("may not be described{waits}"),
            "grant Describe, DescribeConfigs and Write on it",
        ),
        code => book.error(
            "topic-unusable",
            format!("{code}{waits}"),
            "see the brokers' logs",
        ),
    }
}

fn judge_replicas(facts: &TopicFacts, book: &mut Notebook) {
    if facts.replicas == 1 {
        book.warning(
            "replication",
            "has one replica: acknowledged events are lost with one disk",
            "raise its replication factor to 3",
        );
    }
}

fn judge_durability(topic: &TopicConfig, replicas: usize, in_sync: usize, book: &mut Notebook) {
    if topic.elects_unclean {
        book.warning(
            "unclean-election",
            "unclean.leader.election.enable is true: a replica without the last acknowledged events can become leader",
            "set it to false",
        );
    }
    let Some(least) = topic.min_in_sync else {
        return;
    };
    let says = format!("min.insync.replicas is {least}");
    if least > replicas {
        let problem = format!("{says}, and it has {replicas}: nothing can be published");
        book.error("min-insync-replicas", problem, "lower it, or add replicas");
    } else if in_sync < least {
        let problem = format!("{says}, and {in_sync} are in sync: nothing can be published now");
        book.error(
            "in-sync-replicas",
            problem,
            "bring the brokers back that are away",
        );
    } else if replicas > 1 && least == 1 {
        let problem = format!("{says}: one broker alone may have an acknowledged event");
        book.warning("min-insync-replicas", problem, "set it to 2");
    } else if replicas > 1 && least == replicas {
        let problem = format!("{says}, and it has no more: one broker that is away stops it");
        book.warning("min-insync-replicas", problem, "add a replica, or lower it");
    }
}

fn judge_timestamps(topic: &TopicConfig, usage: &Usage<'_>, config: &Config, book: &mut Notebook) {
    let mut outboxes = used_by(usage, config);
    if !outboxes.any(|outbox| outbox.timestamp == EventTimestamp::CreatedAt) {
        return;
    }
    if !topic.keeps_timestamps {
        book.warning(
            "timestamp-type",
            "message.timestamp.type is LogAppendTime: copies of an event get different timestamps, none of them its own",
            "set it to CreateTime",
        );
    } else if !topic.has_timestamp_bounds {
        book.note(
            "kafka-version",
            "the brokers are older than Kafka 3.6 and do not say which timestamps they take",
            "a row with another is parked when it is refused",
        );
    }
    let shown = |time: Duration| humantime::format_duration(time).to_string();
    if let Some(ahead) = topic.rules.max_ahead.filter(|ahead| *ahead < MIN_AHEAD) {
        book.warning(
            "timestamp-after",
            format!(
                "message.timestamp.after.max.ms is {}: rows are parked if a clock is ahead by that",
                shown(ahead)
            ),
            format!("raise it to {} or more", shown(MIN_AHEAD)),
        );
    }
    if let Some(behind) = topic.rules.max_behind.filter(|behind| *behind < BACKLOG) {
        book.warning(
            "timestamp-before",
            format!(
                "message.timestamp.before.max.ms is {}: rows that wait for longer are parked",
                shown(behind)
            ),
            format!("raise it to {} or more, or remove it", shown(BACKLOG)),
        );
    }
}

fn judge_sizes(topic: &TopicConfig, client: &ClientRules, book: &mut Notebook) {
    let (Some(topic), client) = (topic.rules.max_message_bytes, client.max_message_bytes) else {
        return;
    };
    if topic < client {
        book.warning(
            "message-size",
            format!("max.message.bytes is {topic}, and the client's message.max.bytes {client}: what is in between is parked"),
            format!("set max.message.bytes to {client}, or lower kafka.properties \"message.max.bytes\""),
        );
    } else if topic > client + client / 10 {
        // The brokers' default is a little more than the client's.
        book.note(
            "message-size",
            format!("max.message.bytes is {topic}, and the client's message.max.bytes {client}: what is in between is parked"),
            format!("set kafka.properties \"message.max.bytes\" to {topic}"),
        );
    }
}

fn judge_cleanup(topic: &TopicConfig, usage: &Usage<'_>, config: &Config, book: &mut Notebook) {
    if topic.rules.needs_key {
        let keyless: Vec<&str> = used_by(usage, config)
            .filter(|outbox| !has_keys(outbox))
            .map(|outbox| outbox.name.as_str())
            .collect();
        if !keyless.is_empty() {
            book.error(
                "compacted-without-key",
                format!(
                    "is compacted, and the events of outbox {} have no key: each is refused",
                    keyless.join(", ")
                ),
                "set its key, or cleanup.policy to delete",
            );
        } else if topic.deletes {
            book.warning(
                "compacted",
                "cleanup.policy is compact,delete: earlier events of a key go, and its last one too after retention.ms",
                "set it to delete for events, to compact for the latest state of each key",
            );
        } else {
            book.note(
                "compacted",
                "cleanup.policy is compact: of the events of a key only the last stays",
                "set it to delete if consumers need every event",
            );
        }
    }
    if let Some(TopicRetention::For(time)) = topic.retention
        && time < BACKLOG
    {
        let shown = humantime::format_duration(time);
        book.warning(
            "retention",
            format!("retention.ms is {shown}: rows that have waited for longer are deleted soon after they arrive"),
            format!("raise it to {} or more", humantime::format_duration(BACKLOG)),
        );
    }
    let remembered = config.inbox.retention;
    if usage.is_consumed
        && topic
            .retention
            .is_some_and(|kept| kept > TopicRetention::For(remembered))
    {
        let shown = humantime::format_duration(remembered);
        book.warning(
            "inbox-retention",
            format!("keeps its records for longer than inbox.retention ({shown}): what is read again after that is refused as expired"),
            "raise inbox.retention, or lower retention.ms",
        );
    }
}

/// What the relay would find out by and by.
fn judge_rows(topic: &TopicConfig, usage: &Usage<'_>, client: &ClientRules, book: &mut Notebook) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let mut refused = usage.rows.iter().filter_map(|row| {
        let reason = match &row.unsendable {
            Some(reason) => reason.to_string(),
            None => topic
                .rules
                .refuses(client, &row.message, row.timestamp_ms, now_ms)?,
        };
        Some((row.event.id, reason))
    });
    if let Some((id, reason)) = refused.next() {
        let (count, all) = (1 + refused.count(), usage.rows.len());
        book.warning(
            "refused-rows",
            format!("{count} of the first {all} unsent rows cannot be published, the first of them {id}: {reason}"),
            "change what refuses them, or see outboxd dead once they are parked",
        );
    }
}

fn used_by<'c>(usage: &Usage<'_>, config: &'c Config) -> impl Iterator<Item = &'c OutboxConfig> {
    let names = usage.outboxes.iter();
    names.filter_map(|name| config.outboxes.get(*name))
}

/// Whether events have a key of their own; a row of outboxd's table may bring one all the same.
fn has_keys(outbox: &OutboxConfig) -> bool {
    let mapping = outbox.mapping.as_ref();
    let has_column =
        mapping.is_some_and(|mapping| mapping.columns.get(Field::PartitionKey).is_some());
    outbox.templates.key.is_some() || has_column
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::kafka::TopicRules;

    const CLIENT: ClientRules = ClientRules {
        max_message_bytes: 1_000_000,
        compresses: false,
    };

    /// Of three replicas.
    fn facts(in_sync: usize, has_timestamp_bounds: bool) -> TopicFacts {
        TopicFacts {
            replicas: 3,
            in_sync,
            config: Ok(TopicConfig {
                rules: TopicRules::default(),
                keeps_timestamps: true,
                has_timestamp_bounds,
                deletes: true,
                retention: None,
                min_in_sync: Some(2),
                elects_unclean: false,
            }),
        }
    }

    fn found(facts: Result<TopicFacts, RDKafkaErrorCode>) -> Vec<String> {
        let options = [
            ("postgres.url", "postgres://localhost/shop"),
            ("kafka.bootstrap_servers", "localhost:9092"),
            ("outbox.default.topic", "t"),
        ];
        let config = Config::load(Sources {
            file: None,
            environment: std::iter::empty(),
            overrides: options
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        });
        let config = config.expect("a valid configuration");
        let uses = uses(&config, &[]);
        let findings = judge("t", &facts, &uses["t"], &config, &CLIENT);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn what_cannot_be_acknowledged_now_is_an_error() {
        assert_eq!(found(Ok(facts(2, true))), [""; 0]);
        let found = found(Ok(facts(1, true)));
        assert!(
            found[0].starts_with("error [in-sync-replicas] topic \"t\": "),
            "{found:?}"
        );
    }

    #[test]
    fn brokers_that_do_not_say_which_timestamps_they_take_are_old() {
        let found = found(Ok(facts(3, false)));
        assert!(found[0].starts_with("note [kafka-version]"), "{found:?}");
    }

    #[test]
    fn what_may_not_be_asked_for_is_said_with_the_right_that_is_missing() {
        let denied = found(Err(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(
            denied[0].contains("[topic-authorization]") && denied[0].contains("Write"),
            "{denied:?}"
        );
        let hidden = TopicFacts {
            config: Err("denied".to_owned()),
            ..facts(3, true)
        };
        let hidden = found(Ok(hidden));
        assert!(
            hidden[0].starts_with("warning [describe-configs]"),
            "{hidden:?}"
        );
        assert_eq!(hidden.len(), 1);
    }
}
