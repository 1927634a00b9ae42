//! Copies of parked rows in a topic for dead letters.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::command::succeeds;
use crate::support::fixture::{Fixture, Record, execute, insert, read_all};
use crate::support::services;

const COPIED: &str = "select count(*) > 0 and count(*) = count(copied_at) from outboxd_parked";

/// A relay that is not started, with a topic for dead letters that does not exist yet.
async fn fixture(name: &'static str) -> (Fixture, String) {
    let mut fixture = Fixture::new(name).await;
    let letters = services::kafka().await.unique_topic(name);
    fixture
        .relay
        .set("outbox.default.dead_letter_topic", &letters);
    (fixture, letters)
}

async fn limit(fixture: &Fixture, bytes: &str) {
    let (bootstrap, topic) = (fixture.bootstrap(), &fixture.topic);
    services::alter_topic(bootstrap, topic, "max.message.bytes", bytes).await;
}

/// The topic's letters by the row's key, or by its number if there is none.
fn letters(fixture: &Fixture, topic: &str) -> BTreeMap<String, Record> {
    let records = read_all(fixture.bootstrap(), topic).into_iter();
    let named = records.map(|record| {
        let row = record.header("dlq-row").expect("its row").to_owned();
        (record.key.clone().unwrap_or(row), record)
    });
    named.collect()
}

#[tokio::test]
async fn a_parked_row_is_copied_as_far_as_it_is_a_message_and_says_why_it_is_there() {
    let (mut fixture, topic) = fixture("copies").await;
    limit(&fixture, "20000").await;
    let settings = &[("max.message.bytes", "200000")];
    services::create_topic(fixture.bootstrap(), &topic, 1, settings).await;
    execute(
        &mut fixture.database,
        "alter table outbox_events drop constraint \"headers must be a flat object of strings, no reserved names\"; \
         insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, headers, created_at) values \
         ('x', 'whole', 't', to_json(repeat('x', 30000)), '{\"tenant\":\"t1\"}', '2026-01-02T03:04:05Z'), \
         ('x', 'larger', 't', to_json(repeat('x', 300000)), null, default), \
         ('x', 'unread', 't', to_json(repeat('x', 3000000)), null, default), \
         ('x', 'no message', 't', '1', '{\"a\":1}', default), \
         ('x', repeat('k', 1100000), 't', '1', null, default); \
         insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, \
                                     blocks_key, copied_at) \
         values ('public.outbox_events', 1, gen_random_uuid(), 't', 'row', \
                 'of another event, before its id was drawn again', 1, now(), false, now())",
    )
    .await;
    fixture.relay.start();
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    fixture
        .until("select count(*) = 5 from outboxd_parked")
        .await;
    fixture.until(COPIED).await;

    let letters = letters(&fixture, &topic);
    assert_eq!(letters.len(), 5, "{:?}", letters.keys());
    let whole = &letters["whole"];
    assert_eq!(whole.body()["data"], "x".repeat(30_000));
    assert_eq!(whole.header("tenant"), Some("t1"));
    assert_eq!(whole.header("dlq-omitted"), None);
    let said = |name| whole.header(name).expect(name);
    assert_eq!(said("dlq-outbox"), "default");
    assert_eq!(said("dlq-row"), "1");
    assert_eq!(said("dlq-event-id"), said("event-id"));
    assert_eq!(said("dlq-original-topic"), fixture.topic);
    assert_eq!(said("dlq-original-timestamp"), "1767323045000");
    assert_eq!(said("dlq-class"), "row");
    assert_eq!(said("dlq-attempts"), "1");
    assert!(said("dlq-reason").contains("larger than the topic's max.message.bytes (20000)"));
    for (key, omitted, reason) in [
        (
            "larger",
            "value",
            "larger than the topic's max.message.bytes",
        ),
        ("unread", "value, headers", "payload is 3000002 bytes"),
        (
            "no message",
            "value, headers",
            "flat JSON object of strings",
        ),
        (
            &format!("{} ...", "k".repeat(100)),
            "value, headers",
            "aggregate_id is 1100000 bytes",
        ),
    ] {
        let letter = &letters[key];
        assert_eq!(letter.value, None, "{key}");
        assert_eq!(letter.header("dlq-omitted"), Some(omitted), "{key}");
        let said = letter.header("dlq-reason").expect("a reason");
        assert!(said.contains(reason), "{key}: {said}");
    }

    // A row that is parked again is copied again.
    execute(
        &mut fixture.database,
        "select outbox_dead_decide('public.outbox_events', array[1], 'retry')",
    )
    .await;
    fixture.until("select exists (select from outboxd_decisions) and exists (select from outboxd_parked where id = 1)").await;
    fixture.until(COPIED).await;
    assert_eq!(read_all(fixture.bootstrap(), &topic).len(), 6);
    let show = &["dead", "show", "1", "--json"];
    let shown = fixture
        .relay
        .command(show)
        .output()
        .expect("running outboxd");
    let shown: Value = serde_json::from_str(&succeeds(&shown)).expect("JSON");
    assert!(shown["copiedAt"].is_string(), "{shown}");
    assert_eq!(fixture.metric("copied_total").await, 6.0);
}

#[tokio::test]
async fn parking_waits_for_no_copy_and_the_copy_is_made_whoever_restarts() {
    let (mut fixture, topic) = fixture("copies_late").await;
    limit(&fixture, "20000").await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) values \
         ('x', 'k', 't', to_json(repeat('x', 30000))), ('x', 'k', 't', '2')",
    )
    .await;
    fixture.relay.start();
    assert_eq!(fixture.next().await.body()["data"], 2);
    let reason = "parked rows cannot be copied to the topic for dead letters";
    fixture.relay.logs_more(reason, 0).await;
    fixture
        .until("select count(*) = 1 from outboxd_parked where copied_at is null")
        .await;
    fixture.relay.kill().await;
    services::create_topic(fixture.bootstrap(), &topic, 1, &[]).await;
    fixture.relay.start();
    fixture.until(COPIED).await;
    let letters = letters(&fixture, &topic);
    assert_eq!(letters["k"].body()["data"], json!("x".repeat(30_000)));
}

#[tokio::test]
async fn a_row_at_which_relays_died_or_that_is_gone_is_copied_unread() {
    let (mut fixture, topic) = fixture("copies_unread").await;
    let settings = &[("max.message.bytes", "100000")];
    services::create_topic(fixture.bootstrap(), &topic, 1, settings).await;
    let deadly = insert(&mut fixture.database, "deadly").await;
    execute(
        &mut fixture.database,
        &format!(
            "insert into outboxd_parked (outbox, id, event_id, topic, key, class, reason, attempts, first_failed_at, \
                                         blocks_key) \
             select 'public.outbox_events', id, event_id, '', null::bytea, 'crash', '3 relays died', 3, now(), false \
             from outbox_events where id = {deadly} \
             union all select 'public.outbox_events', 5000, gen_random_uuid(), 't', 'gone', 'row', 'r', 1, now(), false \
             union all select 'public.outbox_events', 5001, gen_random_uuid(), 't', \
                              convert_to(repeat('k', 200000), 'UTF8'), 'row', 'r', 1, now(), false"
        ),
    )
    .await;
    fixture.relay.start();
    fixture.until(COPIED).await;
    let letters = letters(&fixture, &topic);
    assert_eq!(letters.len(), 3, "{:?}", letters.keys());
    for (name, omitted) in [
        (deadly.to_string().as_str(), "value, headers"),
        ("gone", "value, headers"),
        ("5001", "key, value, headers"),
    ] {
        let letter = &letters[name];
        assert_eq!(letter.value, None, "{name}");
        assert_eq!(letter.header("event-id"), None, "{name}");
        assert_eq!(letter.header("dlq-omitted"), Some(omitted), "{name}");
    }
}
