//! The ACLs that are printed are enough: a broker that denies everything else lets each principal do its work.

use std::process::Output;
use std::time::{Duration, Instant};

use outboxd::inbox::consumer::{Consumer, Event, HandlerError, Tx};
use outboxd::local::free_port;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;

use crate::support::command::{errors, outboxd, succeeds};
use crate::support::fixture::{PATIENCE, execute, read_all};
use crate::support::kafka::{KafkaTools, LocalKafka};
use crate::support::services;

const POLL: Duration = Duration::from_millis(50);

/// A broker where whoever logs in may do nothing, and whoever does not may do everything.
struct Guarded {
    broker: LocalKafka,
    /// Where one logs in.
    address: String,
}

impl Guarded {
    async fn start() -> Guarded {
        let port = free_port().expect("a free port");
        let listen = format!(
            "BROKER://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},GUARDED://127.0.0.1:{port}"
        );
        let advertise = format!("BROKER://127.0.0.1:{{port}},GUARDED://127.0.0.1:{port}");
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                     user_relay=\"secret\" user_billing=\"secret\" user_clerk=\"secret\";";
        let broker = services::private_kafka(&[
            ("listeners", &listen),
            ("advertised.listeners", &advertise),
            (
                "listener.security.protocol.map",
                "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
            ),
            ("listener.name.guarded.sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.guarded.plain.sasl.jaas.config", login),
            (
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            ),
            ("super.users", "User:ANONYMOUS"),
        ])
        .await;
        Guarded {
            broker,
            address: format!("127.0.0.1:{port}"),
        }
    }

    fn properties<'a>(&'a self, user: &'a str) -> [(&'static str, &'a str); 5] {
        [
            ("bootstrap.servers", &self.address),
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", user),
            ("sasl.password", "secret"),
        ]
    }

    /// Runs outboxd, logged in as `user`.
    fn outboxd(&self, user: &str, url: &str, arguments: &[&str]) -> Output {
        let mut all: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        all.push(format!("--postgres-url={url}"));
        for (name, value) in self.properties(user) {
            all.push(match name {
                "bootstrap.servers" => format!("--kafka={value}"),
                _ => format!("--set=kafka.properties.{name}={value}"),
            });
        }
        for option in [
            "outbox.default.topic=orders",
            "admin.listen=off",
            "inbox.topics=orders",
        ] {
            all.push(format!("--set={option}"));
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        outboxd(&all)
    }

    /// What a check says of topics.
    fn denied(&self, user: &str, url: &str) -> Vec<String> {
        let output = self.outboxd(user, url, &["check", "--connect", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found = found["findings"].as_array().expect("findings").clone();
        let codes = found
            .iter()
            .map(|finding| finding["code"].as_str().unwrap_or_default().to_owned());
        codes
            .filter(|code| {
                [
                    "topic-authorization",
                    "describe-configs",
                    "kafka-unreachable",
                ]
                .contains(&code.as_str())
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_relay_consumer_and_maintenance() {
    let kafka = Guarded::start().await;
    let open = kafka.broker.bootstrap();
    let database = services::postgres().await.create_database("acls").await;
    let url = database.url.as_str();
    for inbox in [&["migrate"][..], &["migrate", "--inbox"]] {
        succeeds(&outboxd(&[inbox, &["--postgres-url", url]].concat()));
    }
    services::create_topic(&open, "orders", 1, &[]).await;
    assert_eq!(kafka.denied("relay", url), ["topic-authorization"]);

    let print = [
        "check",
        "--print-acls",
        "--relay-principal=User:relay",
        "--consumer=billing",
        "--maintenance-principal=User:clerk",
    ];
    let printed = succeeds(&kafka.outboxd("relay", url, &print));
    let tools = KafkaTools::new().await.expect("kafka's tools");
    for line in printed.lines() {
        tools.kafka_acls(&open, line).await.expect("an ACL");
    }
    let deadline = Instant::now() + PATIENCE;
    while kafka.denied("relay", url) != [""; 0] {
        assert!(Instant::now() < deadline, "the relay is denied still");
        tokio::time::sleep(POLL).await;
    }

    // The relay publishes.
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) values ('order', 'o', 'placed', '1')",
    )
    .await;
    let run = kafka.outboxd("relay", url, &["run", "--until-empty", "--timeout", "60s"]);
    assert!(run.status.success(), "{}", errors(&run));
    assert_eq!(read_all(&open, "orders").len(), 1);

    // The consumer reads it, makes its dead-letter topic and writes to it.
    let pool = PgPoolOptions::new().connect(url).await.expect("connecting");
    let consumer = Consumer::new("billing", pool)
        .kafka(kafka.properties("billing"))
        .topics(["orders"])
        .on("placed", async |_: Tx, _: Event<i64>| {
            Err(HandlerError::reject("not today"))
        });
    let set_aside = async {
        let deadline = Instant::now() + PATIENCE;
        while read_all(&open, "billing-dead-letters").is_empty() {
            assert!(Instant::now() < deadline, "no dead letter came");
            tokio::time::sleep(POLL).await;
        }
    };
    consumer.run_until(set_aside).await.expect("the consumer");

    // Maintenance reads the dead letter and sends it back.
    let clerk = |arguments: &[&str]| {
        let all = [&["inbox", "dlq"], arguments, &["--consumer", "billing"]].concat();
        succeeds(&kafka.outboxd("clerk", url, &all))
    };
    assert!(clerk(&["list"]).contains("not today"));
    clerk(&["redrive", "--all"]);
    assert_eq!(read_all(&open, "orders").len(), 2);
    succeeds(&kafka.outboxd("clerk", url, &["inbox", "status"]));
}
