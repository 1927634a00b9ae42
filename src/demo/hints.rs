//! How to take part: where the services are, what to insert, what to read with.

use std::net::SocketAddr;

use super::Options;
use crate::config::Config;

/// Ten times faster than the default: a hundred polls a second are nothing to a server of one's own,
/// and the latency is what one came to see.
pub const POLL_INTERVAL: &str = "10ms";

/// Lines for the user to read and to copy. None is wider than 78 columns, unless a URL or a list of
/// brokers of the user's own makes it so.
#[derive(Debug, Clone)]
pub struct Hints {
    /// Without its password.
    pub postgres: String,
    pub kafka: String,
    /// Whether the Kafka is the one in this process.
    pub is_mock: bool,
    pub topics: String,
    pub metrics: String,
    /// The setting that most of the latency of a quiet outbox comes from.
    pub poll_interval: &'static str,
    /// A shell command on three lines that inserts one row.
    pub insert: [String; 3],
}

/// Which clients can read from the Kafka in this process, which answers ApiVersions up to version 2
/// only, and what helps the others.
pub const MOCK_CLIENTS: [&str; 2] = [
    "read it with kcat, confluent-kafka, kafkajs, segmentio/kafka-go; for Java",
    "clients, franz-go and kafka-python 3 start with --kafka HOST:PORT",
];

/// What the rows of the user's own must look like.
pub const BY_HAND: &str = "insert your own: aggregate_type 'order' and 'payment' show up here";

impl Hints {
    pub fn new(options: &Options, config: &Config, schema: &str, topics: &[String]) -> Hints {
        Hints::for_services(
            // Without its password.
            &config.postgres.url.to_string(),
            &config.kafka.bootstrap_servers.to_string(),
            schema,
            topics,
            options.kafka.is_none(),
            config.admin.listen,
        )
    }

    pub(super) fn for_services(
        postgres: &str,
        kafka: &str,
        schema: &str,
        topics: &[String],
        is_mock: bool,
        admin: Option<SocketAddr>,
    ) -> Hints {
        let table = match schema {
            "public" => "outbox_events".to_owned(),
            schema => format!("{schema}.outbox_events"),
        };
        // A quoted text of a shell may span lines.
        let insert = [
            format!("psql {postgres} -c \"insert into {table}"),
            "  (aggregate_type, aggregate_id, event_type, payload)".to_owned(),
            r#"  values ('order', 'ord_42', 'order.noted', '{\"by\": \"hand\"}')""#.to_owned(),
        ];
        Hints {
            postgres: postgres.to_owned(),
            kafka: kafka.to_owned(),
            is_mock,
            topics: topics.join(", "),
            metrics: admin
                .map(|address| format!("http://{address}/metrics"))
                .unwrap_or_default(),
            poll_interval: POLL_INTERVAL,
            insert,
        }
    }

    /// All of it, for a terminal or a log that scrolls.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("postgres  {}", self.postgres),
            format!("kafka     {} ({})", self.kafka, self.topics),
        ];
        if self.is_mock {
            lines.extend(MOCK_CLIENTS.map(|line| format!("          {line}")));
        }
        lines.push(format!("metrics   {}", self.metrics));
        lines.push(format!("{BY_HAND}:"));
        lines.extend(self.insert.iter().cloned());
        lines
    }
}
