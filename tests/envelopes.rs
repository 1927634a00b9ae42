//! Every payload through every envelope, byte for byte as a consumer sees it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::support::fixture::{Fixture, Record};

/// JSON texts that a parser would change, or refuse.
const JSON: &[&str] = &[
    "{}",
    "[]",
    "null",
    r#"{"a":null,"b":[],"c":{}}"#,
    r#"{"nul":"\u0000","surrogate":"\ud800","pair":"\ud83d\ude00"}"#,
    r#"{"twice":1,"twice":2,"a":3}"#,
    r#"{"large":1e400,"small":1e-400,"long":12345678901234567890.10,"minus":-0}"#,
    "\t{ \"b\" : 1 ,\r\n  \"a\":[ 1 , 2 ] }",
    "{\"text\":\"żółć 日本 🦀 \u{2028}\"}",
    "\"a text alone\"",
    "0.10",
];

const KEYS: [&str; 3] = ["ord_1", "", "żółć 🦀"];

async fn publish(name: &'static str, envelope: &str) -> Vec<(Sent, Record)> {
    let mut fixture = Fixture::new(name).await;
    fixture.relay.set("outbox.default.envelope", envelope);
    let mut payloads: Vec<Sent> = JSON
        .iter()
        .map(|&text| Sent::Json(text.to_owned()))
        .collect();
    payloads.push(Sent::Json(format!(
        "{{\"large\":\"{}\"}}",
        "x".repeat(900_000)
    )));
    payloads.push(Sent::Bytes((0..=255).collect()));
    payloads.push(Sent::Bytes(Vec::new()));
    payloads.push(Sent::Nothing);
    for (index, payload) in payloads.iter().enumerate() {
        let (json, bytes) = match payload {
            Sent::Json(text) => (Some(text), None),
            Sent::Bytes(bytes) => (None, Some(bytes)),
            Sent::Nothing => (None, None),
        };
        sqlx::query(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, payload_bytes) \
             values ('order', $1, 'order.placed', $2::text::json, $3)",
        )
        .bind(KEYS[index % KEYS.len()])
        .bind(json)
        .bind(bytes)
        .execute(&mut fixture.database)
        .await
        .expect("inserting a payload");
    }
    fixture.relay.start();
    let records = fixture.take(payloads.len()).await;
    fixture.settled().await;
    let pairs: Vec<_> = payloads.into_iter().zip(records).collect();
    for (index, (_, record)) in pairs.iter().enumerate() {
        assert_eq!(record.key.as_deref(), Some(KEYS[index % KEYS.len()]));
    }
    pairs
}

/// A row's payload.
enum Sent {
    Json(String),
    Bytes(Vec<u8>),
    Nothing,
}

/// The member of the JSON object, as it stands there.
fn member<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    let value = record.value.as_deref().expect("a body");
    let body: BTreeMap<String, &RawValue> = serde_json::from_slice(value).expect("a JSON object");
    body.get(name).map(|raw| raw.get())
}

fn base64(bytes: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(bytes))
}

#[tokio::test]
async fn native_splices_every_payload_in_untouched() {
    for (sent, record) in publish("corpus_native", "native").await {
        match sent {
            Sent::Json(text) => assert_eq!(member(&record, "data"), Some(text.trim())),
            Sent::Bytes(bytes) => {
                assert_eq!(member(&record, "dataBase64"), Some(&*base64(&bytes)));
            }
            Sent::Nothing => assert_eq!(record.value, None),
        }
    }
}

#[tokio::test]
async fn structured_cloudevents_splice_every_payload_in_untouched() {
    for (sent, record) in publish("corpus_cloudevents", "cloudevents").await {
        match sent {
            Sent::Json(text) => assert_eq!(member(&record, "data"), Some(text.trim())),
            Sent::Bytes(bytes) => {
                assert_eq!(member(&record, "data_base64"), Some(&*base64(&bytes)));
            }
            Sent::Nothing => assert_eq!(member(&record, "data"), None),
        }
    }
}

#[tokio::test]
async fn binary_cloudevents_and_raw_publish_every_payload_as_it_is() {
    for (name, envelope) in [
        ("corpus_binary", "cloudevents_binary"),
        ("corpus_raw", "raw"),
    ] {
        for (sent, record) in publish(name, envelope).await {
            match sent {
                Sent::Json(text) => assert_eq!(record.value, Some(text.into_bytes())),
                Sent::Bytes(bytes) => assert_eq!(record.value, Some(bytes)),
                Sent::Nothing => assert_eq!(record.value, None),
            }
        }
    }
}
