//! More than there is room for, and what waits as it is shown.

use std::time::Instant;

use outboxd::inbox::consumer::{Consumer, Event, Tx};
use tokio::sync::watch;

use super::stage::{Running, Stage, Step, note, noting};
use crate::support::fixture::PATIENCE;

/// Consumes 3,000 events with little room.
async fn everything_arrives(partitions: i32, narrow: impl Fn(Consumer) -> Consumer) {
    let stage = Stage::new("pressure", partitions).await;
    let steps: Vec<(String, i64)> = (0..3_000).map(|n| (format!("k{}", n % 50), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    stage.produce(&steps).await;
    let consumer = Running::start(narrow(stage.consumer()).on("step", noting));
    stage.committed(partitions, 3_000).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 3_000);
    assert_eq!(stage.counted("processed"), 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_partition_is_paused_and_goes_on() {
    let (messages, bytes) = (100.try_into(), (1 << 20).try_into());
    let (messages, bytes) = (messages.expect("not zero"), bytes.expect("not zero"));
    everything_arrives(1, |consumer| consumer.buffer(messages, bytes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_hold_too_much_together_are_paused_and_go_on() {
    let (messages, bytes) = (100.try_into(), (1 << 20).try_into());
    let (messages, bytes) = (messages.expect("not zero"), bytes.expect("not zero"));
    everything_arrives(6, |consumer| consumer.total_buffer(messages, bytes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_counts_from_the_first_event_that_is_not_done() {
    let stage = Stage::new("lag", 1).await;
    let (let_go, gate) = watch::channel(false);
    let handler = move |mut tx: Tx, event: Event<Step>| {
        let gate = gate.clone();
        async move {
            note(&mut tx, &event.data).await?;
            match event.data.key == "bad" && !*gate.borrow() {
                true => Err("not today".into()),
                false => Ok(()),
            }
        }
    };
    let consumer = || {
        let attempts = 1_000.try_into().expect("not zero");
        let consumer = stage.consumer().attempts(attempts);
        consumer.kafka([("statistics.interval.ms", "50")])
    };
    // The very first one is stuck, so that nothing is ever done before it.
    let running = Running::start(consumer().on("step", handler));
    stage.produce(&[("bad", 0), ("good", 1), ("good", 2)]).await;
    stage.effects(2).await;
    lag_becomes(&stage, Some(3)).await;

    let_go.send_replace(true);
    lag_becomes(&stage, Some(0)).await;
    running.stop().await;
    lag_becomes(&stage, None).await;

    // Nothing arrives, and there is no lag.
    let running = Running::start(consumer().on("step", noting));
    lag_becomes(&stage, Some(0)).await;
    running.stop().await;
}

async fn lag_becomes(stage: &Stage, expected: Option<i64>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = stage.lag();
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "lag {found:?}, not {expected:?}");
        tokio::time::sleep(super::stage::POLL).await;
    }
}
