//! The relay is killed, or stopped, again and again.

use super::{Scenario, Size, Stage};
use crate::support::relay::OWNS;
use crate::support::services::{self, TestDatabase};

/// Small enough that the bound on repeats means something.
const WINDOW_ROWS: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_repeat_at_most_a_window_each() {
    let size = Size {
        transactions: 6_000,
        rounds: 10,
        full_rounds: 100,
    };
    let (mut stage, _database) = stage("kills", size).await;
    stage.relay.set("relay.lease", "1s");
    for kill in 0..stage.scenario.rounds {
        // A new owner meets a backlog, or live writers.
        let backlog = stage.rng.bool();
        if backlog {
            stage.write_for_round(kill);
        }
        let owned = stage.relay.logged(OWNS);
        stage.relay.start();
        stage.relay.logs_more(OWNS, owned).await;
        if !backlog {
            stage.write_for_round(kill);
        }
        stage.publishes().await;
        stage.relay.kill().await;
        stage.end_period().await;
    }
    stage.relay.start();
    let kills = format!("{} kills", stage.scenario.rounds);
    let counts = stage.finish(kills).await;
    let by_kill = &counts.repeats_by_period;
    assert!(
        by_kill.iter().all(|repeats| *repeats <= WINDOW_ROWS),
        "a kill repeats at most {WINDOW_ROWS} events: {by_kill:?}"
    );
    assert_eq!(
        by_kill.first().copied().unwrap_or(0),
        0,
        "before the first kill"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_stops_exit_with_0_and_repeat_nothing() {
    let size = Size {
        transactions: 4_000,
        rounds: 5,
        full_rounds: 20,
    };
    let (mut stage, _database) = stage("clean-stops", size).await;
    stage.relay.start();
    for stop in 0..stage.scenario.rounds {
        stage.write_for_round(stop);
        stage.publishes().await;
        stage.relay.stop().await;
        stage.end_period().await;
        stage.relay.start();
    }
    let stops = format!("{} clean stops", stage.scenario.rounds);
    let counts = stage.finish(stops).await;
    assert_eq!(counts.repeats, 0, "{:?}", counts.repeats_by_period);
}

async fn stage(name: &'static str, size: Size) -> (Stage, TestDatabase) {
    let scenario = Scenario::new(name, size).await;
    let database = services::postgres().await.create_database("scenario").await;
    let kafka = services::kafka().await;
    let mut stage = scenario.on(&database.url, kafka.bootstrap()).await;
    stage.relay.set("outbox.default.batch_rows", "500");
    stage
        .relay
        .set("outbox.default.window_rows", &WINDOW_ROWS.to_string());
    (stage, database)
}
