//! The relay reaches Postgres through PgBouncer in transaction mode.

use outboxd::local::PostgresRelease;

use super::{Scenario, Size};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_transaction_mode_every_committed_event_arrives_once_in_order() {
    let size = Size {
        transactions: 4_000,
        rounds: 0,
        full_rounds: 0,
    };
    let scenario = Scenario::new("pooler", size).await;
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let pooler = PgBouncer::start(server.port()).await;
    let kafka = services::kafka().await;
    let url = server.url("postgres");
    let mut stage = scenario.on(&url, kafka.bootstrap()).await;
    stage.relay.set("postgres.url", &pooler.url("postgres"));
    stage.relay.start();
    // It retries, as with anything that somebody can mend meanwhile.
    let hint = r#"then set postgres.pooler = \"transaction\""#;
    stage.relay.logs_more(hint, 0).await;
    let first = stage
        .relay
        .log()
        .into_iter()
        .find(|line| line.contains(r#""level":"WARN""#));
    assert!(first.is_some_and(|line| line.contains("postgres.pooler")));
    stage.relay.kill().await;

    stage.relay.set("postgres.pooler", "transaction");
    stage.relay.set("postgres.direct_url", &url);
    stage.relay.migrate().await;
    stage.relay.start();
    let counts = stage.finish("through PgBouncer in transaction mode").await;
    assert_eq!(counts.repeats, 0);
}
