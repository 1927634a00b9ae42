//! Kafka refuses records for a while: whole message sets fail, with small records among the large ones, which
//! are parked, block their keys, and are sent back when Kafka takes them again.

use sqlx::PgConnection;

use super::{Scenario, Size};
use crate::support::fixture::{drain, execute, number};
use crate::support::services;

/// The default of `outbox.default.window_rows`.
const WINDOW_ROWS: usize = 6_000;

/// Less than a message set, and less than some records: those of the scenario have 400 to 1,000 bytes.
const TOO_SMALL: &str = "800";

/// Kafka's own default.
const LARGE_ENOUGH: &str = "1048588";

/// What the relay logs when it parks a row.
const PARKING: &str = "parking a row that cannot be published";

/// Has parked rows go out again, whenever there are any, until every row is marked.
async fn send_back(connection: &mut PgConnection) {
    let all = "select outbox_dead_decide('public.outbox_events', \
               array(select id from outboxd_parked where decision is null), 'retry')";
    while number(
        connection,
        "select count(*) from outbox_events where sent_at is null",
    )
    .await
        > 0
    {
        execute(connection, all).await;
        tokio::time::sleep(super::POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_records_are_neither_lost_nor_overtaken() {
    let size = Size {
        transactions: 3_000,
        rounds: 2,
        full_rounds: 20,
    };
    let scenario = Scenario::new("refusals", size).await;
    let database = services::postgres().await.create_database("scenario").await;
    let kafka = services::kafka().await;
    let mut stage = scenario.on(&database.url, kafka.bootstrap()).await;
    stage.relay.set("outbox.default.on_poison", "block_key");
    stage.relay.start();
    let mut connection = stage.connect().await;
    for round in 0..stage.scenario.rounds {
        let topic = round as usize;
        let refused = stage.relay.logged(PARKING);
        stage.topics.limit_records(topic, TOO_SMALL).await;
        stage.write_for_round(round);
        stage.relay.logs_more(PARKING, refused).await;
        stage.topics.limit_records(topic, LARGE_ENOUGH).await;
        send_back(&mut connection).await;
        drain(&mut connection, &mut stage.relay).await;
        stage.end_period().await;
    }
    let rebuilds = stage.relay.logged("making a new kafka producer");
    let refusals = format!(
        "{} refusals, {rebuilds} producers rebuilt",
        stage.scenario.rounds
    );
    let counts = stage.finish(refusals).await;
    assert!(rebuilds > 0, "a message set was refused");
    assert!(
        counts.repeats <= rebuilds * WINDOW_ROWS,
        "{:?}",
        counts.repeats_by_period
    );
}
