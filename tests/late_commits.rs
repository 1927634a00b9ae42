//! Rows that commit behind the position: in time, in order, and at no cost to the polls.

use std::time::Duration;

use outboxd::local::{LocalPostgres, PostgresRelease, StopMode};
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
    let highest = lose_ids(&mut fixture, &mut server, Relay::Proves).await;
    let url = server.url("postgres");
    let mut late: PgConnection = connect(&url).await;
    let mut other = connect(&url).await;
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
    let highest = lose_ids(&mut fixture, &mut server, Relay::IsAway).await;
    let mut other = connect(&server.url("postgres")).await;
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

/// What the relay does when Postgres crashes.
#[derive(Clone, Copy, PartialEq)]
enum Relay {
    /// It has proven that no row can come below those that are lost.
    Proves,
    /// It sees neither the crash nor what follows, until somebody lets it go on.
    IsAway,
}

/// Publishes rows whose commits a crash takes back, with their ids; returns the highest of them. Where the rows
/// were flushed before it came, others are drawn: Postgres may flush whenever it likes.
async fn lose_ids(fixture: &mut Fixture, server: &mut LocalPostgres, relay: Relay) -> i64 {
    for _ in 0..20 {
        let mut connection = connect(&server.url("postgres")).await;
        draw(&mut connection).await;
        for _ in 0..50 {
            next_key(fixture, "lost").await;
        }
        let highest = number(&mut connection, "select max(id) from outbox_events").await;
        match relay {
            // Twice the time between two looks at the sequence.
            Relay::Proves => tokio::time::sleep(Duration::from_millis(500)).await,
            Relay::IsAway => fixture.relay.freeze(),
        }
        let crashed = server.stop(StopMode::Immediate).await;
        crashed.expect("crashing postgres");
        server.start_again().await.expect("starting postgres again");
        fixture.database = connect(&server.url("postgres")).await;
        let drawn = "select last_value from outbox_events_id_seq";
        if number(&mut fixture.database, drawn).await < highest {
            return highest;
        }
        fixture.relay.thaw();
        fixture.settled().await;
    }
    panic!("no crash took ids back");
}

/// Draws ids by an aborted insert, and by commits that do not wait.
async fn draw(connection: &mut PgConnection) {
    let rows = |key: &str, count: usize| {
        format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type) \
             select 'x', '{key}', 't' from generate_series(1, {count})"
        )
    };
    execute(
        connection,
        &format!(
            "begin; {}; rollback; set synchronous_commit = off; {}",
            rows("aborted", 200),
            rows("lost", 50)
        ),
    )
    .await;
}

async fn next_key(fixture: &mut Fixture, key: &str) {
    while keys(fixture, 1).await != [key] {}
}
