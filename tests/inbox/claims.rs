//! The SQL functions, on the oldest and the newest release.

use std::time::Duration;

use outboxd::local::PostgresRelease;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row};

use super::{InboxDatabase, both, claim, outboxd, succeeds, text};
use crate::support::fixture::{PATIENCE, boolean, connect, execute, number};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

const LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

async fn begin(connection: &mut PgConnection, level: &str) {
    execute(connection, &format!("begin isolation level {level}")).await;
}

/// Waits until a session of the database waits for another's transaction.
async fn somebody_waits(watcher: &mut PgConnection) {
    let waiting = "select exists (select from pg_locks where not granted and locktype = 'transactionid' \
                   and pid in (select pid from pg_stat_activity where datname = current_database()))";
    let deadline = std::time::Instant::now() + PATIENCE;
    while !boolean(watcher, waiting).await {
        assert!(std::time::Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A claim on a connection of its own, at this level, in a transaction that commits.
fn rival(url: &str, level: &'static str, id: &'static str) -> tokio::task::JoinHandle<String> {
    let url = url.to_owned();
    tokio::spawn(async move {
        let mut connection = connect(&url).await;
        begin(&mut connection, level).await;
        let answer = claim(&mut connection, "billing", id).await;
        execute(&mut connection, "commit").await;
        answer
    })
}

#[tokio::test]
async fn a_claim_waits_for_the_other_and_answers_duplicate_or_40001_when_it_commits() {
    for (release, inbox) in both().await {
        for level in LEVELS {
            let mut watcher = inbox.connect().await;
            execute(&mut watcher, "truncate processed_events").await;
            let mut first = inbox.connect().await;
            begin(&mut first, level).await;
            assert_eq!(claim(&mut first, "billing", "e1").await, "new");
            let second = rival(inbox.url(), level, "e1");
            somebody_waits(&mut watcher).await;
            execute(&mut first, "commit").await;
            let answer = second.await.expect("an answer");
            let expected = match level {
                "read committed" => "duplicate",
                _ => "40001",
            };
            assert_eq!(answer, expected, "{release} {level}");
            let later = rival(inbox.url(), level, "e1").await.expect("an answer");
            assert_eq!(later, "duplicate", "{release} {level}: committed before");
        }
    }
}

#[tokio::test]
async fn a_claim_that_rolls_back_frees_the_event_for_who_waits() {
    for (release, inbox) in both().await {
        for level in LEVELS {
            let mut watcher = inbox.connect().await;
            execute(&mut watcher, "truncate processed_events").await;
            let mut first = inbox.connect().await;
            begin(&mut first, level).await;
            assert_eq!(claim(&mut first, "billing", "e1").await, "new");
            let second = rival(inbox.url(), level, "e1");
            somebody_waits(&mut watcher).await;
            execute(&mut first, "rollback").await;
            assert_eq!(second.await.expect("an answer"), "new", "{release} {level}");
        }
    }
}

#[tokio::test]
async fn a_savepoint_that_rolls_back_frees_the_event_too() {
    let inbox = InboxDatabase::new("inbox_savepoint").await;
    let mut connection = inbox.connect().await;
    execute(&mut connection, "begin; savepoint s").await;
    assert_eq!(claim(&mut connection, "billing", "e1").await, "new");
    assert_eq!(
        claim(&mut connection, "billing", "e1").await,
        "duplicate",
        "within one transaction too"
    );
    execute(&mut connection, "rollback to savepoint s").await;
    assert_eq!(claim(&mut connection, "billing", "e1").await, "new");
    execute(&mut connection, "rollback").await;
}

#[tokio::test]
async fn two_consumers_do_not_disturb_each_other() {
    let inbox = InboxDatabase::new("inbox_two").await;
    let mut billing = inbox.connect().await;
    let mut mailing = inbox.connect().await;
    execute(&mut billing, "begin").await;
    assert_eq!(claim(&mut billing, "billing", "e1").await, "new");
    execute(&mut mailing, "set lock_timeout = '1s'").await;
    assert_eq!(claim(&mut mailing, "mailing", "e1").await, "new");
    execute(&mut billing, "rollback").await;
    assert_eq!(claim(&mut mailing, "mailing", "e1").await, "duplicate");
    assert_eq!(claim(&mut billing, "billing", "e1").await, "new");
}

#[tokio::test]
async fn ids_are_told_apart_as_text_and_uuids_whatever_their_case() {
    for (release, inbox) in both().await {
        let mut connection = inbox.connect().await;
        for (call, answer) in [
            ("'c', '01J8XKQ0ABCDEFGHJKMNPQRSTV'", "new"),
            ("'c', '01j8xkq0abcdefghjkmnpqrstv'", "new"),
            ("'c', 'evt_01J8XKQ0'", "new"),
            ("'c', 'evt_01J8XKQ0'", "duplicate"),
            ("'c', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "new"),
            ("'c', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "duplicate"),
            (
                "'c', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
                "duplicate",
            ),
            (
                "'c', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid",
                "duplicate",
            ),
            ("'c', repeat('x', 1000)", "new"),
            ("'c', repeat('x', 1001)", "23514"),
            ("'c', ''", "23514"),
            ("'', 'e'", "23514"),
            ("'c', null::text", "23502"),
            ("null, 'e'", "23502"),
        ] {
            let answered = text(&mut connection, &format!("select inbox_claim({call})")).await;
            assert_eq!(answered, answer, "{release} {call}");
        }
    }
}

#[tokio::test]
async fn an_event_from_before_the_horizon_is_expired_unless_it_is_remembered_or_sent_back() {
    for (release, inbox) in both().await {
        let mut connection = inbox.connect().await;
        let old = "0177f8f0-5c00-7000-8000-000000000001"; // of March 2021
        let young = "0aaaaaaa-aaaa-7000-8000-000000000001"; // far in the future
        execute(
            &mut connection,
            "insert into processed_events (consumer, event_id, outcome) values \
                 ('c', 'remembered', 'processed'), ('c', 'sent-back', 'redriven'), \
                 ('c', 'dead', 'dead_lettered'), ('c', 'given-up', 'discarded'); \
             insert into processed_consumers values ('c', timestamptz '2024-01-01')",
        )
        .await;
        for (call, answer) in [
            ("'c', 'e1', '2023-12-31'", "expired"),
            ("'c', 'e1', '-infinity'", "expired"),
            ("'c', 'e1', '2024-01-01'", "new"),
            ("'c', 'e2'", "new"),
            (&format!("'c', '{old}'"), "expired"),
            (&format!("'c', '{}'", old.to_uppercase()), "expired"),
            (&format!("'c', '{old}'::uuid"), "expired"),
            (&format!("'other', '{old}'"), "new"),
            (&format!("'c', '{young}', '2023-01-01'"), "expired"),
            (&format!("'c', '{young}'"), "new"),
            // Not a version 7: its digits are no time.
            ("'c', '0177f8f0-5c00-4000-8000-000000000001'", "new"),
            ("'c', 'remembered', '2023-01-01'", "duplicate"),
            ("'c', 'dead'", "duplicate"),
            ("'c', 'given-up'", "duplicate"),
            ("'c', 'sent-back', '2023-01-01'", "new"),
            ("'c', 'sent-back', '2023-01-01'", "duplicate"),
        ] {
            let answered = text(&mut connection, &format!("select inbox_claim({call})")).await;
            assert_eq!(answered, answer, "{release} {call}");
        }
        let nothing = "select count(*) from processed_events where event_id = 'e1' and processed_at < '2024-01-01'";
        assert_eq!(number(&mut connection, nothing).await, 0);
    }
}

/// The answers of a batch claim, sorted by id.
async fn batch(connection: &mut PgConnection, arguments: &str) -> Vec<(String, String)> {
    let sql = format!(
        "select event_id, claim from inbox_claim_batch({arguments}) order by event_id collate \"C\""
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await;
    let rows = rows.expect("a batch of claims");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_batch_answers_once_for_every_distinct_id() {
    for (release, inbox) in both().await {
        let mut connection = inbox.connect().await;
        execute(
            &mut connection,
            "insert into processed_events (consumer, event_id, outcome) values \
                 ('c', 'seen', 'processed'), ('c', 'back', 'redriven'), ('c', 'dead', 'dead_lettered'); \
             insert into processed_consumers values ('c', timestamptz '2024-01-01')",
        )
        .await;
        let found = batch(
            &mut connection,
            "'c', array['b', 'seen', 'a', 'b', 'old', 'back', 'dead', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'], \
             array[null, null, null, null, '2023-01-01', '2023-01-01', null, null]::timestamptz[]",
        )
        .await;
        let expected = [
            ("a", "new"),
            ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "new"),
            ("b", "new"),
            ("back", "new"),
            ("dead", "duplicate"),
            ("old", "expired"),
            ("seen", "duplicate"),
        ];
        let expected = expected.map(|(id, claim)| (id.to_owned(), claim.to_owned()));
        assert_eq!(found, expected, "{release}");
        let again = batch(&mut connection, "'c', array['a', 'back', 'z']").await;
        let answers: Vec<&str> = again.iter().map(|(_, claim)| claim.as_str()).collect();
        assert_eq!(answers, ["duplicate", "duplicate", "new"], "{release}");
        assert_eq!(batch(&mut connection, "'c', '{}'").await, []);
        let wrong = "select claim from inbox_claim_batch('c', array['a'], '{}'::timestamptz[])";
        assert_eq!(text(&mut connection, wrong).await, "22023");
    }
}

#[tokio::test]
async fn batches_in_any_order_from_many_connections_never_deadlock() {
    const IDS: usize = 200;
    const ROUNDS: usize = 12;
    for (release, inbox) in both().await {
        let claimers: Vec<_> = (0..8)
            .map(|seed| {
                let url = inbox.url().to_owned();
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut connection = connect(&url).await;
                    execute(&mut connection, "set deadlock_timeout = '50ms'").await;
                    let mut new = 0;
                    for round in 0..ROUNDS {
                        let mut ids: Vec<String> =
                            (0..IDS).map(|id| format!("'r{round}-{id}'")).collect();
                        random.shuffle(&mut ids);
                        execute(&mut connection, "begin").await;
                        let answers =
                            batch(&mut connection, &format!("'c', array[{}]", ids.join(", ")))
                                .await;
                        execute(&mut connection, "commit").await;
                        new += answers.iter().filter(|(_, claim)| claim == "new").count();
                    }
                    new
                })
            })
            .collect();
        let mut new = 0;
        for claimer in claimers {
            new += claimer.await.expect("no batch fails");
        }
        assert_eq!(new, IDS * ROUNDS, "{release}: each id was new once");
    }
}

/// In plain SQL, as any language can send it: two servers' sessions for six clients.
#[tokio::test]
async fn claims_through_a_pooler_in_transaction_mode_take_every_event_once() {
    const EVENTS: usize = 200;
    let server = services::private_postgres(services::postgres_options(PostgresRelease::NEWEST));
    let server = server.await;
    let url = server.url("postgres");
    let migrated = outboxd(&["migrate", "--inbox", "--postgres-url", &url]);
    succeeds(&migrated);
    let pooler = PgBouncer::start(server.port()).await;
    let claimers: Vec<_> = (0..6u64)
        .map(|seed| {
            let options: PgConnectOptions = pooler.url("postgres").parse().expect("a url");
            let options = options.extra_float_digits(None).statement_cache_capacity(0);
            tokio::spawn(async move {
                let mut connection = options.connect().await.expect("connecting");
                let mut events: Vec<usize> = (0..EVENTS).collect();
                fastrand::Rng::with_seed(seed).shuffle(&mut events);
                let mut new = Vec::new();
                for event in events {
                    let claim = format!("select inbox_claim('billing', 'e{event}')");
                    execute(&mut connection, "begin").await;
                    let row = connection
                        .fetch_one(sqlx::raw_sql(AssertSqlSafe(claim)))
                        .await;
                    let answer: String = row.expect("an answer").get(0);
                    execute(&mut connection, "commit").await;
                    if answer == "new" {
                        new.push(event);
                    }
                }
                new
            })
        })
        .collect();
    let mut taken = Vec::new();
    for claimer in claimers {
        taken.extend(claimer.await.expect("no panic"));
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..EVENTS).collect::<Vec<_>>());
}
