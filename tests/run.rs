//! `outboxd run` from outside: what comes out of Kafka, how it stops, what it shows, what it waits for.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fixture::{Fixture, PATIENCE, execute, insert, number};
use crate::support::services;

async fn started(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    fixture.relay.start();
    fixture
}

#[tokio::test]
async fn an_event_arrives_with_all_its_facts_and_its_payload_untouched() {
    let mut fixture = started("envelope").await;
    execute(
        &mut fixture.database,
        r#"insert into outbox_events (event_id, aggregate_type, aggregate_id, event_type, event_version, payload,
               correlation_id, causation_id, traceparent, tracestate, headers, created_at)
           values ('01920000-0000-7000-8000-000000000001', 'order', 'ord_"1"', 'order.placed', '2.0',
               '{ "b" :1.50,"a":null, "a":[ ],"u":"\u0000\ud800" }',
               'corr-1', 'cause-1', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', 'k=v',
               '{"tenant": "t1", "x": ""}', '2026-01-02 03:04:05.678901+00')"#,
    )
    .await;
    let record = fixture.next().await;
    assert_eq!(record.key.as_deref(), Some(r#"ord_"1""#));
    assert_eq!(record.timestamp_ms, Some(1_767_323_045_678));
    let body = String::from_utf8(record.value.clone().expect("a body")).expect("UTF-8");
    let expected = concat!(
        r#"{"envelopeVersion":1,"eventId":"01920000-0000-7000-8000-000000000001","eventType":"order.placed","#,
        r#""eventVersion":"2.0","timestamp":"2026-01-02T03:04:05.678901Z","source":"outboxd","#,
        r#""correlationId":"corr-1","causationId":"cause-1","#,
        r#""traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"k=v","#,
        r#""aggregateType":"order","aggregateId":"ord_\"1\"","#,
        r#""data":{ "b" :1.50,"a":null, "a":[ ],"u":"\u0000\ud800" }}"#,
    );
    assert_eq!(body, expected);
    let headers: Vec<(&str, &str)> = record
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        headers,
        [
            ("envelope-version", "1"),
            ("event-id", "01920000-0000-7000-8000-000000000001"),
            ("event-type", "order.placed"),
            ("event-version", "2.0"),
            ("source", "outboxd"),
            ("correlation-id", "corr-1"),
            ("causation-id", "cause-1"),
            ("aggregate-type", "order"),
            ("aggregate-id", r#"ord_"1""#),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            ),
            ("tracestate", "k=v"),
            ("content-type", "application/json"),
            ("x", ""),
            ("tenant", "t1"),
        ]
    );
}

#[tokio::test]
async fn overrides_bytes_and_tombstones_are_honored() {
    let mut fixture = started("overrides").await;
    let topic = fixture.topic.clone();
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, payload_bytes, topic, partition_key) \
         values ('elsewhere', 'a', 't', '1', null, '{topic}', 'other key'), \
                ('x', 'bytes', 't', null, '\\x00ff10', null, null), \
                ('x', 'gone', 't', null, null, null, null)"
    );
    execute(&mut fixture.database, &sql).await;
    let records = fixture.take(3).await;
    assert_eq!(records[0].key.as_deref(), Some("other key"));
    assert_eq!(records[0].body()["aggregateId"], json!("a"));
    assert_eq!(records[1].body()["dataBase64"], json!("AP8Q"));
    assert_eq!(records[2].value, None, "a tombstone");
    assert_eq!(records[2].header("aggregate-id"), Some("gone"));
}

#[tokio::test]
async fn until_empty_publishes_what_is_committed_and_ends() {
    let mut fixture = Fixture::new("until_empty").await;
    fixture.relay.set("log.format", "human");
    for _ in 0..2_500 {
        insert(&mut fixture.database, "k").await;
    }
    let mut open = fixture.connect().await;
    execute(&mut open, "begin").await;
    insert(&mut open, "uncommitted").await;
    fixture
        .relay
        .start_with(&["--until-empty", "--timeout", "60s"]);
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(0));
    assert_eq!(fixture.published(), 2_500);
    let unsent = "select count(*) from outbox_events where sent_at is null";
    assert_eq!(number(&mut fixture.database, unsent).await, 0);
}

#[tokio::test]
async fn until_empty_waits_for_nobodys_decision_and_says_so() {
    let mut fixture = Fixture::new("until_decided").await;
    fixture.relay.set("outbox.default.on_poison", "block_key");
    let kafka = services::kafka().await;
    let paused = kafka.unique_topic("until-decided-paused");
    kafka.create_topic(&paused, 1, &[]).await;
    let rows = format!(
        "select outbox_pause('public.outbox_events', '{paused}'); \
         insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) values \
         ('x', 'bad', 't', to_json(repeat('x', 1100000)), null), ('x', 'bad', 't', '1', null), \
         ('x', 'good', 't', '2', null), ('x', 'good', 't', '3', '{paused}')"
    );
    execute(&mut fixture.database, &rows).await;
    fixture.relay.start_with(&["--until-empty"]);
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(75));
    let left = "outbox \"default\": rows remain that wait for a decision: 3 ";
    assert_eq!(fixture.relay.logged(left), 1);
    assert_eq!(fixture.published(), 1);

    let decide = format!(
        "select outbox_resume('public.outbox_events', '{paused}'); \
         select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), 'discard')"
    );
    execute(&mut fixture.database, &decide).await;
    fixture.relay.start_with(&["--until-empty"]);
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(0));
    let unsent = "select count(*) from outbox_events where sent_at is null";
    assert_eq!(number(&mut fixture.database, unsent).await, 0);
    assert_eq!(fixture.published(), 2);
}

#[tokio::test]
async fn until_empty_lists_what_is_left_when_the_time_is_over() {
    let mut fixture = Fixture::new("until_timeout").await;
    let nobody = outboxd::local::free_port().expect("a free port");
    fixture
        .relay
        .set("kafka.bootstrap_servers", &format!("127.0.0.1:{nobody}"));
    insert(&mut fixture.database, "stuck").await;
    fixture
        .relay
        .start_with(&["--until-empty", "--timeout", "1s"]);
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(75));
    assert_eq!(fixture.relay.logged("rows remain unpublished"), 1);
    assert_eq!(
        fixture.relay.logged("order order.placed"),
        1,
        "the row is listed"
    );
}

#[tokio::test]
async fn a_stop_that_cannot_settle_says_so_and_a_second_signal_does_not_wait() {
    let mut kafka = services::private_kafka(&[]).await;
    let database = services::postgres()
        .await
        .create_database("unsettled")
        .await;
    let mut fixture = Fixture::on("unsettled", &database.url, &kafka.bootstrap()).await;
    fixture.relay.set("relay.shutdown_deadline", "1s");
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.next().await;
    fixture.settled().await;
    kafka.kill().await.expect("killing kafka");
    // Of one key, only the first goes out before Kafka has taken it.
    for n in 0..5 {
        insert(&mut fixture.database, &format!("k{n}")).await;
    }
    fixture
        .metric_is("in_flight_messages", |messages| messages == 5.0)
        .await;
    fixture.relay.terminate();
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(75));
    assert_eq!(
        fixture.relay.logged("did not settle before the deadline"),
        1
    );
    assert_eq!(fixture.relay.logged("\"messages.purged\":5"), 1);

    fixture.relay.set("relay.shutdown_deadline", "1h");
    fixture.relay.start();
    fixture.relay.logs_more("owning the outbox", 1).await;
    kafka.start_again().await.expect("starting kafka again");
    fixture.settled().await;
    kafka.kill().await.expect("killing kafka");
    insert(&mut fixture.database, "k").await;
    fixture
        .metric_is("in_flight_messages", |messages| messages == 1.0)
        .await;
    fixture.relay.terminate();
    fixture
        .relay
        .logs_more("stopping: waiting for what is in flight", 1)
        .await;
    fixture.relay.terminate();
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(130));
}

#[tokio::test]
async fn a_missing_topic_holds_its_own_rows_alone_until_it_is_there() {
    let mut fixture = started("missing_topic").await;
    let missing = services::kafka().await.unique_topic("missing");
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) values ('x', 'lost', 't', '{missing}')"
    );
    execute(&mut fixture.database, &sql).await;
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    fixture
        .relay
        .logs_more("the topic cannot be used, its rows wait", 0)
        .await;
    services::kafka().await.create_topic(&missing, 1, &[]).await;
    fixture.settled().await;
    fixture
        .relay
        .logs_more("the topic can be used now", 0)
        .await;
}

#[tokio::test]
async fn notify_wakes_an_idle_relay() {
    let mut fixture = Fixture::new("notify").await;
    fixture.relay.set("outbox.default.notify", "true");
    fixture.relay.set("outbox.default.poll_interval", "1m");
    fixture.relay.migrate().await;
    fixture.relay.start();
    insert(&mut fixture.database, "first").await;
    fixture.next().await;
    // Idle polls back off: after these there is none for many seconds.
    fixture.settled().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let polls = fixture.metric("poll_duration_seconds_count").await;
    let started = Instant::now();
    insert(&mut fixture.database, "second").await;
    fixture.next().await;
    assert!(fixture.metric("poll_duration_seconds_count").await <= polls + 5.0);
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "it was not the clock that woke it"
    );
}

#[tokio::test]
async fn retention_deletes_sent_rows_and_never_an_unsent_one() {
    let mut fixture = Fixture::new("retention").await;
    fixture.relay.set("outbox.default.retention", "1s");
    let nowhere = services::kafka().await.unique_topic("nowhere");
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic, created_at) \
         select 'x', n::text, 't', case n % 2 when 0 then '{nowhere}' end, now() - interval '1 year' from generate_series(1, 3000) n"
    );
    execute(&mut fixture.database, &sql).await;
    fixture.relay.start();
    fixture
        .until("select count(*) = 1500 from outbox_events")
        .await;
    let unsent = "select count(*) from outbox_events where sent_at is null";
    assert_eq!(number(&mut fixture.database, unsent).await, 1_500);
    assert_eq!(fixture.metric("expired_rows_total").await, 1_500.0);
}

#[tokio::test]
async fn delete_after_sending_leaves_nothing() {
    let mut fixture = Fixture::new("delete").await;
    fixture.relay.set("outbox.default.on_sent", "delete");
    fixture.relay.start();
    for _ in 0..100 {
        insert(&mut fixture.database, "k").await;
    }
    fixture.take(100).await;
    fixture
        .until("select count(*) = 0 from outbox_events")
        .await;
}

#[tokio::test]
async fn the_admin_port_tells_life_readiness_and_numbers() {
    let mut fixture = started("admin").await;
    fixture.answers("/livez", 200, "ok").await;
    fixture
        .answers("/readyz", 200, "default: ready, owned here")
        .await;
    for _ in 0..10 {
        insert(&mut fixture.database, "k").await;
    }
    fixture.take(10).await;
    fixture.settled().await;
    assert_eq!(fixture.metric("published_total").await, 10.0);
    assert_eq!(fixture.metric("owner").await, 1.0);
    assert_eq!(
        fixture
            .metric("created_to_acknowledged_seconds_count")
            .await,
        10.0
    );
    let nowhere = services::kafka().await.unique_topic("nowhere");
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic, created_at) \
         values ('x', 'k', 't', '{nowhere}', now() - interval '1 hour')"
    );
    execute(&mut fixture.database, &sql).await;
    while fixture.metric("oldest_pending_age_seconds").await < 3600.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.metric("pending_rows").await, 1.0);
    assert_eq!(fixture.metric("window_rows").await, 1.0);
}

#[tokio::test]
async fn a_relay_without_services_is_alive_and_not_ready_and_starts_when_they_come() {
    let mut server = services::private_postgres(services::postgres_options(
        outboxd::local::PostgresRelease::NEWEST,
    ))
    .await;
    let mut kafka = services::private_kafka(&[]).await;
    let mut fixture = Fixture::on("waits", &server.url("postgres"), &kafka.bootstrap()).await;
    insert(&mut fixture.database, "k").await;
    server
        .stop(outboxd::local::StopMode::Fast)
        .await
        .expect("stopping postgres");
    kafka.stop().await.expect("stopping kafka");
    fixture.relay.start();
    fixture.answers("/livez", 200, "ok").await;
    fixture
        .answers("/readyz", 503, "not ready, the schema was not seen yet")
        .await;
    server.start_again().await.expect("starting postgres");
    fixture.answers("/readyz", 200, "ready").await;
    kafka.start_again().await.expect("starting kafka");
    assert_eq!(fixture.next().await.key.as_deref(), Some("k"));
}

#[test]
fn every_broken_rule_of_the_configuration_is_reported_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_outboxd"))
        .env_clear()
        .args([
            "run",
            "--postgres-url",
            "postgres://u:geheim@h/d",
            "--set",
            "outbox.default.batch_rows=0",
        ])
        .args([
            "--set",
            "kafka.properties.acks=1",
            "--set",
            "relay.laese=1s",
        ])
        .output()
        .expect("running outboxd");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    for part in [
        "kafka.bootstrap_servers: must be set",
        "outbox.default.batch_rows",
        "acks",
        "relay.laese",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn a_configuration_file_that_is_named_must_exist() {
    for arguments in [
        &["run", "--config", "/no/such/file.toml"][..],
        &["migrate", "--config", "/no/such/file.toml"][..],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .env_clear()
            .args(arguments)
            .output()
            .expect("running outboxd");
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.toml"));
    }
}
