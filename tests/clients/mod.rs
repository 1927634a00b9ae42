//! The examples in other languages, run as their users run them.
//!
//! Java's run in every `cargo test`: who has a Kafka has Java and Maven. The others' toolchains are not
//! asked of everybody: `tests/clients/run` prepares them and runs the tests that are ignored here, the SDKs of
//! CloudEvents among them.

mod cloudevents;
mod debezium;
mod language;
mod shop;
mod snippets;

use debezium::an_insert_into_debeziums_table_is_published_as_its_router_does;
use language::Language;
use shop::Shop;

use crate::support::fixture::{boolean, execute, number};

/// Enough for several of each order, few enough for one fetch of any client.
const EVENTS: usize = 30;

async fn an_insert_has_its_keys_lock_before_it_draws_an_id(language: Language) {
    let mut shop = Shop::open(language).await;
    let mut other = shop.connect().await;
    let change = "begin; update orders set total_cents = 5000000 where id = 'ord_1'";
    execute(&mut other, change).await;

    let insert = shop.start_insert(1);
    shop.somebody_waits().await;

    // A sequence shows what was drawn in open transactions too.
    let drawn = "select is_called from outbox_events_id_seq";
    assert!(!boolean(&mut other, drawn).await, "an id was drawn before");
    execute(&mut other, "commit").await;
    insert.succeeds().await;
    let built_on_the_change = "select o.total_cents = (payload->>'totalCents')::bigint \
                                  and o.total_cents = 5000000 + (payload->>'priceCents')::bigint \
                               from orders o join outbox_events e on e.aggregate_id = o.id";
    assert!(boolean(&mut other, built_on_the_change).await);
}

async fn an_order_stays_as_it_was_if_its_event_cannot_be_inserted(language: Language) {
    let mut shop = Shop::open(language).await;
    let refuse = "alter table outbox_events add constraint refused check (false)";
    execute(shop.database(), refuse).await;

    shop.start_insert(1).fails().await;

    let changed = "select count(*) from orders where total_cents <> 0";
    assert_eq!(number(shop.database(), changed).await, 0);
}

async fn an_event_takes_effect_once_over_a_crash_and_a_replay(language: Language) {
    let mut shop = Shop::open(language).await;
    let events = shop.publish(EVENTS).await;
    assert!(
        events.iter().all(|event| event
            .header("correlation-id")
            .is_some_and(|id| id.len() > 20)),
        "every event has a correlation id: {events:?}"
    );

    // It is killed in its last transaction, after the claim and before the effect's end.
    let held = shop.hold_effect(EVENTS).await;
    let consumer = shop.start_consumer("first", EVENTS);
    shop.somebody_waits().await;
    consumer.kill().await;
    drop(held);
    let committed = shop.committed_offset("first").await;
    assert!(
        committed < EVENTS - 1,
        "the crash came between effects and their offsets, of which {committed} were committed"
    );

    let outcomes = shop.consume("first", EVENTS - committed).await;
    shop.assert_invoices_match_orders().await;
    assert_eq!(outcomes.count("duplicate"), EVENTS - 1 - committed);
    assert_eq!(outcomes.count("new"), 1);
    assert_eq!(shop.committed_offset("first").await, EVENTS);

    let outcomes = shop.consume("second", EVENTS).await;
    shop.assert_invoices_match_orders().await;
    assert_eq!(outcomes.count("duplicate"), EVENTS);
}

async fn an_event_whose_effect_fails_is_not_passed_over(language: Language) {
    let mut shop = Shop::open(language).await;
    shop.publish(3).await;
    shop.fail_effect(2).await;

    // KafkaJS tries again by itself, the others end and are started again.
    if shop.start_consumer("only", 3).ends().await != Some(0) {
        let left = 3 - shop.committed_offset("only").await;
        shop.consume("only", left).await;
    }

    shop.assert_invoices_match_orders().await;
    assert_eq!(shop.processed().await, 3);
}

async fn a_claim_that_cannot_be_serialized_is_tried_again(language: Language) {
    let mut shop = Shop::open(language).await;
    let event = shop.publish(1).await.remove(0).event_id().to_string();
    shop.default_to_isolation("repeatable read").await;

    let rival = shop.claim(&event).await;
    let consumer = shop.start_consumer("only", 1);
    shop.somebody_waits().await;
    shop.commit(rival).await;

    // The first try ends with 40001, the second sees the other's claim.
    let outcomes = consumer.succeeds().await;
    assert_eq!(outcomes.lines(), [format!("duplicate {event}")]);
}

async fn an_event_too_old_to_tell_is_parked_and_takes_no_effect(language: Language) {
    let mut shop = Shop::open(language).await;
    let event = shop.publish(1).await.remove(0).event_id().to_string();
    let forget = "insert into processed_consumers (consumer, forgotten_before) \
                  values ('billing', now() + interval '1 hour')";
    execute(shop.database(), forget).await;

    for group in ["first", "second"] {
        let outcomes = shop.consume(group, 1).await;
        assert_eq!(outcomes.lines(), [format!("expired {event}")]);
    }

    let parked = format!(
        "select count(*) = 1 and min(event_id) = '{event}' and min(message::json->>'eventId') = '{event}' \
         from parked_events"
    );
    assert!(boolean(shop.database(), &parked).await);
    assert_eq!(
        number(shop.database(), "select count(*) from invoices").await,
        0
    );
    assert_eq!(shop.processed().await, 0);
}

/// The claims above, as tests of one language.
macro_rules! tests_of {
    ($module:ident, $language:expr $(, $attribute:meta)?) => {
        mod $module {
            use super::Language;

            tests_of!(@ $language, $($attribute)?,
                an_insert_has_its_keys_lock_before_it_draws_an_id
                an_order_stays_as_it_was_if_its_event_cannot_be_inserted
                an_event_takes_effect_once_over_a_crash_and_a_replay
                an_event_whose_effect_fails_is_not_passed_over
                a_claim_that_cannot_be_serialized_is_tried_again
                an_event_too_old_to_tell_is_parked_and_takes_no_effect
                an_insert_into_debeziums_table_is_published_as_its_router_does);
        }
    };
    (@ $language:expr, $attribute:meta, $($test:ident)*) => {
        $(#[tokio::test] #[$attribute] async fn $test() { super::$test($language).await; })*
    };
    (@ $language:expr, , $($test:ident)*) => {
        $(#[tokio::test] async fn $test() { super::$test($language).await; })*
    };
}

tests_of!(java, Language::Java);
tests_of!(
    python,
    Language::Python,
    ignore = "tests/clients/run runs it"
);
tests_of!(node, Language::Node, ignore = "tests/clients/run runs it");
tests_of!(go, Language::Go, ignore = "tests/clients/run runs it");
