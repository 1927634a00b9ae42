//! Nobody disturbs the relay: every committed event arrives once, in order.

use super::{Scenario, Size};
use crate::support::services::{self, PostgresServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undisturbed_every_committed_event_arrives_once_in_order() {
    relays_everything_once("undisturbed", 20_000, services::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undisturbed_on_postgres_13_every_committed_event_arrives_once_in_order() {
    relays_everything_once("undisturbed-13", 6_000, services::postgres_13().await).await;
}

async fn relays_everything_once(name: &'static str, transactions: u64, server: &PostgresServer) {
    let size = Size {
        transactions,
        rounds: 0,
        full_rounds: 0,
    };
    let scenario = Scenario::new(name, size).await;
    let database = server.create_database("scenario").await;
    let kafka = services::kafka().await;
    let mut stage = scenario.on(&database.url, kafka.bootstrap()).await;
    stage.relay.start();
    let counts = stage.finish("undisturbed").await;
    assert_eq!(counts.repeats, 0);
}
