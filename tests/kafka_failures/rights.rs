//! What the relay may not do, on a real broker that says so.

use crate::support::acls::{self, Operation, allow};
use crate::support::fixture::{Fixture, boolean, execute, number, read_all};
use crate::support::kafka::LocalKafka;
use crate::support::services::{self, create_topic};

/// What the relay says when it may not describe topics.
const NO_RULES: &str = "a topic's configuration cannot be read";

async fn fixture(name: &'static str) -> (LocalKafka, Fixture) {
    let broker = services::private_kafka(&acls::PROPERTIES).await;
    let database = services::postgres().await.create_database(name).await;
    let fixture = Fixture::on(name, &database.url, &broker.bootstrap()).await;
    (broker, fixture)
}

/// Inserts rows `1..=count` of as many keys for a topic.
async fn write(fixture: &mut Fixture, topic: &str, count: usize) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
         select 'x', 'k' || n % 10, 't', n::text::json, '{topic}' from generate_series(1, {count}) as n"
    );
    execute(&mut fixture.database, &sql).await;
}

#[tokio::test]
async fn rows_of_a_topic_without_the_right_to_write_wait_for_it_and_no_others_do() {
    let (broker, mut fixture) = fixture("no_right").await;
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "closed", 1, &[]).await;
    allow(
        &bootstrap,
        "closed",
        &[
            Operation::Read,
            Operation::Describe,
            Operation::DescribeConfigs,
        ],
    )
    .await;
    write(&mut fixture, "closed", 2_000).await;
    fixture.relay.start();
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;
    let topic = fixture.topic.clone();
    write(&mut fixture, &topic, 2_000).await;
    fixture.take(2_000).await;
    let unsent = "select count(*) = 2000 from outbox_events where sent_at is null";
    fixture.until(unsent).await;

    allow(&bootstrap, "closed", &[Operation::Write]).await;
    fixture.settled().await;
    let mut arrived = crate::support::arrived::Arrived::default();
    for record in read_all(&bootstrap, "closed") {
        arrived.take(&record);
    }
    assert_eq!(arrived.events.len(), 2_000);
    let parked = "select count(*) from outboxd_parked";
    assert_eq!(number(&mut fixture.database, parked).await, 0);
    assert_eq!(fixture.relay.logged(NO_RULES), 0);
    fixture.relay.stop().await;
}

#[tokio::test]
async fn rows_of_a_topic_without_the_right_to_write_are_parked_if_somebody_decides_so() {
    let (broker, mut fixture) = fixture("no_right_parked").await;
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "closed", 1, &[]).await;
    allow(
        &bootstrap,
        "closed",
        &[Operation::Read, Operation::Describe],
    )
    .await;
    fixture.relay.set("outbox.default.max_attempts", "2");
    write(&mut fixture, "closed", 20).await;
    fixture.relay.start();
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;
    let decide = "select outbox_dead_park('public.outbox_events', 'closed')";
    assert!(boolean(&mut fixture.database, decide).await);
    let parked = "select count(*) = 20 from outboxd_parked \
                  where class = 'unknown' and attempts = 2 and reason like 'TopicAuthorizationFailed%'";
    fixture.until(parked).await;

    allow(&bootstrap, "closed", &[Operation::Write]).await;
    write(&mut fixture, "closed", 1).await;
    fixture
        .until("select ended_at is not null from outboxd_bypasses")
        .await;
    assert_eq!(read_all(&bootstrap, "closed").len(), 1);
    fixture.relay.stop().await;
}

#[tokio::test]
async fn without_the_right_to_describe_topics_limits_show_when_a_row_is_refused() {
    let (broker, mut fixture) = fixture("no_rules").await;
    let bootstrap = broker.bootstrap();
    for topic in ["first", "second"] {
        create_topic(&bootstrap, topic, 1, &[("max.message.bytes", "20000")]).await;
        allow(
            &bootstrap,
            topic,
            &[Operation::Read, Operation::Describe, Operation::Write],
        )
        .await;
        write(&mut fixture, topic, 100).await;
        for (key, bytes) in [
            ("too large for the topic", 30_000),
            ("too large for the client", 1_100_000),
        ] {
            let sql = format!(
                "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
                 values ('x', '{key}', 't', to_json(repeat('x', {bytes})), '{topic}')"
            );
            execute(&mut fixture.database, &sql).await;
        }
        write(&mut fixture, topic, 100).await;
    }
    fixture.relay.start();
    let settled = "select (select count(*) from outboxd_parked) = 4 \
                      and (select count(*) from outbox_events where sent_at is null) = 4";
    fixture.until(settled).await;
    for (reason, count) in [
        ("the client''s message.max.bytes (1000000)", 2),
        ("MessageSizeTooLarge", 2),
    ] {
        let parked = format!("select count(*) from outboxd_parked where reason like '%{reason}%'");
        assert_eq!(
            number(&mut fixture.database, &parked).await,
            count,
            "{reason}"
        );
    }
    assert_eq!(fixture.relay.logged(NO_RULES), 1);
    fixture.relay.stop().await;
}
