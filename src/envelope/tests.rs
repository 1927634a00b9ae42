//! Any row becomes what its format promises, whatever text and bytes it holds.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Encoder, Envelope, Message};
use crate::config::{Config, Sources};
use crate::event::{CreatedAt, Event, EventId, EventRef, Payload};

const FORMATS: [&str; 4] = ["native", "cloudevents", "cloudevents_binary", "raw"];

fn envelope(options: &[(&str, &str)]) -> Envelope {
    let needed = [
        ("postgres.url", "postgres://localhost/shop"),
        ("kafka.bootstrap_servers", "localhost:9092"),
    ];
    let overrides = needed.iter().chain(options);
    let sources = Sources {
        file: None,
        environment: std::iter::empty(),
        overrides: overrides
            .map(|(option, value)| ((*option).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let config = Config::load(sources).expect("a valid configuration");
    Envelope::new(&config.outboxes["default"])
}

const ID: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

/// A row without optional facts.
fn plain<'r>(payload: Payload<'r>) -> Event<'r> {
    Event {
        reference: EventRef {
            id: 1,
            event_id: ID,
        },
        event_id: EventId::Uuid(ID),
        aggregate_type: Some("order"),
        aggregate_id: Some("ord_1"),
        event_type: Some("order.placed"),
        event_version: Some("1"),
        payload,
        content_type: None,
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        tracestate: None,
        headers: None,
        topic: None,
        partition_key: None,
        created_at: Some(CreatedAt::from_postgres_micros(0)),
        unsendable: None,
    }
}

fn encode(options: &[(&str, &str)], event: &Event<'_>) -> Message {
    let encoded = Encoder::default().encode(&envelope(options), event);
    encoded.expect("a message")
}

fn headers(message: &Message) -> Vec<(&str, &str)> {
    let text = |value| std::str::from_utf8(value).expect("UTF-8");
    message
        .headers()
        .map(|(name, value)| (name, text(value)))
        .collect()
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(message.value().expect("a value")).expect("UTF-8")
}

#[test]
fn structured_cloudevents_are_one_json_object() {
    let mut event = plain(Payload::Json(br#"{ "a":1.50 }"#));
    event.correlation_id = Some("c-1");
    event.partition_key = Some("other");
    let options = [("outbox.default.envelope", "cloudevents")];
    let message = encode(&options, &event);
    let expected = concat!(
        r#"{"specversion":"1.0","id":"01920000-0000-7000-8000-000000000001","source":"outboxd","#,
        r#""type":"order.placed","time":"2000-01-01T00:00:00Z","subject":"ord_1","aggregatetype":"order","#,
        r#""eventversion":"1","partitionkey":"other","correlationid":"c-1","#,
        r#""datacontenttype":"application/json","data":{ "a":1.50 }}"#,
    );
    assert_eq!(text(&message), expected);
    let content_type = "application/cloudevents+json; charset=UTF-8";
    assert_eq!(headers(&message), [("content-type", content_type)]);
    let empty = encode(&options, &plain(Payload::Tombstone));
    assert!(text(&empty).ends_with(r#""partitionkey":"ord_1"}"#));
}

#[test]
fn binary_cloudevents_are_the_payload_with_headers() {
    let mut event = plain(Payload::Bytes(&[0, 255, 16]));
    event.headers = Some(r#"{"tenant":"t1"}"#);
    let options = [
        ("outbox.default.envelope", "cloudevents_binary"),
        ("outbox.default.bytes_content_type", "application/avro"),
    ];
    let message = encode(&options, &event);
    assert_eq!(message.value(), Some(&[0, 255, 16][..]));
    assert_eq!(
        headers(&message),
        [
            ("ce_specversion", "1.0"),
            ("ce_id", "01920000-0000-7000-8000-000000000001"),
            ("ce_source", "outboxd"),
            ("ce_type", "order.placed"),
            ("ce_time", "2000-01-01T00:00:00Z"),
            ("ce_subject", "ord_1"),
            ("ce_aggregatetype", "order"),
            ("ce_eventversion", "1"),
            ("ce_partitionkey", "ord_1"),
            ("content-type", "application/avro"),
            ("tenant", "t1"),
        ]
    );
    assert_eq!(encode(&options, &plain(Payload::Tombstone)).value(), None);
}

#[test]
fn raw_is_the_payload_with_the_configured_headers() {
    let event = plain(Payload::Json(b"[1 ,2]"));
    let raw = ("outbox.default.envelope", "raw");
    let message = encode(&[raw], &event);
    assert_eq!(text(&message), "[1 ,2]");
    let id = ("id", "01920000-0000-7000-8000-000000000001");
    assert_eq!(headers(&message), [id]);
    let chosen = [
        raw,
        ("outbox.default.headers.eventType", "{event_type}"),
        ("outbox.default.headers.via", "outboxd/{aggregate_type}"),
        ("outbox.default.headers.at", "{created_at}"),
        ("outbox.default.headers.correlation", "c={correlation_id}"),
    ];
    let message = encode(&chosen, &event);
    let expected = [
        ("at", "2000-01-01T00:00:00Z"),
        ("eventType", "order.placed"),
        ("via", "outboxd/order"),
    ];
    assert_eq!(headers(&message), expected, "what is null is left out");
    assert_eq!(encode(&[raw], &plain(Payload::Tombstone)).value(), None);
}

type Body<'b> = BTreeMap<String, &'b RawValue>;

/// The string under the first of these names.
fn string(body: &Body, names: [&str; 2]) -> Option<String> {
    let found = names.into_iter().find_map(|name| body.get(name));
    found.map(|raw| serde_json::from_str(raw.get()).expect("a string"))
}

/// JSON texts as Postgres's `json` accepts them, spaces and all.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1e400".to_owned()),
        Just("12345678901234567890".to_owned()),
        Just(r#""\u0000\ud800""#.to_owned()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let fields = prop::collection::vec((any::<String>(), inner), 0..4);
        prop_oneof![
            list.prop_map(|items| format!("[ {}]", items.join(" ,\n"))),
            fields.prop_map(|fields| {
                let fields: Vec<_> = fields
                    .into_iter()
                    .map(|(name, value)| format!("{} :{value}", serde_json::Value::from(name)))
                    .collect();
                format!("{{\t{}}}", fields.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_payload_arrives_as_it_is_and_every_text_round_trips(
        json in json(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        event_type in any::<String>(),
        key in any::<String>(),
        correlation in prop::option::of("[^\u{0}]+"),
    ) {
        for payload in [Payload::Json(json.as_bytes()), Payload::Bytes(&bytes)] {
            let mut event = plain(payload);
            event.event_type = Some(&event_type);
            event.aggregate_id = Some(&key);
            event.correlation_id = correlation.as_deref();
            for format in FORMATS {
                let message = encode(&[("outbox.default.envelope", format)], &event);
                prop_assert_eq!(message.key(), key.as_bytes());
                let value = message.value().expect("a value");
                let (Payload::Json(sent) | Payload::Bytes(sent)) = payload else { unreachable!() };
                if matches!(format, "raw" | "cloudevents_binary") {
                    prop_assert_eq!(value, sent);
                    continue;
                }
                let body: Body = serde_json::from_slice(value).expect("valid JSON");
                prop_assert_eq!(string(&body, ["type", "eventType"]), Some(event_type.clone()));
                prop_assert_eq!(&string(&body, ["correlationid", "correlationId"]), &correlation);
                let subject = string(&body, ["subject", "aggregateId"]);
                prop_assert_eq!(subject.unwrap_or_default(), key.as_str());
                match payload {
                    Payload::Json(_) => prop_assert_eq!(body["data"].get(), json.trim()),
                    _ => {
                        let text = string(&body, ["data_base64", "dataBase64"]).expect("bytes");
                        prop_assert_eq!(STANDARD.decode(text).expect("base64"), sent);
                    }
                }
            }
        }
    }
}
