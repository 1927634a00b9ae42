//! Every payload through every envelope, byte for byte as a consumer sees it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use cloudevents::event::{AttributesReader, Data};
use cloudevents::message::{
    BinaryDeserializer, BinarySerializer, Encoding, MessageAttributeValue, MessageDeserializer,
    StructuredDeserializer, StructuredSerializer,
};
use uuid::Uuid;

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

/// What every row of the corpus has besides its payload.
const INSERT: &str = "insert into outbox_events (event_id, aggregate_type, aggregate_id, event_type, event_version, \
     payload, payload_bytes, correlation_id, causation_id, traceparent, tracestate, created_at) \
     values ($1, 'order', $2, 'order.placed', '2.0', $3::text::json, $4, 'c-1 żółć', 'k-1', \
     '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'vendor=1', '2026-01-02T03:04:05.678901Z')";

/// The attributes and extensions that its CloudEvents must have, by their names.
fn attributes(number: usize, sent: &Sent) -> BTreeMap<&'static str, String> {
    let key = KEYS[number % KEYS.len()];
    let content_type = match sent {
        Sent::Json(_) => "application/json",
        Sent::Bytes(_) => "application/octet-stream",
        Sent::Nothing => "",
    };
    let all = [
        ("specversion", "1.0"),
        ("id", &event_id(number).to_string()),
        ("source", "outboxd"),
        ("type", "order.placed"),
        ("time", "2026-01-02T03:04:05.678901Z"),
        ("datacontenttype", content_type),
        ("subject", key),
        ("partitionkey", key),
        ("aggregatetype", "order"),
        ("eventversion", "2.0"),
        ("correlationid", "c-1 żółć"),
        ("causationid", "k-1"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=1"),
    ];
    // CloudEvents has no empty attributes.
    let present = all.into_iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

fn event_id(number: usize) -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + number as u128)
}

/// The event's id, wherever the format has it.
fn id_of(record: &Record) -> Uuid {
    let names = ["event-id", "ce_id", "id"];
    let in_header = names.iter().find_map(|name| record.header(name));
    let in_body = || member(record, "id").map(|id| id.trim_matches('"'));
    let id = in_header.or_else(in_body).expect("an id");
    id.parse().expect("a UUID")
}

/// One row of the corpus and what became of it.
pub struct Published {
    pub sent: Sent,
    pub record: Record,
    /// Of its CloudEvent.
    pub attributes: BTreeMap<&'static str, String>,
}

/// A row's payload.
pub enum Sent {
    Json(String),
    Bytes(Vec<u8>),
    Nothing,
}

/// Relays the whole corpus.
pub async fn publish(name: &'static str, envelope: &str) -> Vec<Published> {
    let mut fixture = Fixture::new(name).await;
    fixture.relay.set("outbox.default.envelope", envelope);
    // The rows are older than the topic keeps its records.
    fixture.relay.set("outbox.default.timestamp", "none");
    let texts = JSON.iter().map(|&text| Sent::Json(text.to_owned()));
    let mut payloads: Vec<Sent> = texts.collect();
    payloads.push(Sent::Json(format!(
        "{{\"large\":\"{}\"}}",
        "x".repeat(900_000)
    )));
    payloads.push(Sent::Bytes((0..=255).collect()));
    payloads.push(Sent::Bytes(Vec::new()));
    payloads.push(Sent::Nothing);
    for (number, payload) in payloads.iter().enumerate() {
        let (json, bytes) = match payload {
            Sent::Json(text) => (Some(text), None),
            Sent::Bytes(bytes) => (None, Some(bytes)),
            Sent::Nothing => (None, None),
        };
        sqlx::query(INSERT)
            .bind(event_id(number))
            .bind(KEYS[number % KEYS.len()])
            .bind(json)
            .bind(bytes)
            .execute(&mut fixture.database)
            .await
            .expect("inserting a payload");
    }
    fixture.relay.start();
    let mut records = fixture.take(payloads.len()).await;
    fixture.settled().await;
    // Rows of different keys come in any order.
    records.sort_by_key(id_of);
    let rows = payloads.into_iter().zip(records).enumerate();
    rows.map(|(number, (sent, record))| {
        assert_eq!(id_of(&record), event_id(number));
        assert_eq!(record.key.as_deref(), Some(KEYS[number % KEYS.len()]));
        Published {
            attributes: attributes(number, &sent),
            sent,
            record,
        }
    })
    .collect()
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
    for Published { sent, record, .. } in publish("corpus_native", "native").await {
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
    for Published { sent, record, .. } in publish("corpus_cloudevents", "cloudevents").await {
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
        for Published { sent, record, .. } in publish(name, envelope).await {
            match sent {
                Sent::Json(text) => assert_eq!(record.value, Some(text.into_bytes())),
                Sent::Bytes(bytes) => assert_eq!(record.value, Some(bytes)),
                Sent::Nothing => assert_eq!(record.value, None),
            }
        }
    }
}

#[tokio::test]
async fn the_official_sdk_reads_cloudevents_back_with_all_attributes_and_data() {
    for (name, envelope) in [
        ("sdk_structured", "cloudevents"),
        ("sdk_binary", "cloudevents_binary"),
    ] {
        let mut read = 0;
        for row in publish(name, envelope).await {
            // A tombstone is no event.
            if row.record.value.is_none() {
                continue;
            }
            let event = MessageDeserializer::into_event(&row.record);
            // What its parser refuses by itself is compared as bytes, above.
            if let Sent::Json(text) = &row.sent
                && serde_json::from_str::<serde_json::Value>(text).is_err()
                && event.is_err()
            {
                continue;
            }
            let event = event.unwrap_or_else(|error| panic!("{:?}: {error}", row.record));
            assert_eq!(attributes_of(&event), row.attributes);
            match (row.sent, event.data()) {
                (Sent::Json(text), Some(Data::Json(data))) => {
                    assert_eq!(
                        *data,
                        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
                    );
                }
                (Sent::Json(text), Some(Data::Binary(data))) => assert_eq!(data, text.as_bytes()),
                (Sent::Bytes(bytes), Some(Data::Binary(data))) => assert_eq!(*data, bytes),
                (Sent::Nothing, None) => {}
                (_, data) => panic!("other data: {data:?}"),
            }
            read += 1;
        }
        // All but the tombstone, and the two texts that its parser of JSON refuses.
        let all = JSON.len() + 4;
        let expected = [all - 2, all - 1][usize::from(envelope == "cloudevents_binary")];
        assert_eq!(read, expected, "{envelope}");
    }
}

fn attributes_of(event: &cloudevents::Event) -> BTreeMap<&str, String> {
    // The SDK writes an instant as chrono does.
    let time = event.time().expect("a time");
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let attributes = event.iter().map(|(name, value)| (name, value.to_string()));
    let mut attributes: BTreeMap<&str, String> = attributes.collect();
    attributes.insert("time", time);
    attributes
}

/// What the SDK's own binding does for the messages of a rdkafka that we do not use.
impl MessageDeserializer for &Record {
    fn encoding(&self) -> Encoding {
        match self.header("content-type") {
            Some(text) if text.starts_with("application/cloudevents+json") => Encoding::STRUCTURED,
            _ if self.header("ce_specversion").is_some() => Encoding::BINARY,
            _ => Encoding::UNKNOWN,
        }
    }
}

impl StructuredDeserializer for &Record {
    fn deserialize_structured<R: Sized, V: StructuredSerializer<R>>(
        self,
        visitor: V,
    ) -> cloudevents::message::Result<R> {
        visitor.set_structured_event(self.value.clone().unwrap_or_default())
    }
}

impl BinaryDeserializer for &Record {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(
        self,
        mut visitor: V,
    ) -> cloudevents::message::Result<R> {
        let version = self.header("ce_specversion").unwrap_or_default();
        let version = cloudevents::event::SpecVersion::try_from(version)?;
        let attributes = version.attribute_names();
        visitor = visitor.set_spec_version(version)?;
        for (header, value) in &self.headers {
            let value = MessageAttributeValue::String(value.clone());
            visitor = match (header.as_str(), header.strip_prefix("ce_")) {
                ("ce_specversion", _) => visitor,
                ("content-type", _) => visitor.set_attribute("datacontenttype", value)?,
                (_, Some(name)) if attributes.contains(&name) => {
                    visitor.set_attribute(name, value)?
                }
                (_, Some(name)) => visitor.set_extension(name, value)?,
                (_, None) => visitor,
            };
        }
        match &self.value {
            Some(value) => visitor.end_with_data(value.clone()),
            None => visitor.end(),
        }
    }
}
