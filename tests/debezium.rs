//! The real Debezium and outboxd, fed the same rows: what a consumer of the outbox event router sees must
//! not change when outboxd takes its place.
//!
//! Each case is one configuration of the router and the options of an outbox that stand in for it. Each
//! side has a Kafka of its own, with the same topics. Timestamps are not compared, nor is the order of a
//! message's headers, nor that of messages of different keys. Of Debezium's headers those of its connector
//! (`__debezium.context.…`) are passed over: they name the process, and differ with each of its starts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use outboxd::local::{LocalPostgres, PostgresRelease};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::scenario::variable;
use crate::support::debezium::{DEBEZIUM_VERSION, Debezium};
use crate::support::fixture::{Record, connect, execute, read_all};
use crate::support::kafka::LocalKafka;
use crate::support::relay::Relay;
use crate::support::services;

/// How long either side may take to publish all rows.
const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(200);

const PARTITIONS: i32 = 3;

/// Rows that are drawn at random, besides those that every run has.
const DRAWN: usize = 2000;

/// What Debezium adds to every message about its connector.
const CONNECTOR_HEADERS: &str = "__debezium.context.";

/// A configuration of the router and what stands in for it.
struct Case {
    /// Also the name of the table, and what aggregate types begin with.
    name: &'static str,
    /// The type of the payload's column.
    payload: &'static str,
    router: &'static [(&'static str, &'static str)],
    options: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 3] = [
    Case {
        name: "defaults",
        payload: "jsonb",
        router: &[],
        options: &[],
    },
    Case {
        name: "placed",
        payload: "text",
        router: &[
            (
                "transforms.outbox.table.fields.additional.placement",
                "type:header:eventType,tenant:header,shard:header:shardNumber",
            ),
            ("transforms.outbox.route.tombstone.on.empty.payload", "true"),
        ],
        options: &[
            ("headers.eventType", "{event_type}"),
            ("headers.tenant", "{tenant}"),
            ("headers.shardNumber", "{shard}"),
            ("tombstone_on_empty", "true"),
        ],
    },
    Case {
        name: "bytes",
        payload: "bytea",
        router: &[(
            "value.converter",
            "io.debezium.converters.BinaryDataConverter",
        )],
        options: &[],
    },
];

/// One row of the outbox.
struct Row {
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    /// As text that Postgres takes for the column's type.
    payload: Option<String>,
    /// Null only where it is placed: the one difference there is.
    tenant: Option<&'static str>,
    shard: i32,
}

#[tokio::test]
#[ignore = ".ci/soak debezium runs it"]
async fn consumers_see_the_same_from_outboxd_as_from_debezium() {
    let seed = variable("OUTBOXD_SCENARIO_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("debezium: OUTBOXD_SCENARIO_SEED={seed}");
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let postgres = services::private_postgres(options.setting("wal_level", "logical")).await;
    let (theirs, ours) = tokio::join!(services::private_kafka(&[]), services::private_kafka(&[]));
    let (mut records, mut topics, mut null_headers) = (0, 0, 0);
    for case in CASES {
        let rows = rows(&case, seed);
        let names: BTreeSet<String> = rows.iter().map(topic).collect();
        for kafka in [&theirs, &ours] {
            for name in &names {
                services::create_topic(&kafka.bootstrap(), name, PARTITIONS, &[]).await;
            }
        }

        publish(&case, &rows, &postgres, (&theirs, &ours)).await;

        for name in &names {
            let mut expected = read_all(&theirs.bootstrap(), name);
            let mut found = read_all(&ours.bootstrap(), name);
            expected.iter_mut().for_each(comparable);
            found.iter_mut().for_each(comparable);
            // Order is promised by key alone. These sorts keep it.
            expected.sort_by(|a, b| (a.partition, &a.key).cmp(&(b.partition, &b.key)));
            found.sort_by(|a, b| (a.partition, &a.key).cmp(&(b.partition, &b.key)));
            null_headers += expected.iter_mut().map(without_null_headers).sum::<usize>();
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(found, expected, "{}, topic {name}", case.name);
            }
            assert_eq!(found.len(), expected.len(), "{}, topic {name}", case.name);
            records += found.len();
        }
        topics += names.len();
    }
    println!(
        "debezium {DEBEZIUM_VERSION}: {records} records of {} configurations on {topics} topics, seed {seed}: \
         topics, keys, values, partitions and headers are the same, but for {null_headers} headers without a value",
        CASES.len(),
    );
    assert!(null_headers > 0, "the difference in the guide is gone");
}

/// Has both publish the rows, which are there once both are ready, and waits until they have.
async fn publish(
    case: &Case,
    rows: &[Row],
    postgres: &LocalPostgres,
    (theirs, ours): (&LocalKafka, &LocalKafka),
) {
    let mut database = connect(&postgres.url("postgres")).await;
    let database_of_case = format!("create database {}", case.name);
    execute(&mut database, &database_of_case).await;
    let mut database = connect(&postgres.url(case.name)).await;
    let table = format!(
        "create table outbox ( \
             id uuid not null primary key, \
             aggregatetype varchar(255) not null, \
             aggregateid varchar(255) not null, \
             type varchar(255) not null, \
             payload {}, \
             tenant text, \
             shard int, \
             seq bigint generated always as identity unique)",
        case.payload
    );
    execute(&mut database, &table).await;
    let place = (postgres.port(), case.name);
    let debezium = Debezium::start(place, &theirs.bootstrap(), "public.outbox", case.router).await;
    let debezium = debezium.unwrap_or_else(|error| panic!("{error:#}"));
    insert(&mut database, case, rows).await;
    arrived(theirs, rows, || {}).await;
    drop(debezium);

    let mut relay = relay(case, &postgres.url(case.name), ours);
    relay.migrate().await;
    relay.start();
    arrived(ours, rows, || relay.assert_running()).await;
    relay.stop().await;
}

fn relay(case: &Case, url: &str, kafka: &LocalKafka) -> Relay {
    let mut relay = Relay::new("debezium", Vec::new());
    relay.set("postgres.url", url);
    relay.set("kafka.bootstrap_servers", &kafka.bootstrap());
    relay.set("admin.listen", "off");
    relay.set("log.format", "json");
    relay.set("outbox.default.preset", "debezium");
    for (option, value) in case.options {
        relay.set(&format!("outbox.default.{option}"), value);
    }
    relay
}

async fn insert(database: &mut PgConnection, case: &Case, rows: &[Row]) {
    let sql = format!(
        "insert into outbox (id, aggregatetype, aggregateid, type, payload, tenant, shard) \
         values ($1, $2, $3, $4, $5::text::{}, $6, $7)",
        case.payload
    );
    for row in rows {
        let insert = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(Uuid::new_v4())
            .bind(&row.aggregate_type)
            .bind(&row.aggregate_id)
            .bind(&row.event_type)
            .bind(&row.payload)
            .bind(row.tenant)
            .bind(row.shard);
        insert.execute(&mut *database).await.expect("inserting");
    }
}

/// Waits until there are as many records as rows.
async fn arrived(kafka: &LocalKafka, rows: &[Row], mut check: impl FnMut()) {
    let topics: BTreeSet<String> = rows.iter().map(topic).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        check();
        let records = topics
            .iter()
            .map(|topic| read_all(&kafka.bootstrap(), topic));
        let arrived: usize = records.map(|records| records.len()).sum();
        if arrived >= rows.len() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{arrived} of {} records came",
            rows.len()
        );
        tokio::time::sleep(POLL).await;
    }
}

fn topic(row: &Row) -> String {
    format!("outbox.event.{}", row.aggregate_type)
}

/// Takes out of a record what is not compared.
fn comparable(record: &mut Record) {
    record.timestamp_ms = None;
    record
        .headers
        .retain(|(name, _)| !name.starts_with(CONNECTOR_HEADERS));
    record.headers.sort();
}

/// The known difference: where Debezium places a column that is null it adds a header without a value,
/// outboxd none. No other header of these rows is empty.
fn without_null_headers(record: &mut Record) -> usize {
    let before = record.headers.len();
    record
        .headers
        .retain(|(name, value)| name != "tenant" || !value.is_empty());
    before - record.headers.len()
}

/// Every payload with every key that must be there, then drawn ones.
fn rows(case: &Case, seed: u64) -> Vec<Row> {
    let keys = ["ord_1", "żółć 🦀", " with spaces ", "\"quoted\"", "0", ""];
    let types = ["order", "customer", "Line.Item", "a_b-c"];
    let mut random = fastrand::Rng::with_seed(seed);
    let drawn: Vec<Option<String>> = (0..DRAWN)
        .map(|_| Some(drawn_payload(case, &mut random)))
        .collect();
    let payloads = certain_payloads(case).into_iter().chain(drawn);
    payloads
        .map(|payload| {
            let aggregate_type = types[random.usize(..types.len())];
            Row {
                aggregate_type: format!("{}-{aggregate_type}", case.name),
                aggregate_id: match random.usize(..4) {
                    0 => keys[random.usize(..keys.len())].to_owned(),
                    _ => format!("key-{}", random.usize(..200)),
                },
                event_type: ["order.placed", "Zmieniono ż"][random.usize(..2)].to_owned(),
                payload,
                tenant: [Some("t1"), Some("żółć"), Some("two words"), None][random.usize(..4)],
                shard: random.i32(..),
            }
        })
        .collect()
}

fn certain_payloads(case: &Case) -> Vec<Option<String>> {
    let large = "x".repeat(900_000);
    let texts: Vec<String> = match case.payload {
        "jsonb" => [
            "{}",
            "[]",
            "null",
            "\"\"",
            "0.10",
            "1e400",
            "12345678901234567890",
            "true",
            r#"{"b":1,"a":null,"c":[],"d":{}}"#,
            r#"{"text":"żółć 日本 🦀 \u2028 \\ \""}"#,
        ]
        .iter()
        .map(|text| (*text).to_owned())
        .chain([format!("{{\"large\":\"{large}\"}}")])
        .collect(),
        "text" => vec![
            String::new(),
            " ".to_owned(),
            "\n\t".to_owned(),
            "{ \"b\" : 1 }".to_owned(),
            "no JSON".to_owned(),
            "żółć 🦀".to_owned(),
            large,
        ],
        _ => vec![
            r"\x".to_owned(),
            r"\x00ff8950".to_owned(),
            format!(r"\x{}", "0aff".repeat(200_000)),
        ],
    };
    std::iter::once(None)
        .chain(texts.into_iter().map(Some))
        .collect()
}

fn drawn_payload(case: &Case, random: &mut fastrand::Rng) -> String {
    if case.payload == "bytea" {
        let bytes = (0..random.usize(1..64)).map(|_| format!("{:02x}", random.u8(..)));
        return format!(r"\x{}", bytes.collect::<String>());
    }
    let text: String = (0..random.usize(..40))
        // Neither of the two that Postgres's jsonb refuses: the character 0 and lone surrogates.
        .map(|_| random.char('\u{1}'..))
        .collect();
    let payload: Value = json!({
        "text": text,
        "number": random.i64(..),
        "list": [random.bool(), Value::Null, random.f32()],
    });
    payload.to_string()
}
