//! `outboxd dead`, as somebody uses it who has nothing but the commands.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::support::command::{command, errors, fails, outboxd, succeeds};
use crate::support::fixture::{connect, execute, number};
use crate::support::services::{self, TestDatabase};

/// A migrated database that no relay looks after.
struct Parked {
    url: String,
    _kept: TestDatabase,
    database: PgConnection,
}

impl Parked {
    async fn new(name: &str) -> Parked {
        let kept = services::postgres().await.create_database(name).await;
        let url = kept.url.clone();
        succeeds(&outboxd(&["migrate", "--postgres-url", &url]));
        let database = connect(&url).await;
        Parked {
            url,
            _kept: kept,
            database,
        }
    }

    /// Parks a row that is written for it, and returns its id.
    async fn park(&mut self, columns: &str, values: &str) -> i64 {
        let sql = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                   values ('order', 'ord_1', 'order.placed', '{\"n\":  1}') returning id";
        let id = number(&mut self.database, sql).await;
        let sql = format!(
            "insert into outboxd_parked (outbox, id, event_id, event_type, topic, key, class, reason, attempts, \
                                         first_failed_at, blocks_key) \
             select 'public.outbox_events', id, event_id, event_type, 'order-events', 'ord_1', 'row', \
                    'too large: \u{1b}[31m30000 bytes', 1, clock_timestamp(), false \
             from outbox_events where id = {id}; \
             update outboxd_parked set ({columns}) = row({values}) where id = {id}"
        );
        execute(&mut self.database, &sql).await;
        id
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let arguments = [&["dead"], arguments, &["--postgres-url", &self.url]].concat();
        outboxd(&arguments)
    }

    /// What it prints.
    fn text(&self, arguments: &[&str]) -> String {
        succeeds(&self.run(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The ids that `list` gives with these filters.
    fn listed(&self, filters: &[&str]) -> Vec<i64> {
        let listed = self.json(&[&["list"], filters].concat());
        let rows = listed["rows"].as_array().expect("rows").iter();
        rows.map(|row| row["id"].as_i64().expect("an id")).collect()
    }

    /// Decision, who and why, as one text.
    async fn decision(&mut self, id: i64) -> Option<String> {
        let sql = format!(
            "select decision || ' ' || decided_by || ' ' || coalesce(decided_why, '') \
             from outboxd_parked where id = {id}"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.database);
        row.await.expect("a note").get(0)
    }
}

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
