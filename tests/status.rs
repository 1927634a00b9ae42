//! `outboxd status` and `/status`: what is stuck, and why.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::command::{errors, fails, outboxd, succeeds};
use crate::support::fixture::{Fixture, PATIENCE, execute, insert};
use crate::support::services;

/// Ends with this status and prints a report.
fn report(fixture: &Fixture, status: i32) -> Value {
    let output = fixture.relay.command(&["status", "--json"]).output();
    let output = output.expect("running outboxd");
    assert_eq!(output.status.code(), Some(status), "{}", errors(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The same for people.
fn page(fixture: &Fixture) -> String {
    let output = fixture.relay.command(&["status"]).output();
    String::from_utf8(output.expect("running outboxd").stdout).expect("UTF-8")
}

/// Waits until the running relay reports this of its outbox.
async fn reports(fixture: &Fixture, is_there: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = fixture.get("/status").await.unwrap_or_default();
        if answer.0 == 200 {
            let report: Value = serde_json::from_str(&answer.1).expect("JSON");
            if is_there(&report["outboxes"][0]) {
                return report;
            }
        }
        assert!(Instant::now() < deadline, "{}", answer.1);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What is stuck, as one text.
fn stuck(report: &Value) -> String {
    let stuck = report["stuck"].as_array().expect("a list");
    let what = stuck
        .iter()
        .map(|stuck| stuck["what"].as_str().expect("text"));
    what.collect::<Vec<_>>().join("\n")
}

async fn insert_for(fixture: &mut Fixture, topic: &str, rows: usize) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) \
         select 'x', n::text, 't', '{topic}' from generate_series(1, {rows}) n"
    );
    execute(&mut fixture.database, &sql).await;
}

/// A row that is too large for the topic, which only the broker can tell.
async fn insert_large(fixture: &mut Fixture, key: &str) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         values ('x', '{key}', 't', \
             (select to_json(string_agg(md5(random()::text), '')) from generate_series(1, 2000)))"
    );
    execute(&mut fixture.database, &sql).await;
}

async fn with_small_topic(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    let kafka = services::kafka().await;
    kafka
        .alter_topic(&fixture.topic, "max.message.bytes", "20000")
        .await;
    // So that the size of a message is not known before the broker has it.
    fixture
        .relay
        .set("kafka.properties.compression.type", "lz4");
    fixture
}

#[tokio::test]
async fn a_relay_that_gets_on_says_so() {
    let mut fixture = Fixture::new("status").await;
    fixture.relay.start();
    for _ in 0..7 {
        insert(&mut fixture.database, "k").await;
    }
    fixture.settled().await;
    let said = reports(&fixture, |outbox| outbox["pendingRows"] == 0).await;
    let outbox = &said["outboxes"][0];
    assert_eq!(said["saidBy"], "relay");
    assert_eq!(said["stuck"], json!([]));
    for service in ["postgres", "kafka"] {
        assert_eq!(said["services"][service]["state"], "up", "{service}");
    }
    assert_eq!(outbox["name"], "default");
    assert_eq!(outbox["table"], "public.outbox_events");
    assert_eq!(outbox["owner"]["who"], "thisRelay");
    assert_eq!(outbox["owner"]["id"], said["relay"]["id"]);
    assert_eq!(outbox["published"], 7);
    assert_eq!(outbox["health"]["isReady"], true);
    assert_eq!(outbox["oldestPendingSeconds"], Value::Null);

    assert_eq!(report(&fixture, 0)["outboxes"][0]["published"], 7);
    let page = page(&fixture);
    for line in [
        "nothing is stuck",
        "owner       this relay",
        "7 in all",
        "pending     0 rows",
    ] {
        assert!(page.contains(line), "{line}:\n{page}");
    }
}

#[tokio::test]
async fn a_missing_topic_and_a_topic_that_refuses_everything_are_listed_with_why_and_since_when() {
    let mut fixture = with_small_topic("status_stuck").await;
    fixture.relay.set("outbox.default.breaker_errors", "1");
    let missing = services::kafka().await.unique_topic("status-missing");
    insert_for(&mut fixture, &missing, 3).await;
    insert_large(&mut fixture, "huge").await;
    insert(&mut fixture.database, "huge").await;
    fixture.relay.start();
    let said = reports(&fixture, |outbox| {
        let held = &outbox["held"];
        held["topics"]
            .as_array()
            .is_some_and(|topics| topics.len() == 2)
            && held["keys"].as_array().is_some_and(|keys| keys.len() == 1)
            && outbox["pendingRows"] == 5
    })
    .await;
    let held = &said["outboxes"][0]["held"];
    assert_eq!(
        (&held["topicCount"], &held["keyCount"]),
        (&json!(2), &json!(1))
    );
    let topic = |name: &str| {
        let mut topics = held["topics"].as_array().expect("topics").iter();
        topics
            .find(|topic| topic["topic"] == name)
            .expect("the topic")
            .clone()
    };
    let unusable = topic(&missing);
    assert_eq!(
        (&unusable["hold"], &unusable["rows"]),
        (&json!("unusable"), &json!(3))
    );
    assert!(unusable["since"].is_string(), "{unusable}");
    let refused = topic(&fixture.topic);
    assert_eq!(refused["hold"], "breakerOpen");
    let key = &held["keys"][0];
    assert_eq!(
        (&key["key"], &key["hold"]),
        (&json!("huge"), &json!("failing"))
    );
    assert_eq!(key["rows"], 2);
    for reason in [&refused["why"], &key["why"]] {
        let reason = reason.as_str().expect("a reason");
        assert!(reason.contains("too large"), "{reason}");
    }
    let error = said["outboxes"][0]["lastError"]["text"].as_str();
    assert!(error.is_some_and(|text| text.contains("too large") || text.contains(&missing)));

    let page = page(&fixture);
    for line in [
        &format!("default: topic {missing} cannot be used since 20"),
        "; 3 rows wait",
        &format!(
            "default: topic {} refuses row after row, its breaker is open since 20",
            fixture.topic
        ),
        "default: key \"huge\" of topic ",
        "held        1 key, 2 topics",
    ] {
        assert!(page.contains(line), "{line}:\n{page}");
    }
    report(&fixture, 75);
    // Keys are for whoever asks, and for nobody else.
    assert_eq!(fixture.relay.logged("huge"), 0);
}

#[tokio::test]
async fn a_blocked_key_and_a_pause_are_told_by_the_relay_and_by_postgres_alone() {
    let mut fixture = with_small_topic("status_blocked").await;
    fixture.relay.set("outbox.default.on_poison", "block_key");
    insert_large(&mut fixture, "poison").await;
    insert(&mut fixture.database, "poison").await;
    insert_for(&mut fixture, "paused-topic", 2).await;
    succeeds(
        &fixture
            .relay
            .command(&[
                "pause",
                "--topic",
                "paused-topic",
                "--who",
                "ada",
                "--why",
                "its consumer is down",
            ])
            .output()
            .expect("pausing"),
    );
    fixture.relay.start();
    let is_there = |outbox: &Value| {
        outbox["parked"]["rows"] == 1
            && outbox["held"]["keyCount"] == 1
            // Not "failing": that it is parked is known in Postgres a moment before.
            && outbox["held"]["keys"][0]["hold"] == "blocked"
            && outbox["pendingRows"] == 3
    };
    let running = reports(&fixture, is_there).await;
    fixture.relay.kill().await;
    let alone = report(&fixture, 75);
    assert_eq!(alone["saidBy"], "postgres");
    assert_eq!(
        alone["outboxes"][0]["owner"]["who"], "anotherRelay",
        "its lease lives on"
    );
    assert_eq!(alone["outboxes"][0]["owner"]["id"], running["relay"]["id"]);
    for said in [&running, &alone] {
        let outbox = &said["outboxes"][0];
        assert!(is_there(outbox), "{outbox:#}");
        let key = &outbox["held"]["keys"][0];
        assert_eq!(
            (&key["key"], &key["hold"]),
            (&json!("poison"), &json!("blocked"))
        );
        assert_eq!(outbox["paused"][0]["topic"], "paused-topic");
        assert!(outbox["oldestPendingSeconds"].as_f64() > Some(0.0));
        let stuck = stuck(said);
        for part in [
            "topic paused-topic is paused since 20",
            "by ada: its consumer is down",
            "key \"poison\" of topic ",
            "waits for a decision since 20",
            "row 1 is parked, ",
            "too large",
            "1 row is parked (outboxd dead list), the last since 20",
        ] {
            assert!(stuck.contains(part), "{part}:\n{stuck}");
        }
    }

    let expired = "update outboxd_leases set expires_at = now() - interval '1 hour'";
    execute(&mut fixture.database, expired).await;
    let abandoned = stuck(&report(&fixture, 75));
    assert!(
        abandoned
            .contains("nobody owns it: the last relay has not renewed its lease, which ran out 1h"),
        "{abandoned}"
    );
}

#[tokio::test]
async fn what_a_standby_does_not_know_comes_from_postgres() {
    let mut fixture = Fixture::new("status_standby").await;
    execute(
        &mut fixture.database,
        "insert into outboxd_leases (outbox, owner, epoch, expires_at) \
         values ('public.outbox_events', gen_random_uuid(), 1, now() + interval '1 hour')",
    )
    .await;
    for _ in 0..4 {
        insert(&mut fixture.database, "k").await;
    }
    fixture.relay.start();
    let said = reports(&fixture, |outbox| outbox["owner"]["who"] == "anotherRelay").await;
    assert_eq!(said["outboxes"][0]["pendingRows"], Value::Null);
    let completed = report(&fixture, 0);
    assert_eq!(completed["saidBy"], "relay");
    assert_eq!(completed["outboxes"][0]["pendingRows"], 4);
    assert_eq!(
        completed["outboxes"][0]["health"]["text"],
        "ready, standing by for another relay"
    );
}

#[tokio::test]
async fn watching_goes_on_line_by_line_until_nobody_reads() {
    let mut fixture = Fixture::new("status_watch").await;
    insert(&mut fixture.database, "k").await;
    for (arguments, expected) in [
        (
            &["status", "--watch"][..],
            " default: nobody, pending 1 row, the oldest ",
        ),
        (&["status", "--watch", "--json"], "\"pendingRows\":1,"),
    ] {
        let mut command = fixture.relay.command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("watching");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut found = 0;
        while found < 2 {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).expect("a line"), 0);
            found += usize::from(line.contains(expected));
        }
        drop(out);
        assert_eq!(child.wait().expect("its end").code(), Some(0));
    }
}

#[tokio::test]
async fn nobody_at_all_an_old_schema_and_wrong_arguments_are_told_apart() {
    let nobody = outboxd::local::free_port().expect("a free port");
    let nowhere = format!("postgres://127.0.0.1:{nobody}/shop");
    let at = format!("127.0.0.1:{nobody}");
    let said = fails(
        &outboxd(&["status", "--relay", &at, "--postgres-url", &nowhere]),
        1,
    );
    let expected = format!("no relay answers at {at}: ");
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.contains("and postgres does not say anything either: connecting to postgres"),
        "{said}"
    );

    let empty = services::postgres().await.create_database("status").await;
    let said = fails(
        &outboxd(&["status", "--relay", &at, "--postgres-url", &empty.url]),
        78,
    );
    assert!(said.contains("run outboxd migrate"), "{said}");
    let said = fails(&outboxd(&["status"]), 78);
    assert!(said.contains("postgres.url"), "{said}");
    let said = fails(&outboxd(&["status", "--whatever"]), 2);
    assert!(said.contains("--whatever"), "{said}");
}

#[tokio::test]
async fn a_probe_says_whether_the_relay_is_alive_and_ready() {
    let mut fixture = Fixture::new("probe").await;
    let probe = |fixture: &Fixture, arguments: &[&str]| {
        let output = fixture.relay.command(arguments).output();
        output.expect("running outboxd")
    };
    let nobody = fails(&probe(&fixture, &["probe"]), 1);
    assert!(
        nobody.contains("no relay answers at 127.0.0.1:"),
        "{nobody}"
    );
    // The fixture's own settings would come last, and win.
    let off = [
        "probe",
        "--set",
        "admin.listen=off",
        "--postgres-url",
        &fixture.url,
    ];
    let off = fails(&outboxd(&off), 1);
    assert!(off.contains("admin.listen"), "{off}");
    let url = fixture.url.clone();
    let nobody = outboxd::local::free_port().expect("a free port");
    let nobody = format!("postgres://127.0.0.1:{nobody}/shop");
    fixture.relay.set("postgres.url", &nobody);
    fixture.relay.start();
    fixture.answers("/livez", 200, "").await;
    succeeds(&probe(&fixture, &["probe"]));
    fixture.answers("/readyz", 503, "").await;
    let unready = fails(&probe(&fixture, &["probe", "--ready"]), 1);
    assert!(unready.contains("/readyz answers 503: "), "{unready}");
    fixture.relay.stop().await;
    fixture.relay.set("postgres.url", &url);
    fixture.relay.start();
    fixture.answers("/readyz", 200, "").await;
    succeeds(&probe(&fixture, &["probe", "--ready"]));
    fixture.relay.stop().await;
}
