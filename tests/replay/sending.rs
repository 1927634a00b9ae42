//! What a replay sends, and what becomes of it when something goes wrong.

use std::collections::HashMap;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{REPLAY, dry, relay, replayed, run};
use crate::support::command::{fails, succeeds};
use crate::support::fixture::{Fixture, Record, execute, insert, number, read_all};
use crate::support::services;

#[tokio::test]
async fn a_copy_is_the_same_byte_for_byte_but_for_one_header() {
    let mut fixture = Fixture::new("replay_copy").await;
    // One event is so old that Kafka deletes its segment at the next look.
    services::alter_topic(fixture.bootstrap(), &fixture.topic, "retention.ms", "-1").await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, payload_bytes, correlation_id, \
                                    headers, created_at) values \
         ('order', 'a', 'order.placed', '{\"n\":  1}', null, 'c-1', '{\"tenant\": \"t1\"}', '2026-01-02 03:04:05.678901Z'), \
         ('order', 'a', 'order.scanned', null, '\\x00ff', null, null, default), \
         ('order', 'a', 'order.gone', null, null, null, null, default)",
    )
    .await;
    relay(&mut fixture).await;
    let first = read_all(fixture.bootstrap(), &fixture.topic);
    assert_eq!(first.len(), 3);
    let said = run(&fixture, &["--key", "a", "--allow-expired"]);
    assert_eq!(succeeds(&said), "replayed 3 of 3 rows\n");
    let expected: Vec<Record> = first.iter().map(replayed).collect();
    assert_eq!(read_all(fixture.bootstrap(), &fixture.topic)[3..], expected);
    // And again: all replays' copies are the same.
    succeeds(&run(&fixture, &["--id", "3"]));
    assert_eq!(
        read_all(fixture.bootstrap(), &fixture.topic)[6],
        expected[2]
    );
    let sent = "select count(*) from outbox_events where sent_at is not null";
    assert_eq!(number(&mut fixture.database, sent).await, 3);
}

/// The rows of each key, in the order in which they came; the first of each is counted.
fn by_key(records: &[Record]) -> HashMap<String, Vec<i64>> {
    let mut keys: HashMap<String, Vec<i64>> = HashMap::new();
    for record in records
        .iter()
        .filter(|record| record.header(REPLAY).is_some())
    {
        let seen = keys.entry(record.key.clone().expect("a key")).or_default();
        let n = record.body()["data"].as_i64().expect("a number");
        if !seen.contains(&n) {
            seen.push(n);
        }
    }
    keys
}

/// Many rows of many keys on several partitions, sent once.
async fn many(name: &'static str, rows: usize) -> (Fixture, String) {
    let mut fixture = Fixture::new(name).await;
    let topic = services::kafka().await.unique_topic(name);
    services::kafka().await.create_topic(&topic, 4, &[]).await;
    fixture.relay.set("outbox.default.topic", &topic);
    execute(
        &mut fixture.database,
        &format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'order', 'key ' || n % 50, 't', to_json(n) from generate_series(1, {rows}) n"
        ),
    )
    .await;
    relay(&mut fixture).await;
    (fixture, topic)
}

fn assert_complete_and_in_order(records: &[Record], rows: usize) {
    let keys = by_key(records);
    assert_eq!(keys.values().map(Vec::len).sum::<usize>(), rows);
    for (key, seen) in keys {
        assert!(seen.is_sorted(), "{key}: {seen:?}");
    }
}

#[tokio::test]
async fn many_rows_go_out_complete_and_in_the_order_of_their_keys() {
    const ROWS: usize = 45_000;
    let (mut fixture, topic) = many("replay_many", ROWS).await;
    fixture.relay.set("outbox.default.window_rows", "2000");
    let said = succeeds(&run(&fixture, &["--type", "t"]));
    assert_eq!(said, format!("replayed {ROWS} of {ROWS} rows\n"));
    assert_complete_and_in_order(&read_all(fixture.bootstrap(), &topic), ROWS);
}

#[tokio::test]
async fn a_replay_that_is_interrupted_says_how_to_go_on() {
    const ROWS: usize = 500;
    let (fixture, topic) = many("replay_interrupted", ROWS).await;
    let mut command = fixture.relay.command(&["replay", "--all", "--rate", "50"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("starting outboxd");
    let published = || read_all(fixture.bootstrap(), &topic).len() - ROWS;
    let started = std::time::Instant::now();
    while published() < 20 {
        assert!(
            started.elapsed() < crate::support::fixture::PATIENCE,
            "nothing came"
        );
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("its end");
    let said = fails(&output, 75);
    let sent = published();
    assert!(sent < ROWS, "it was slowed down");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, format!("replayed {sent} of {ROWS} rows\n"));
    let (_, go_on) = said
        .split_once("go on with: outboxd replay ")
        .expect("a command");
    let (arguments, _) = go_on.split_once(" (and the same").expect("settings");
    assert_eq!(
        arguments,
        format!("--outbox default --rate 50 --after {sent} --all")
    );
    let arguments: Vec<&str> = arguments
        .split(' ')
        .filter(|word| !["--rate", "50"].contains(word))
        .collect();
    succeeds(&run(&fixture, &arguments));
    assert_complete_and_in_order(&read_all(fixture.bootstrap(), &topic), ROWS);
}

/// Three rows of a key that were sent, the second of them larger than the topic takes now.
async fn shrunk(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    for _ in 0..3 {
        insert(&mut fixture.database, "k").await;
    }
    execute(
        &mut fixture.database,
        "update outbox_events set payload = to_json((\
             select string_agg(md5(n::text), '') from generate_series(1, 1000) n)) where id = 2",
    )
    .await;
    relay(&mut fixture).await;
    services::alter_topic(
        fixture.bootstrap(),
        &fixture.topic,
        "max.message.bytes",
        "5000",
    )
    .await;
    fixture
}

#[tokio::test]
async fn a_row_that_its_topic_does_not_take_any_more_is_left_out_and_said() {
    let mut fixture = shrunk("replay_left_out").await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         select 'order', 'k', 't', to_json(n) from generate_series(1, 100) n",
    )
    .await;
    relay(&mut fixture).await;
    let output = run(&fixture, &["--key", "k"]);
    let said = fails(&output, 75);
    let rule = "warning: 1 rows cannot be messages any more and are left out, the first of them 2: the message of";
    assert!(said.contains(rule), "{said}");
    assert!(
        said.contains("larger than the topic's max.message.bytes (5000)"),
        "{said}"
    );
    // Together they are more than the topic takes at once.
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "replayed 102 of 102 rows\n"
    );
    assert_eq!(fixture.published(), 3 + 100 + 102);
}

#[tokio::test]
async fn a_row_that_the_broker_refuses_ends_the_replay_before_anything_later_of_its_key() {
    let mut fixture = shrunk("replay_refused").await;
    // Then nobody but the broker can tell.
    fixture
        .relay
        .set("kafka.properties.compression.type", "lz4");
    let said = fails(&run(&fixture, &["--key", "k"]), 1);
    assert!(said.contains("was refused: "), "{said}");
    assert!(
        said.contains("go on with: outboxd replay --outbox default --key k"),
        "{said}"
    );
    let again = fixture.published() - 3;
    assert!(
        again < 2,
        "{again} copies, and the third is not one of them"
    );
}

#[tokio::test]
async fn a_mapped_table_is_replayed_as_it_is_configured() {
    let database = services::postgres()
        .await
        .create_database("replay_mapped")
        .await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::bare("replay_mapped", &database.url, kafka).await;
    execute(
        &mut fixture.database,
        "create table events (\"Seq\" serial, id text not null, k text, body text, status text not null default 'NEW'); \
         create unique index on events (\"Seq\"); \
         insert into events (id, k, body) values ('evt_1', 'a', 'one'), ('evt_2', 'b', 'two'); \
         insert into events (id, k, body, status) values ('evt_3', 'a', 'three', 'FAILED')",
    )
    .await;
    for (option, value) in [
        ("table", "events"),
        ("columns.id", "Seq"),
        ("columns.event_id", "id"),
        ("columns.aggregate_id", "k"),
        ("columns.payload", "body"),
        ("sent.column", "status"),
        ("sent.unsent", "NEW"),
        ("sent.sent", "DONE"),
        ("envelope", "raw"),
    ] {
        fixture
            .relay
            .set(&format!("outbox.default.{option}"), value);
    }
    fixture.relay.migrate().await;
    relay(&mut fixture).await;
    let first = read_all(fixture.bootstrap(), &fixture.topic);
    assert_eq!(dry(&fixture, &["--all"])["rows"], 2);
    assert_eq!(dry(&fixture, &["--id", "2"])["rows"], 1);
    assert_eq!(dry(&fixture, &["--key", "a", "--type", "t"])["rows"], 0);
    succeeds(&run(&fixture, &["--event-id", "evt_1"]));
    let records = read_all(fixture.bootstrap(), &fixture.topic);
    assert_eq!(
        (records.len(), &records[2].value),
        (3, &Some(b"one".to_vec()))
    );
    // Without a time of its own a message has that of its sending.
    let first = first.iter().find(|record| record.key == records[2].key);
    let (copy, expected) = (&records[2], replayed(first.expect("the first copy")));
    assert_eq!(
        (&copy.key, &copy.headers),
        (&expected.key, &expected.headers)
    );
    let said = fails(&run(&fixture, &["--from", "2026-01-02T03:04:05Z"]), 1);
    assert!(
        said.contains(
            "--from and --to: need a column for created_at, outbox.default.columns names none"
        ),
        "{said}"
    );
}
