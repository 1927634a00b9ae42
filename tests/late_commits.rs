//! Rows that commit behind the position: in time, in order, and at no cost to the polls.

use std::time::Duration;

use outboxd::local::{PostgresRelease, StopMode};
use sqlx::{Connection, PgConnection};

use crate::support::fixture::{Fixture, connect, execute, insert, number};
use crate::support::services;

/// What the proofs miss must not be mended by the sweep, or the tests would be blind.
const NO_SWEEP: (&str, &str) = ("outbox.default.sweep_interval", "1d");

async fn fixture(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    fixture.relay.set(NO_SWEEP.0, NO_SWEEP.1);
    fixture.relay.start();
    fixture
}

async fn keys(fixture: &mut Fixture, count: usize) -> Vec<String> {
    let records = fixture.take(count).await;
    records
        .into_iter()
        .map(|record| record.key.expect("a key"))
        .collect()
}

#[tokio::test]
async fn a_row_that_commits_late_is_published_before_the_next_of_its_key() {
    let mut fixture = fixture("late").await;
    late_row(&mut fixture).await;
}

#[tokio::test]
async fn a_row_that_commits_late_is_published_on_postgres_13() {
    let database = services::postgres_13()
        .await
        .create_database("late_13")
        .await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("late_13", &database.url, kafka).await;
    fixture.relay.set(NO_SWEEP.0, NO_SWEEP.1);
    fixture.relay.start();
    late_row(&mut fixture).await;
}

async fn late_row(fixture: &mut Fixture) {
    let mut late = fixture.connect().await;
    let mut other = fixture.connect().await;
    execute(&mut late, "begin").await;
    insert(&mut late, "slow").await;
    for _ in 0..3 {
        insert(&mut other, "fast").await;
    }
    assert_eq!(keys(fixture, 3).await, ["fast"; 3], "others do not wait");
    // Longer than a proof takes: the open transaction is all that is left of its segment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    insert(&mut other, "fast").await;
    assert_eq!(keys(fixture, 1).await, ["fast"]);
    execute(&mut late, "commit").await;
    insert(&mut other, "slow").await;
    let records = fixture.take(2).await;
    let ids: Vec<_> = records.iter().map(|record| record.event_id()).collect();
    let expected = "select string_agg(event_id::text, ',' order by id) from outbox_events where aggregate_id = 'slow'";
    let expected: String = sqlx::query_scalar(expected)
        .fetch_one(&mut fixture.database)
        .await
        .unwrap();
    assert_eq!(format!("{},{}", ids[0], ids[1]), expected);
    fixture.settled().await;
}

#[tokio::test]
async fn a_rolled_back_row_is_never_published_and_holds_nothing_up() {
    let mut fixture = fixture("rolled_back").await;
    let mut other = fixture.connect().await;
    execute(&mut other, "begin").await;
    insert(&mut other, "never").await;
    execute(&mut other, "savepoint s").await;
    insert(&mut other, "never").await;
    execute(&mut other, "rollback to savepoint s; rollback").await;
    execute(&mut other, "begin; savepoint s").await;
    insert(&mut other, "never").await;
    execute(&mut other, "rollback to savepoint s").await;
    insert(&mut other, "kept").await;
    execute(&mut other, "commit; begin").await;
    insert(&mut other, "never").await;
    execute(&mut other, "prepare transaction 'rolled_back'").await;
    execute(&mut other, "rollback prepared 'rolled_back'").await;
    insert(&mut other, "last").await;
    assert_eq!(keys(&mut fixture, 2).await, ["kept", "last"]);
    fixture.settled().await;
    assert_eq!(fixture.published(), 2);
}

#[tokio::test]
async fn an_id_drawn_in_an_earlier_statement_is_waited_for() {
    let mut fixture = fixture("nextval").await;
    let mut early = fixture.connect().await;
    let mut other = fixture.connect().await;
    execute(&mut early, "begin").await;
    let id = number(
        &mut early,
        "select nextval(pg_get_serial_sequence('outbox_events', 'id'))",
    )
    .await;
    insert(&mut other, "fast").await;
    assert_eq!(keys(&mut fixture, 1).await, ["fast"]);
    // The drawer has no transaction id yet, and several proofs are tried meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    insert(&mut other, "fast").await;
    assert_eq!(keys(&mut fixture, 1).await, ["fast"]);
    let sql = format!(
        "insert into outbox_events (id, aggregate_type, aggregate_id, event_type) overriding system value \
         values ({id}, 'order', 'early', 'order.placed'); commit"
    );
    execute(&mut early, &sql).await;
    assert_eq!(keys(&mut fixture, 1).await, ["early"]);
    fixture.settled().await;
}

#[tokio::test]
async fn a_prepared_transaction_is_published_after_its_commit_also_across_a_restart() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let mut server = services::private_postgres(options).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("prepared", &server.url("postgres"), kafka).await;
    fixture.relay.set(NO_SWEEP.0, NO_SWEEP.1);
    fixture.relay.start();
    let mut other = fixture.connect().await;
    for name in ["before", "across"] {
        execute(&mut other, "begin").await;
        insert(&mut other, name).await;
        execute(&mut other, &format!("prepare transaction '{name}'")).await;
    }
    insert(&mut other, "fast").await;
    assert_eq!(keys(&mut fixture, 1).await, ["fast"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    execute(&mut other, "commit prepared 'before'").await;
    assert_eq!(keys(&mut fixture, 1).await, ["before"]);
    fixture.settled().await;
    server
        .restart(StopMode::Fast)
        .await
        .expect("restarting postgres");
    let mut other = fixture.connect().await;
    insert(&mut other, "after").await;
    assert_eq!(keys(&mut fixture, 1).await, ["after"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    execute(&mut other, "commit prepared 'across'").await;
    assert_eq!(keys(&mut fixture, 1).await, ["across"]);
    fixture.database = connect(&server.url("postgres")).await;
    fixture.settled().await;
}

#[tokio::test]
async fn a_gap_of_a_million_ids_costs_nothing() {
    let mut fixture = fixture("gap").await;
    let mut other = fixture.connect().await;
    insert(&mut other, "first").await;
    let jump = "select setval(s, 1000000 + (select max(id) from outbox_events)) \
                from pg_get_serial_sequence('outbox_events', 'id') s";
    execute(&mut other, jump).await;
    insert(&mut other, "second").await;
    assert_eq!(keys(&mut fixture, 2).await, ["first", "second"]);
    fixture.settled().await;
}

#[tokio::test]
async fn an_id_below_the_position_that_no_proof_covers_is_found_by_the_sweep() {
    let mut fixture = Fixture::new("sweep").await;
    fixture.relay.set("outbox.default.sweep_interval", "1s");
    fixture.relay.start();
    let mut other = fixture.connect().await;
    execute(
        &mut other,
        "select setval(pg_get_serial_sequence('outbox_events', 'id'), 100)",
    )
    .await;
    insert(&mut other, "regular").await;
    assert_eq!(keys(&mut fixture, 1).await, ["regular"]);
    fixture.settled().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    execute(
        &mut other,
        "insert into outbox_events (id, aggregate_type, aggregate_id, event_type) overriding system value \
         values (7, 'order', 'made by a client', 'order.placed')",
    )
    .await;
    assert_eq!(keys(&mut fixture, 1).await, ["made by a client"]);
    fixture.settled().await;
    assert!(fixture.relay.logged("the sweep found") > 0);
}

#[tokio::test]
async fn a_sequence_that_is_set_back_is_noticed() {
    let mut fixture = fixture("set_back").await;
    let mut other = fixture.connect().await;
    for _ in 0..5 {
        insert(&mut other, "before").await;
    }
    keys(&mut fixture, 5).await;
    fixture.settled().await;
    execute(&mut other, "truncate outbox_events restart identity").await;
    insert(&mut other, "after").await;
    assert_eq!(keys(&mut fixture, 1).await, ["after"]);
    fixture.settled().await;
}

/// A crash that loses the ids drawn since the last flush, twice over.
#[tokio::test]
async fn ids_that_are_drawn_again_after_a_crash_are_other_events() {
    let options = services::postgres_options(PostgresRelease::NEWEST)
        // Nothing is flushed but by a commit, so that a crash loses as much as it can.
        .setting("wal_writer_delay", "10s");
    let mut server = services::private_postgres(options).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("drawn_again", &server.url("postgres"), kafka).await;
    fixture.relay.set(NO_SWEEP.0, NO_SWEEP.1);
    fixture.relay.start();
    let mut other = fixture.connect().await;
    insert(&mut other, "durable").await;
    keys(&mut fixture, 1).await;
    fixture.settled().await;
    // The relay publishes what commits, and proves a floor above all of it.
    draw_and_lose(&mut other).await;
    assert_eq!(keys(&mut fixture, 50).await, ["lost"; 50]);
    let highest = number(&mut other, "select max(id) from outbox_events").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server
        .stop(StopMode::Immediate)
        .await
        .expect("crashing postgres");
    server.start_again().await.expect("starting postgres again");
    let url = server.url("postgres");
    let mut late: PgConnection = connect(&url).await;
    let mut other = connect(&url).await;
    fixture.database = connect(&url).await;
    execute(&mut late, "begin").await;
    let again = insert(&mut late, "late").await;
    assert!(
        again < highest,
        "the crash took ids back: {again} after {highest}"
    );
    insert(&mut other, "new").await;
    // What the crash left of the lost rows' marks may be published again first.
    next_key(&mut fixture, "new").await;
    execute(&mut late, "commit").await;
    next_key(&mut fixture, "late").await;
    for _ in 0..60 {
        insert(&mut other, "more").await;
    }
    fixture.settled().await;
    let total = number(&mut fixture.database, "select count(*) from outbox_events").await;
    let mut published = std::collections::BTreeSet::new();
    fixture.rewind();
    for record in fixture.take(fixture.published() as usize).await {
        published.insert(record.event_id());
    }
    let rows: Vec<uuid::Uuid> = sqlx::query_scalar("select event_id from outbox_events")
        .fetch_all(&mut fixture.database)
        .await
        .unwrap();
    assert_eq!(rows.len() as i64, total);
    for event in rows {
        assert!(
            published.contains(&event),
            "event {event} is marked and was never published"
        );
    }
    other.close().await.expect("closing a connection");
}

/// The same, but the relay is away meanwhile: when it looks again the sequence is beyond all it knew.
#[tokio::test]
async fn ids_that_are_drawn_again_unseen_are_found_when_the_connection_was_lost() {
    let options =
        services::postgres_options(PostgresRelease::NEWEST).setting("wal_writer_delay", "10s");
    let mut server = services::private_postgres(options).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("drawn_unseen", &server.url("postgres"), kafka).await;
    fixture.relay.set(NO_SWEEP.0, NO_SWEEP.1);
    fixture.relay.start();
    let mut other = fixture.connect().await;
    insert(&mut other, "durable").await;
    keys(&mut fixture, 1).await;
    draw_and_lose(&mut other).await;
    assert_eq!(keys(&mut fixture, 50).await, ["lost"; 50]);
    let highest = number(&mut other, "select max(id) from outbox_events").await;
    fixture.relay.freeze();
    server
        .stop(StopMode::Immediate)
        .await
        .expect("crashing postgres");
    server.start_again().await.expect("starting postgres again");
    let url = server.url("postgres");
    fixture.database = connect(&url).await;
    let mut other = connect(&url).await;
    let again = insert(&mut other, "again").await;
    assert!(
        again < highest,
        "the crash took ids back: {again} after {highest}"
    );
    let mut drawn = 1;
    while insert(&mut other, "again").await < highest + 10 {
        drawn += 1;
    }
    fixture.relay.thaw();
    for _ in 0..=drawn {
        next_key(&mut fixture, "again").await;
    }
    fixture.settled().await;
}

/// Draws ids that a crash soon after takes back: by an aborted insert, and by commits that do not wait.
async fn draw_and_lose(connection: &mut PgConnection) {
    execute(connection, "begin").await;
    for _ in 0..200 {
        insert(connection, "aborted").await;
    }
    execute(connection, "rollback; set synchronous_commit = off").await;
    for _ in 0..50 {
        insert(connection, "lost").await;
    }
}

async fn next_key(fixture: &mut Fixture, key: &str) {
    while keys(fixture, 1).await != [key] {}
}
