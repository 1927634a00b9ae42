//! What is listed and shown.

use serde_json::Value;

use super::Parked;
use crate::support::command::{command, fails, succeeds};
use crate::support::fixture::{connect, execute};
use crate::support::services;

#[tokio::test]
async fn parked_rows_are_listed_and_shown_as_text_and_as_json() {
    let mut parked = Parked::new("dead_list").await;
    assert_eq!(parked.text(&["list"]), "no parked rows\n");
    assert_eq!(parked.json(&["list"])["rows"], serde_json::json!([]));

    let id = parked.park("attempts, blocks_key", "3, true").await;
    let text = parked.text(&["list"]);
    let start = format!("{id}  order.placed  order-events  \"ord_1\"  row  parked 20");
    assert!(text.starts_with(&start), "{text}");
    // A reason can quote what an application wrote.
    let end = "3 attempts: too large: [31m30000 bytes  (blocks its key)\n";
    assert!(text.ends_with(end), "{text}");
    let listed = parked.json(&["list"]);
    let note = &listed["rows"][0];
    assert_eq!(note["id"], id);
    assert_eq!(note["key"], "ord_1");
    assert_eq!(note["blocksKey"], true);
    assert_eq!(note["decision"], Value::Null);
    assert_eq!(listed["more"], 0);

    let id = id.to_string();
    let text = parked.text(&["show", &id]);
    for line in [
        "reason          too large: [31m30000 bytes",
        "The row in its table:",
        "aggregate_id    ord_1",
        "payload         {\"n\":  1}",
        "sent_at         null",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let shown = parked.json(&["show", &id]);
    assert_eq!(shown["row"]["payload"], "{\"n\":  1}");
    assert_eq!(shown["row"]["payload_bytes"], Value::Null);
    assert_eq!(shown["shortened"], serde_json::json!({}));
}

#[tokio::test]
async fn long_values_are_shortened_unless_they_are_asked_for_and_a_deleted_row_is_said_to_be_gone()
{
    let mut parked = Parked::new("dead_show").await;
    let text = parked.park("attempts", "1").await;
    let bytes = parked.park("attempts", "1").await;
    execute(
        &mut parked.database,
        &format!(
            "update outbox_events set payload = to_json(repeat('ä', 5000)) where id = {text}; \
             update outbox_events set payload = null, payload_bytes = convert_to(repeat('x', 600), 'UTF8') \
             where id = {bytes}"
        ),
    )
    .await;
    let large = parked.park("attempts", "1").await;
    execute(
        &mut parked.database,
        &format!(
            "alter table outbox_events alter payload set storage external; \
             update outbox_events set payload = to_json(repeat('x', 2000000)) where id = {large}"
        ),
    )
    .await;
    // So much of a document is not even turned into text to show its beginning.
    let shown = parked.json(&["show", &large.to_string()]);
    assert_eq!(shown["row"]["payload"], "");
    assert_eq!(
        shown["shortened"],
        serde_json::json!({"payload": 2_000_002})
    );

    let (text, bytes) = (text.to_string(), bytes.to_string());
    let shown = parked.text(&["show", &text]);
    assert!(
        shown.contains("ä… (10002 bytes in all: --payload)"),
        "{shown}"
    );
    assert_eq!(shown.matches('ä').count(), 999);
    let shown = parked.json(&["show", &text]);
    assert_eq!(shown["shortened"], serde_json::json!({"payload": 10_002}));
    let whole = parked.json(&["show", &text, "--payload"]);
    let payload = format!("\"{}\"", "ä".repeat(5000));
    assert_eq!(whole["row"]["payload"], payload);
    assert_eq!(whole["shortened"], serde_json::json!({}));
    let shown = parked.json(&["show", &bytes]);
    assert_eq!(
        shown["row"]["payload_bytes"],
        format!("\\x{}", "78".repeat(600))
    );
    assert_eq!(shown["shortened"], serde_json::json!({}));

    // Another event under the old id is not the row.
    let sql = format!("update outbox_events set event_id = gen_random_uuid() where id = {text}");
    execute(&mut parked.database, &sql).await;
    assert_eq!(parked.json(&["show", &text])["row"], Value::Null);
    let sql = format!("delete from outbox_events where id = {bytes}");
    execute(&mut parked.database, &sql).await;
    let shown = parked.text(&["show", &bytes]);
    assert!(shown.contains("The row is gone"), "{shown}");
}

#[tokio::test]
async fn filters_choose_together_and_pages_follow_each_other() {
    let mut parked = Parked::new("dead_filters").await;
    let topic = parked.park("topic", "'other'").await;
    let kind = parked.park("event_type", "'order.paid'").await;
    let key = parked.park("key, class", "'k2'::bytea, 'crash'").await;
    let reason = parked.park("reason", "'Illegal NAME'").await;
    let old = parked
        .park("parked_at", "clock_timestamp() - interval '2 hours'")
        .await;
    for (filters, ids) in [
        (&[][..], &[topic, kind, key, reason, old][..]),
        (&["--topic", "other"], &[topic]),
        (&["--type", "order.paid"], &[kind]),
        (&["--key", "k2"], &[key]),
        (&["--class", "crash"], &[key]),
        (&["--reason", "illegal name"], &[reason]),
        (&["--reason", "%"], &[]),
        (&["--older-than", "1h"], &[old]),
        (&["--older-than", "3h"], &[]),
        (&["--topic", "other", "--key", "k2"], &[]),
        (&["--limit", "2"], &[topic, kind]),
        (
            &["--limit", "2", "--after", &kind.to_string()],
            &[key, reason],
        ),
        (&["--limit", "5"], &[topic, kind, key, reason, old]),
    ] {
        assert_eq!(parked.listed(filters), ids, "{filters:?}");
    }
    assert_eq!(parked.json(&["list", "--limit", "2"])["more"], 3);
    let text = parked.text(&["list", "--limit", "2"]);
    let end = format!("and 3 more: --after {kind}\n");
    assert!(text.ends_with(&end), "{text}");
    assert!(!parked.text(&["list", "--limit", "5"]).contains("more"));
}

#[tokio::test]
async fn an_outbox_of_a_mapped_table_is_named_as_configured() {
    let kept = services::postgres()
        .await
        .create_database("dead_mapped")
        .await;
    let url = kept.url.as_str();
    let mut database = connect(url).await;
    execute(
        &mut database,
        "create schema sales; \
         create table sales.\"Events\" (\"Seq\" bigint generated always as identity, id text not null, \
                                        key text, body text, sent timestamptz); \
         create unique index on sales.\"Events\" (\"Seq\"); \
         insert into sales.\"Events\" (id, key, body) values ('evt_1', 'k', 'hello')",
    )
    .await;
    let settings = [
        "outbox.default.topic=t",
        "outbox.sales.table=sales.\"Events\"",
        "outbox.sales.columns.id=Seq",
        "outbox.sales.columns.event_id=id",
        "outbox.sales.columns.aggregate_id=key",
        "outbox.sales.columns.payload=body",
        "outbox.sales.sent.column=sent",
        "outbox.sales.topic=t",
        "outbox.sales.envelope=raw",
    ];
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.args(["--postgres-url", url]);
        command.output().expect("running outboxd")
    };
    succeeds(&run(&["migrate"]));
    execute(
        &mut database,
        "insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
         select 'sales.\"Events\"', 1, encode(substring(sha256('evt_1') from 1 for 16), 'hex')::uuid, 't', 'row', \
                'too large', 1, clock_timestamp(), false",
    )
    .await;
    let said = fails(&run(&["dead", "list"]), 2);
    let rule = "--outbox: must name one of the configured outboxes (default, sales), ";
    assert!(said.contains(&format!("{rule}is not given")), "{said}");
    let said = fails(&run(&["dead", "list", "--outbox", "nine"]), 2);
    assert!(said.contains(&format!("{rule}is nine")), "{said}");
    assert_eq!(
        succeeds(&run(&["dead", "list", "--outbox", "default"])),
        "no parked rows\n"
    );
    let shown = succeeds(&run(&["dead", "show", "1", "--outbox", "sales"]));
    assert!(shown.contains("body            hello\n"), "{shown}");
    let said = succeeds(&run(&["dead", "retry", "1", "--yes", "--outbox", "sales"]));
    assert!(said.starts_with("retry: 1 parked row;"), "{said}");
}
