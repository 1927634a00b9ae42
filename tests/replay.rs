//! `outboxd replay`: what was sent goes out again, the same bytes, when somebody asks for it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::command::{errors, fails, outboxd, succeeds};
use crate::support::fixture::{Fixture, Record, execute, insert, number, read_all};
use crate::support::services;

const REPLAY: &str = "outboxd-replay";

fn run(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = fixture.relay.command(&[&["replay"], arguments].concat());
    command.output().expect("running outboxd")
}

/// What a dry run says.
fn dry(fixture: &Fixture, arguments: &[&str]) -> Value {
    let output = run(fixture, &[arguments, &["--dry-run", "--json"]].concat());
    let text = succeeds(&output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Relays what is there to the end.
async fn relay(fixture: &mut Fixture) {
    fixture.relay.start_with(&["--until-empty"]);
    let ended = fixture.relay.wait(crate::support::fixture::PATIENCE).await;
    assert_eq!(ended, Some(0));
}

/// The same record as a replay sends it.
fn replayed(record: &Record) -> Record {
    let mut record = record.clone();
    record.headers.push((REPLAY.to_owned(), "1".to_owned()));
    record
}

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

#[tokio::test]
async fn rows_are_chosen_by_all_filters_together() {
    let mut fixture = Fixture::new("replay_choice").await;
    let elsewhere = services::kafka().await.unique_topic("replay-choice");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let event_id = "0192f0c1-2345-7abc-8def-0123456789ab";
    execute(
        &mut fixture.database,
        &format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, partition_key, correlation_id, topic, \
                                        event_id) values \
             ('order', 'a', 'placed', null, 'c-1', null, default), \
             ('order', 'b', 'placed', 'a', null, null, default), \
             ('order', 'a', 'paid', 'b', 'c-1', '{elsewhere}', default), \
             ('order', 'c', 'paid', null, null, null, '{event_id}')"
        ),
    )
    .await;
    relay(&mut fixture).await;
    execute(
        &mut fixture.database,
        "update outbox_events set created_at = clock_timestamp() - interval '1 hour' where id = 4",
    )
    .await;
    insert(&mut fixture.database, "unsent").await;
    let half_an_hour_ago = "select to_char((clock_timestamp() - interval '30 min') at time zone 'UTC', \
                            'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let row = sqlx::query(half_an_hour_ago)
        .fetch_one(&mut fixture.database)
        .await;
    let time: String = row.expect("a time").get(0);
    let topic = fixture.topic.clone();
    for (arguments, rows) in [
        (&["--all"][..], 4),
        (&["--id", "1"], 1),
        (&["--id", "1", "--id", "4"], 2),
        (&["--id", "5"], 0),
        (&["--event-id", event_id], 1),
        (&["--event-id", "evt_1"], 0),
        (&["--key", "a"], 2),
        (&["--type", "paid"], 2),
        (&["--correlation-id", "c-1"], 2),
        (&["--topic", &elsewhere], 1),
        (&["--topic", &topic], 3),
        (&["--from", &time], 3),
        (&["--to", &time], 1),
        (&["--key", "a", "--correlation-id", "c-1"], 1),
        (&["--all", "--after", "2"], 2),
    ] {
        let found = dry(&fixture, arguments);
        assert_eq!(found["rows"], rows, "{arguments:?}");
        assert_eq!(found["dryRun"], true);
    }
    let missing = run(&fixture, &["--id", "5", "--id", "4711", "--dry-run"]);
    assert_eq!(succeeds(&missing), "would replay 0 rows\n");
    let said = errors(&missing);
    assert!(
        said.contains("--id: must name rows that were sent"),
        "{said}"
    );
    assert!(said.contains("not one of them: 5, 4711"), "{said}");
    let would = succeeds(&run(&fixture, &["--all", "--dry-run"]));
    assert!(would.starts_with("would replay 4 rows: "), "{would}");
    assert_eq!(
        (
            fixture.published(),
            read_all(fixture.bootstrap(), &elsewhere).len()
        ),
        (3, 1)
    );
}

#[tokio::test]
async fn what_was_discarded_or_is_parked_never_goes_out() {
    let mut fixture = Fixture::new("replay_discarded").await;
    for key in ["sent", "discarded", "retried", "parked"] {
        insert(&mut fixture.database, key).await;
    }
    relay(&mut fixture).await;
    let columns =
        "(outbox, id, event_id, topic, class, reason, parked_at, decision, decided_at, decided_by)";
    let values = "'t', 'row', 'too large', now()";
    execute(
        &mut fixture.database,
        &format!(
            "insert into outboxd_decisions {columns} \
             select 'public.outbox_events', id, event_id, {values}, \
                    case aggregate_id when 'retried' then 'retry' else 'discard' end, now(), 'ada' \
             from outbox_events where aggregate_id in ('discarded', 'retried'); \
             insert into outboxd_decisions {columns} \
             select 'public.outbox_events', id, gen_random_uuid(), {values}, 'discard', now(), 'ada' \
             from outbox_events where aggregate_id = 'sent'; \
             insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
             select 'public.outbox_events', id, event_id, 't', 'row', 'too large', 1, now(), false \
             from outbox_events where aggregate_id = 'parked'"
        ),
    )
    .await;
    assert_eq!(
        succeeds(&run(&fixture, &["--all"])),
        "replayed 2 of 2 rows\n"
    );
    let records = read_all(fixture.bootstrap(), &fixture.topic);
    let again: Vec<&str> = records[4..]
        .iter()
        .filter_map(|record| record.key.as_deref())
        .collect();
    assert_eq!(again, ["sent", "retried"]);
}

#[tokio::test]
async fn events_that_their_topic_would_delete_need_to_be_allowed() {
    let mut fixture = Fixture::new("replay_expired").await;
    services::alter_topic(
        fixture.bootstrap(),
        &fixture.topic,
        "retention.ms",
        "3600000",
    )
    .await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, created_at) values \
         ('order', 'old', 't', clock_timestamp() - interval '2 hours'), ('order', 'new', 't', default)",
    )
    .await;
    relay(&mut fixture).await;
    let before = fixture.published();
    let said = fails(&run(&fixture, &["--all"]), 1);
    let rule = format!(
        "--allow-expired: must be given for rows older than their topic's retention.ms, which deletes them soon \
         after they arrive: 1 for topic \"{}\" (retention.ms: 1h)",
        fixture.topic
    );
    assert!(said.contains(&rule), "{said}");
    assert_eq!(fixture.published(), before, "nothing was sent");
    let warned = run(
        &fixture,
        &["--all", "--dry-run", "--consumer-retention", "90m"],
    );
    let said = errors(&warned);
    assert!(said.contains("warning: --allow-expired"), "{said}");
    assert!(
        said.contains("warning: 1 rows are older than --consumer-retention (1h 30m)"),
        "{said}"
    );
    assert_eq!(
        succeeds(&run(&fixture, &["--key", "new"])),
        "replayed 1 of 1 rows\n"
    );
    let both = run(&fixture, &["--all", "--allow-expired"]);
    assert_eq!(succeeds(&both), "replayed 2 of 2 rows\n");
}

#[tokio::test]
async fn what_is_beyond_retention_is_said() {
    let mut fixture = Fixture::new("replay_kept").await;
    let none = run(&fixture, &["--all"]);
    assert_eq!(succeeds(&none), "replayed 0 of 0 rows\n");
    let said = errors(&none);
    assert!(
        said.contains("sent rows are kept for 7days (outbox.default.retention), what is older is gone; none is there"),
        "{said}"
    );
    insert(&mut fixture.database, "k").await;
    relay(&mut fixture).await;
    let said = errors(&run(&fixture, &["--all", "--dry-run"]));
    assert!(
        said.contains("; the first that is there is row 1, created at 20"),
        "{said}"
    );
    fixture.relay.set("outbox.default.on_sent", "delete");
    let said = errors(&run(&fixture, &["--all", "--dry-run"]));
    assert!(
        said.contains("rows are deleted once they are sent (outbox.default.on_sent)"),
        "{said}"
    );
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

#[tokio::test]
async fn mistakes_are_said_before_anything_is_sent() {
    for (arguments, expected) in [
        (
            &[][..],
            "the following required arguments were not provided",
        ),
        (
            &["--all", "--rate", "0"],
            "invalid value '0' for '--rate <N>'",
        ),
        (
            &["--from", "yesterday"],
            "invalid value 'yesterday' for '--from <TIME>': must be RFC 3339, such as",
        ),
        (
            &["--all", "--consumer-retention", "long"],
            "invalid value 'long' for '--consumer-retention <DURATION>'",
        ),
    ] {
        let said = fails(&outboxd(&[&["replay"], arguments].concat()), 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let help = succeeds(&outboxd(&["replay", "--help"]));
    for option in [
        "--correlation-id",
        "--rate",
        "--dry-run",
        "--after",
        "--allow-expired",
    ] {
        assert!(help.contains(option), "{option} in {help}");
    }
    let mut fixture = Fixture::new("replay_mistakes").await;
    let said = fails(
        &run(
            &fixture,
            &[
                "--from",
                "2026-01-02T03:04:05Z",
                "--to",
                "2026-01-01T00:00:00Z",
            ],
        ),
        2,
    );
    assert!(
        said.contains("--to: must be after --from (2026-01-02T03:04:05Z), is 2026-01-01T00:00:00Z"),
        "{said}"
    );
    let said = fails(&run(&fixture, &["--all", "--outbox", "nine"]), 2);
    assert!(
        said.contains("--outbox: must name one of the configured outboxes (default), is nine"),
        "{said}"
    );

    insert(&mut fixture.database, "k").await;
    relay(&mut fixture).await;
    let sql = "update outbox_events set topic = 'replay-no-such-topic'";
    execute(&mut fixture.database, sql).await;
    let said = fails(&run(&fixture, &["--all"]), 1);
    assert!(
        said.contains("topic \"replay-no-such-topic\" cannot be used: "),
        "{said}"
    );
    let mut command = fixture
        .relay
        .command(&["replay", "--id", "4711", "--dry-run", "--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting outboxd");
    drop(BufReader::new(child.stdout.take().expect("its output")).lines());
    assert!(
        child.wait().expect("its end").success(),
        "a reader may go away"
    );
    assert_eq!(dry(&fixture, &["--id", "4711"])["missing"], json!([4711]));
}
