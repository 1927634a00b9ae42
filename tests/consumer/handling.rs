//! Handlers: in order, alone when it matters, with all that an event hands on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outboxd::inbox::consumer::{Event, HandlerError, HandlerResult, Raw, Tx};
use outboxd::outbox::{self, NewEvent};
use sqlx::Row;
use tokio::sync::{mpsc, watch};

use super::stage::{Running, Stage, Step, note, noting, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_takes_effect_once_in_the_order_of_its_key_however_often_it_comes() {
    let stage = Stage::new("consume", 3).await;
    let steps: Vec<(String, i64)> = (0..600).map(|n| (format!("k{}", n % 7), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    let ids = stage.produce(&steps).await;
    for (id, (key, n)) in ids.iter().zip(&steps).step_by(5) {
        stage.produce_again(*id, key, *n).await;
    }

    let consumer = Running::start(stage.consumer().on("step", noting));
    stage.committed(3, 720).await;
    consumer.stop().await;

    assert_eq!(stage.number("select count(*) from effects").await, 600);
    for key in ["k0", "k3", "k6"] {
        let effects = stage.effects_of(key).await;
        assert!(
            effects.is_sorted() && effects.len() > 80,
            "{key}: {effects:?}"
        );
    }
    assert_eq!(stage.counted("processed"), 600);
    assert_eq!(stage.counted("duplicates"), 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_event_is_tried_again_in_order_while_other_keys_flow() {
    let stage = Stage::new("retry", 1).await;
    let failures = Arc::new(AtomicU64::new(0));
    let (let_go, gate) = watch::channel(false);
    let handler = {
        let failures = Arc::clone(&failures);
        move |mut tx: Tx, event: Event<Step>| {
            let (failures, gate) = (Arc::clone(&failures), gate.clone());
            async move {
                note(&mut tx, &event.data).await?;
                if event.data.key == "bad" && event.data.n == 1 && !*gate.borrow() {
                    failures.fetch_add(1, Ordering::SeqCst);
                    return Err("not today".into());
                }
                Ok(())
            }
        }
    };
    let attempts = 1_000.try_into().expect("not zero");
    let consumer = stage.consumer().on("step", handler).attempts(attempts);
    let consumer = Running::start(consumer);
    stage
        .produce(&[("bad", 0), ("bad", 1), ("good", 2), ("bad", 3), ("good", 4)])
        .await;
    for n in 5..50 {
        stage.produce(&[("good", n)]).await;
    }

    // Everything of the other key, and what came before the failure; nothing after it.
    stage.effects(48).await;
    assert_eq!(stage.effects_of("bad").await, [0]);
    assert!(stage.committed_now(1) <= 1, "offset 1 is open");

    let_go.send_replace(true);
    stage.effects(50).await;
    assert_eq!(stage.effects_of("bad").await, [0, 1, 3]);
    assert!(stage.effects_of("good").await.is_sorted());
    assert!(failures.load(Ordering::SeqCst) >= 2);
    assert!(stage.counted("retried") >= 1);
    stage.committed(1, 50).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_in_a_batch_costs_its_mates_nothing_and_no_effect_happens_twice() {
    let stage = Stage::new("isolation", 1).await;
    let mut steps: Vec<(String, i64)> = (0..100).map(|n| (format!("k{n}"), n)).collect();
    steps.push(("k50".to_owned(), 100));
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    stage.produce(&steps).await;
    let runs = Arc::new(AtomicU64::new(0));
    let handler = {
        let runs = Arc::clone(&runs);
        move |mut tx: Tx, event: Event<Step>| {
            let runs = Arc::clone(&runs);
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                note(&mut tx, &event.data).await?;
                match event.data.n {
                    50 => Err(HandlerError::reject("never")),
                    51 => panic!("the handler of 51"),
                    // A statement that fails unseen: Postgres would roll the batch back silently.
                    52 => {
                        let _ = sqlx::query("select 1 / 0").execute(&mut *tx).await;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        }
    };
    // One worker: the whole backlog comes as a batch.
    let one = 1.try_into().expect("not zero");
    let consumer = Running::start(stage.consumer().workers(one).on("step", handler));

    stage.committed(1, 101).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 98);
    assert_eq!(
        stage.number("select count(distinct n) from effects").await,
        98
    );
    assert_eq!(stage.effects_of("k50").await, [100], "the key goes on");
    let reasons = stage.dead_letters();
    let mut reasons: Vec<_> = reasons
        .iter()
        .map(|letter| {
            let header = |name| letter.header(name).expect("a header").to_owned();
            (
                header("dlq-original-offset"),
                header("dlq-attempts"),
                header("dlq-reason"),
            )
        })
        .collect();
    reasons.sort();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    let expected = [
        ("50", "1", "never"),
        ("51", "3", "the handler panicked: the handler of 51"),
        ("52", "3", "a statement of the transaction had failed"),
    ];
    for ((offset, attempts, reason), found) in expected.iter().zip(&reasons) {
        assert_eq!((*offset, *attempts), (&*found.0, &*found.1));
        assert!(found.2.contains(reason), "{found:?}");
    }
    assert!(runs.load(Ordering::SeqCst) > 101, "a batch was run again");
}

/// On one thread, what the handler hands out is not dropped before the consumer, which goes on at once, looks for it.
#[tokio::test(flavor = "current_thread")]
async fn a_handler_that_keeps_its_transaction_or_does_not_end_has_failed() {
    let stage = Stage::new("keeping", 1).await;
    let (keep, mut kept) = mpsc::unbounded_channel();
    let handler = move |mut tx: Tx, event: Event<Step>| {
        let keep = keep.clone();
        async move {
            note(&mut tx, &event.data).await?;
            match event.data.n {
                0 => drop(keep.send(tx)),
                1 => std::future::pending().await,
                _ => {}
            }
            HandlerResult::Ok(())
        }
    };
    let consumer = stage
        .consumer()
        .attempts(1.try_into().expect("not zero"))
        .handler_timeout(Duration::from_millis(500))
        .on("step", handler);
    let consumer = Running::start(consumer);

    stage.produce(&[("a", 0)]).await;
    drop(soon("the transaction", kept.recv()).await);
    stage.produce(&[("b", 1), ("c", 2)]).await;
    stage
        .until(
            "select count(*) from processed_events where outcome = 'dead_lettered'",
            2,
        )
        .await;

    stage.effects(1).await;
    stage.committed(1, 3).await;
    consumer.stop().await;
    let reasons: Vec<String> = stage
        .dead_letters()
        .iter()
        .map(|letter| letter.header("dlq-reason").expect("a reason").to_owned())
        .collect();
    assert_eq!(
        reasons[0],
        "the handler kept its transaction beyond its end"
    );
    assert_eq!(reasons[1], "the handler did not end within 0.5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appended_event_names_its_cause_and_hands_the_correlation_on() {
    let stage = Stage::new("causation", 1).await;
    let handler = |mut tx: Tx, event: Event<Step>| async move {
        let followed = NewEvent::json("thing", event.key(), "thing.followed", &event.data.n)?;
        outbox::append(&mut tx, followed.clone()).await?;
        let own = followed.correlation_id("mine").causation_id("me");
        outbox::append_with_lock(&mut tx, own).await?;
        note(&mut tx, &event.data).await?;
        HandlerResult::Ok(())
    };
    let consumer = Running::start(stage.consumer().on("step", handler));
    let ids = stage.produce(&[("a", 7)]).await;
    stage.effects(1).await;
    consumer.stop().await;

    let rows = "select correlation_id, causation_id, traceparent from outbox_events order by id";
    let rows = sqlx::query(rows).fetch_all(&stage.pool).await;
    let rows = rows.expect("reading the outbox");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let found = |row: usize| -> (String, String, String) {
        (rows[row].get(0), rows[row].get(1), rows[row].get(2))
    };
    assert_eq!(
        found(0),
        ("c-7".to_owned(), ids[0].to_string(), trace.to_owned())
    );
    assert_eq!(
        found(1),
        ("mine".to_owned(), "me".to_owned(), trace.to_owned())
    );

    // Outside a handler nothing is handed on.
    let mut tx = stage.pool.begin().await.expect("beginning");
    let event = NewEvent::tombstone("thing", "b", "thing.gone");
    outbox::append(&mut tx, event).await.expect("appending");
    tx.commit().await.expect("committing");
    let none = "select count(*) from outbox_events where causation_id is null and payload is null";
    assert_eq!(stage.number(none).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_are_upcast_and_cloud_events_and_raw_bytes_are_handled() {
    let stage = Stage::new("formats", 1).await;
    let picture = |mut tx: Tx, event: Event<Raw>| async move {
        assert_eq!(event.id.as_str(), "/camera#7");
        sqlx::query("insert into effects (key, n) values ('picture', 1)")
            .execute(&mut *tx)
            .await?;
        HandlerResult::Ok(())
    };
    let consumer = stage
        .consumer()
        .on("step", noting)
        .on("picture.taken", picture)
        .upcast("step", "1", "2", |mut data| {
            data["n"] = (data["n"].as_i64().unwrap_or(0) + 1000).into();
            Ok(data)
        });
    let consumer = Running::start(consumer);
    stage.produce(&[("a", 1)]).await;
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "7"),
        ("ce_source", "/camera"),
        ("ce_type", "picture.taken"),
        ("content-type", "image/png"),
    ];
    stage
        .send("a", Some(vec![0, 159, 146, 150]), &headers)
        .await;
    let unhandled = [
        ("ce_type", "nobody.cares"),
        headers[0],
        headers[1],
        headers[2],
    ];
    stage.send("a", Some(b"{}".to_vec()), &unhandled).await;

    stage.committed(1, 3).await;
    consumer.stop().await;
    assert_eq!(stage.effects_of("a").await, [1001]);
    assert_eq!(stage.effects_of("picture").await, [1]);
    assert_eq!(stage.counted("skipped"), 1);
    assert_eq!(
        stage.number("select count(*) from processed_events").await,
        2
    );
}

/// Postgres refuses it only at the commit, as it does with the foreign keys of some frameworks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_a_deferred_constraint_refuses_is_its_handlers_failure_alone() {
    let stage = Stage::new("deferred", 1).await;
    stage
        .execute("create table allowed (n bigint primary key); insert into allowed select generate_series(0, 8)")
        .await;
    stage
        .execute("alter table effects add foreign key (n) references allowed deferrable initially deferred")
        .await;
    let steps: Vec<(String, i64)> = (0..10).map(|n| (format!("k{n}"), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    let ids = stage.produce(&steps).await;

    let consumer = Running::start(stage.consumer().on("step", noting));
    stage.committed(1, 10).await;
    consumer.stop().await;

    assert_eq!(stage.number("select count(*) from effects").await, 9);
    let outcome = stage.outcome(&ids[9].to_string()).await;
    assert_eq!(outcome.as_deref(), Some("dead_lettered"));
    assert_eq!(stage.counted("dead_lettered"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_waits_for_a_foreign_lock_holds_nobody_up_for_longer_than_its_time() {
    let stage = Stage::new("locked", 1).await;
    stage
        .execute("create table rows (n bigint primary key); insert into rows values (1)")
        .await;
    let handler = |mut tx: Tx, event: Event<Step>| async move {
        note(&mut tx, &event.data).await?;
        if event.data.key == "stuck" {
            sqlx::query("select from rows where n = 1 for update")
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    };
    let mut locker = crate::support::fixture::connect(&stage.url).await;
    crate::support::fixture::execute(&mut locker, "begin; select from rows for update").await;
    stage.produce(&[("stuck", 0), ("a", 1), ("b", 2)]).await;

    let consumer = stage.consumer().on("step", handler);
    let consumer = Running::start(consumer.handler_timeout(Duration::from_millis(500)));
    stage.committed(1, 3).await;
    consumer.stop().await;

    assert_eq!(stage.number("select count(*) from effects").await, 2);
    assert_eq!(stage.counted("dead_lettered"), 1);
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database()";
    assert_eq!(stage.number(waiting).await, 0, "no statement goes on");
}
