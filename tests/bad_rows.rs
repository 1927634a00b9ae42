//! Every kind of row that somebody could write, among good ones: what can be delivered is, exactly; what cannot
//! is parked with a reason that a person understands; and no good row suffers.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::Row;

use crate::support::fixture::{Fixture, execute, number};

/// Good rows, of a hundred keys in CI and a thousand in a full run.
fn sizes() -> (i64, i64) {
    match std::env::var_os("OUTBOXD_SOAK") {
        None => (5_000, 100),
        Some(_) => (50_000, 1_000),
    }
}

enum Fate {
    Delivered,
    /// For a reason with these words.
    Parked(&'static str),
}
use Fate::{Delivered, Parked};

/// Assignments to the row's columns, as SQL, and what becomes of it.
const KINDS: &[(&str, &str, Fate)] = &[
    // What looks bad and is not.
    ("no payload", "payload = null", Delivered),
    ("null as payload", "payload = 'null'", Delivered),
    ("an empty key", "aggregate_id = ''", Delivered),
    ("a key of spaces", "aggregate_id = '   '", Delivered),
    (
        "a key in other letters",
        "aggregate_id = 'schlüssel 鍵 🔑'",
        Delivered,
    ),
    (
        "a key of 10 kB",
        "aggregate_id = repeat('k', 10000)",
        Delivered,
    ),
    (
        "a type with quotes",
        r#"event_type = E'a "quoted" \\ type\n'"#,
        Delivered,
    ),
    (
        "a zero byte in JSON",
        r#"payload = '{"a":"\u0000"}'"#,
        Delivered,
    ),
    (
        "half a surrogate pair",
        r#"payload = '"\ud800"'"#,
        Delivered,
    ),
    (
        "the same name twice",
        r#"payload = '{"a":1,"a":2}'"#,
        Delivered,
    ),
    ("a number beyond doubles", "payload = '1e400'", Delivered),
    (
        "a number of 40 digits",
        "payload = '1234567890123456789012345678901234567890'",
        Delivered,
    ),
    (
        "JSON nested 2,000 deep",
        "payload = (repeat('[', 2000) || repeat(']', 2000))::json",
        Delivered,
    ),
    (
        "arbitrary bytes",
        r"payload = null, payload_bytes = '\x00ff00fe'",
        Delivered,
    ),
    ("no bytes", r"payload = null, payload_bytes = ''", Delivered),
    (
        "900 kB",
        "payload = to_json(repeat('x', 900000))",
        Delivered,
    ),
    ("the year 1900", "created_at = '1900-01-01'", Delivered),
    ("the year 1", "created_at = '0001-01-01'", Delivered),
    (
        "the epoch",
        "created_at = '1970-01-01T00:00:00Z'",
        Delivered,
    ),
    (
        "a millisecond before the epoch",
        "created_at = '1969-12-31T23:59:59.999Z'",
        Delivered,
    ),
    ("no headers in an object", "headers = '{}'", Delivered),
    ("an empty header", r#"headers = '{"empty":""}'"#, Delivered),
    (
        "headers in other letters",
        r#"headers = '{"größe":"大きい"}'"#,
        Delivered,
    ),
    (
        "10,000 small headers",
        "headers = (select jsonb_object_agg('h' || n, n::text) from generate_series(1, 10000) n)",
        Delivered,
    ),
    ("an empty correlation id", "correlation_id = ''", Delivered),
    (
        "a traceparent that is none",
        "traceparent = 'nonsense'",
        Delivered,
    ),
    // What is.
    (
        "as large as the client's limit, which leaves nothing for the rest",
        "payload = to_json(repeat('x', 999998))",
        Parked("bytes is larger than the client's message.max.bytes (1000000)"),
    ),
    (
        "too large by one byte",
        "payload = to_json(repeat('x', 999999))",
        Parked("payload is 1000001 bytes, larger than the client's message.max.bytes (1000000)"),
    ),
    (
        "too large by 10 MB",
        "payload = to_json(repeat('x', 11000000))",
        Parked("payload is 11000002 bytes, larger than"),
    ),
    (
        "too large by 300 MB",
        "payload = to_json(repeat('x', 315000000))",
        // Compressed it is larger still than any message, and nobody looks further.
        Parked("payload is at least 36"),
    ),
    (
        "bytes too large by 300 MB",
        "payload = null, payload_bytes = convert_to(repeat('x', 315000000), 'UTF8')",
        Parked("payload_bytes is 315000000 bytes, larger than"),
    ),
    (
        "bytes too large",
        r"payload = null, payload_bytes = decode(repeat('00', 1100000), 'hex')",
        Parked("larger than"),
    ),
    (
        "a key too large",
        "aggregate_id = repeat('k', 1100000)",
        Parked("aggregate_id is 1100000 bytes, larger than"),
    ),
    (
        "a type too large",
        "event_type = repeat('t', 600000)",
        Parked("larger than"),
    ),
    (
        "a header of 1 MB",
        "headers = jsonb_build_object('h', repeat('x', 1000000))",
        Parked("larger than"),
    ),
    (
        "a key and a type too large",
        "aggregate_id = repeat('k', 1100000), event_type = repeat('t', 1000001)",
        Parked("aggregate_id is 1100000 bytes, event_type is 1000001 bytes, larger than"),
    ),
    (
        "10,000 headers of 100 bytes",
        "headers = (select jsonb_object_agg('h' || n, repeat('x', 100)) from generate_series(1, 10000) n)",
        Parked("larger than"),
    ),
    (
        "a topic of 250 letters",
        "topic = repeat('t', 250)",
        Parked("topic must be 1 to 249"),
    ),
    (
        "a topic with a space",
        "topic = 'no such'",
        Parked("topic must be 1 to 249"),
    ),
    (
        "a topic with a slash",
        "topic = 'no/such'",
        Parked("topic must be 1 to 249"),
    ),
    (
        "a topic in other letters",
        "topic = 'größe'",
        Parked("topic must be 1 to 249"),
    ),
    (
        "a topic of no letters",
        "topic = ''",
        Parked("topic must be 1 to 249"),
    ),
    (
        "the topic .",
        "topic = '.'",
        Parked("topic must be 1 to 249"),
    ),
    (
        "the topic ..",
        "topic = '..'",
        Parked("topic must be 1 to 249"),
    ),
    (
        "two hours from now",
        "created_at = now() + interval '2 hours'",
        Parked("ahead of the clock"),
    ),
    (
        "the year 9999",
        "created_at = '9999-12-30'",
        Parked("ahead of the clock"),
    ),
    (
        "the last day of the year 9999",
        "created_at = '9999-12-31'",
        Parked("created_at must lie between"),
    ),
    (
        "the year 290000",
        "created_at = '290000-01-01'",
        Parked("created_at must lie between"),
    ),
    (
        "the end of time",
        "created_at = 'infinity'",
        Parked("created_at must lie between"),
    ),
    (
        "before all time",
        "created_at = '-infinity'",
        Parked("created_at must lie between"),
    ),
    (
        "headers in an array",
        r#"headers = '["a"]'"#,
        Parked("flat JSON object of strings"),
    ),
    (
        "headers in a text",
        r#"headers = '"a"'"#,
        Parked("flat JSON object of strings"),
    ),
    (
        "a number as header",
        r#"headers = '{"a":1}'"#,
        Parked("flat JSON object of strings"),
    ),
    (
        "null as header",
        r#"headers = '{"a":null}'"#,
        Parked("flat JSON object of strings"),
    ),
    (
        "an object as header",
        r#"headers = '{"a":{"b":"c"}}'"#,
        Parked("flat JSON object of strings"),
    ),
];

/// The rows' event ids: good ones end in their number, bad ones begin with their kind's.
async fn write(fixture: &mut Fixture, good: i64, keys: i64) {
    // A table that keeps no rules, as somebody's migration may leave it.
    let mut sql = String::from(
        "do $$ declare rule text; begin \
             for rule in select conname from pg_constraint \
                 where conrelid = 'outbox_events'::regclass and contype = 'c' loop \
                 execute format('alter table outbox_events drop constraint %I', rule); \
             end loop; end $$; begin;",
    );
    let each = good / KINDS.len() as i64;
    for (kind, (_, assignments, _)) in KINDS.iter().enumerate() {
        let from = kind as i64 * each;
        let to = if kind + 1 == KINDS.len() {
            good
        } else {
            from + each
        };
        let id = format!("bad00000-0000-7000-8000-{kind:012}");
        sql.push_str(&format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'x', 'good ' || n % {keys}, 't', n::text::json from generate_series({from}, {to} - 1) n; \
             insert into outbox_events (event_id, aggregate_type, aggregate_id, event_type, payload) \
             values ('{id}', 'x', 'bad {kind}', 't', '\"bad\"'); \
             update outbox_events set {assignments} where event_id = '{id}';"
        ));
    }
    sql.push_str("commit");
    execute(&mut fixture.database, &sql).await;
}

#[tokio::test]
async fn every_kind_of_row_is_delivered_or_parked_and_no_good_one_suffers() {
    let (good, keys) = sizes();
    let mut fixture = Fixture::new("bad_rows").await;
    write(&mut fixture, good, keys).await;
    fixture.relay.start();
    let parked = KINDS
        .iter()
        .filter(|(_, _, fate)| matches!(fate, Parked(_)))
        .count();
    let settled = format!(
        "select (select count(*) from outbox_events where sent_at is null) = {parked} \
            and (select count(*) from outboxd_parked) = {parked}"
    );
    fixture.until(&settled).await;

    let mut last: HashMap<String, i64> = HashMap::new();
    let mut events = HashSet::new();
    let mut arrived = BTreeMap::new();
    let records = fixture.published();
    for record in fixture
        .take(usize::try_from(records).expect("a count"))
        .await
    {
        let id = record.event_id();
        assert!(
            events.insert(id),
            "{id} arrived twice, though nothing was refused"
        );
        if id.to_string().starts_with("bad") {
            arrived.insert(id.to_string(), record);
            continue;
        }
        let n = record.body()["data"].as_i64().expect("a number");
        let key = record.key.clone().expect("a key");
        let before = last.insert(key.clone(), n);
        assert!(before < Some(n), "{key}: {n} after {before:?}");
    }
    assert_eq!(events.len() as i64, good + (KINDS.len() - parked) as i64);

    let rows =
        sqlx::query("select p.event_id::text, p.reason, p.class, p.attempts from outboxd_parked p");
    let rows = rows
        .fetch_all(&mut fixture.database)
        .await
        .expect("parked rows");
    let reasons: HashMap<String, String> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (kind, (name, _, fate)) in KINDS.iter().enumerate() {
        let id = format!("bad00000-0000-7000-8000-{kind:012}");
        match fate {
            Delivered => assert!(arrived.contains_key(&id), "{name}: {:?}", reasons.get(&id)),
            Parked(words) => {
                let reason = reasons
                    .get(&id)
                    .unwrap_or_else(|| panic!("{name} is not parked"));
                assert!(
                    reason.contains(words) && reason.len() < 400,
                    "{name}: {reason}"
                );
            }
        }
    }
    // Half of one of the largest payloads.
    let memory = fixture.relay.peak_memory_mib();
    assert!(memory < 150.0, "{memory} MiB");
    assert_eq!(fixture.relay.logged("making a new kafka producer"), 0);
    assert_eq!(fixture.relay.logged("kafka refused a message set"), 0);
    let all = number(&mut fixture.database, "select count(*) from outbox_events").await;
    assert_eq!(all, good + KINDS.len() as i64, "nothing is gone");
    println!(
        "bad rows: {} kinds among {good} good rows of {keys} keys, {parked} parked, the others delivered; {memory:.0} MiB",
        KINDS.len()
    );
}
