//! The embedded file names exactly the options there are, and its comments do not lie.

use std::collections::BTreeSet;

use figment::{
    providers::{Format as _, Toml},
    value::{Dict, Value},
};

use super::{load, valid};
use crate::config::{DEFAULTS, properties::refusal};

fn leaves(prefix: &str, tree: &Dict, found: &mut BTreeSet<String>) {
    for (key, value) in tree {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Dict(_, below) => leaves(&path, below, found),
            _ => {
                found.insert(path);
            }
        }
    }
}

fn options(toml: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves("", &Toml::from_str(toml).expect("TOML"), &mut found);
    found
}

#[test]
fn the_embedded_file_has_every_option_and_no_other() {
    // What is printed is complete: it does not compile otherwise.
    assert_eq!(options(DEFAULTS), options(&valid("", &[]).redacted_toml()));
    assert!(options(DEFAULTS).contains("outbox.default.sweep_interval"));
}

#[test]
fn the_embedded_file_is_what_nothing_gives() {
    assert_eq!(load(DEFAULTS, &[]), load("", &[]));
}

#[test]
fn every_option_of_the_embedded_file_has_a_comment() {
    let lines: Vec<_> = DEFAULTS.lines().collect();
    for pair in lines.windows(2) {
        if !pair[1].starts_with('#') && pair[1].contains(" = ") {
            assert!(pair[0].starts_with('#'), "{} has no comment", pair[1]);
        }
    }
}

#[test]
fn the_examples_of_the_embedded_file_are_valid() {
    let (_, examples) = DEFAULTS.split_once("For example:\n").expect("examples");
    let (examples, _) = examples.split_once("\n#\n").expect("their end");
    let toml = format!("[kafka.properties]\n{}", examples.replace("#   ", ""));
    assert_eq!(valid(&toml, &[]).kafka.properties.expose().count(), 6);
}

#[test]
fn properties_that_the_promise_depends_on_are_refused_by_every_name() {
    for name in [
        "acks",
        "request.required.acks",
        "request_required_acks",
        "ACKS",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "retries",
        "message.send.max.retries",
        "partitioner",
        "allow.auto.create.topics",
        "bootstrap.servers",
        "metadata.broker.list",
        "transactional.id",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "queuing.strategy",
        "delivery.report.only.error",
        "enabled.events",
        "log.level",
        "dr_msg_cb",
        "test.mock.num.brokers",
    ] {
        assert!(refusal(name).is_some(), "{name}");
    }
    for name in [
        "linger.ms",
        "batch.size",
        "batch.num.messages",
        "compression.type",
        "client.id",
        "sasl.password",
    ] {
        assert!(refusal(name).is_none(), "{name}");
    }
}
