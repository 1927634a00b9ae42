//! Rows that cannot be published: parked with their reason, and what a person decides about them.

use std::process::Output;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};

use crate::support::command::{fails, succeeds};
use crate::support::fixture::{Fixture, boolean, execute, insert, number};
use crate::support::services;

/// What a topic of these tests takes, and a payload that is more, compressed or not.
const LIMIT: &str = "20000";
const LARGE_BYTES: usize = 64_000;

/// A relay that is not started, on a topic that takes small records only. It compresses, so that it cannot know
/// which are too large.
async fn fixture(name: &'static str, on_poison: &str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    limit(&fixture, LIMIT).await;
    fixture
        .relay
        .set("kafka.properties.compression.type", "lz4");
    fixture.relay.set("outbox.default.on_poison", on_poison);
    // A message set as a whole must fit, and be more than one row.
    fixture.relay.set("kafka.properties.batch.size", "15000");
    fixture.relay.set("kafka.properties.linger.ms", "50");
    fixture
}

async fn limit(fixture: &Fixture, bytes: &str) {
    services::alter_topic(
        fixture.bootstrap(),
        &fixture.topic,
        "max.message.bytes",
        bytes,
    )
    .await;
}

/// Inserts a row of the key; its payload is the number, or larger than the topic takes.
async fn write(fixture: &mut Fixture, key: &str, number: Option<u32>) {
    let payload = number.map_or_else(
        || {
            let chunks = LARGE_BYTES / 32;
            format!("(select to_json(string_agg(md5(random()::text), '')) from generate_series(1, {chunks}))")
        },
        |number| format!("'{number}'"),
    );
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         values ('x', '{key}', 't', {payload})"
    );
    execute(&mut fixture.database, &sql).await;
}

/// Key and data of the next record, its length if it is a long one.
async fn next(fixture: &mut Fixture) -> (String, Value) {
    let record = fixture.next().await;
    let data = match &record.body()["data"] {
        Value::String(text) => json!(text.len()),
        data => data.clone(),
    };
    (record.key.expect("a key"), data)
}

fn pair(key: &str, data: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), data.into())
}

/// Waits until so many rows are parked.
async fn parked(fixture: &mut Fixture, rows: i64) {
    let query = format!("select count(*) = {rows} from outboxd_parked");
    fixture.until(&query).await;
}

async fn decide(fixture: &mut Fixture, decision: &str) {
    let sql = format!(
        "select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), '{decision}', 'a test')"
    );
    assert!(number(&mut fixture.database, &sql).await > 0);
}

#[tokio::test]
async fn a_row_the_broker_refuses_is_parked_alone_and_its_key_goes_on() {
    let mut fixture = fixture("parked", "park_row").await;
    for (key, number) in [
        ("good", Some(1)),
        ("bad", Some(1)),
        ("bad", None),
        ("bad", Some(3)),
        ("good", Some(2)),
    ] {
        write(&mut fixture, key, number).await;
    }
    fixture.relay.start();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut fixture).await);
    }
    let of_key = |key: &str| {
        seen.iter()
            .filter(|(k, _)| k == key)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of_key("good"), [pair("good", 1), pair("good", 2)]);
    assert_eq!(of_key("bad"), [pair("bad", 1), pair("bad", 3)]);
    parked(&mut fixture, 1).await;
    let row = sqlx::query(
        "select p.event_type, p.topic, convert_from(p.key, 'UTF8'), p.class, p.reason, p.attempts, e.sent_at is null \
         from outboxd_parked p join outbox_events e on e.id = p.id and e.event_id = p.event_id \
         where p.outbox = 'public.outbox_events'",
    );
    let row = row.fetch_one(&mut fixture.database).await.expect("the row");
    assert_eq!(row.get::<String, _>(0), "t");
    assert_eq!(row.get::<String, _>(1), fixture.topic);
    assert_eq!(row.get::<String, _>(2), "bad");
    assert_eq!(row.get::<String, _>(3), "row");
    assert!(
        row.get::<String, _>(4).contains("too large"),
        "{}",
        row.get::<String, _>(4)
    );
    assert_eq!(row.get::<i32, _>(5), 1);
    assert!(row.get::<bool, _>(6), "it stays in the outbox, unsent");
    fixture.metric_is("parked_rows", |rows| rows == 1.0).await;

    limit(&fixture, "200000").await;
    decide(&mut fixture, "retry").await;
    assert_eq!(next(&mut fixture).await, pair("bad", LARGE_BYTES));
    fixture.settled().await;
    parked(&mut fixture, 0).await;
    let query = "select count(*) from outboxd_decisions where decision = 'retry' and decided_why = 'a test'";
    assert_eq!(number(&mut fixture.database, query).await, 1);
}

#[tokio::test]
async fn with_block_key_the_later_rows_wait_for_the_decision_whoever_restarts() {
    let mut fixture = fixture("blocked", "block_key").await;
    for number in [Some(1), None, Some(3)] {
        write(&mut fixture, "bad", number).await;
    }
    fixture.relay.start();
    assert_eq!(next(&mut fixture).await, pair("bad", 1));
    parked(&mut fixture, 1).await;
    write(&mut fixture, "bad", Some(4)).await;
    write(&mut fixture, "good", Some(1)).await;
    assert_eq!(next(&mut fixture).await, pair("good", 1));

    fixture
        .until("select count(*) = 3 from outbox_events where sent_at is null")
        .await;
    fixture.relay.kill().await;
    write(&mut fixture, "bad", Some(5)).await;
    write(&mut fixture, "good", Some(2)).await;
    fixture.relay.start();
    assert_eq!(next(&mut fixture).await, pair("good", 2));
    fixture.metric_is("held_rows", |rows| rows == 3.0).await;

    limit(&fixture, "200000").await;
    decide(&mut fixture, "retry").await;
    assert_eq!(next(&mut fixture).await, pair("bad", LARGE_BYTES));
    for number in 3..6 {
        assert_eq!(next(&mut fixture).await, pair("bad", number));
    }
    fixture.settled().await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn a_row_without_a_key_blocks_nobody_and_goes_out_when_it_is_let_go() {
    let mut fixture = fixture("keyless", "block_key").await;
    fixture.relay.set("outbox.default.key", "");
    write(&mut fixture, "bad", None).await;
    write(&mut fixture, "bad", Some(2)).await;
    fixture.relay.start();
    let record = fixture.next().await;
    assert_eq!(
        (record.key.as_deref(), &record.body()["data"]),
        (None, &json!(2))
    );
    parked(&mut fixture, 1).await;
    limit(&fixture, "200000").await;
    decide(&mut fixture, "retry").await;
    assert_eq!(fixture.next().await.key, None);
    fixture.settled().await;
}

#[tokio::test]
async fn a_discarded_row_never_goes_out_and_lets_its_key_go_on() {
    let mut fixture = fixture("discarded", "block_key").await;
    write(&mut fixture, "bad", None).await;
    write(&mut fixture, "bad", Some(2)).await;
    fixture.relay.start();
    parked(&mut fixture, 1).await;
    limit(&fixture, "200000").await;
    decide(&mut fixture, "discard").await;
    assert_eq!(next(&mut fixture).await, pair("bad", 2));
    fixture.settled().await;
    assert_eq!(fixture.published(), 1);
    parked(&mut fixture, 0).await;
}

#[tokio::test]
async fn a_decision_taken_while_no_relay_runs_is_acted_upon_by_the_next() {
    let mut fixture = fixture("decided", "block_key").await;
    write(&mut fixture, "bad", None).await;
    write(&mut fixture, "bad", Some(2)).await;
    fixture.relay.start();
    parked(&mut fixture, 1).await;
    fixture.relay.stop().await;
    limit(&fixture, "200000").await;
    decide(&mut fixture, "retry").await;
    fixture.relay.start();
    assert_eq!(next(&mut fixture).await, pair("bad", LARGE_BYTES));
    assert_eq!(next(&mut fixture).await, pair("bad", 2));
    fixture.settled().await;
}

#[tokio::test]
async fn a_decision_before_anything_is_read_ends_no_other_block() {
    let mut fixture = fixture("other_block", "block_key").await;
    for (key, number) in [
        ("let go", None),
        ("blocked", None),
        ("let go", Some(2)),
        ("blocked", Some(2)),
    ] {
        write(&mut fixture, key, number).await;
    }
    fixture.relay.start();
    parked(&mut fixture, 2).await;
    fixture.relay.stop().await;
    limit(&fixture, "200000").await;
    let first = "array(select min(id) from outboxd_parked)";
    let decide = format!("select outbox_dead_decide('public.outbox_events', {first}, 'retry')");
    assert_eq!(number(&mut fixture.database, &decide).await, 1);
    fixture.relay.start();
    assert_eq!(next(&mut fixture).await, pair("let go", LARGE_BYTES));
    assert_eq!(next(&mut fixture).await, pair("let go", 2));
    fixture
        .until("select count(*) = 2 from outbox_events where sent_at is null")
        .await;
    fixture.metric_is("held_rows", |rows| rows == 1.0).await;
    assert_eq!(fixture.published(), 2);
    fixture.relay.stop().await;
}

#[tokio::test]
async fn rows_that_cannot_be_messages_are_parked_before_they_are_sent() {
    let mut fixture = fixture("unsendable", "park_row").await;
    fixture.relay.start();
    execute(
        &mut fixture.database,
        "alter table outbox_events drop constraint \"topic must be 1 to 249 of a-z A-Z 0-9 . _ -\"; \
         insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, created_at, topic) values \
         ('x', 'late', 't', '1', '294000-01-01', null), \
         ('x', 'nowhere', 't', '1', default, 'no such/topic')",
    )
    .await;
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    parked(&mut fixture, 2).await;
    for (key, reason) in [
        ("late", "created_at must lie between"),
        ("nowhere", "topic must be 1 to 249"),
    ] {
        let query = format!(
            "select reason from outboxd_parked where convert_from(key, 'UTF8') = '{key}' and class = 'row'"
        );
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut fixture.database);
        let found: String = row.await.expect("a parked row").get(0);
        assert!(found.contains(reason), "{key}: {found}");
    }
    execute(
        &mut fixture.database,
        "update outbox_events set created_at = now() where aggregate_id = 'late'",
    )
    .await;
    decide(&mut fixture, "retry").await;
    assert_eq!(next(&mut fixture).await, pair("late", 1));
    parked(&mut fixture, 1).await;
}

#[tokio::test]
async fn a_paused_topic_waits_whoever_restarts_and_the_others_flow() {
    let mut fixture = Fixture::new("paused").await;
    let elsewhere = services::kafka().await.unique_topic("paused-elsewhere");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let pause = format!("select outbox_pause('public.outbox_events', '{elsewhere}')");
    execute(&mut fixture.database, &pause).await;
    let write = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) \
         values ('x', 'k', 't', '{elsewhere}')"
    );
    execute(&mut fixture.database, &write).await;
    fixture.relay.start();
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;

    execute(
        &mut fixture.database,
        "select outbox_pause('public.outbox_events')",
    )
    .await;
    fixture
        .metric_is("held_topics", |topics| topics == 2.0)
        .await;
    insert(&mut fixture.database, "later").await;
    fixture.relay.stop().await;
    fixture.relay.start();
    fixture.metric_is("pending_rows", |rows| rows == 2.0).await;
    assert_eq!(fixture.published(), 1);

    execute(
        &mut fixture.database,
        "select outbox_resume('public.outbox_events')",
    )
    .await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("later"));
    let unsent = "select count(*) = 1 from outbox_events where sent_at is null";
    fixture.until(unsent).await;
    let resume = format!("select outbox_resume('public.outbox_events', '{elsewhere}')");
    execute(&mut fixture.database, &resume).await;
    fixture.settled().await;
}

#[tokio::test]
async fn what_is_one_byte_too_large_never_enters_a_message_set() {
    let mut fixture = Fixture::new("one_byte").await;
    limit(&fixture, LIMIT).await;
    // The envelope's time has as many digits as it needs; of whole seconds it is always as long.
    let insert = |key: &str, letters: usize| {
        format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, created_at) \
             values ('x', '{key}', 't', to_json(repeat('x', {letters})), date_trunc('second', now()))"
        )
    };
    execute(&mut fixture.database, &insert("bad", 21_000)).await;
    fixture.relay.start();
    parked(&mut fixture, 1).await;
    let said = sqlx::query("select reason from outboxd_parked").fetch_one(&mut fixture.database);
    let said: String = said.await.expect("a parked row").get(0);
    let bytes = said
        .strip_prefix("the message of ")
        .and_then(|rest| rest.split(' ').next());
    let bytes: usize = bytes
        .and_then(|bytes| bytes.parse().ok())
        .expect("its size");
    let fits = 21_000 - (bytes - 20_000);
    execute(&mut fixture.database, &insert("fit", fits)).await;
    execute(&mut fixture.database, &insert("bad", fits + 1)).await;
    assert_eq!(next(&mut fixture).await, pair("fit", fits));
    parked(&mut fixture, 2).await;
    let query = "select count(*) from outboxd_parked \
                 where reason = 'the message of 20001 bytes is larger than the topic''s max.message.bytes (20000)'";
    assert_eq!(number(&mut fixture.database, query).await, 1);
    assert_eq!(fixture.relay.logged("making a new kafka producer"), 0);

    // A thousand rows that fit by themselves go out in sets that fit.
    let many = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                select 'x', 'k' || n % 10, 't', to_json(repeat('x', 500)) from generate_series(1, 1000) as n";
    execute(&mut fixture.database, many).await;
    fixture.take(1000).await;
    assert_eq!(fixture.relay.logged("kafka refused a message set"), 0);
    assert_eq!(fixture.metric("refused_total").await, 0.0);
}

#[tokio::test]
async fn a_topic_whose_rows_are_refused_in_turn_is_tried_with_one_row_and_parks_no_more() {
    let mut fixture = fixture("breaker", "park_row").await;
    fixture.relay.set("outbox.default.breaker_errors", "5");
    for key in 0..20 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;
    let elsewhere = services::kafka().await.unique_topic("breaker-elsewhere");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) values ('x', 'k', 't', '{elsewhere}')"
    );
    execute(&mut fixture.database, &sql).await;
    let sent = format!("select sent_at is not null from outbox_events where topic = '{elsewhere}'");
    fixture.until(&sent).await;
    parked(&mut fixture, 4).await;

    limit(&fixture, "200000").await;
    for _ in 0..16 {
        assert_eq!(next(&mut fixture).await.1, json!(LARGE_BYTES));
    }
    fixture
        .metric_is("held_topics", |topics| topics == 0.0)
        .await;
    decide(&mut fixture, "retry").await;
    fixture.settled().await;
}

/// Runs `outboxd dead park`.
fn park(fixture: &Fixture, topic: &str, arguments: &[&str]) -> Output {
    let arguments = [&["dead", "park", "--topic", topic], arguments].concat();
    let output = fixture.relay.command(&arguments).output();
    output.expect("running outboxd")
}

#[tokio::test]
async fn rows_of_a_topic_with_an_open_breaker_are_parked_all_the_same_until_it_takes_one() {
    let mut fixture = fixture("bypass", "park_row").await;
    fixture.relay.set("outbox.default.breaker_errors", "3");
    let topic = fixture.topic.clone();
    for key in 0..8 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 2).await;
    let said = fails(&park(&fixture, "elsewhere", &["--yes"]), 1);
    let rule = format!("--topic: must be one whose breaker is open ({topic}), is elsewhere");
    assert!(said.contains(&rule), "{said}");
    let reason = ["--yes", "--why", "the limit stays", "--who", "ada"];
    let said = succeeds(&park(&fixture, &topic, &reason));
    assert!(
        said.ends_with("; the relay acts on it within about a second\n"),
        "{said}"
    );
    parked(&mut fixture, 8).await;
    fixture
        .answers("/status", 200, "by ada: the limit stays")
        .await;
    fixture.answers("/status", 200, "\"topicCount\": 0").await;

    // Whoever restarts: it is in force for the next relay, though its breaker was never open.
    fixture.relay.stop().await;
    for key in 8..14 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    parked(&mut fixture, 14).await;
    let in_force =
        "select ended_at is null and by = 'ada' and why = 'the limit stays' from outboxd_bypasses";
    assert!(boolean(&mut fixture.database, in_force).await);
    let reasons =
        "select count(*) from outboxd_parked where class = 'row' and reason like '%too large%'";
    assert_eq!(number(&mut fixture.database, reasons).await, 14);

    // A row that the topic takes ends it.
    write(&mut fixture, "good", Some(1)).await;
    assert_eq!(next(&mut fixture).await, pair("good", 1));
    fixture
        .until("select ended_at is not null from outboxd_bypasses")
        .await;
    for key in 14..20 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 16).await;

    // With SQL alone, again; and taken back.
    let sql = format!("select outbox_dead_park('public.outbox_events', '{topic}')");
    assert!(boolean(&mut fixture.database, &sql).await, "{sql}");
    assert!(
        !boolean(&mut fixture.database, &sql).await,
        "it is in force"
    );
    parked(&mut fixture, 20).await;

    // Once more at the moment that it ends, before the relay has heard of it.
    write(&mut fixture, "good", Some(2)).await;
    assert_eq!(next(&mut fixture).await, pair("good", 2));
    fixture
        .until("select bool_and(ended_at is not null) from outboxd_bypasses")
        .await;
    assert!(boolean(&mut fixture.database, &sql).await, "{sql}");
    for key in 20..26 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    parked(&mut fixture, 26).await;
    let changes = "the topics whose refused rows are to be parked have changed";
    let before = fixture.relay.logged(changes);
    succeeds(&park(&fixture, &topic, &["--stop"]));
    fixture.relay.logs_more(changes, before).await;
    for key in 26..28 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 26).await;
}
