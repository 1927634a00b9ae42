//! The Rust helper.

use std::time::{Duration, SystemTime};

use outboxd::inbox::{
    self, Claim, ConsumerName, EventId, Identity, Inbox, InboxError, ProcessError, Processed,
};
use sqlx::Executor;

use super::InboxDatabase;
use crate::support::fixture::{execute, number};

fn billing() -> Inbox {
    Inbox::new(ConsumerName::new("billing").expect("a name"))
}

fn id(text: &str) -> Identity {
    EventId::text(text).expect("an id").into()
}

/// A database with a balance that effects add to.
async fn with_balance(name: &str) -> InboxDatabase {
    let database = InboxDatabase::new(name).await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "create table balance (cents bigint check (cents < 100)); insert into balance values (0)",
    )
    .await;
    database
}

async fn cents(database: &InboxDatabase) -> i64 {
    let mut connection = database.connect().await;
    number(&mut connection, "select cents from balance").await
}

const ADD: &str = "update balance set cents = cents + 1";

#[tokio::test]
async fn an_event_that_arrives_twice_takes_effect_once() {
    let database = with_balance("inbox_process").await;
    let (inbox, pool) = (billing(), database.pool.clone());
    let add = || async {
        inbox
            .process(&pool, &id("e1"), async |mut tx| {
                tx.execute(ADD).await.map(|_| 7)
            })
            .await
            .expect("processed")
    };
    assert_eq!(add().await, Processed::Done(7));
    assert_eq!(add().await, Processed::Duplicate);
    assert_eq!(cents(&database).await, 1);
}

#[tokio::test]
async fn a_handler_that_fails_frees_the_event() {
    let database = with_balance("inbox_fails").await;
    let (inbox, pool) = (billing(), database.pool.clone());
    // Spawned: the future must be able to change threads.
    let failing = {
        let (inbox, pool) = (inbox.clone(), pool.clone());
        tokio::spawn(async move {
            inbox
                .process(&pool, &id("e1"), async |mut tx| {
                    tx.execute(ADD).await.map_err(|error| error.to_string())?;
                    Err::<(), _>("no".to_owned())
                })
                .await
        })
    };
    let error = failing.await.expect("no panic").expect_err("it fails");
    assert!(matches!(error, ProcessError::Handler(why) if why == "no"));
    assert_eq!(cents(&database).await, 0);
    let done = inbox
        .process(&pool, &id("e1"), async |mut tx| {
            tx.execute(ADD).await.map(drop)
        })
        .await;
    assert_eq!(done.expect("processed"), Processed::Done(()));
    assert_eq!(cents(&database).await, 1);
}

#[tokio::test]
async fn a_handler_that_swallows_the_error_of_a_statement_does_not_lose_the_event() {
    let database = with_balance("inbox_swallow").await;
    let (inbox, pool) = (billing(), database.pool.clone());
    let swallowed = inbox
        .process(&pool, &id("e1"), async |mut tx| {
            tx.execute(ADD).await?;
            let _ = tx.execute("select 1 / 0").await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(
        swallowed,
        Err(ProcessError::Inbox(InboxError::Aborted))
    ));
    let mut tx = pool.begin().await.expect("a transaction");
    let claim = inbox.claim(&mut tx, &id("e1")).await.expect("a claim");
    assert_eq!(claim, Claim::New, "the event is free");
}

#[tokio::test]
async fn a_handler_that_keeps_its_transaction_fails_and_takes_no_effect() {
    let database = with_balance("inbox_kept").await;
    let (keep, mut kept) = tokio::sync::mpsc::channel(1);
    let done = billing()
        .process(&database.pool, &id("e1"), async |mut tx| {
            tx.execute(ADD).await?;
            keep.send(tx).await.expect("a place for it");
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(done, Err(ProcessError::Inbox(InboxError::Kept))));
    drop(kept.recv().await);
    let done = billing()
        .process(&database.pool, &id("e1"), async |mut tx| {
            tx.execute(ADD).await.map(drop)
        })
        .await;
    assert_eq!(done.expect("processed"), Processed::Done(()));
    assert_eq!(cents(&database).await, 1);
}

#[tokio::test]
async fn a_batch_is_answered_in_the_order_given() {
    let database = InboxDatabase::new("inbox_helper_batch").await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "insert into processed_consumers values ('billing', now() - interval '1 day')",
    )
    .await;
    let days_ago = |days: u64| SystemTime::now() - Duration::from_secs(days * 86_400);
    let mut tx = database.pool.begin().await.expect("a transaction");
    let inbox = billing();
    let seen = inbox.claim(&mut tx, &id("seen")).await.expect("a claim");
    assert_eq!(seen, Claim::New);
    inbox::commit(tx).await.expect("committed");
    let events = [
        id("z"),
        id("seen"),
        id("old").created_at(days_ago(2)),
        id("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        id("z"),
        id("a").created_at(days_ago(0)),
        id("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        id("old").created_at(days_ago(2)),
    ];
    let mut tx = database.pool.begin().await.expect("a transaction");
    let claims = inbox.claim_batch(&mut tx, &events).await.expect("claims");
    use Claim::{Duplicate, Expired, New};
    assert_eq!(
        claims,
        [
            New, Duplicate, Expired, New, Duplicate, New, Duplicate, Expired
        ]
    );
    assert_eq!(inbox.claim_batch(&mut tx, &[]).await.expect("none"), []);
    inbox::commit(tx).await.expect("committed");
}

#[tokio::test]
async fn an_event_older_than_the_horizon_does_not_run() {
    let database = with_balance("inbox_expired").await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "insert into processed_consumers values ('billing', now())",
    )
    .await;
    let event = id("e1").created_at(SystemTime::UNIX_EPOCH);
    let done = billing()
        .process(&database.pool, &event, async |mut tx| {
            tx.execute(ADD).await.map(drop)
        })
        .await;
    assert_eq!(done.expect("processed"), Processed::Expired);
    assert_eq!(cents(&database).await, 0);
}

#[tokio::test]
async fn the_schema_can_be_named_and_a_missing_one_is_told_in_words() {
    let database = InboxDatabase::new("inbox_schema").await;
    let name = || ConsumerName::new("billing").expect("a name");
    let in_schema = |schema| Inbox::in_schema(name(), schema);
    assert!(matches!(in_schema("a\"b"), Err(InboxError::Schema(_))));
    let mut tx = database.pool.begin().await.expect("a transaction");
    tx.execute("set local search_path = pg_catalog")
        .await
        .expect("an empty search path");
    let there = in_schema("public").expect("a schema");
    let claim = there.claim(&mut tx, &id("e1")).await.expect("a claim");
    assert_eq!(claim, Claim::New);
    let missing = in_schema("nowhere").expect("a schema");
    let error = missing.claim_batch(&mut tx, &[id("e1")]).await;
    let error = error.expect_err("there is none").to_string();
    assert_eq!(
        error,
        "claiming 1 events for consumer \"billing\" (is the inbox's schema there? run outboxd migrate --inbox)"
    );
}
