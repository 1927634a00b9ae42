//! Single rows, and what becomes of them and their keys.

use serde_json::json;
use sqlx::{AssertSqlSafe, Row};

use super::{LARGE_BYTES, LIMIT, decide, fixture, limit, next, pair, parked, write};
use crate::support::fixture::{Fixture, execute, insert, number};

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
async fn a_row_beyond_those_that_may_be_parked_holds_its_key_until_there_is_room() {
    let mut fixture = fixture("no_room", "park_row").await;
    execute(
        &mut fixture.database,
        "insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
         select 'public.outbox_events', -n, gen_random_uuid(), 't', 'row', 'a test', 1, now(), false \
         from generate_series(1, 200000) n",
    )
    .await;
    for (key, number) in [("bad", None), ("bad", Some(2)), ("good", Some(1))] {
        write(&mut fixture, key, number).await;
    }
    fixture.relay.start();
    assert_eq!(next(&mut fixture).await, pair("good", 1));
    fixture
        .relay
        .logs_more("the later rows of its key wait for it", 0)
        .await;
    parked(&mut fixture, 200_000).await;

    let discard = "select outbox_dead_decide('public.outbox_events', array[-1], 'discard')";
    assert_eq!(number(&mut fixture.database, discard).await, 1);
    assert_eq!(next(&mut fixture).await, pair("bad", 2));
    parked(&mut fixture, 200_000).await;
    fixture.relay.stop().await;
}
