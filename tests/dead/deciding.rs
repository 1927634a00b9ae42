//! What somebody decides, and what is refused.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use sqlx::Row;

use super::Parked;
use crate::support::command::{command, errors, fails, outboxd, succeeds};
use crate::support::fixture::{execute, number};
use crate::support::services;

#[tokio::test]
async fn a_decision_is_recorded_with_who_when_and_why_and_only_if_it_is_confirmed() {
    let mut parked = Parked::new("dead_decide").await;
    let [first, second, third] = [
        parked.park("attempts", "1").await,
        parked.park("attempts", "1").await,
        parked.park("topic", "'other'").await,
    ];
    let (one, two) = (first.to_string(), second.to_string());

    let said = fails(&parked.run(&["retry", &one]), 1);
    assert!(said.contains("--yes: must be given"), "{said}");
    let would = parked.text(&["discard", "--all", "--topic", "other", "--dry-run"]);
    assert!(would.starts_with("would discard 1 parked row\n"), "{would}");
    assert!(
        would.contains(&format!("\n{third}  order.placed  other")),
        "{would}"
    );
    let would = parked.json(&["retry", &two, &one, "--dry-run"]);
    assert_eq!(would["rows"], serde_json::json!([first, second]));
    let said = fails(&parked.run(&["retry", &one, "4711", "--yes"]), 1);
    assert!(
        said.contains("id: must be that of a parked row of outbox \"default\", is 4711"),
        "{said}"
    );
    for id in [first, second, third] {
        assert_eq!(parked.decision(id).await, None, "nothing was decided");
    }

    let said = parked.text(&["retry", &one, "--yes", "--why", "limit raised"]);
    assert_eq!(
        said,
        "retry: 1 parked row; no relay owns the outbox now, the next one acts on it\n"
    );
    let user: String = sqlx::query("select session_user::text")
        .fetch_one(&mut parked.database)
        .await
        .expect("a name")
        .get(0);
    assert_eq!(
        parked.decision(first).await,
        Some(format!("retry {user} limit raised"))
    );
    assert!(parked.text(&["list"]).contains("(retry decided)"));
    assert_eq!(
        parked.json(&["show", &one])["decision"]["why"],
        "limit raised"
    );

    execute(
        &mut parked.database,
        "insert into outboxd_leases (outbox, owner, expires_at) \
         values ('public.outbox_events', gen_random_uuid(), clock_timestamp() + interval '1 h')",
    )
    .await;
    let done = parked.json(&[
        "discard", "--all", "--yes", "--who", "ada", "--topic", "other",
    ]);
    assert_eq!(done["rows"], serde_json::json!([third]));
    assert_eq!(done["owned"], true);
    assert_eq!(
        parked.decision(third).await.as_deref(),
        Some("discard ada ")
    );
    assert_eq!(parked.decision(second).await, None);
    let said = parked.text(&["discard", &one, "--yes"]);
    assert!(
        said.ends_with("the relay acts on it within about a second\n"),
        "{said}"
    );
    assert_eq!(
        parked.decision(first).await,
        Some(format!("discard {user} "))
    );
    let none = parked.text(&["retry", "--all", "--class", "unknown"]);
    assert_eq!(none, "no parked rows\n");
}

#[tokio::test]
async fn a_topic_whose_refused_rows_are_to_be_parked_is_noted_only_if_it_is_confirmed() {
    let mut parked = Parked::new("dead_park").await;
    let bypasses = "select count(*) from outboxd_bypasses where outbox = 'public.outbox_events' and topic = 't'";
    let in_force = format!("{bypasses} and ended_at is null");
    let unasked = parked.run(&["park", "--topic", "t"]);
    let said = fails(&unasked, 1);
    assert!(
        said.contains("no relay says here whether the breaker is open"),
        "{said}"
    );
    assert!(
        said.contains(
            "--yes: must be given where nobody can be asked (stdin is no terminal), is not given"
        ),
        "{said}"
    );
    assert!(!said.contains("--dry-run"), "{said}");
    assert_eq!(number(&mut parked.database, bypasses).await, 0);

    let reason = ["--why", "its limit stays", "--who", "ada"];
    let said = parked.text(&[&["park", "--topic", "t", "--yes"], &reason[..]].concat());
    assert_eq!(
        said,
        "refused rows of topic \"t\" are parked until Kafka takes one; \
         no relay owns the outbox now, the next one acts on it\n"
    );
    let noted = format!("{in_force} and by = 'ada' and why = 'its limit stays'");
    assert_eq!(number(&mut parked.database, &noted).await, 1);
    let again = parked.run(&["park", "--topic", "t", "--json"]);
    assert_eq!(errors(&again), "outboxd: that is so already\n");
    let again: Value = serde_json::from_str(&succeeds(&again)).expect("JSON");
    assert_eq!(
        again,
        serde_json::json!({"outbox": "default", "topic": "t", "parks": true, "changed": false, "owned": false})
    );
    assert_eq!(
        number(&mut parked.database, &noted).await,
        1,
        "the first stays as it is"
    );

    assert_eq!(
        parked.json(&["park", "--topic", "t", "--stop"])["changed"],
        true
    );
    assert_eq!(number(&mut parked.database, &in_force).await, 0);
    let said = errors(&parked.run(&["park", "--topic", "t", "--stop"]));
    assert_eq!(said, "outboxd: that is so already\n");
    parked.text(&["park", "--topic", "t", "--yes"]);
    let by_user = format!("{in_force} and by = session_user and why is null");
    assert_eq!(number(&mut parked.database, &by_user).await, 1);
    assert_eq!(
        number(&mut parked.database, bypasses).await,
        2,
        "both are kept"
    );
}

#[tokio::test]
async fn many_rows_are_decided_at_once_and_a_reader_may_go_away() {
    let mut parked = Parked::new("dead_many").await;
    execute(
        &mut parked.database,
        "insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
         select 'public.outbox_events', n, gen_random_uuid(), 't', 'row', 'too large', 1, clock_timestamp(), false \
         from generate_series(1, 20000) n",
    )
    .await;
    let text = parked.text(&["list"]);
    assert_eq!(text.lines().count(), 101);
    assert!(text.ends_with("and 19900 more: --after 100\n"), "{text}");
    let would = parked.text(&["retry", "--all", "--dry-run"]);
    assert_eq!(would.lines().count(), 20_001);

    for arguments in [
        &["dead", "list", "--limit", "20000"][..],
        &["dead", "list", "--limit", "20000", "--json"],
        &["dead", "retry", "--all", "--dry-run"],
    ] {
        let mut list = command(arguments);
        list.args(["--postgres-url", &parked.url]);
        let list = list.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = list.spawn().expect("starting outboxd");
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        lines.read_line(&mut line).expect("a line");
        drop(lines);
        let output = child.wait_with_output().expect("its end");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }

    let said = parked.text(&["discard", "--all", "--yes"]);
    assert!(
        said.starts_with("discard: 20000 parked rows; no relay"),
        "{said}"
    );
    let decided = "select count(*) from outboxd_parked where decision = 'discard'";
    assert_eq!(number(&mut parked.database, decided).await, 20_000);
}

#[tokio::test]
async fn wrong_arguments_are_refused_by_name_rule_and_value() {
    for (arguments, expected) in [
        (
            &["list", "--limit", "0"][..],
            "invalid value '0' for '--limit <N>': must be a whole number from 1 to 1000000",
        ),
        (
            &["list", "--class", "odd"],
            "invalid value 'odd' for '--class <CLASS>'\n  [possible values: row, crash, unreadable, unknown]",
        ),
        (
            &["list", "--older-than", "soon"],
            "invalid value 'soon' for '--older-than <DURATION>'",
        ),
        (&["show"], "required arguments were not provided:\n  <ID>"),
        (&["show", "x"], "invalid value 'x' for '<ID>'"),
        (
            &["retry"],
            "required arguments were not provided:\n  <IDS|--all>",
        ),
        (
            &["retry", "1", "--all"],
            "the argument '[IDS]...' cannot be used with '--all'",
        ),
        (&["discard", "1", "--topic", "t"], "cannot be used with"),
        (
            &["park", "--yes"],
            "required arguments were not provided:\n  --topic <TOPIC>",
        ),
        (
            &["park", "--topic", "no such"],
            "invalid value 'no such' for '--topic <TOPIC>': must be 1 to 249",
        ),
        (
            &["park", "--topic", "t", "--stop", "--why", "x"],
            "the argument '--stop' cannot be used with '--why <TEXT>'",
        ),
    ] {
        let output = outboxd(&[&["dead"], arguments].concat());
        let said = fails(&output, 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let said = fails(&outboxd(&["dead", "list"]), 78);
    assert!(said.contains("postgres.url"), "{said}");
    let kept = services::postgres()
        .await
        .create_database("dead_bare")
        .await;
    let url = kept.url.as_str();
    let said = fails(&outboxd(&["dead", "list", "--postgres-url", url]), 78);
    assert!(said.contains("run outboxd migrate"), "{said}");
    let help = succeeds(&outboxd(&["dead", "retry", "--help"]));
    for option in [
        "--dry-run",
        "--yes",
        "--why",
        "--older-than",
        "--json",
        "--all",
    ] {
        assert!(help.contains(option), "{option} in {help}");
    }
    let help = succeeds(&outboxd(&["dead", "park", "--help"]));
    for option in ["--topic", "--stop", "--yes", "--why", "--who", "--json"] {
        assert!(help.contains(option), "{option} in {help}");
    }
}
