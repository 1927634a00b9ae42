//! Faults of the cluster and of the topics.

use outboxd::local::free_port;

use super::stage::Stage;

/// With these options of the topic, besides what makes it safe.
async fn topic(name: &str, options: &[(&str, &str)]) -> Stage {
    let safe = [("min.insync.replicas", "2")];
    Stage::with_topic(name, 3, &[&safe[..], options].concat()).await
}

#[tokio::test]
async fn a_cluster_that_does_not_answer() {
    let mut stage = Stage::new("kafka_away").await;
    let port = free_port().expect("a free port");
    stage.set("kafka.bootstrap_servers", &format!("127.0.0.1:{port}"));
    let lines = stage.finds(&["error kafka-unreachable"]);
    assert!(lines[0].contains("Connection refused"), "{lines:?}");
}

#[tokio::test]
async fn a_property_that_the_client_does_not_know() {
    let mut stage = Stage::new("property").await;
    stage.set("kafka.properties.linger.seconds", "1");
    let lines = stage.finds(&["error kafka-properties"]);
    assert!(lines[0].contains("linger.seconds"), "{lines:?}");
}

#[tokio::test]
async fn a_topic_that_the_configuration_names_and_that_does_not_exist() {
    let mut stage = Stage::new("missing").await;
    stage.set("outbox.default.topics.order_archived", "no-such-topic");
    let lines = stage.finds(&["error topic-missing"]);
    assert!(
        lines[0]
            .contains("topic \"no-such-topic\": does not exist, and outbox default sends to it"),
        "{lines:?}"
    );
    stage.set("kafka.create_topics.enabled", "true");
    stage.set("kafka.create_topics.replication", "3");
    stage.finds(&[]);
}

#[tokio::test]
async fn a_topic_that_a_row_names_and_that_does_not_exist() {
    let mut stage = Stage::new("row_topic").await;
    stage
        .sql(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
             values ('a', 'b', 'c', '{}', 'nobody-made-it')",
        )
        .await;
    let lines = stage.finds(&["error topic-missing"]);
    assert!(lines[0].contains("topic \"nobody-made-it\""), "{lines:?}");
}

#[tokio::test]
async fn a_topic_for_dead_letters_that_does_not_exist() {
    let mut stage = Stage::new("letters").await;
    stage.set("outbox.default.dead_letter_topic", "no-such-letters");
    let lines = stage.finds(&["error topic-missing"]);
    assert!(lines[0].contains("topic \"no-such-letters\""), "{lines:?}");
}

#[tokio::test]
async fn a_row_whose_topic_cannot_be() {
    let mut stage = Stage::new("row_name").await;
    stage.set("outbox.default.topic", "{aggregate_type}-events");
    stage
        .sql(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             values ('a b', 'b', 'c', '{}')",
        )
        .await;
    let lines = stage.finds(&["warning refused-rows"]);
    assert!(lines[0].contains("is \"a b-events\""), "{lines:?}");
}

#[tokio::test]
async fn a_row_that_its_topic_refuses() {
    let mut stage = Stage::new("row_size").await;
    stage
        .sql(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'a', n::text, 'c', to_json(repeat('x', 600000 * n)) from generate_series(1, 2) as n",
        )
        .await;
    let lines = stage.finds(&["warning refused-rows"]);
    assert!(
        lines[0].contains("1 of the first 2 unsent rows") && lines[0].contains("message.max.bytes"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_topic_with_one_replica() {
    Stage::with_topic("single", 1, &[])
        .await
        .finds(&["warning replication"]);
}

#[tokio::test]
async fn a_topic_that_one_broker_acknowledges_alone() {
    Stage::with_topic("min_isr", 3, &[])
        .await
        .finds(&["warning min-insync-replicas"]);
}

#[tokio::test]
async fn a_topic_that_one_broker_can_stop() {
    let every = [("min.insync.replicas", "3")];
    Stage::with_topic("every", 3, &every)
        .await
        .finds(&["warning min-insync-replicas"]);
}

#[tokio::test]
async fn a_topic_that_can_never_be_written() {
    let never = [("min.insync.replicas", "3")];
    Stage::with_topic("never", 2, &never)
        .await
        .finds(&["error min-insync-replicas"]);
}

#[tokio::test]
async fn a_topic_that_elects_leaders_without_the_last_events() {
    topic("unclean", &[("unclean.leader.election.enable", "true")])
        .await
        .finds(&["warning unclean-election"]);
}

#[tokio::test]
async fn a_topic_that_replaces_timestamps() {
    let stage = topic(
        "append_time",
        &[("message.timestamp.type", "LogAppendTime")],
    )
    .await;
    stage.finds(&["warning timestamp-type"]);
}

#[tokio::test]
async fn a_topic_that_refuses_what_is_a_little_ahead() {
    topic("ahead", &[("message.timestamp.after.max.ms", "1000")])
        .await
        .finds(&["warning timestamp-after"]);
}

#[tokio::test]
async fn a_topic_that_refuses_what_has_waited() {
    let stage = topic("behind", &[("message.timestamp.before.max.ms", "3600000")]).await;
    stage.finds(&["warning timestamp-before"]);
}

#[tokio::test]
async fn a_compacted_topic_for_events_without_a_key() {
    let mut stage = topic("keyless", &[("cleanup.policy", "compact")]).await;
    stage.finds(&["note compacted"]);
    stage.set("outbox.default.key", "");
    stage.finds(&["error compacted-without-key"]);
}

#[tokio::test]
async fn a_compacted_topic_that_deletes_as_well() {
    topic("compact_delete", &[("cleanup.policy", "compact,delete")])
        .await
        .finds(&["warning compacted"]);
}

#[tokio::test]
async fn a_topic_that_forgets_within_hours() {
    topic("forgets", &[("retention.ms", "3600000")])
        .await
        .finds(&["warning retention"]);
}

#[tokio::test]
async fn a_topic_that_takes_less_than_the_client() {
    topic("small", &[("max.message.bytes", "500000")])
        .await
        .finds(&["warning message-size"]);
}

#[tokio::test]
async fn a_client_that_takes_less_than_the_topic() {
    let mut stage = topic("large", &[("max.message.bytes", "5000000")]).await;
    stage.finds(&["note message-size"]);
    stage.set("kafka.properties.message.max.bytes", "5000000");
    stage.finds(&[]);
}

#[tokio::test]
async fn a_topic_that_consumers_forget_sooner() {
    let mut stage = topic("outlives", &[("retention.ms", "-1")]).await;
    stage.finds(&[]);
    stage.set("inbox.topics", &stage.topic.clone());
    stage.finds(&["warning inbox-retention"]);
}

#[tokio::test]
async fn topics_that_would_be_made_with_one_replica() {
    let mut stage = Stage::new("creation").await;
    stage.set("kafka.create_topics.enabled", "true");
    stage.finds(&["warning create-topics"]);
    stage.set("kafka.create_topics.replication", "4");
    stage.finds(&["error create-topics"]);
}
