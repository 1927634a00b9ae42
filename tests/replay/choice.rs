//! Which rows a replay takes, and what it says before it sends anything.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;
use sqlx::Row;

use super::{dry, relay, run};
use crate::support::command::{errors, fails, outboxd, succeeds};
use crate::support::fixture::{Fixture, execute, insert, read_all};
use crate::support::services;

#[tokio::test]
async fn rows_are_chosen_by_all_filters_together() {
    let mut fixture = Fixture::new("replay_choice").await;
    let elsewhere = services::kafka().await.unique_topic("replay-choice");
    services::kafka()
        .await
        .create_topic(&elsewhere, 1, &[])
        .await;
    let event_id = "0192f0c1-2345-7abc-8def-0123456789ab";
    execute(
        &mut fixture.database,
        &format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, partition_key, correlation_id, topic, \
                                        event_id) values \
             ('order', 'a', 'placed', null, 'c-1', null, default), \
             ('order', 'b', 'placed', 'a', null, null, default), \
             ('order', 'a', 'paid', 'b', 'c-1', '{elsewhere}', default), \
             ('order', 'c', 'paid', null, null, null, '{event_id}')"
        ),
    )
    .await;
    relay(&mut fixture).await;
    execute(
        &mut fixture.database,
        "update outbox_events set created_at = clock_timestamp() - interval '1 hour' where id = 4",
    )
    .await;
    insert(&mut fixture.database, "unsent").await;
    let half_an_hour_ago = "select to_char((clock_timestamp() - interval '30 min') at time zone 'UTC', \
                            'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let row = sqlx::query(half_an_hour_ago)
        .fetch_one(&mut fixture.database)
        .await;
    let time: String = row.expect("a time").get(0);
    let topic = fixture.topic.clone();
    for (arguments, rows) in [
        (&["--all"][..], 4),
        (&["--id", "1"], 1),
        (&["--id", "1", "--id", "4"], 2),
        (&["--id", "5"], 0),
        (&["--event-id", event_id], 1),
        (&["--event-id", "evt_1"], 0),
        (&["--key", "a"], 2),
        (&["--type", "paid"], 2),
        (&["--correlation-id", "c-1"], 2),
        (&["--topic", &elsewhere], 1),
        (&["--topic", &topic], 3),
        (&["--from", &time], 3),
        (&["--to", &time], 1),
        (&["--key", "a", "--correlation-id", "c-1"], 1),
        (&["--all", "--after", "2"], 2),
    ] {
        let found = dry(&fixture, arguments);
        assert_eq!(found["rows"], rows, "{arguments:?}");
        assert_eq!(found["dryRun"], true);
    }
    let missing = run(&fixture, &["--id", "5", "--id", "4711", "--dry-run"]);
    assert_eq!(succeeds(&missing), "would replay 0 rows\n");
    let said = errors(&missing);
    assert!(
        said.contains("--id: must name rows that were sent"),
        "{said}"
    );
    assert!(said.contains("not one of them: 5, 4711"), "{said}");
    let would = succeeds(&run(&fixture, &["--all", "--dry-run"]));
    assert!(would.starts_with("would replay 4 rows: "), "{would}");
    assert_eq!(
        (
            fixture.published(),
            read_all(fixture.bootstrap(), &elsewhere).len()
        ),
        (3, 1)
    );
}

#[tokio::test]
async fn what_was_discarded_or_is_parked_never_goes_out() {
    let mut fixture = Fixture::new("replay_discarded").await;
    for key in ["sent", "discarded", "retried", "parked"] {
        insert(&mut fixture.database, key).await;
    }
    relay(&mut fixture).await;
    let columns =
        "(outbox, id, event_id, topic, class, reason, parked_at, decision, decided_at, decided_by)";
    let values = "'t', 'row', 'too large', now()";
    execute(
        &mut fixture.database,
        &format!(
            "insert into outboxd_decisions {columns} \
             select 'public.outbox_events', id, event_id, {values}, \
                    case aggregate_id when 'retried' then 'retry' else 'discard' end, now(), 'ada' \
             from outbox_events where aggregate_id in ('discarded', 'retried'); \
             insert into outboxd_decisions {columns} \
             select 'public.outbox_events', id, gen_random_uuid(), {values}, 'discard', now(), 'ada' \
             from outbox_events where aggregate_id = 'sent'; \
             insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
             select 'public.outbox_events', id, event_id, 't', 'row', 'too large', 1, now(), false \
             from outbox_events where aggregate_id = 'parked'"
        ),
    )
    .await;
    assert_eq!(
        succeeds(&run(&fixture, &["--all"])),
        "replayed 2 of 2 rows\n"
    );
    let records = read_all(fixture.bootstrap(), &fixture.topic);
    let again: Vec<&str> = records[4..]
        .iter()
        .filter_map(|record| record.key.as_deref())
        .collect();
    assert_eq!(again, ["sent", "retried"]);
}

#[tokio::test]
async fn events_that_their_topic_would_delete_need_to_be_allowed() {
    let mut fixture = Fixture::new("replay_expired").await;
    services::alter_topic(
        fixture.bootstrap(),
        &fixture.topic,
        "retention.ms",
        "3600000",
    )
    .await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, created_at) values \
         ('order', 'old', 't', clock_timestamp() - interval '2 hours'), ('order', 'new', 't', default)",
    )
    .await;
    relay(&mut fixture).await;
    let before = fixture.published();
    let said = fails(&run(&fixture, &["--all"]), 1);
    let rule = format!(
        "--allow-expired: must be given for rows older than their topic's retention.ms, which deletes them soon \
         after they arrive: 1 for topic \"{}\" (retention.ms: 1h)",
        fixture.topic
    );
    assert!(said.contains(&rule), "{said}");
    assert_eq!(fixture.published(), before, "nothing was sent");
    let warned = run(
        &fixture,
        &["--all", "--dry-run", "--consumer-retention", "90m"],
    );
    let said = errors(&warned);
    assert!(said.contains("warning: --allow-expired"), "{said}");
    assert!(
        said.contains("warning: 1 rows are older than --consumer-retention (1h 30m)"),
        "{said}"
    );
    assert_eq!(
        succeeds(&run(&fixture, &["--key", "new"])),
        "replayed 1 of 1 rows\n"
    );
    let both = run(&fixture, &["--all", "--allow-expired"]);
    assert_eq!(succeeds(&both), "replayed 2 of 2 rows\n");
}

#[tokio::test]
async fn what_is_beyond_retention_is_said() {
    let mut fixture = Fixture::new("replay_kept").await;
    let none = run(&fixture, &["--all"]);
    assert_eq!(succeeds(&none), "replayed 0 of 0 rows\n");
    let said = errors(&none);
    assert!(
        said.contains("sent rows are kept for 7days (outbox.default.retention), what is older is gone; none is there"),
        "{said}"
    );
    insert(&mut fixture.database, "k").await;
    relay(&mut fixture).await;
    let said = errors(&run(&fixture, &["--all", "--dry-run"]));
    assert!(
        said.contains("; the first that is there is row 1, created at 20"),
        "{said}"
    );
    fixture.relay.set("outbox.default.on_sent", "delete");
    let said = errors(&run(&fixture, &["--all", "--dry-run"]));
    assert!(
        said.contains("rows are deleted once they are sent (outbox.default.on_sent)"),
        "{said}"
    );
}

#[tokio::test]
async fn mistakes_are_said_before_anything_is_sent() {
    for (arguments, expected) in [
        (
            &[][..],
            "the following required arguments were not provided",
        ),
        (
            &["--all", "--rate", "0"],
            "invalid value '0' for '--rate <N>'",
        ),
        (
            &["--from", "yesterday"],
            "invalid value 'yesterday' for '--from <TIME>': must be RFC 3339, such as",
        ),
        (
            &["--all", "--consumer-retention", "long"],
            "invalid value 'long' for '--consumer-retention <DURATION>'",
        ),
    ] {
        let said = fails(&outboxd(&[&["replay"], arguments].concat()), 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let help = succeeds(&outboxd(&["replay", "--help"]));
    for option in [
        "--correlation-id",
        "--rate",
        "--dry-run",
        "--after",
        "--allow-expired",
    ] {
        assert!(help.contains(option), "{option} in {help}");
    }
    let mut fixture = Fixture::new("replay_mistakes").await;
    let said = fails(
        &run(
            &fixture,
            &[
                "--from",
                "2026-01-02T03:04:05Z",
                "--to",
                "2026-01-01T00:00:00Z",
            ],
        ),
        2,
    );
    assert!(
        said.contains("--to: must be after --from (2026-01-02T03:04:05Z), is 2026-01-01T00:00:00Z"),
        "{said}"
    );
    let said = fails(&run(&fixture, &["--all", "--outbox", "nine"]), 2);
    assert!(
        said.contains("--outbox: must name one of the configured outboxes (default), is nine"),
        "{said}"
    );

    insert(&mut fixture.database, "k").await;
    relay(&mut fixture).await;
    let sql = "update outbox_events set topic = 'replay-no-such-topic'";
    execute(&mut fixture.database, sql).await;
    let said = fails(&run(&fixture, &["--all"]), 1);
    assert!(
        said.contains("topic \"replay-no-such-topic\" cannot be used: "),
        "{said}"
    );
    let mut command = fixture
        .relay
        .command(&["replay", "--id", "4711", "--dry-run", "--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting outboxd");
    drop(BufReader::new(child.stdout.take().expect("its output")).lines());
    assert!(
        child.wait().expect("its end").success(),
        "a reader may go away"
    );
    assert_eq!(dry(&fixture, &["--id", "4711"])["missing"], json!([4711]));
}
