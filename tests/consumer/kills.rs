//! A consumer is killed between every two steps.

use super::process::{Handler, Process};
use super::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_effect_and_commit_the_effect_happens_once() {
    let stage = Stage::new("kill_effect", 1).await;
    stage
        .execute("create table marks (id bigint generated always as identity)")
        .await;
    let ids = stage.produce(&[("a", 0)]).await;
    let mut process = Process::of(&stage, Handler::HangAtZero);
    process.start();
    stage.until("select count(*) from marks", 1).await;
    process.kill().await;
    assert_eq!(stage.number("select count(*) from effects").await, 0);
    assert_eq!(stage.outcome(&ids[0].to_string()).await, None);

    process.set_handler(Handler::Note);
    process.start();
    stage.committed(1, 1).await;
    assert_eq!(stage.effects_of("a").await, [0]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_commit_and_offset_commit_the_effect_happens_once() {
    let stage = Stage::new("kill_commit", 1).await;
    stage
        .execute("create table marks (id bigint generated always as identity)")
        .await;
    let mut process = Process::of(&stage, Handler::HangAtZero);
    process.start();
    // The first event stays at work, so no offset is ever committed.
    stage.produce(&[("a", 0)]).await;
    stage.until("select count(*) from marks", 1).await;
    stage.produce(&[("b", 1), ("c", 2), ("b", 3)]).await;
    stage.effects(3).await;
    process.kill().await;
    assert_eq!(
        stage.committed_now(1),
        0,
        "effects are there, offsets are not"
    );

    process.set_handler(Handler::Note);
    process.start();
    stage.committed(1, 4).await;
    assert_eq!(stage.number("select count(*) from effects").await, 4);
    assert_eq!(stage.effects_of("b").await, [1, 3]);
    process.stop().await;
}
