//! Postgres is stopped under the writers and the relay, in good order and like a crash.

use outboxd::local::{PostgresRelease, StopMode};

use super::{Scenario, Size};
use crate::support::services;

/// The default of `outbox.default.window_rows`.
const WINDOW_ROWS: usize = 10_000;

/// Lines of the log that one outage may take.
const LOG_LINES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_of_postgres_lose_nothing_and_the_living_relay_repeats_nothing() {
    let size = Size {
        transactions: 4_000,
        rounds: 2,
        full_rounds: 12,
    };
    let mut scenario = Scenario::new("postgres", size).await;
    scenario.postgres_stops = true;
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let mut server = services::private_postgres(options).await;
    let kafka = services::kafka().await;
    let mut stage = scenario
        .on(&server.url("postgres"), kafka.bootstrap())
        .await;
    stage.relay.start();
    for stop in 0..stage.scenario.rounds {
        stage.write_for_round(stop);
        stage.publishes().await;
        let logged = stage.relay.log().len();
        let mode = match stop % 2 {
            0 => StopMode::Fast,
            _ => StopMode::Immediate,
        };
        server.stop(mode).await.expect("stopping Postgres");
        stage.end_period().await;
        server.start_again().await.expect("starting Postgres again");
        stage
            .relay
            .logs_more("service is reachable again", stop as usize)
            .await;
        let lines = stage.relay.log().split_off(logged);
        assert!(
            lines.len() <= LOG_LINES,
            "an outage takes a handful of lines: {lines:#?}"
        );
    }
    let epoch = stage.epoch().await;
    let stops = format!(
        "{} stops of Postgres, fast and immediate in turn, {epoch} ownerships",
        stage.scenario.rounds
    );
    let counts = stage.finish(stops).await;
    // A lane that never lost its lease remembers what was acknowledged, though its marks were lost.
    let lost = usize::try_from(epoch - 1).expect("the lane was owned");
    assert!(
        counts.repeats <= lost * WINDOW_ROWS,
        "{:?}",
        counts.repeats_by_period
    );
}
