//! Handlers and the connection they are lent: lost under them, broken by them, their transaction ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outboxd::inbox::consumer::{Event, HandlerResult, Tx};
use outboxd::local::{PostgresRelease, StopMode};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::mpsc;

use super::stage::{Running, Stage, Step, note, soon};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

/// So many events, each of a key of its own, that one worker has them in one batch.
async fn produce(stage: &Stage, events: i64) {
    let steps: Vec<(String, i64)> = (0..events).map(|n| (format!("k{n}"), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    stage.produce(&steps).await;
}

/// A consumer with one worker whose handler notes the effect, and sends `sql` for n = 20.
fn sending(stage: &Stage, sql: &'static str) -> Running {
    let handler = move |mut tx: Tx, event: Event<Step>| async move {
        note(&mut tx, &event.data).await?;
        if event.data.n == 20 {
            (&mut *tx).execute(sql).await?;
        }
        Ok(())
    };
    let one = 1.try_into().expect("not zero");
    Running::start(stage.consumer().workers(one).on("step", handler))
}

/// Expects that of 40 events only n = 20 took no effect, and is a dead letter after three attempts.
async fn only_the_guilty_one_is_a_dead_letter(stage: &Stage, consumer: Running, reason: &str) {
    stage.committed(1, 40).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 39);
    let distinct = "select count(distinct n) from effects where n <> 20";
    assert_eq!(stage.number(distinct).await, 39);
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("dlq-original-offset"), Some("20"));
    assert_eq!(letters[0].header("dlq-attempts"), Some("3"));
    let found = letters[0].header("dlq-reason").expect("a reason");
    assert!(found.contains(reason), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_session_is_always_ended_is_a_dead_letter_and_its_mates_are_not() {
    for (sql, reason) in [
        (
            "select pg_terminate_backend(pg_backend_pid())",
            "the connection was lost: ",
        ),
        (
            "set local transaction_timeout = '50ms'; select pg_sleep(20)",
            "transaction timeout",
        ),
    ] {
        let stage = Stage::new("session", 1).await;
        produce(&stage, 40).await;
        let consumer = sending(&stage, sql);
        only_the_guilty_one_is_a_dead_letter(&stage, consumer, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_crashes_the_server_is_a_dead_letter_and_its_mates_are_not() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let stage = Stage::on(&server.url("postgres"), "crash", 1).await;
    produce(&stage, 40).await;
    let handler = |mut tx: Tx, event: Event<Step>| async move {
        note(&mut tx, &event.data).await?;
        if event.data.n == 20 {
            let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
                .fetch_one(&mut *tx)
                .await?;
            let backend = Pid::from_raw(backend).expect("a process id");
            kill_process(backend, Signal::KILL).expect("killing a backend");
            sqlx::query("select pg_sleep(20)").execute(&mut *tx).await?;
        }
        Ok(())
    };
    let one = 1.try_into().expect("not zero");
    let consumer = Running::start(stage.consumer().workers(one).on("step", handler));
    only_the_guilty_one_is_a_dead_letter(&stage, consumer, "the connection was lost: ").await;
}

/// A consumer that is allowed one attempt, whose handler hangs the first time it runs; and when it does.
async fn hanging_once(stage: &Stage) -> Running {
    let (begun, mut beginning) = mpsc::unbounded_channel();
    let first = Arc::new(AtomicBool::new(true));
    let handler = move |mut tx: Tx, event: Event<Step>| {
        let (begun, first) = (begun.clone(), Arc::clone(&first));
        async move {
            note(&mut tx, &event.data).await?;
            if first.swap(false, Ordering::SeqCst) {
                begun.send(())?;
                sqlx::query("select pg_sleep(20)").execute(&mut *tx).await?;
            }
            HandlerResult::Ok(())
        }
    };
    let one = 1.try_into().expect("not zero");
    let consumer = Running::start(stage.consumer().attempts(one).on("step", handler));
    stage.produce(&[("a", 1)]).await;
    soon("the handler", beginning.recv()).await;
    consumer
}

async fn it_took_effect_and_nobody_counted(stage: &Stage, consumer: Running) {
    stage.committed(1, 1).await;
    consumer.stop().await;
    assert_eq!(stage.effects_of("a").await, [1]);
    assert_eq!(stage.counted("dead_lettered"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_under_a_handler_is_no_attempt() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let mut server = services::private_postgres(options).await;
    let stage = Stage::on(&server.url("postgres"), "outage", 1).await;
    let consumer = hanging_once(&stage).await;
    let restarted = server.restart(StopMode::Immediate).await;
    restarted.expect("restarting");
    it_took_effect_and_nobody_counted(&stage, consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_somebody_ends_under_a_handler_is_no_attempt() {
    let stage = Stage::new("ended", 1).await;
    let consumer = hanging_once(&stage).await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
               where wait_event = 'PgSleep' and datname = current_database()";
    stage
        .until(&format!("select count(*) from ({end}) as ended"), 1)
        .await;
    it_took_effect_and_nobody_counted(&stage, consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_commits_or_rolls_back_by_itself_has_failed_and_its_mates_have_not() {
    for (sql, reason) in [
        ("commit", "the handler must not commit its transaction"),
        ("commit and chain", "the handler must not commit"),
        ("prepare transaction 'mine'", "cursor WITH HOLD"),
        ("rollback; select 1 / 0", "division by zero"),
    ] {
        let stage = Stage::new("ending", 1).await;
        produce(&stage, 40).await;
        let consumer = sending(&stage, sql);
        only_the_guilty_one_is_a_dead_letter(&stage, consumer, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_use_savepoints_and_cursors_of_its_own() {
    let stage = Stage::new("savepoints", 1).await;
    produce(&stage, 40).await;
    let handler = |mut tx: Tx, event: Event<Step>| async move {
        note(&mut tx, &event.data).await?;
        let mut attempt = tx.begin().await?;
        let failed = attempt.execute("insert into effects (n) values (1 / 0)");
        assert!(failed.await.is_err());
        attempt.rollback().await?;
        let mut inner = tx.begin().await?;
        inner
            .execute("declare mine cursor for select 1; fetch mine; close mine")
            .await?;
        inner.commit().await?;
        HandlerResult::Ok(())
    };
    let consumer = Running::start(stage.consumer().on("step", handler));
    stage.committed(1, 40).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 40);
    assert_eq!(stage.counted("retried"), 0);
}

/// It says that all is well, and what it does next would be committed without a claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_rolls_back_and_says_nothing_has_failed_and_ends_no_claim_but_its_own() {
    for sql in ["rollback", "rollback and chain", "rollback; begin"] {
        let stage = Stage::new("rolling_back", 1).await;
        // Alone: nobody else's effects are at stake.
        let consumer = sending(&stage, sql);
        let ids = stage.produce(&[("a", 20)]).await;
        stage.committed(1, 1).await;
        let outcome = stage.outcome(&ids[0].to_string()).await;
        assert_eq!(outcome.as_deref(), Some("dead_lettered"), "{sql}");
        let letters = stage.dead_letters();
        let reason = letters[0].header("dlq-reason").expect("a reason");
        assert!(reason.contains("ended its transaction"), "{reason}");
        assert_eq!(stage.number("select count(*) from effects").await, 0);

        // The others go on.
        stage.produce(&[("a", 21), ("b", 22)]).await;
        stage.committed(1, 3).await;
        consumer.stop().await;
        assert_eq!(stage.number("select count(*) from effects").await, 2);
    }
}

/// Once it was seen to end its company's transaction, it has no company any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_handler_ended_the_transaction_of_a_batch_every_event_is_handled_alone() {
    let stage = Stage::new("distrust", 1).await;
    // The last of the batch, so that nothing is done in it without a claim.
    produce(&stage, 21).await;
    let consumer = sending(&stage, "rollback");
    stage.committed(1, 21).await;
    assert_eq!(stage.number("select count(*) from effects").await, 20);
    assert_eq!(stage.counted("dead_lettered"), 1);

    produce(&stage, 40).await;
    stage.committed(1, 61).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 20 + 39);
    assert_eq!(stage.counted("dead_lettered"), 2);
}

/// Batches, claims, isolation, dead letters: all there is, on the oldest release that is supported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_works_on_the_oldest_postgres() {
    for (sql, reason) in [
        ("select 1 / 0", "division by zero"),
        ("commit", "the handler must not commit its transaction"),
        (
            "select pg_terminate_backend(pg_backend_pid())",
            "the connection was lost: ",
        ),
    ] {
        let stage = Stage::on_server(services::postgres_13().await, "oldest", 1).await;
        produce(&stage, 40).await;
        let consumer = sending(&stage, sql);
        only_the_guilty_one_is_a_dead_letter(&stage, consumer, reason).await;
    }
}

/// With what sqlx needs there, and two connections to the server for four workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_works_behind_a_pooler_in_transaction_mode() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let pooler = PgBouncer::start(server.port()).await;
    let stage = Stage::on(&server.url("postgres"), "pooler", 3).await;
    let options: PgConnectOptions = pooler.url("postgres").parse().expect("a url");
    let options = options.extra_float_digits(None).statement_cache_capacity(0);
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect_lazy_with(options);
    let handler = |mut tx: Tx, event: Event<Step>| async move {
        let noted = sqlx::query("insert into effects (key, n) values ($1, $2)")
            .bind(&event.data.key)
            .bind(event.data.n)
            .persistent(false);
        noted.execute(&mut *tx).await?;
        match event.data.n == 20 {
            true => Err("20 is too much".into()),
            false => HandlerResult::Ok(()),
        }
    };
    let ten = 10.try_into().expect("not zero");
    let consumer = stage.consumer_on(pool).batch(ten).hold_key_on_reject();
    let consumer = Running::start(consumer.on("step", handler));
    let steps: Vec<(String, i64)> = (0..600).map(|n| (format!("k{}", n % 60), n)).collect();
    let steps: Vec<(&str, i64)> = steps.iter().map(|(key, n)| (key.as_str(), *n)).collect();
    let ids = stage.produce(&steps).await;
    for (id, (key, n)) in ids.iter().zip(&steps).step_by(7) {
        stage.produce_again(*id, key, *n).await;
    }

    // All but what comes after the dead letter of its key.
    stage.effects(59 * 10).await;
    assert!(stage.effects_of("k20").await.is_empty(), "its key is held");
    let waiting = "select count(*) from processed_events where outcome = 'dead_lettered'";
    stage.until(waiting, 1).await;
    stage
        .execute(
            "update processed_events set outcome = 'discarded' where outcome = 'dead_lettered'",
        )
        .await;
    stage.committed(3, 600 + 86).await;
    consumer.stop().await;
    assert_eq!(stage.number("select count(*) from effects").await, 599);
    let inverted = "select count(*) from (select n - lag(n) over (partition by key order by id) as step \
                    from effects) e where step <> 60";
    assert_eq!(stage.number(inverted).await, 0);
    assert_eq!(stage.counted("dead_lettered"), 1);
}

/// One thread, so that all it logs is heard.
#[tokio::test]
async fn a_pool_smaller_than_the_workers_is_told_of_and_is_no_outage() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _heard = tracing::subscriber::set_default(subscriber);
    let stage = Stage::new("small_pool", 1).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(1))
        .connect_lazy(&stage.url)
        .expect("a pool");
    let slowly = |mut tx: Tx, event: Event<Step>| async move {
        note(&mut tx, &event.data).await?;
        // Longer than anybody waits for a connection.
        sqlx::query("select pg_sleep(2.5)")
            .execute(&mut *tx)
            .await?;
        Ok(())
    };
    let one = 1.try_into().expect("not zero");
    let consumer = stage.consumer_on(pool).batch(one).on("step", slowly);
    let consumer = Running::start(consumer);
    produce(&stage, 3).await;
    stage.committed(1, 3).await;
    consumer.stop().await;

    let log = log.text();
    assert!(
        log.contains("fewer connections than the consumer has workers"),
        "{log}"
    );
    assert!(!log.contains("service is unreachable"), "{log}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("the log")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
