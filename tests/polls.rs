//! What a poll costs, counted by the server: blocks that the connection which polls touches per poll. Time
//! decides nothing here. `OUTBOXD_SOAK` (`.ci/soak`) sets the full sizes.

use std::env;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::support::fixture::{Fixture, execute, insert, number};

/// Committed rows of one load.
const ROWS: i64 = 10_000;

/// Rows that are marked under a pinned snapshot at full size.
const FULL_ROWS: i64 = 500_000;

/// How long a transaction stays open at full size, under load.
const FULL_OPEN: Duration = Duration::from_secs(60);

/// How many polls are counted over: several of the seconds in which the server's statistics come.
const POLLS: f64 = 600.0;

/// Blocks that a poll may touch beyond those of the undisturbed run: an index page or two more, because
/// dead entries lie behind the position, but never a number that grows with the load.
const ALLOWANCE: f64 = 12.0;

async fn fixture(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    // Nothing but polls: no sweep, and a poll every few milliseconds.
    fixture.relay.set("outbox.default.sweep_interval", "1d");
    fixture.relay.set("outbox.default.poll_interval", "5ms");
    fixture.relay.set("outbox.default.retention", "forever");
    // Vacuum would clean up in one run and not in another.
    execute(
        &mut fixture.database,
        "alter table outbox_events set (autovacuum_enabled = off, toast.autovacuum_enabled = off)",
    )
    .await;
    fixture.relay.start();
    fixture
}

fn is_full_size() -> bool {
    env::var_os("OUTBOXD_SOAK").is_some()
}

/// Short transactions that insert ten rows each; every tenth of them, one, is rolled back by a savepoint
/// if `rollbacks`.
async fn load(connection: &mut PgConnection, rollbacks: bool) {
    let aborted = match rollbacks {
        true => {
            "begin insert into outbox_events (aggregate_type, aggregate_id, event_type) \
             values ('order', 'x', 'never'); raise exception 'no'; exception when others then null; end;"
        }
        false => "",
    };
    let sql = format!(
        "do $$ begin for i in 1..{} loop \
             insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'order', 'k' || n, 'order.placed', '{{}}' from generate_series(1, 10) n; \
             {aborted} commit; end loop; end $$",
        ROWS / 10
    );
    execute(connection, &sql).await;
}

/// Blocks per poll of an idle relay.
async fn blocks_per_poll(fixture: &mut Fixture) -> f64 {
    fixture.settled().await;
    let mut before = counters(fixture).await;
    // The server's statistics come in steps of a second; start with one.
    loop {
        let now = counters(fixture).await;
        if now.1 != before.1 {
            before = now;
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        let now = counters(fixture).await;
        let polls = now.0 - before.0;
        if polls >= POLLS && now.1 != before.1 {
            return (now.1 - before.1) / polls;
        }
        fixture.relay.assert_running();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Polls, and blocks that the connection which polls has touched, found in memory or not.
async fn counters(fixture: &mut Fixture) -> (f64, f64) {
    let polls = fixture.metric("poll_duration_seconds_count").await;
    let blocks = "select (sum(io.hits) + sum(io.reads))::bigint from pg_stat_activity as a \
                  cross join pg_stat_get_backend_io(a.pid) as io \
                  where a.datname = current_database() and a.application_name = 'outboxd outbox_events reader'";
    (polls, number(&mut fixture.database, blocks).await as f64)
}

async fn undisturbed(name: &'static str) -> f64 {
    let mut fixture = fixture(name).await;
    let mut writer = fixture.connect().await;
    load(&mut writer, false).await;
    blocks_per_poll(&mut fixture).await
}

#[tokio::test]
async fn an_open_transaction_delays_only_its_own_rows_and_makes_no_poll_touch_more() {
    let undisturbed = undisturbed("polls").await;
    for rollbacks in [false, true] {
        let mut fixture = fixture("polls_open").await;
        let mut writer = fixture.connect().await;
        let mut open = fixture.connect().await;
        execute(&mut open, "begin").await;
        insert(&mut open, "slow").await;
        let opened = Instant::now();
        let mut rows = 0;
        while rows == 0 || (is_full_size() && opened.elapsed() < FULL_OPEN) {
            load(&mut writer, rollbacks).await;
            rows += ROWS;
        }
        let others = fixture.take(rows as usize).await;
        assert!(
            others.iter().all(|row| row.key.as_deref() != Some("slow")),
            "the others flow while it is open"
        );
        let blocks = blocks_per_poll(&mut fixture).await;
        let open_for = opened.elapsed().as_secs();
        execute(&mut open, "commit").await;
        let committed = Instant::now();
        let later = insert(&mut writer, "slow").await;
        let first = fixture.next().await;
        let prompt = committed.elapsed().as_millis();
        let ids = [first.event_id(), fixture.next().await.event_id()];
        let in_order: Vec<uuid::Uuid> = sqlx::query_scalar(
            "select event_id from outbox_events where aggregate_id = 'slow' order by id",
        )
        .fetch_all(&mut fixture.database)
        .await
        .expect("the rows of the key");
        assert_eq!(
            in_order, ids,
            "the late row comes before row {later} of its key"
        );
        println!(
            "scenario open transaction: {open_for} s open, {rows} other rows published meanwhile, rollbacks \
             {rollbacks}, its row after {prompt} ms, {blocks:.1} blocks per poll, undisturbed {undisturbed:.1}"
        );
        assert!(
            blocks <= undisturbed + ALLOWANCE,
            "{blocks} per poll, undisturbed {undisturbed}"
        );
        fixture.settled().await;
    }
}

#[tokio::test]
async fn a_pinned_snapshot_does_not_make_polls_touch_more() {
    let undisturbed = undisturbed("polls_undisturbed").await;
    let mut fixture = fixture("polls_pinned").await;
    let mut writer = fixture.connect().await;
    let mut pinned = fixture.connect().await;
    execute(&mut pinned, "begin isolation level repeatable read").await;
    number(&mut pinned, "select count(*) from outbox_events").await;
    let marks = if is_full_size() { FULL_ROWS } else { ROWS };
    for _ in 0..marks / ROWS {
        load(&mut writer, true).await;
    }
    fixture.settled().await;
    // What the failed statements left is asked for until it is proven to be empty.
    fixture.metric_is("id_gaps", |gaps| gaps == 0.0).await;
    let blocks = blocks_per_poll(&mut fixture).await;
    println!(
        "scenario pinned snapshot: {marks} marks, {blocks:.1} blocks per poll, undisturbed {undisturbed:.1}"
    );
    assert!(
        blocks <= undisturbed + ALLOWANCE,
        "{blocks} per poll, undisturbed {undisturbed}"
    );
}

#[tokio::test]
async fn a_write_transaction_in_another_database_delays_nothing() {
    let mut fixture = fixture("polls_other").await;
    let other = crate::support::services::postgres()
        .await
        .create_database("elsewhere")
        .await;
    let mut elsewhere = other.connect().await;
    execute(
        &mut elsewhere,
        "create table t (); begin; insert into t default values",
    )
    .await;
    let mut writer = fixture.connect().await;
    load(&mut writer, true).await;
    let blocks = blocks_per_poll(&mut fixture).await;
    println!("blocks per poll with a writer elsewhere: {blocks:.1}");
    fixture.take(ROWS as usize).await;
    assert_eq!(
        fixture.metric("id_gaps").await,
        0.0,
        "every gap was proven empty"
    );
}
