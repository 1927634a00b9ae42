//! `outboxd tail`: what is being published, as it is published.

use serde_json::{Value, json};

use crate::support::command::{fails, outboxd};
use crate::support::fixture::{Fixture, execute};
use crate::support::services;
use crate::support::tail::Tail;

async fn publish(fixture: &mut Fixture, key: &str, event_type: &str, correlation_id: &str) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, correlation_id) \
         values ('order', '{key}', '{event_type}', '{{\"secret\": \"of {key}\"}}', '{correlation_id}')"
    );
    execute(&mut fixture.database, &sql).await;
}

#[tokio::test]
async fn what_is_published_is_shown_from_then_on_and_payloads_only_if_asked_for() {
    let mut fixture = Fixture::new("tail").await;
    fixture.relay.start();
    publish(&mut fixture, "before", "order.placed", "c-0").await;
    fixture.settled().await;
    let plain = Tail::start(&fixture, &["--count", "2"]);
    let full = Tail::start(&fixture, &["--count", "2", "--payload"]);
    let objects = Tail::start(&fixture, &["--count", "2", "--json"]);
    let filters: Vec<Tail> = [
        ["--type", "order.paid"],
        ["--key", "second"],
        ["--correlation-id", "c-2"],
    ]
    .into_iter()
    .map(|filter| {
        Tail::start(
            &fixture,
            &[&filter[..], &["--count", "1", "--json", "--payload"]].concat(),
        )
    })
    .collect();
    publish(&mut fixture, "first", "order.placed", "c-1").await;
    publish(&mut fixture, "second", "order.paid", "c-2").await;

    let lines = plain.ends();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    let first = lines.lines().next().expect("a line");
    for part in [
        &format!("  {}/0/1  order.placed  ", fixture.topic),
        "  key \"first\"",
        "  correlation c-1",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(
        !lines.contains("secret") && !lines.contains("before"),
        "{lines}"
    );
    let full = full.ends();
    assert!(
        full.contains("\n    {\"secret\": \"of first\"}\n"),
        "{full}"
    );
    let objects = objects.ends();
    let object: Value =
        serde_json::from_str(objects.lines().next().expect("a line")).expect("JSON");
    assert_eq!(object["offset"], 1);
    assert_eq!(object["key"], "first");
    assert_eq!(object["eventType"], "order.placed");
    assert_eq!(object["correlationId"], "c-1");
    assert_eq!(object["isReplay"], false);
    assert_eq!(object.get("payload"), None);
    for tail in filters {
        let object: Value = serde_json::from_str(&tail.ends()).expect("one object");
        assert_eq!(object["key"], "second");
        assert_eq!(object["payload"], json!({"secret": "of second"}));
    }
}

#[tokio::test]
async fn topics_are_those_that_the_template_can_become_also_if_they_are_made_later() {
    let mut fixture = Fixture::new("tail_topics").await;
    let kafka = services::kafka().await;
    let (first, later) = (
        kafka.unique_topic("tail-like"),
        kafka.unique_topic("tail-like"),
    );
    let elsewhere = kafka.unique_topic("tail-elsewhere");
    kafka.create_topic(&first, 3, &[]).await;
    kafka.create_topic(&elsewhere, 1, &[]).await;
    fixture
        .relay
        .set("outbox.default.topic", "tail-like-{aggregate_type}");
    fixture.relay.set("outbox.default.envelope", "raw");
    fixture
        .relay
        .set("outbox.default.headers.kind", "{event_type}");
    fixture.relay.start();
    let mut tail = Tail::start(&fixture, &["--count", "4", "--json"]);
    let insert = |topic: &str, kind: &str| {
        let aggregate_type = topic.strip_prefix("tail-like-").unwrap_or("x").to_owned();
        format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
             values ('{aggregate_type}', 'k', '{kind}', '1', {})",
            match topic.starts_with("tail-like-") {
                true => "null".to_owned(),
                false => format!("'{topic}'"),
            }
        )
    };
    execute(&mut fixture.database, &insert(&first, "one")).await;
    execute(&mut fixture.database, &insert(&elsewhere, "unseen")).await;
    execute(&mut fixture.database, &insert(&later, "two")).await;
    kafka.create_topic(&later, 1, &[]).await;
    let said = tail.says();
    assert!(
        said.contains(&later) && said.contains("from its beginning"),
        "{said}"
    );
    execute(&mut fixture.database, &insert(&later, "three")).await;
    execute(&mut fixture.database, &insert(&first, "four")).await;
    let mut kinds: Vec<String> = tail
        .ends()
        .lines()
        .map(|line| {
            let object: Value = serde_json::from_str(line).expect("JSON");
            object["eventType"].as_str().expect("a type").to_owned()
        })
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["four", "one", "three", "two"]);
}

#[tokio::test]
async fn a_closed_pipe_ends_it_quietly() {
    let mut fixture = Fixture::new("tail_pipe").await;
    fixture.relay.start();
    let mut tail = Tail::start(&fixture, &[]);
    tail.close();
    publish(&mut fixture, "k", "t", "c").await;
    assert_eq!(tail.says(), "");
    assert_eq!(tail.ends(), "");
}

#[test]
fn mistakes_are_named() {
    let nobody = outboxd::local::free_port().expect("a free port");
    let kafka = format!("127.0.0.1:{nobody}");
    let run = |more: &[&str]| {
        let common = [
            "tail",
            "--postgres-url",
            "postgres://localhost/unused",
            "--kafka",
            &kafka,
        ];
        outboxd(&[&common[..], more].concat())
    };
    let said = fails(&run(&[]), 1);
    assert!(
        said.contains(&format!("reading from Kafka at {kafka}")),
        "{said}"
    );
    let said = fails(&run(&["--outbox", "nine"]), 2);
    assert!(
        said.contains("--outbox: must name one of the configured outboxes (default), is nine"),
        "{said}"
    );
    assert!(fails(&run(&["--count", "0"]), 2).contains("--count"));
    assert!(
        fails(&run(&["--outbox", "default", "--topic", "t"]), 2).contains("cannot be used with")
    );
    assert!(fails(&outboxd(&["tail"]), 78).contains("postgres.url"));
}
