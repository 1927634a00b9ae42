//! Dead letters: set aside with their reason, shown, sent back, given up.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outboxd::inbox::consumer::{Consumer, Event, HandlerError, Tx};
use serde_json::{Value, json};
use tokio::process::Command;

use super::stage::{Running, Stage, Step, note, noting};
use crate::support::services;

/// A consumer that fails for n = 13 until it is mended.
fn superstitious(stage: &Stage, mended: &Arc<AtomicBool>) -> Consumer {
    let mended = Arc::clone(mended);
    stage
        .consumer()
        .on("step", move |mut tx: Tx, event: Event<Step>| {
            let mended = mended.load(Ordering::SeqCst);
            async move {
                note(&mut tx, &event.data).await?;
                match event.data.n == 13 && !mended {
                    true => Err(HandlerError::retry("13 brings bad luck")),
                    false => Ok(()),
                }
            }
        })
}

async fn dlq(stage: &Stage, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outboxd"))
        .args(["inbox", "dlq"])
        .args(arguments)
        .args(["--consumer", &stage.name])
        .args(["--postgres-url", &stage.url])
        .args(["--kafka", stage.bootstrap])
        .output()
        .await
        .expect("running outboxd")
}

async fn succeeds(stage: &Stage, arguments: &[&str]) -> String {
    let output = dlq(stage, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// What it prints as JSON, if it succeeds.
async fn json(stage: &Stage, arguments: &[&str]) -> Value {
    let text = succeeds(stage, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_attempts_an_event_is_a_dead_letter_and_redriven_it_takes_effect_once() {
    let stage = Stage::new("redrive", 1).await;
    let mended = Arc::new(AtomicBool::new(false));
    let consumer = Running::start(superstitious(&stage, &mended));
    let ids = stage
        .produce(&[("a", 12), ("a", 13), ("a", 14), ("b", 15)])
        .await;
    let id = ids[1].to_string();

    stage.committed(1, 4).await;
    assert_eq!(stage.effects_of("a").await, [12, 14], "its key goes on");
    assert_eq!(stage.outcome(&id).await.as_deref(), Some("dead_lettered"));
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    for (header, value) in [
        ("dlq-original-topic", &*stage.topic),
        ("dlq-original-partition", "0"),
        ("dlq-original-offset", "1"),
        ("dlq-reason", "13 brings bad luck"),
        ("dlq-attempts", "3"),
        ("dlq-consumer", &*stage.name),
        ("dlq-event-id", &*id),
    ] {
        assert_eq!(letter.header(header), Some(value), "{header}");
    }
    assert_eq!(letter.key.as_deref(), Some("a"));
    assert_eq!(letter.body()["eventId"], *id);

    // Its duplicate does nothing, and is no second letter.
    stage.produce_again(ids[1], "a", 13).await;
    stage.committed(1, 5).await;
    assert_eq!(stage.dead_letters().len(), 1);
    assert_eq!(stage.counted("duplicates"), 1);
    assert_eq!(stage.number("select count(*) from effects").await, 3);

    let listed = succeeds(&stage, &["list"]).await;
    assert!(
        listed.contains(&id) && listed.contains("13 brings bad luck"),
        "{listed}"
    );
    let shown = succeeds(&stage, &["show", &id]).await;
    assert!(shown.contains("\"n\":13"), "{shown}");
    let shown = json(&stage, &["show", &id]).await;
    assert_eq!(shown["key"], "a");
    let message: Value =
        serde_json::from_str(shown["value"].as_str().expect("text")).expect("JSON");
    assert_eq!(message["data"]["n"], 13);

    mended.store(true, Ordering::SeqCst);
    let redriven = json(&stage, &["redrive", &id]).await;
    let expected = json!({"consumer": stage.name, "decision": "redrive", "events": [id]});
    assert_eq!(redriven, expected);
    stage
        .until("select count(*) from effects where n = 13", 1)
        .await;
    stage.produce_again(ids[1], "a", 13).await;
    stage.committed(1, 7).await;
    consumer.stop().await;
    assert_eq!(stage.effects_of("a").await, [12, 14, 13]);
    assert_eq!(stage.outcome(&id).await.as_deref(), Some("processed"));
    assert!(!succeeds(&stage, &["list"]).await.contains(&id));
    assert!(!dlq(&stage, &["redrive", &id]).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_is_a_dead_letter_and_blocks_nothing() {
    let stage = Stage::new("unreadable", 1).await;
    let consumer = Running::start(stage.consumer().on("step", noting));
    stage.produce(&[("a", 1)]).await;
    stage
        .send("a", Some(b"\xff\xfenot an event".to_vec()), &[])
        .await;
    stage.send("a", None, &[]).await;
    let broken = br#"{"envelopeVersion":1,"eventId":"17"}"#;
    stage.send("a", Some(broken.to_vec()), &[]).await;
    // An event, but not what the handler takes.
    let other = r#"{"envelopeVersion":1,"eventId":"019b7e5a-7c2e-7b6a-8d5e-3f1c2b4a5d6e","eventType":"step","eventVersion":"1","timestamp":"2026-01-02T03:04:05Z","source":"test","aggregateType":"t","aggregateId":"a","data":{"secret":1}}"#;
    stage.send("a", Some(other.as_bytes().to_vec()), &[]).await;
    stage.produce(&[("a", 2)]).await;

    stage.committed(1, 6).await;
    consumer.stop().await;
    assert_eq!(stage.effects_of("a").await, [1, 2]);
    let letters = stage.dead_letters();
    let place = |offset: i64| {
        let offset_text = offset.to_string();
        let mut found = letters.iter();
        let letter =
            found.find(|letter| letter.header("dlq-original-offset") == Some(&*offset_text));
        let time = letter.and_then(|letter| letter.header("dlq-original-timestamp"));
        format!(
            "kafka:{}/0/{offset}@{}",
            stage.topic,
            time.expect("a timestamp")
        )
    };
    let found: Vec<(Option<&str>, Option<&str>)> = letters
        .iter()
        .map(|letter| (letter.header("dlq-event-id"), letter.header("dlq-reason")))
        .collect();
    let ids: Vec<&str> = found.iter().filter_map(|(id, _)| *id).collect();
    for id in [place(1), place(2), place(3)] {
        assert!(ids.contains(&&*id), "{found:?}");
    }
    assert!(ids.contains(&"019b7e5a-7c2e-7b6a-8d5e-3f1c2b4a5d6e"));
    assert!(
        found
            .iter()
            .all(|(_, reason)| reason.is_some_and(|text| !text.contains("secret")))
    );
    assert_eq!(letters.len(), 4);
    assert_eq!(
        letters[0].value.as_deref(),
        Some(b"\xff\xfenot an event".as_slice())
    );

    let shown = json(&stage, &["show", &place(1)]).await;
    assert_eq!(shown["valueBase64"], "//5ub3QgYW4gZXZlbnQ=");
    let tombstone = json(&stage, &["show", &place(2)]).await;
    assert_eq!(tombstone["value"], Value::Null);

    // Given up, one by one or all. What is done when something fails is said.
    let twice = dlq(&stage, &["discard", &place(1), &place(1), "--json"]).await;
    assert_eq!(twice.status.code(), Some(1));
    let discarded: Value = serde_json::from_slice(&twice.stdout).expect("JSON");
    assert_eq!(discarded["events"], json!([place(1)]));
    let discarded = json(&stage, &["discard", "--all"]).await;
    assert_eq!(discarded["decision"], "discard");
    assert_eq!(discarded["events"].as_array().map(Vec::len), Some(3));
    assert_eq!(json(&stage, &["list"]).await, json!([]));
    assert_eq!(
        stage
            .number("select count(*) from processed_events where outcome = 'discarded'")
            .await,
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_is_told_from_the_same_offset_of_a_topic_that_was_made_anew() {
    let stage = Stage::new("anew", 1).await;
    for round in 1..=2 {
        // Kafka forgets the offsets of a deleted topic, but not at once.
        let group = format!("{}-{round}", stage.topic);
        let consumer = stage.consumer().kafka([("group.id", &group)]);
        let consumer = Running::start(consumer.on("step", noting));
        stage.send("a", Some(b"what?".to_vec()), &[]).await;
        let letters = "select count(*) from processed_events where outcome = 'dead_lettered'";
        stage.until(letters, round).await;
        consumer.stop().await;
        stage.make_topic_anew(1).await;
    }
    assert_eq!(stage.dead_letters().len(), 2);

    let listed = json(&stage, &["list"]).await;
    let ids: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|letter| letter["eventId"].as_str())
        .collect();
    assert_eq!(ids.len(), 2);
    // Sent back it is another message, and this letter is settled.
    succeeds(&stage, &["redrive", ids[0]]).await;
    assert_eq!(stage.outcome(ids[0]).await.as_deref(), Some("discarded"));
    assert_eq!(
        stage.outcome(ids[1]).await.as_deref(),
        Some("dead_lettered")
    );
}

/// The topic is there and takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_dead_letter_topic_takes_nothing_the_event_waits_and_other_keys_flow() {
    let stage = Stage::new("dlq_outage", 1).await;
    let topic = format!("{}-dead-letters", stage.name);
    let unusable = [("max.message.bytes", "1")];
    services::create_topic(stage.bootstrap, &topic, 1, &unusable).await;
    let mended = Arc::new(AtomicBool::new(false));
    let attempts = 1.try_into().expect("not zero");
    let consumer = superstitious(&stage, &mended).attempts(attempts);
    let consumer = Running::start(consumer);
    let ids = stage
        .produce(&[("a", 13), ("a", 14), ("b", 15), ("c", 16)])
        .await;
    stage.effects(2).await;
    for n in 17..60 {
        stage.produce(&[("b", n), ("c", n)]).await;
    }
    stage.effects(2 + 86).await;
    assert!(stage.effects_of("a").await.is_empty(), "its key waits");
    assert_eq!(stage.outcome(&ids[0].to_string()).await, None);
    assert_eq!(stage.committed_now(1), 0);
    assert_eq!(stage.counted("dead_lettered"), 0);

    // Without it, the consumer makes one of its own.
    services::delete_topic(stage.bootstrap, &topic).await;
    stage.committed(1, 4 + 86).await;
    consumer.stop().await;
    assert_eq!(stage.effects_of("a").await, [14]);
    let outcome = stage.outcome(&ids[0].to_string()).await;
    assert_eq!(outcome.as_deref(), Some("dead_lettered"));
    assert_eq!(stage.dead_letters().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_not_text_goes_to_the_dead_letters_and_back_byte_for_byte() {
    const BYTES: &[u8] = b"\xff\x00\xfe";
    let stage = Stage::new("bytes", 1).await;
    let mended = Arc::new(AtomicBool::new(false));
    let handler = {
        let mended = Arc::clone(&mended);
        move |mut tx: Tx, event: Event<Step>| {
            let mended = mended.load(Ordering::SeqCst);
            async move {
                let record = &event.record;
                assert_eq!(record.header("picture"), Some(BYTES));
                assert_eq!(record.header_text("picture"), None);
                assert_eq!(record.header("nothing"), Some(b"".as_slice()));
                note(&mut tx, &event.data).await?;
                match mended {
                    true => Ok(()),
                    false => Err(HandlerError::reject("not yet")),
                }
            }
        }
    };
    let consumer = Running::start(stage.consumer().on("step", handler));
    let headers = [("picture", BYTES), ("nothing", b"")];
    let id = stage.produce_with_headers("a", 1, &headers).await;
    stage.committed(1, 1).await;
    let letters = stage.dead_letters();
    assert_eq!(letters[0].header("dlq-reason"), Some("not yet"));

    mended.store(true, Ordering::SeqCst);
    succeeds(&stage, &["show", &id.to_string()]).await;
    succeeds(&stage, &["redrive", &id.to_string()]).await;
    stage.effects(1).await;
    consumer.stop().await;
    assert_eq!(stage.counted("dead_lettered"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_older_than_anything_remembered_is_a_dead_letter_and_no_effect() {
    let stage = Stage::new("expired", 1).await;
    let ids = stage.produce(&[("a", 1), ("a", 2)]).await;
    // Everything up to now was forgotten.
    let sql = "insert into processed_consumers (consumer, forgotten_before) \
               values ('NAME', clock_timestamp())";
    stage.execute(&sql.replace("NAME", &stage.name)).await;
    let consumer = Running::start(stage.consumer().on("step", noting));
    stage.committed(1, 2).await;
    stage.produce(&[("a", 3)]).await;
    stage.effects(1).await;
    // Once is enough.
    stage.produce_again(ids[0], "a", 1).await;
    stage.committed(1, 4).await;

    assert_eq!(stage.effects_of("a").await, [3]);
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 2);
    assert!(
        letters[0]
            .header("dlq-reason")
            .is_some_and(|reason| reason.starts_with("expired"))
    );
    assert_eq!(stage.counted("expired"), 2);

    // Whoever knows better sends it back.
    succeeds(&stage, &["redrive", &ids[1].to_string()]).await;
    stage.effects(2).await;
    assert_eq!(stage.effects_of("a").await, [3, 2]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_option_a_dead_letter_holds_its_key_until_it_is_decided_even_over_a_restart() {
    let stage = Stage::new("holding", 1).await;
    let mended = Arc::new(AtomicBool::new(false));
    let consumer = || superstitious(&stage, &mended).hold_key_on_reject();
    let running = Running::start(consumer());
    let ids = stage
        .produce(&[("a", 12), ("a", 13), ("a", 14), ("b", 15)])
        .await;
    let id = ids[1].to_string();
    stage
        .until(
            "select count(*) from processed_events where outcome = 'dead_lettered'",
            1,
        )
        .await;
    stage.produce(&[("b", 16)]).await;
    stage
        .until("select count(*) from effects where n = 16", 1)
        .await;
    assert_eq!(stage.effects_of("a").await, [12], "its key waits");
    running.stop().await;

    let running = Running::start(consumer());
    stage.produce(&[("b", 17)]).await;
    stage
        .until("select count(*) from effects where n = 17", 1)
        .await;
    assert_eq!(stage.effects_of("a").await, [12], "it still waits");
    assert_eq!(stage.dead_letters().len(), 1);

    mended.store(true, Ordering::SeqCst);
    succeeds(&stage, &["redrive", &id]).await;
    stage
        .until("select count(*) from effects where key = 'a'", 3)
        .await;
    assert_eq!(stage.effects_of("a").await, [12, 13, 14], "in order");
    running.stop().await;
}
