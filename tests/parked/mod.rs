//! Rows that cannot be published: parked with their reason, and what a person decides about them.

mod rows;
mod topics;

use serde_json::{Value, json};

use crate::support::fixture::{Fixture, execute, number};
use crate::support::services;

/// What a topic of these tests takes, and a payload that is more, compressed or not.
const LIMIT: &str = "20000";
const LARGE_BYTES: usize = 64_000;

/// A relay that is not started, on a topic that takes small records only. It compresses, so that it cannot know
/// which are too large.
async fn fixture(name: &'static str, on_poison: &str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    limit(&fixture, LIMIT).await;
    fixture
        .relay
        .set("kafka.properties.compression.type", "lz4");
    fixture.relay.set("outbox.default.on_poison", on_poison);
    // A message set as a whole must fit, and be more than one row.
    fixture.relay.set("kafka.properties.batch.size", "15000");
    fixture.relay.set("kafka.properties.linger.ms", "50");
    fixture
}

async fn limit(fixture: &Fixture, bytes: &str) {
    services::alter_topic(
        fixture.bootstrap(),
        &fixture.topic,
        "max.message.bytes",
        bytes,
    )
    .await;
}

/// Inserts a row of the key; its payload is the number, or larger than the topic takes.
async fn write(fixture: &mut Fixture, key: &str, number: Option<u32>) {
    let payload = number.map_or_else(
        || {
            let chunks = LARGE_BYTES / 32;
            format!("(select to_json(string_agg(md5(random()::text), '')) from generate_series(1, {chunks}))")
        },
        |number| format!("'{number}'"),
    );
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         values ('x', '{key}', 't', {payload})"
    );
    execute(&mut fixture.database, &sql).await;
}

/// Key and data of the next record, its length if it is a long one.
async fn next(fixture: &mut Fixture) -> (String, Value) {
    let record = fixture.next().await;
    let data = match &record.body()["data"] {
        Value::String(text) => json!(text.len()),
        data => data.clone(),
    };
    (record.key.expect("a key"), data)
}

fn pair(key: &str, data: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), data.into())
}

/// Waits until so many rows are parked.
async fn parked(fixture: &mut Fixture, rows: i64) {
    let query = format!("select count(*) = {rows} from outboxd_parked");
    fixture.until(&query).await;
}

async fn decide(fixture: &mut Fixture, decision: &str) {
    let sql = format!(
        "select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), '{decision}', 'a test')"
    );
    assert!(number(&mut fixture.database, &sql).await > 0);
}
