//! What cannot go on leaves the window: however many rows wait for a topic or behind a failed row, the others
//! flow, memory stays bounded, and what waited goes out complete and in order.

use crate::support::arrived::Arrived;
use crate::support::fixture::{Fixture, execute, number, read_all};
use crate::support::services;

/// The rows of a window: what is held may stay in it as long as nobody else wants the room.
const WINDOW: f64 = 6_000.0;

/// Rows for a topic that is missing, rows behind one that the broker refuses, rows of everybody else.
struct Sizes {
    missing: usize,
    behind: usize,
    good: usize,
}

impl Sizes {
    fn of_this_run() -> Sizes {
        match std::env::var_os("OUTBOXD_SOAK") {
            None => Sizes {
                missing: 20_000,
                behind: 8_000,
                good: 4_000,
            },
            Some(_) => Sizes {
                missing: 1_000_000,
                behind: 100_000,
                good: 200_000,
            },
        }
    }
}

/// Rows `1..=count` of as many keys, numbered in their payload.
async fn insert_rows(fixture: &mut Fixture, count: usize, key: &str, topic: Option<&str>) {
    let topic = topic.map_or("null".to_owned(), |topic| format!("'{topic}'"));
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
         select 'x', {key}, 't', n::text::json, {topic} from generate_series(1, {count}) as n"
    );
    execute(&mut fixture.database, &sql).await;
}

#[tokio::test]
async fn what_waits_for_a_topic_or_behind_a_row_leaves_the_others_their_room_and_comes_in_order() {
    let sizes = Sizes::of_this_run();
    let mut fixture = Fixture::new("holds").await;
    let kafka = services::kafka().await;
    let missing = kafka.unique_topic("holds-missing");
    kafka
        .alter_topic(&fixture.topic, "max.message.bytes", "400000")
        .await;
    insert_rows(
        &mut fixture,
        sizes.missing,
        "'m' || n % 1000",
        Some(&missing),
    )
    .await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         values ('x', 'bad', 't', to_json(repeat('x', 600000)))",
    )
    .await;
    insert_rows(&mut fixture, sizes.behind, "'bad'", None).await;
    insert_rows(&mut fixture, sizes.good, "'g' || n % 1000", None).await;

    fixture.relay.set("outbox.default.on_poison", "block_key");
    fixture.relay.start();
    let mut arrived = Arrived::default();
    arrived.take_until(&mut fixture, sizes.good).await;
    let waiting = (sizes.missing + sizes.behind) as f64;
    fixture
        .metric_is("pending_rows", |rows| rows == waiting)
        .await;
    assert!(fixture.metric("held_rows").await > waiting - WINDOW);
    assert_eq!(fixture.metric("held_topics").await, 1.0);
    let first_mib = fixture.relay.peak_memory_mib();

    fixture.relay.kill().await;
    insert_rows(&mut fixture, sizes.good, "'h' || n % 1000", None).await;
    fixture.relay.start();
    arrived.take_until(&mut fixture, 2 * sizes.good).await;
    let second_mib = fixture.relay.peak_memory_mib();

    kafka
        .alter_topic(&fixture.topic, "max.message.bytes", "1000000")
        .await;
    let retry = "select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), 'retry')";
    assert_eq!(number(&mut fixture.database, retry).await, 1);
    let all = 2 * sizes.good + 1 + sizes.behind;
    arrived.take_until(&mut fixture, all).await;
    kafka.create_topic(&missing, 1, &[]).await;
    fixture.settled().await;
    let mut waited = Arrived::default();
    for record in read_all(fixture.bootstrap(), &missing) {
        waited.take(&record);
    }
    assert_eq!(waited.events.len(), sizes.missing);
    fixture.metric_is("held_rows", |rows| rows == 0.0).await;
    let last_mib = fixture.relay.peak_memory_mib();
    fixture.relay.stop().await;
    println!(
        "holds: {} rows for a missing topic, {} behind a refused one, {} good ones twice, \
         peak memory {first_mib:.1}, after a restart {second_mib:.1}, at the end {last_mib:.1} MiB",
        sizes.missing, sizes.behind, sizes.good
    );
}
