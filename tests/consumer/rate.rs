//! What the consumer costs: the same effects with and without it.
//!
//! Small in CI, where it shows that the comparison runs; `.ci/soak consumer-rate` measures.

use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _};

use super::stage::{Running, Stage, noting};
use crate::scenario::{by_size, variable};

/// Keys that the events are spread over.
const KEYS: u64 = 10_000;

/// Events of one transaction, in both.
const BATCH: usize = 200;

/// The least the consumer must reach of the plain one.
const LEAST: f64 = 0.6;

/// Longer than any run.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_is_at_least_0_6_as_fast_as_a_plain_one_that_batches_the_same_effects() {
    let _turn = crate::scenario::turn().await;
    let events = variable("OUTBOXD_SCENARIO_EVENTS").unwrap_or_else(|| by_size(2_000, 100_000));
    let rounds: usize = by_size(1, 7) as usize;
    let stage = Stage::new("rate", 4).await;
    let steps: Vec<(String, i64)> = (0..events)
        .map(|n| (format!("k{}", fastrand::u64(..KEYS)), n as i64))
        .collect();
    for chunk in steps.chunks(5_000) {
        let chunk: Vec<(&str, i64)> = chunk.iter().map(|(key, n)| (key.as_str(), *n)).collect();
        stage.produce(&chunk).await;
    }
    let mut shares = Vec::new();
    for round in 0..rounds {
        // In turn, so that a machine that slows down meets both.
        let plain = plain(&stage, events, round).await;
        let ours = ours(&stage, events, round).await;
        println!(
            "consumer-rate: round {round}: plain {plain:.0}/s, consumer {ours:.0}/s, {:.2}",
            ours / plain
        );
        shares.push(ours / plain);
    }
    shares.sort_by(f64::total_cmp);
    let median = shares[shares.len() / 2];
    println!(
        "consumer rate: {events} events a round, batches of {BATCH}, rounds: {rounds}; \
         {median:.2} of a plain consumer at the median ({:.2} to {:.2})",
        shares[0],
        shares[shares.len() - 1]
    );
    // At CI's size starting takes longer than consuming.
    if rounds > 1 {
        assert!(median >= LEAST, "{median:.2}");
    }
}

/// The loop that one writes first: read, effect, commit, offset; four partitions, one after the other.
async fn plain(stage: &Stage, events: u64, round: usize) -> f64 {
    stage.execute("truncate effects").await;
    let client: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", stage.bootstrap)
        .set("group.id", format!("{}-plain-{round}", stage.name))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    client.subscribe(&[&stage.topic]).expect("subscribing");
    let mut started = None;
    let mut done = 0;
    while done < events {
        let mut tx = None;
        let mut last = Vec::new();
        for _ in 0..BATCH.min((events - done) as usize) {
            let message = client.recv().await.expect("a message");
            // From the first message: joining a group is not what is compared.
            started.get_or_insert_with(Instant::now);
            let body: serde_json::Value =
                serde_json::from_slice(message.payload().expect("a body")).expect("JSON");
            let tx = match &mut tx {
                Some(tx) => tx,
                None => tx.insert(stage.pool.begin().await.expect("beginning")),
            };
            sqlx::query("insert into effects (key, n) values ($1, $2)")
                .bind(body["data"]["key"].as_str())
                .bind(body["data"]["n"].as_i64())
                .execute(&mut **tx)
                .await
                .expect("an effect");
            done += 1;
            last.push(message);
        }
        let Some(tx) = tx else { continue };
        tx.commit().await.expect("committing");
        for message in last {
            let commit = client.store_offset_from_message(&message);
            // Stored here, committed by the client's own clock.
            let _ = commit;
        }
    }
    let _ = client.commit_consumer_state(CommitMode::Async);
    rate(events, started)
}

/// The same by the runtime, with one worker: one connection, as the plain one has.
async fn ours(stage: &Stage, events: u64, round: usize) -> f64 {
    stage.execute("truncate effects, processed_events").await;
    let consumer = stage
        .consumer()
        .kafka([("group.id", format!("{}-ours-{round}", stage.name))])
        .workers(1.try_into().expect("not zero"))
        .batch(BATCH.try_into().expect("not zero"))
        .on("step", noting);
    let running = Running::start(consumer);
    let deadline = Instant::now() + PATIENCE;
    let mut started = None;
    loop {
        let done = stage.number("select count(*) from effects").await as u64;
        if done > 0 {
            started.get_or_insert_with(Instant::now);
        }
        if done >= events {
            break;
        }
        assert!(Instant::now() < deadline, "{done} of {events} effects");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rate = rate(events, started);
    running.stop().await;
    rate
}

fn rate(events: u64, started: Option<Instant>) -> f64 {
    let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
    events as f64 / seconds.max(1e-9)
}
