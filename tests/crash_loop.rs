//! A row that ends every relay that reads it, and relays that end for other reasons.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::Row;

use crate::support::fixture::{Fixture, PATIENCE, execute, insert, number};
use crate::support::relay::OWNS;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A relay on an outbox with so many rows on four keys, and the id of the first.
async fn fixture(name: &'static str, rows: i64) -> (Fixture, i64) {
    let mut fixture = Fixture::new(name).await;
    let mut first = None;
    for row in 0..rows {
        let id = insert(&mut fixture.database, &format!("key-{}", row % 4)).await;
        first.get_or_insert(id);
    }
    (fixture, first.expect("a row"))
}

/// Starts relays one after the other until a row is parked; returns how many died before.
async fn deaths_until_parked(fixture: &mut Fixture) -> u32 {
    let deadline = Instant::now() + 3 * PATIENCE;
    for deaths in 0.. {
        // A successor need not wait for the lease.
        execute(
            &mut fixture.database,
            "update outboxd_leases set expires_at = '-infinity'",
        )
        .await;
        fixture.relay.start();
        while !fixture.relay.has_ended() {
            if number(&mut fixture.database, "select count(*) from outboxd_parked").await > 0 {
                return deaths;
            }
            assert!(Instant::now() < deadline, "no row is parked");
            tokio::time::sleep(POLL).await;
        }
    }
    unreachable!("relays are started until a row is parked")
}

/// Asserts that this row alone is parked, for having ended relays.
async fn is_parked(fixture: &mut Fixture, row: i64) {
    let parked = sqlx::query("select id, class, reason from outboxd_parked");
    let parked = parked
        .fetch_one(&mut fixture.database)
        .await
        .expect("one row");
    let reason: String = parked.get(2);
    assert_eq!((parked.get(0), parked.get(1)), (row, "crash"), "{reason}");
    assert!(reason.contains("relays died in succession"), "{reason}");
}

/// Asserts that so many rows are there, once repeats are dropped, and each key's in the order of their ids.
async fn arrive_in_order(fixture: &mut Fixture, rows: usize) {
    let mut places: BTreeMap<uuid::Uuid, i64> = BTreeMap::new();
    let known = sqlx::query("select id, event_id from outbox_events");
    for row in known
        .fetch_all(&mut fixture.database)
        .await
        .expect("the rows")
    {
        places.insert(row.get(1), row.get(0));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    while seen.len() < rows {
        let record = fixture.next().await;
        let place = places[&record.event_id()];
        if seen.insert(place) {
            let before = last.insert(record.key.expect("a key"), place);
            assert!(before < Some(place), "{place} comes after {before:?}");
        }
    }
}

#[tokio::test]
async fn a_row_that_ends_every_relay_is_found_and_parked_and_the_others_go_on() {
    let (mut fixture, first) = fixture("crash_loop", 40).await;
    let deadly = first + 22;
    fixture.relay.set_fault(Some(format!("abort:{deadly}")));
    let deaths = deaths_until_parked(&mut fixture).await;
    // Three before anybody is careful, then as often as 40 can be halved.
    assert!((4..=3 + 6).contains(&deaths), "{deaths} relays died");
    is_parked(&mut fixture, deadly).await;
    fixture
        .until("select count(*) = 1 from outbox_events where sent_at is null")
        .await;
    arrive_in_order(&mut fixture, 39).await;
    let query = "select unclean_starts + coalesce(trial_rows, 0) from outboxd_leases";
    assert_eq!(
        number(&mut fixture.database, &format!("select ({query})::bigint")).await,
        0
    );

    // The row is not looked at again, by whom ever.
    fixture.relay.stop().await;
    fixture.relay.start();
    insert(&mut fixture.database, "key-0").await;
    fixture
        .until("select count(*) = 1 from outbox_events where sent_at is null")
        .await;
    fixture.relay.stop().await;

    // The defect is mended.
    fixture.relay.set_fault(None);
    fixture.relay.start();
    execute(
        &mut fixture.database,
        "select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), 'retry', 'mended')",
    )
    .await;
    fixture.settled().await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn a_row_at_which_the_lane_breaks_is_found_by_the_same_process() {
    let (mut fixture, first) = fixture("lane_breaks", 3).await;
    let deadly = first + 1;
    fixture.relay.set_fault(Some(format!("panic:{deadly}")));
    fixture.relay.start();
    fixture
        .until("select count(*) = 1 from outboxd_parked")
        .await;
    is_parked(&mut fixture, deadly).await;
    arrive_in_order(&mut fixture, 2).await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn rows_that_fail_by_the_way_hide_no_deadly_one() {
    let (mut fixture, _) = fixture("crash_hidden", 2).await;
    // The first waits for its topic, and so does what comes behind it.
    execute(
        &mut fixture.database,
        "update outbox_events set topic = 'not-there-' || id::text",
    )
    .await;
    let deadly = insert(&mut fixture.database, "deadly").await;
    insert(&mut fixture.database, "good").await;
    fixture.relay.set_fault(Some(format!("abort:{deadly}")));
    deaths_until_parked(&mut fixture).await;
    is_parked(&mut fixture, deadly).await;
    arrive_in_order(&mut fixture, 1).await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn relays_that_are_killed_while_kafka_is_away_park_nothing() {
    let (mut fixture, _) = fixture("killed_waiting", 1).await;
    let kafka = fixture.bootstrap().to_owned();
    let nobody = outboxd::local::free_port().expect("a free port");
    let nobody = format!("127.0.0.1:{nobody}");
    fixture.relay.set("kafka.bootstrap_servers", &nobody);
    fixture.relay.set("relay.lease", "1s");
    for _ in 0..8 {
        let before = fixture.relay.logged(OWNS);
        execute(
            &mut fixture.database,
            "update outboxd_leases set expires_at = '-infinity'",
        )
        .await;
        fixture.relay.start();
        fixture.relay.logs_more(OWNS, before).await;
        // It lives long enough to begin a trial.
        for _ in 0..3 {
            let expiry = "select extract(epoch from expires_at)::float8::text from outboxd_leases";
            let expiry = sqlx::query_scalar::<_, String>(expiry);
            let expiry = expiry.fetch_one(&mut fixture.database).await;
            let expiry = expiry.expect("the lease");
            let renewed = format!(
                "select extract(epoch from expires_at)::float8::text <> '{expiry}' from outboxd_leases"
            );
            fixture.until(&renewed).await;
        }
        fixture.relay.kill().await;
    }
    let query = "select count(trial_after) from outboxd_leases";
    assert_eq!(
        number(&mut fixture.database, query).await,
        0,
        "nothing was read"
    );
    fixture.relay.set("kafka.bootstrap_servers", &kafka);
    execute(
        &mut fixture.database,
        "update outboxd_leases set expires_at = '-infinity'",
    )
    .await;
    fixture.relay.start();
    fixture.settled().await;
    let query = "select count(*) from outboxd_parked";
    assert_eq!(number(&mut fixture.database, query).await, 0);
    fixture
        .until("select unclean_starts = 0 and trial_rows is null from outboxd_leases")
        .await;
    fixture.relay.stop().await;
}
