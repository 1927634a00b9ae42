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
        other_columns: &[],
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

/// The texts of an event, each with its name in the native envelope and in CloudEvents.
type Fact = (&'static str, &'static str, Option<String>);

/// What says the fact in the message of this format, in its body or its headers.
fn said(format: &str, message: &Message, fact: &Fact) -> Option<String> {
    let (native, cloudevents, _) = fact;
    match format {
        "cloudevents_binary" => {
            let name = format!("ce_{cloudevents}");
            let found = headers(message)
                .into_iter()
                .find(|(header, _)| *header == name);
            found.map(|(_, text)| text.to_owned())
        }
        _ => {
            let body: Body =
                serde_json::from_slice(message.value().expect("a value")).expect("valid JSON");
            string(&body, [native, cloudevents])
        }
    }
}

proptest! {
    #[test]
    fn every_payload_arrives_as_it_is_and_every_text_round_trips(
        json in json(),
        text in any::<String>(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        facts in prop::array::uniform9(prop::option::of(any::<String>())),
        event_type in any::<String>(),
        micros in -300_000_000_000_000_000_i64..200_000_000_000_000_000,
    ) {
        let [aggregate_type, aggregate_id, version, correlation, causation, parent, state, key, tenant] =
            facts.each_ref().map(Option::as_deref);
        for payload in [Payload::Json(json.as_bytes()), Payload::Text(&text), Payload::Bytes(&bytes)] {
            let others = [tenant];
            let event = Event {
                aggregate_type: Some(aggregate_type.unwrap_or_default()),
                aggregate_id: Some(aggregate_id.unwrap_or_default()),
                event_type: Some(&event_type),
                event_version: Some(version.unwrap_or_default()),
                correlation_id: correlation,
                causation_id: causation,
                traceparent: parent,
                tracestate: state,
                partition_key: key,
                created_at: Some(CreatedAt::from_postgres_micros(micros)),
                other_columns: &others,
                ..plain(payload)
            };
            let kafka_key = key.or(event.aggregate_id);
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let facts: [Fact; 10] = [
                ("eventType", "type", Some(event_type.clone())),
                ("eventVersion", "eventversion", owned(event.event_version)),
                ("aggregateType", "aggregatetype", owned(event.aggregate_type)),
                ("aggregateId", "subject", owned(event.aggregate_id)),
                ("correlationId", "correlationid", owned(correlation)),
                ("causationId", "causationid", owned(causation)),
                ("traceparent", "traceparent", owned(parent)),
                ("tracestate", "tracestate", owned(state)),
                ("tenant", "tenant", owned(tenant)),
                ("", "partitionkey", owned(kafka_key)),
            ];
            for format in FORMATS {
                let envelope = ("outbox.default.envelope", format);
                let field = ("outbox.default.fields.tenant", "{tenant}");
                let options = if format == "raw" { &[envelope][..] } else { &[envelope, field][..] };
                let message = encode(options, &event);
                prop_assert_eq!(message.kafka_key(), kafka_key.map(str::as_bytes));
                let value = message.value().expect("a value");
                let sent = match payload {
                    Payload::Json(bytes) | Payload::Bytes(bytes) => bytes,
                    Payload::Text(text) => text.as_bytes(),
                    Payload::Tombstone => unreachable!(),
                };
                if matches!(format, "raw" | "cloudevents_binary") {
                    prop_assert_eq!(value, sent);
                } else {
                    let body: Body = serde_json::from_slice(value).expect("valid JSON");
                    match payload {
                        Payload::Json(_) => prop_assert_eq!(body["data"].get(), json.trim()),
                        Payload::Text(_) => prop_assert_eq!(string(&body, ["data", ""]), Some(text.clone())),
                        _ => {
                            let text = string(&body, ["data_base64", "dataBase64"]).expect("bytes");
                            prop_assert_eq!(STANDARD.decode(text).expect("base64"), sent);
                        }
                    }
                }
                if format == "raw" {
                    continue;
                }
                let time = said(format, &message, &("timestamp", "time", None)).expect("a time");
                let time: jiff::Timestamp = time.parse().expect("RFC 3339");
                prop_assert_eq!(time.as_microsecond(), event.created_at.map_or(0, CreatedAt::unix_micros));
                for fact in &facts {
                    let (native, name, expected) = fact;
                    // CloudEvents has no empty attributes but for the type, which is ours to require.
                    let expected = match format {
                        "native" if native.is_empty() => continue,
                        "native" => expected.clone(),
                        _ if *name == "type" => expected.clone(),
                        _ => expected.clone().filter(|text| !text.is_empty()),
                    };
                    prop_assert_eq!(said(format, &message, fact), expected, "{} of {}", name, format);
                }
            }
        }
    }
}

/// The key, and what orders the message.
fn keys(options: &[(&str, &str)], event: &Event<'_>) -> (Option<String>, Vec<u8>) {
    let message = encode(options, event);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (message.kafka_key().map(text), message.key().to_vec())
}

#[test]
fn a_key_is_what_the_template_makes_of_the_row_unless_the_row_has_its_own() {
    let others = [Some("t1"), None];
    let mut event = plain(Payload::Json(b"1"));
    event.other_columns = &others;
    let key = |text| [("outbox.default.key", text)];
    let of = |text, event: &Event<'_>| keys(&key(text), event).0;
    assert_eq!(of("{aggregate_id}", &event).as_deref(), Some("ord_1"));
    assert_eq!(
        of("{tenant}/{aggregate_type}", &event).as_deref(),
        Some("t1/order")
    );
    assert_eq!(of("all", &event).as_deref(), Some("all"));
    assert_eq!(of("{tenant}{region}", &event), None, "the region is null");
    event.partition_key = Some("own");
    for template in ["{aggregate_id}", "all", ""] {
        assert_eq!(of(template, &event).as_deref(), Some("own"));
    }
}

#[test]
fn rows_without_a_key_are_order_keys_of_their_own() {
    let one = plain(Payload::Json(b"1"));
    let mut other = one;
    other.reference.id = 2;
    let keyless = [("outbox.default.key", "")];
    let (key, order) = keys(&keyless, &one);
    assert_eq!(key, None);
    assert_ne!(order, keys(&keyless, &other).1);
    assert_eq!(keys(&[], &one).1, keys(&[], &other).1, "they have a key");
}

#[test]
fn raw_takes_blank_text_for_none_if_it_is_told_to() {
    let raw = ("outbox.default.envelope", "raw");
    let option = [raw, ("outbox.default.tombstone_on_empty", "true")];
    for blank in ["", " ", "\n\t\r\u{b}"] {
        let event = plain(Payload::Text(blank));
        assert_eq!(encode(&option, &event).value(), None, "{blank:?}");
        assert_eq!(encode(&[raw], &event).value(), Some(blank.as_bytes()));
    }
    for full in [
        Payload::Text(" . "),
        Payload::Json(b"\"\""),
        Payload::Bytes(b" "),
    ] {
        assert!(encode(&option, &plain(full)).value().is_some(), "{full:?}");
    }
}

#[test]
fn the_row_says_what_its_bytes_or_texts_are() {
    for (payload, default) in [
        (Payload::Bytes(b"\0"), "application/octet-stream"),
        (Payload::Text("a"), "text/plain"),
    ] {
        let mut event = plain(payload);
        for expected in [default, "application/avro"] {
            let binary = [("outbox.default.envelope", "cloudevents_binary")];
            let message = encode(&binary, &event);
            assert!(headers(&message).contains(&("content-type", expected)));
            let structured = encode(&[("outbox.default.envelope", "cloudevents")], &event);
            let said = format!("\"datacontenttype\":\"{expected}\"");
            assert!(text(&structured).contains(&said), "{}", text(&structured));
            event.content_type = Some("application/avro");
        }
    }
}
