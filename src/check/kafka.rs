//! The cluster, and the topics that events go to: those that the configuration names, and those that the first
//! unsent rows go to.

use std::time::Duration;

use super::outbox::Waiting;
use super::topic::{self, Usage};
use super::{Finding, Notebook};
use crate::config::{Config, CreateTopicsConfig, KafkaConfig};
use crate::kafka::{Cluster, Describer, KafkaClient, KafkaSetupError};
use crate::outage::chain;

/// How many topics are asked for.
const MAX_TOPICS: usize = 100;

/// All questions together: each has a bound of its own, and one that is not answered ends them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the cluster about every topic that is known.
pub async fn probe(config: &Config, waiting: &[Waiting]) -> Vec<Finding> {
    let mut book = Notebook::of("kafka");
    judge_security(&config.kafka, &mut book);
    let client = KafkaClient::new(&config.kafka);
    let uses = topic::uses(config, waiting);
    let names: Vec<String> = uses.keys().take(MAX_TOPICS).cloned().collect();
    if uses.len() > names.len() {
        let problem = format!(
            "{} topics are in use, and {MAX_TOPICS} were looked at",
            uses.len()
        );
        book.note("topics", problem, "look at the others by hand");
    }
    match ask(&client, names).await {
        Ok(cluster) => {
            judge_creation(&config.kafka.create_topics, cluster.brokers, &mut book);
            let client = client.rules();
            for (name, facts) in &cluster.topics {
                let unused = Usage::default();
                let usage = uses.get(name).unwrap_or(&unused);
                let findings = topic::judge(name, facts, usage, config, &client);
                book.findings.extend(findings);
            }
        }
        Err(error @ KafkaSetupError::Create { .. }) => {
            book.error(
                "kafka-properties",
                chain(&error),
                "correct [kafka.properties]",
            );
        }
        Err(error) => book.error(
            "kafka-unreachable",
            format!(
                "no broker of kafka.bootstrap_servers answers: {}",
                chain(&error)
            ),
            "see that they run and can be reached from here, and that the security properties fit",
        ),
    }
    book.findings
}

/// What takes away from the protection that the security properties seem to give.
fn judge_security(kafka: &KafkaConfig, book: &mut Notebook) {
    let set = |name| kafka.properties.get(name).unwrap_or_default();
    let is = |name, value: &str| set(name).eq_ignore_ascii_case(value);
    for (name, value) in [
        ("enable.ssl.certificate.verification", "false"),
        ("ssl.endpoint.identification.algorithm", "none"),
    ] {
        if is(name, value) {
            book.warning(
                "kafka-security",
                format!("{name} is {value}: anybody could be the broker"),
                "remove it, and name the authority of the brokers' certificates as ssl.ca.location",
            );
        }
    }
    let is_local = |server: &str| {
        ["127.", "localhost:", "[::1]:"]
            .iter()
            .any(|local| server.starts_with(local))
    };
    if is("security.protocol", "sasl_plaintext") && !kafka.bootstrap_servers.iter().all(is_local) {
        book.warning(
            "kafka-security",
            "security.protocol is sasl_plaintext: whoever listens on the network sees what the client logs in with",
            "use sasl_ssl",
        );
    }
}

async fn ask(client: &KafkaClient, topics: Vec<String>) -> Result<Cluster, KafkaSetupError> {
    let describer = Describer::new(client)?;
    let asked = tokio::time::timeout(PATIENCE, describer.ask(topics)).await;
    asked.unwrap_or_else(|_| {
        Err(KafkaSetupError::Unreachable {
            reason: format!("no answer within {} s", PATIENCE.as_secs()),
        })
    })
}

fn judge_creation(create: &CreateTopicsConfig, brokers: usize, book: &mut Notebook) {
    let replicas = usize::from(create.replication.get());
    if !create.enabled {
        return;
    }
    if replicas > brokers {
        book.error(
            "create-topics",
            format!("kafka.create_topics.replication is {replicas}, and the cluster has {brokers} brokers: no topic can be created"),
            "lower it",
        );
    } else if replicas == 1 {
        book.warning(
            "create-topics",
            "kafka.create_topics.replication is 1: a topic that outboxd creates is lost with one disk",
            "set it to 3",
        );
    }
}
