//! `outboxd bench` against real servers: what it measures, and that it leaves nothing behind.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use tokio::process::Command;

use crate::support::services::{self, TestDatabase};

#[tokio::test]
async fn a_drain_counts_every_row_and_measures_its_limits_beside_it() {
    let database = services::postgres().await.create_database("drain").await;

    let output = bench(&database, &["drain", "--rows", "2000", "--runs", "2"]).await;

    let report = report(&output);
    assert_eq!(report["bench"], "drain");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!(run["relay"]["arrived"], 2000);
        for fault in ["missing", "duplicates", "unknown", "out_of_order"] {
            assert_eq!(run["relay"][fault], 0, "{fault}");
        }
        for limit in ["read", "produce", "mark", "chain"] {
            positive(&run["limits"][format!("{limit}_rows_per_second")]);
        }
        for figure in [
            "rows_per_second",
            "flowing_rows_per_second",
            "first_seconds",
            "peak_memory_bytes",
        ] {
            positive(&run["relay"][figure]);
        }
        positive(&run["ratio"]);
    }
    positive(&report["ratio"]["median"]);
    assert_nothing_is_left(&database).await;
}

#[tokio::test]
async fn a_drain_that_deletes_counts_every_row_too() {
    let database = services::postgres().await.create_database("drain").await;

    let output = bench(
        &database,
        &["drain", "--rows", "2000", "--on-sent", "delete"],
    )
    .await;

    let report = report(&output);
    assert_eq!(report["on_sent"], "delete");
    assert_eq!(report["runs"][0]["relay"]["arrived"], 2000);
}

#[tokio::test]
async fn a_drain_counts_every_row_in_any_envelope() {
    for envelope in ["cloudevents", "cloudevents_binary", "raw"] {
        let database = services::postgres().await.create_database("drain").await;

        let arguments = ["drain", "--rows", "2000", "--envelope", envelope];
        let output = bench(&database, &arguments).await;

        let report = report(&output);
        assert_eq!(report["envelope"], envelope);
        assert_eq!(report["runs"][0]["relay"]["arrived"], 2000);
    }
}

#[tokio::test]
async fn a_drain_behind_rows_that_stay_counts_the_others() {
    for (flag, told) in [
        ("--parked", "700 parked rows"),
        ("--blocked", "700 rows of a blocked key"),
    ] {
        let database = services::postgres().await.create_database("drain").await;

        let output = bench(&database, &["drain", "--rows", "2000", flag, "700"]).await;

        let report = report(&output);
        assert_eq!(report["aside"], told);
        let relay = &report["runs"][0]["relay"];
        assert_eq!(
            (&relay["arrived"], &relay["unknown"]),
            (&2000.into(), &0.into())
        );
    }
}

#[tokio::test]
async fn a_paced_load_arrives_whole_and_its_latency_is_told() {
    let database = services::postgres().await.create_database("latency").await;

    let arguments = ["latency", "--seconds", "2", "--rate", "200"];
    let output = bench(&database, &arguments).await;

    let report = report(&output);
    assert_eq!(report["bench"], "latency");
    assert_eq!(report["events"], 400);
    assert_eq!(report["arrived"], 400);
    let of = |name: &str| {
        let percentile = |p: &str| report[name][format!("{p}_ms")].as_f64().expect(p);
        ["p50", "p95", "p99", "max"].map(percentile)
    };
    let (commit, insert) = (of("commit_to_consumed"), of("insert_to_consumed"));
    assert!(insert.is_sorted(), "{insert:?}");
    assert!(
        insert[0] > 0.0 && commit[0] <= insert[0],
        "{commit:?} {insert:?}"
    );
    assert_nothing_is_left(&database).await;
}

#[tokio::test]
async fn single_events_after_quiet_all_arrive() {
    let database = services::postgres().await.create_database("quiet").await;

    let arguments = ["latency", "--quiet", "--events", "3", "--pause", "100ms"];
    let output = bench(&database, &arguments).await;

    assert_eq!(report(&output)["arrived"], 3);
}

#[tokio::test]
async fn an_idle_relay_is_watched() {
    let database = services::postgres().await.create_database("idle").await;

    let output = bench(&database, &["idle", "--seconds", "1"]).await;

    let report = report(&output);
    assert!(report["cpu_percent"].as_f64().expect("a number") >= 0.0);
    positive(&report["peak_memory_bytes"]);
}

#[tokio::test]
async fn a_start_is_measured_to_the_first_event_beside_the_same_row_without_a_relay() {
    let database = services::postgres().await.create_database("start").await;

    let output = bench(&database, &["start", "--runs", "2"]).await;

    let report = report(&output);
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    for run in runs {
        positive(&run["limit_ms"]);
        positive(&run["owned_ms"]);
        assert!(
            run["consumed_ms"].as_f64() > run["owned_ms"].as_f64(),
            "{run}"
        );
    }
    assert_nothing_is_left(&database).await;
}

#[tokio::test]
async fn envelopes_are_measured_without_any_server() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.args(["bench", "envelope", "--runs", "1", "--json"]);

    let output = command.output().await.expect("running outboxd");

    let report = report(&output);
    let formats = report["formats"].as_array().expect("formats");
    let names = formats.iter().map(|format| &format["envelope"]);
    let all = ["native", "cloudevents", "cloudevents_binary", "raw"];
    assert!(names.eq(all), "{report}");
    for format in formats {
        positive(&format["rows_per_second"]["median"]);
        positive(&format["copies_per_second"]["median"]);
        assert!(format["message_bytes"].as_u64() > Some(500), "{format}");
    }
}

#[tokio::test]
async fn an_interrupted_benchmark_removes_what_it_made_and_fails() {
    let database = services::postgres().await.create_database("stopped").await;
    let running = command(&database, &["latency", "--seconds", "600"])
        .await
        .spawn()
        .expect("starting outboxd");
    let deadline = Instant::now() + Duration::from_secs(60);
    while relays(&database).await == 0 {
        assert!(Instant::now() < deadline, "no relay was started");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let schema = schemas(&database).await.concat();
    let topic = schema.replace('_', "-");
    assert_eq!(topics(&topic).await.len(), 1, "{topic}");

    let pid = running
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT)
        .expect("interrupting");

    let output = running.wait_with_output().await.expect("waiting");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "outboxd: interrupted\n"
    );
    assert_nothing_is_left(&database).await;
}

async fn command(database: &TestDatabase, arguments: &[&str]) -> Command {
    let kafka = services::kafka().await.bootstrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command
        .arg("bench")
        .args(arguments)
        .args(["--json", "--postgres-url", &database.url, "--kafka", kafka])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn bench(database: &TestDatabase, arguments: &[&str]) -> Output {
    let mut command = command(database, arguments).await;
    command.output().await.expect("running outboxd")
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn positive(value: &Value) {
    assert!(value.as_f64().is_some_and(|value| value > 0.0), "{value}");
}

/// Relays that are connected to the database.
async fn relays(database: &TestDatabase) -> i64 {
    let sql = "select count(*) from pg_stat_activity \
               where datname = current_database() and application_name like 'outboxd % reader'";
    sqlx::query_scalar(sql)
        .fetch_one(&mut database.connect().await)
        .await
        .expect("counting relays")
}

async fn assert_nothing_is_left(database: &TestDatabase) {
    assert_eq!(schemas(database).await, Vec::<String>::new());
}

/// The schemas of benchmarks in the test's own database.
async fn schemas(database: &TestDatabase) -> Vec<String> {
    let sql = "select nspname::text from pg_namespace where nspname like 'outboxd%'";
    sqlx::query_scalar(sql)
        .fetch_all(&mut database.connect().await)
        .await
        .expect("listing schemas")
}

/// The topics whose names start with `prefix`.
async fn topics(prefix: &str) -> Vec<String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", services::kafka().await.bootstrap())
        .create()
        .expect("a client");
    let prefix = prefix.to_owned();
    let listing = move || {
        let metadata = client
            .fetch_metadata(None, Duration::from_secs(10))
            .expect("listing topics");
        let names = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    };
    tokio::task::spawn_blocking(listing)
        .await
        .expect("listing topics")
}
