//! Kafka goes away for a while: killed, or frozen, with usual and with short time-outs of the client.

use super::{Scenario, Size, outage};
use crate::support::fixture::drain;
use crate::support::kafka::LocalKafka;
use crate::support::services;

/// Lines of the log that one outage may take.
const LOG_LINES: usize = 10;

/// Below the shortest outage.
const SHORT_TIMEOUTS: [(&str, &str); 4] = [
    ("kafka.properties.socket.timeout.ms", "2000"),
    ("kafka.properties.request.timeout.ms", "2000"),
    (
        "kafka.properties.socket.connection.setup.timeout.ms",
        "2000",
    ),
    ("kafka.properties.metadata.max.age.ms", "5000"),
];

#[derive(Debug, Clone, Copy)]
enum Outage {
    Killed,
    Frozen,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_kafka_delays_events_and_nothing_else() {
    survives("kafka", Outage::Killed, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_kafka_with_time_outs_below_the_outage_delays_events_and_nothing_else() {
    survives("kafka-time-outs", Outage::Killed, &SHORT_TIMEOUTS).await;
}

/// The broker takes requests that it answers only when they have been given up and sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_kafka_with_time_outs_below_the_outage_delays_events_and_nothing_else() {
    survives("kafka-frozen", Outage::Frozen, &SHORT_TIMEOUTS).await;
}

async fn survives(name: &'static str, kind: Outage, settings: &[(&str, &str)]) {
    let size = Size {
        transactions: 3_000,
        rounds: 1,
        full_rounds: 5,
    };
    let scenario = Scenario::new(name, size).await;
    let database = services::postgres().await.create_database("scenario").await;
    let mut broker = services::private_kafka(&[]).await;
    let mut stage = scenario.on(&database.url, &broker.bootstrap()).await;
    for (option, value) in settings {
        stage.relay.set(option, value);
    }
    stage.relay.start();
    let mut connection = stage.connect().await;
    for round in 0..stage.scenario.rounds {
        stage.write_for_round(round);
        stage.publishes().await;
        let logged = stage.relay.log().len();
        interrupt(&mut broker, kind).await;
        stage.end_period().await;
        // Everything that was in flight, held up, or written meanwhile, without anybody's help.
        drain(&mut connection, &mut stage.relay).await;
        let lines = stage.relay.log().split_off(logged);
        assert!(
            lines.len() <= LOG_LINES,
            "an outage takes a handful of lines: {lines:#?}"
        );
    }
    let rebuilds = stage.relay.logged("making a new kafka producer");
    let outages = format!(
        "{} outages of Kafka ({kind:?}) of {:?}, {rebuilds} producers rebuilt",
        stage.scenario.rounds,
        outage()
    );
    let window = 10_000;
    let counts = stage.finish(outages).await;
    assert!(
        counts.repeats <= rebuilds * window,
        "{:?}",
        counts.repeats_by_period
    );
}

/// The length of the outage is what is tested, so it is waited for by the clock.
async fn interrupt(broker: &mut LocalKafka, kind: Outage) {
    match kind {
        Outage::Killed => {
            broker.kill().await.expect("killing Kafka");
            tokio::time::sleep(outage()).await;
            broker.start_again().await.expect("starting Kafka again");
        }
        Outage::Frozen => {
            broker.freeze();
            tokio::time::sleep(outage()).await;
            broker.thaw();
        }
    }
}
