//! Partitions come and go with work in hand.

use std::time::Duration;

use outboxd::inbox::consumer::{Consumer, Event, HandlerResult, Tx};

use super::process::{Handler, Process};
use super::stage::{Running, Stage, Step, note, noting};

/// Slow enough that every rebalance meets work in hand.
async fn slowly(mut tx: Tx, event: Event<Step>) -> HandlerResult {
    note(&mut tx, &event.data).await?;
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_without_a_second_effect_and_in_order() {
    let stage = Stage::new("rebalance", 4).await;
    let steps: Vec<(String, i64)> = (0..2_000).map(|n| (format!("k{}", n % 40), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    let consumer = || -> Consumer {
        let twenty = 20.try_into().expect("not zero");
        stage.consumer().on("step", slowly).batch(twenty)
    };
    let first = Running::start(consumer());
    stage.produce(&steps[..500]).await;
    stage
        .until("select least(count(*), 100) from effects", 100)
        .await;
    let second = Running::start(consumer());
    stage.produce(&steps[500..1_000]).await;
    stage
        .until("select least(count(*), 700) from effects", 700)
        .await;
    let third = Running::start(consumer());
    stage.produce(&steps[1_000..]).await;
    stage
        .until("select least(count(*), 1300) from effects", 1300)
        .await;
    first.stop().await;
    stage
        .until("select least(count(*), 1600) from effects", 1600)
        .await;
    second.stop().await;
    stage.committed(4, 2_000).await;
    third.stop().await;

    assert_eq!(stage.number("select count(*) from effects").await, 2_000);
    let orderly = "select count(*) from (select n - lag(n) over (partition by key order by id) as step \
                   from effects) e where step <> 40";
    assert_eq!(stage.number(orderly).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_that_wakes_up_does_nothing_twice() {
    let stage = Stage::new("zombie", 1).await;
    stage
        .execute("create table marks (id bigint generated always as identity)")
        .await;
    let mut zombie = Process::of(&stage, Handler::HangAtZero);
    zombie.start();
    stage.produce(&[("a", 0)]).await;
    stage.until("select count(*) from marks", 1).await;
    stage.produce(&[("b", 1)]).await;
    stage.effects(1).await;
    zombie.freeze();
    stage.produce(&[("b", 2), ("b", 3)]).await;

    // Its session runs out, and the other takes over what it can; the claim of "a" is still held.
    let other = Running::start(stage.consumer().on("step", noting));
    stage
        .until("select count(*) from effects where key = 'b'", 3)
        .await;
    zombie.thaw();
    stage.produce(&[("b", 4)]).await;
    stage
        .until("select count(*) from effects where key = 'b'", 4)
        .await;
    zombie.kill().await;
    stage.committed(1, 5).await;
    other.stop().await;
    assert_eq!(stage.effects_of("a").await, [0]);
    assert_eq!(stage.effects_of("b").await, [1, 2, 3, 4]);
}
