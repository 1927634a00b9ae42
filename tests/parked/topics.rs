//! Topics that are paused, or whose rows are refused in turn.

use std::process::Output;

use serde_json::json;

use super::{LARGE_BYTES, decide, fixture, limit, next, pair, parked, write};
use crate::support::command::{fails, succeeds};
use crate::support::fixture::{Fixture, boolean, execute, insert, number};
use crate::support::services;

#[tokio::test]
async fn a_paused_topic_waits_whoever_restarts_and_the_others_flow() {
    let mut fixture = Fixture::new("paused").await;
    let elsewhere = services::kafka().await.unique_topic("paused-elsewhere");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let pause = format!("select outbox_pause('public.outbox_events', '{elsewhere}')");
    execute(&mut fixture.database, &pause).await;
    let write = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) \
         values ('x', 'k', 't', '{elsewhere}')"
    );
    execute(&mut fixture.database, &write).await;
    fixture.relay.start();
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;

    execute(
        &mut fixture.database,
        "select outbox_pause('public.outbox_events')",
    )
    .await;
    fixture
        .metric_is("held_topics", |topics| topics == 2.0)
        .await;
    insert(&mut fixture.database, "later").await;
    fixture.relay.stop().await;
    fixture.relay.start();
    fixture.metric_is("pending_rows", |rows| rows == 2.0).await;
    assert_eq!(fixture.published(), 1);

    execute(
        &mut fixture.database,
        "select outbox_resume('public.outbox_events')",
    )
    .await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("later"));
    let unsent = "select count(*) = 1 from outbox_events where sent_at is null";
    fixture.until(unsent).await;
    let resume = format!("select outbox_resume('public.outbox_events', '{elsewhere}')");
    execute(&mut fixture.database, &resume).await;
    fixture.settled().await;
}

#[tokio::test]
async fn a_topic_whose_rows_are_refused_in_turn_is_tried_with_one_row_and_parks_no_more() {
    let mut fixture = fixture("breaker", "park_row").await;
    fixture.relay.set("outbox.default.breaker_errors", "5");
    for key in 0..20 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;
    let elsewhere = services::kafka().await.unique_topic("breaker-elsewhere");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic) values ('x', 'k', 't', '{elsewhere}')"
    );
    execute(&mut fixture.database, &sql).await;
    let sent = format!("select sent_at is not null from outbox_events where topic = '{elsewhere}'");
    fixture.until(&sent).await;
    parked(&mut fixture, 4).await;

    limit(&fixture, "200000").await;
    for _ in 0..16 {
        assert_eq!(next(&mut fixture).await.1, json!(LARGE_BYTES));
    }
    fixture
        .metric_is("held_topics", |topics| topics == 0.0)
        .await;
    decide(&mut fixture, "retry").await;
    fixture.settled().await;
}

/// Runs `outboxd dead park`.
fn park(fixture: &Fixture, topic: &str, arguments: &[&str]) -> Output {
    let arguments = [&["dead", "park", "--topic", topic], arguments].concat();
    let output = fixture.relay.command(&arguments).output();
    output.expect("running outboxd")
}

#[tokio::test]
async fn rows_of_a_topic_with_an_open_breaker_are_parked_all_the_same_until_it_takes_one() {
    let mut fixture = fixture("bypass", "park_row").await;
    fixture.relay.set("outbox.default.breaker_errors", "3");
    let topic = fixture.topic.clone();
    for key in 0..8 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 2).await;
    let said = fails(&park(&fixture, "elsewhere", &["--yes"]), 1);
    let rule = format!("--topic: must be one whose breaker is open ({topic}), is elsewhere");
    assert!(said.contains(&rule), "{said}");
    let reason = ["--yes", "--why", "the limit stays", "--who", "ada"];
    let said = succeeds(&park(&fixture, &topic, &reason));
    assert!(
        said.ends_with("; the relay acts on it within about a second\n"),
        "{said}"
    );
    parked(&mut fixture, 8).await;
    fixture
        .answers("/status", 200, "by ada: the limit stays")
        .await;
    fixture.answers("/status", 200, "\"topicCount\": 0").await;

    // Whoever restarts: it is in force for the next relay, though its breaker was never open.
    fixture.relay.stop().await;
    for key in 8..14 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.relay.start();
    parked(&mut fixture, 14).await;
    let in_force =
        "select ended_at is null and by = 'ada' and why = 'the limit stays' from outboxd_bypasses";
    assert!(boolean(&mut fixture.database, in_force).await);
    let reasons =
        "select count(*) from outboxd_parked where class = 'row' and reason like '%too large%'";
    assert_eq!(number(&mut fixture.database, reasons).await, 14);

    // A row that the topic takes ends it.
    write(&mut fixture, "good", Some(1)).await;
    assert_eq!(next(&mut fixture).await, pair("good", 1));
    fixture
        .until("select ended_at is not null from outboxd_bypasses")
        .await;
    for key in 14..20 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 16).await;

    // With SQL alone, again; and taken back.
    let sql = format!("select outbox_dead_park('public.outbox_events', '{topic}')");
    assert!(boolean(&mut fixture.database, &sql).await, "{sql}");
    assert!(
        !boolean(&mut fixture.database, &sql).await,
        "it is in force"
    );
    parked(&mut fixture, 20).await;

    // Once more at the moment that it ends, before the relay has heard of it.
    write(&mut fixture, "good", Some(2)).await;
    assert_eq!(next(&mut fixture).await, pair("good", 2));
    fixture
        .until("select bool_and(ended_at is not null) from outboxd_bypasses")
        .await;
    assert!(boolean(&mut fixture.database, &sql).await, "{sql}");
    for key in 20..26 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    parked(&mut fixture, 26).await;
    let changes = "the topics whose refused rows are to be parked have changed";
    let before = fixture.relay.logged(changes);
    succeeds(&park(&fixture, &topic, &["--stop"]));
    fixture.relay.logs_more(changes, before).await;
    for key in 26..28 {
        write(&mut fixture, &format!("bad {key}"), None).await;
    }
    fixture.answers("/status", 200, "\"breakerOpen\"").await;
    parked(&mut fixture, 26).await;
}
