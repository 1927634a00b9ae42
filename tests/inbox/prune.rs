//! Forgetting, beside claims.

use std::time::{Duration, SystemTime};

use outboxd::inbox::{Claim, ConsumerName, EventId, Identity, Inbox, Prune, Pruned};

use super::{InboxDatabase, both, claim, outboxd, succeeds, text};
use crate::support::fixture::{PATIENCE, boolean, connect, execute, number};
use crate::support::services;

const DAY: Duration = Duration::from_secs(86_400);

fn inbox(consumer: &str) -> Inbox {
    Inbox::new(ConsumerName::new(consumer).expect("a name"))
}

/// Rows of a consumer that were processed so many days ago.
async fn remember(inbox: &InboxDatabase, consumer: &str, prefix: &str, rows: u32, days: &str) {
    let sql = format!(
        "insert into processed_events (consumer, event_id, processed_at) \
         select '{consumer}', '{prefix}' || n, now() - interval '{days} days' + n * interval '1 ms' \
         from generate_series(1, {rows}) as n"
    );
    execute(&mut inbox.connect().await, &sql).await;
}

async fn remembered(inbox: &InboxDatabase, consumer: &str) -> i64 {
    let sql = format!("select count(*) from processed_events where consumer = '{consumer}'");
    number(&mut inbox.connect().await, &sql).await
}

fn days_ago(days: u32) -> SystemTime {
    SystemTime::now() - days * DAY
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_forgotten_and_refused_from_then_on() {
    for (release, database) in both().await {
        remember(&database, "billing", "old-", 12_001, "20").await;
        remember(&database, "billing", "margin-", 1, "14.01").await;
        remember(&database, "billing", "young-", 3, "13").await;
        remember(&database, "mailing", "old-", 5, "20").await;
        let uuid_of_2021 = "0177f8f0-5c00-7000-8000-000000000001";
        let mut connection = database.connect().await;
        execute(
            &mut connection,
            &format!(
                "insert into processed_events values \
                 ('billing', '{uuid_of_2021}', now() - interval '20 days', 'processed')"
            ),
        )
        .await;
        let prune = ["inbox", "prune", "--postgres-url", database.url()];
        let pruned = outboxd(&[&prune[..], &["--consumer", "billing"]].concat());
        assert_eq!(
            succeeds(&pruned),
            "billing: forgot 12002 ids\n",
            "{release}"
        );
        assert_eq!(remembered(&database, "billing").await, 4, "{release}");
        assert_eq!(remembered(&database, "mailing").await, 5, "{release}");
        // A replay of everything since the beginning.
        for (call, answer) in [
            ("'billing', 'old-1', now() - interval '20 days'", "expired"),
            (
                "'billing', 'old-1', now() - interval '14.1 days'",
                "expired",
            ),
            (
                "'billing', 'never-seen', now() - interval '13.9 days'",
                "new",
            ),
            (
                "'billing', 'young-1', now() - interval '13 days'",
                "duplicate",
            ),
            (
                "'billing', 'margin-1', now() - interval '15 days'",
                "duplicate",
            ),
            (&format!("'billing', '{uuid_of_2021}'"), "expired"),
            ("'mailing', 'old-1'", "duplicate"),
            ("'mailing', 'other', now() - interval '20 days'", "new"),
        ] {
            let answered = text(&mut connection, &format!("select inbox_claim({call})")).await;
            assert_eq!(answered, answer, "{release} {call}");
        }
        let all = outboxd(&[&prune[..], &["--retention", "30d"]].concat());
        assert_eq!(
            succeeds(&all),
            "billing: forgot 0 ids\nmailing: forgot 0 ids\n"
        );
        let horizon = "select count(*) from processed_consumers where consumer = 'billing' \
                       and forgotten_before between now() - interval '14 days 1 minute' and now() - interval '14 days'";
        assert_eq!(
            number(&mut connection, horizon).await,
            1,
            "it never goes back"
        );
    }
}

/// Waits until the horizon of the consumer is raised.
async fn horizon_is_raised(database: &InboxDatabase, consumer: &str) {
    let mut watcher = database.connect().await;
    let raised =
        format!("select exists (select from processed_consumers where consumer = '{consumer}')");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !boolean(&mut watcher, &raised).await {
        assert!(std::time::Instant::now() < deadline, "no horizon");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn spawn_prune(database: &InboxDatabase, prune: Prune) -> tokio::task::JoinHandle<Pruned> {
    let url = database.url().to_owned();
    tokio::spawn(async move {
        let mut connection = connect(&url).await;
        let pruned = inbox("c").prune(&mut connection, &prune).await;
        pruned.expect("pruned")
    })
}

#[tokio::test]
async fn a_transaction_that_began_before_never_takes_a_pruned_id_as_new() {
    for (release, database) in both().await {
        for level in ["read committed", "repeatable read", "serializable"] {
            let mut claimer = database.connect().await;
            execute(
                &mut claimer,
                "truncate processed_events, processed_consumers",
            )
            .await;
            remember(&database, "c", "old-", 100, "20").await;
            // Its snapshot, at the two higher levels, is from before the horizon.
            execute(
                &mut claimer,
                &format!("begin isolation level {level}; select count(*) from processed_events"),
            )
            .await;
            let pruning = spawn_prune(&database, Prune::after(14 * DAY));
            horizon_is_raised(&database, "c").await;
            // Time for a pruner that does not wait.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let old = "select inbox_claim('c', 'old-1', now() - interval '20 days')";
            assert_eq!(
                text(&mut claimer, old).await,
                "duplicate",
                "{release} {level}"
            );
            assert_eq!(remembered(&database, "c").await, 100, "{release} {level}");
            execute(&mut claimer, "commit").await;
            let pruned = pruning.await.expect("no panic");
            let expected = Pruned {
                deleted: 100,
                waiting_for: 0,
            };
            assert_eq!(pruned, expected, "{release} {level}");
            assert_eq!(
                text(&mut claimer, old).await,
                "expired",
                "{release} {level}"
            );
        }
    }
}

#[tokio::test]
async fn a_transaction_that_does_not_end_keeps_the_rows_and_nothing_else() {
    let database = InboxDatabase::new("inbox_patience").await;
    remember(&database, "c", "old-", 10, "20").await;
    // Of another database: it can see nothing of this one.
    let other = services::postgres()
        .await
        .create_database("elsewhere")
        .await;
    let mut elsewhere = other.connect().await;
    execute(&mut elsewhere, "begin; select 1").await;
    let mut idle = database.connect().await;
    execute(&mut idle, "begin; select 1").await;
    let prune = [
        "inbox",
        "prune",
        "--postgres-url",
        database.url(),
        "--wait",
        "200ms",
    ];
    let gave_up = outboxd(&prune);
    let error = String::from_utf8_lossy(&gave_up.stderr);
    assert_eq!(gave_up.status.code(), Some(75), "{error}");
    assert!(
        error.contains(
            "nothing was pruned, because 1 transactions that began before did not end within 200ms"
        ),
        "{error}"
    );
    assert_eq!(remembered(&database, "c").await, 10);
    execute(&mut idle, "commit").await;
    assert_eq!(succeeds(&outboxd(&prune)), "c: forgot 10 ids\n");
}

#[tokio::test]
async fn rows_under_a_lock_are_left_for_the_next_run() {
    let database = InboxDatabase::new("inbox_locked").await;
    remember(&database, "c", "old-", 10, "20").await;
    let mut person = database.connect().await;
    let mut pruner = database.connect().await;
    let prune = Prune {
        patience: Duration::ZERO,
        ..Prune::after(14 * DAY)
    };
    let lock = "update processed_events set outcome = 'discarded' where event_id = 'old-3'";
    // The first run would wait for whoever holds the lock: only the horizon is wanted of it.
    execute(&mut person, &format!("begin; {lock}")).await;
    let first = inbox("c").prune(&mut pruner, &prune).await.expect("pruned");
    assert_eq!(
        first,
        Pruned {
            deleted: 0,
            waiting_for: 1
        }
    );
    execute(&mut person, "rollback").await;
    let pruning = spawn_prune(
        &database,
        Prune {
            pause: Duration::from_millis(200),
            batch_rows: std::num::NonZeroU32::MIN,
            ..Prune::after(14 * DAY)
        },
    );
    let mut watcher = database.connect().await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while number(&mut watcher, "select count(*) from processed_events").await == 10 {
        assert!(std::time::Instant::now() < deadline, "nothing is pruned");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    execute(
        &mut person,
        &format!("begin; {}", lock.replace("old-3", "old-9")),
    )
    .await;
    let pruned = pruning.await.expect("no panic");
    assert_eq!(pruned.deleted, 9, "it waits for nobody");
    execute(&mut person, "commit").await;
    let again = inbox("c").prune(&mut pruner, &prune).await.expect("pruned");
    assert_eq!(again.deleted, 1, "behind what was pruned, and found");
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_made_smaller_until_it_does_not() {
    for (release, database) in both().await {
        remember(&database, "c", "old-", 64, "20").await;
        // A slow disk: 64 rows take longer than the time that a batch has, and 8 do not.
        let slow = "create function wait() returns trigger language plpgsql as \
                    $$ begin perform pg_sleep(0.05); return old; end $$; \
                    create trigger slow before delete on processed_events \
                    for each row execute function wait()";
        let mut connection = database.connect().await;
        execute(&mut connection, slow).await;
        let prune = Prune {
            batch_rows: std::num::NonZeroU32::MIN.saturating_add(63),
            lock_timeout: Duration::from_millis(1_500),
            ..Prune::after(14 * DAY)
        };
        let pruned = inbox("c").prune(&mut connection, &prune).await;
        let pruned = pruned.unwrap_or_else(|error| panic!("{release}: {error:?}"));
        assert_eq!(pruned.deleted, 64, "{release}");
        assert_eq!(remembered(&database, "c").await, 0, "{release}");
    }
}

#[tokio::test]
async fn a_row_sent_back_is_remembered_anew_and_a_claim_beside_the_pruner_is_right() {
    let database = InboxDatabase::new("inbox_redriven").await;
    remember(&database, "c", "old-", 1, "20").await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "update processed_events set outcome = 'redriven', processed_at = clock_timestamp()",
    )
    .await;
    let mut pruner = database.connect().await;
    let pruned = inbox("c").prune(&mut pruner, &Prune::after(14 * DAY)).await;
    assert_eq!(pruned.expect("pruned"), Pruned::default());
    assert_eq!(claim(&mut connection, "c", "old-1").await, "new");
    let young = "select count(*) from processed_events where processed_at > now() - interval '1 minute' and outcome = 'processed'";
    assert_eq!(number(&mut connection, young).await, 1);
}

/// Claims and pruning at once, at random: no id ever takes effect twice.
#[tokio::test]
async fn claims_beside_a_pruner_take_every_id_once() {
    const IDS: u32 = 400;
    for (release, database) in both().await {
        let mut owner = database.connect().await;
        execute(
            &mut owner,
            "create table effects (event_id text primary key)",
        )
        .await;
        // Everything was created long ago; the half of it was processed long ago.
        remember(&database, "c", "e-", IDS / 2, "20").await;
        execute(
            &mut owner,
            "insert into effects select event_id from processed_events",
        )
        .await;
        let claimers: Vec<_> = (0..6u64)
            .map(|seed| {
                let (pool, inbox) = (database.pool.clone(), inbox("c"));
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let level = ["read committed", "repeatable read"][usize::from(seed % 2 == 0)];
                    for _ in 0..150 {
                        let n = random.u32(1..=IDS);
                        let event = Identity::new(EventId::text(format!("e-{n}")).expect("an id"))
                            .created_at(days_ago(21));
                        let mut tx = pool.begin().await.expect("a transaction");
                        execute(&mut tx, &format!("set transaction isolation level {level}")).await;
                        match inbox.claim(&mut tx, &event).await {
                            Ok(Claim::New) => {
                                let effect = format!("insert into effects values ('e-{n}')");
                                execute(&mut tx, &effect).await;
                                // Or it rolls back.
                                if random.bool() {
                                    tx.commit().await.expect("committed");
                                }
                            }
                            Ok(_) => {}
                            Err(error) => assert!(error.is_transient(), "{error:?}"),
                        }
                    }
                })
            })
            .collect();
        let pruned = spawn_prune(&database, Prune::after(14 * DAY)).await;
        let pruned = pruned.expect("no panic");
        assert_eq!(pruned.deleted, u64::from(IDS / 2), "{release}");
        for claimer in claimers {
            // A second effect violates the primary key of `effects`.
            claimer.await.expect("no effect twice");
        }
    }
}

#[tokio::test]
async fn a_dead_letter_is_remembered_until_somebody_has_decided() {
    let [_, (_, database)] = both().await;
    remember(&database, "billing", "old-", 3, "20").await;
    let mut connection = database.connect().await;
    for (id, outcome) in [("old-1", "dead_lettered"), ("old-2", "discarded")] {
        let sql =
            format!("update processed_events set outcome = '{outcome}' where event_id = '{id}'");
        execute(&mut connection, &sql).await;
    }
    let prune = ["inbox", "prune", "--postgres-url", database.url()];
    let pruned = outboxd(&[&prune[..], &["--consumer", "billing"]].concat());
    assert_eq!(succeeds(&pruned), "billing: forgot 2 ids\n");
    let left = "select count(*) from processed_events where outcome = 'dead_lettered'";
    assert_eq!(number(&mut connection, left).await, 1);
}

#[tokio::test]
async fn an_event_from_the_future_takes_effect_once_even_after_pruning() {
    for (release, database) in both().await {
        let mut connection = database.connect().await;
        let claims = |days: &str| {
            let at = format!("now() + interval '{days} days'");
            [
                format!("select inbox_claim('billing', 'early', {at})"),
                format!(
                    "select claim from inbox_claim_batch('billing', array['early 2'], array[{at}])"
                ),
            ]
        };
        for claim in claims("10") {
            assert_eq!(text(&mut connection, &claim).await, "new", "{release}");
        }
        // Twenty days pass.
        let later = "update processed_events set processed_at = processed_at - interval '20 days'";
        execute(&mut connection, later).await;
        remember(&database, "billing", "old-", 3, "20").await;
        let prune = ["inbox", "prune", "--postgres-url", database.url()];
        succeeds(&outboxd(&[&prune[..], &["--consumer", "billing"]].concat()));
        for claim in claims("-10") {
            let answer = text(&mut connection, &claim).await;
            assert_eq!(answer, "duplicate", "{release} {claim}");
        }
    }
}
