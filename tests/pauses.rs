//! `outboxd pause` and `outboxd resume`: what they record.

use serde_json::{Value, json};

use crate::support::command::{errors, fails, outboxd, succeeds};
use crate::support::fixture::{boolean, connect};
use crate::support::services;

#[tokio::test]
async fn pauses_are_recorded_once_shown_and_taken_back() {
    let kept = services::postgres().await.create_database("pauses").await;
    let url = kept.url.as_str();
    succeeds(&outboxd(&["migrate", "--postgres-url", url]));
    let run = |arguments: &[&str]| outboxd(&[arguments, &["--postgres-url", url]].concat());
    let text = |arguments: &[&str]| succeeds(&run(arguments));

    assert_eq!(
        text(&["pause", "--list"]),
        "nothing of outbox \"default\" is paused\n"
    );
    let said = text(&[
        "pause",
        "--topic",
        "t",
        "--why",
        "its consumer is down",
        "--who",
        "ada",
    ]);
    assert!(
        said.starts_with("topic \"t\" of outbox \"default\" is paused since 20"),
        "{said}"
    );
    assert!(said.ends_with("Z by ada: its consumer is down\n"), "{said}");
    let again = run(&["pause", "--topic", "t", "--who", "bob"]);
    assert!(errors(&again).contains("topic \"t\" of outbox \"default\" was paused before"));
    assert_eq!(succeeds(&again), said, "the first stays as it is");
    assert_eq!(text(&["pause"]).lines().count(), 2);
    let listed: Value = serde_json::from_str(&text(&["pause", "--list", "--json"])).expect("JSON");
    assert_eq!(listed["pauses"][0]["topic"], Value::Null);
    assert_eq!(listed["pauses"][0]["why"], Value::Null);
    assert_eq!(listed["pauses"][1]["by"], "ada");
    let mut database = connect(url).await;
    let by = "select by = session_user from outboxd_pauses \
              where outbox = 'public.outbox_events' and topic is null";
    assert!(boolean(&mut database, by).await);

    assert_eq!(text(&["resume"]), said, "the topic's own pause stays");
    let none: Value =
        serde_json::from_str(&text(&["resume", "--topic", "t", "--json"])).expect("JSON");
    assert_eq!(none, json!({"outbox": "default", "pauses": []}));
    let said = errors(&run(&["resume"]));
    assert!(said.contains("outbox \"default\" was not paused"), "{said}");
}

#[tokio::test]
async fn mistakes_name_option_rule_and_value() {
    for (arguments, status, expected) in [
        (
            &["pause", "--topic", "no such"][..],
            2,
            "invalid value 'no such' for '--topic <TOPIC>': must be 1 to 249",
        ),
        (
            &["pause", "--list", "--topic", "t"],
            2,
            "'--list' cannot be used with",
        ),
        (&["resume"], 78, "postgres.url"),
    ] {
        let said = fails(&outboxd(arguments), status);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let said = fails(
        &outboxd(&[
            "pause",
            "--outbox",
            "nine",
            "--postgres-url",
            "postgres://localhost/unused",
        ]),
        2,
    );
    assert!(
        said.contains("--outbox: must name one of the configured outboxes (default), is nine"),
        "{said}"
    );
}
