//! The decoders against what encoders write: outboxd's own, and the fixtures that the official SDKs for
//! Python and Node made (`tests/fixtures/cloudevents`).

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

fn record(headers: &[(&str, &str)], value: Option<&[u8]>) -> Record {
    let headers = headers.iter();
    Record {
        topic: "orders".into(),
        partition: 0,
        offset: 7,
        timestamp_ms: Some(1_767_323_045_678),
        key: Some(b"ord_1".as_slice().into()),
        value: value.map(Into::into),
        headers: headers
            .map(|(name, value)| ((*name).into(), value.as_bytes().into()))
            .collect(),
    }
}

fn fixture(name: &str) -> Record {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/cloudevents");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).expect("the fixture");
    let fixture: Value = serde_json::from_str(&text).expect("JSON");
    let headers = fixture["headers"].as_object().expect("headers").iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
        .collect();
    let value = match fixture["value"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => STANDARD
            .decode(fixture["valueBase64"].as_str().expect("a value"))
            .expect("Base64"),
    };
    record(&headers, Some(&value))
}

fn decoded(record: &Record) -> Decoded {
    decode(&known(), record).expect("an event")
}

fn refused(record: &Record) -> String {
    decode(&known(), record).expect_err("no event").to_string()
}

fn micros_2026(micros: u64) -> SystemTime {
    // 2026-01-02T03:04:05Z
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045) + Duration::from_micros(micros)
}

#[test]
fn cloud_events_of_the_official_sdks_are_read_in_both_modes() {
    for (name, micros) in [
        ("python-binary-json", 678_901),
        ("python-structured-json", 678_901),
        ("node-binary-json", 678_000),
        ("node-structured-json", 678_000),
    ] {
        let event = decoded(&fixture(name));

        assert_eq!(event.id.as_str(), "/shop/orders#A-234-1234", "{name}");
        assert_eq!(event.event_type, "order.placed", "{name}");
        assert_eq!(event.event_version, "1", "{name}");
        assert_eq!(event.created_at, Some(micros_2026(micros)), "{name}");
        assert_eq!(event.source.as_deref(), Some("/shop/orders"), "{name}");
        assert_eq!(event.aggregate_id.as_deref(), Some("ord_1"), "{name}");
        assert_eq!(event.correlation_id.as_deref(), Some("c-1"), "{name}");
        assert_eq!(event.causation_id.as_deref(), Some("k-1"), "{name}");
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(event.traceparent.as_deref(), Some(traceparent), "{name}");
        let Payload::Json(data) = event.payload else {
            panic!("{name}: not JSON");
        };
        let data: Value = serde_json::from_str(data.get()).expect("JSON");
        assert_eq!(data["customer"], "Zoë", "{name}");
        assert_eq!(data["totalCents"], 4995, "{name}");
    }
}

#[test]
fn bytes_of_the_official_sdks_arrive_as_they_were() {
    for name in [
        "python-binary-bytes",
        "python-structured-bytes",
        "node-binary-bytes",
        "node-structured-bytes",
    ] {
        let event = decoded(&fixture(name));
        assert_eq!(event.event_type, "order.pictured", "{name}");
        let Payload::Bytes(bytes) = event.payload else {
            panic!("{name}: not bytes");
        };
        assert_eq!(bytes, [0, 255, 137, 80], "{name}");
    }
}

#[test]
fn a_uuid_identifies_a_cloud_event_by_itself() {
    let event = decoded(&fixture("python-binary-uuid"));
    assert_eq!(event.id.as_str(), "019b7e5a-7c2e-7b6a-8d5e-3f1c2b4a5d6e");
}

const NATIVE: &str = r#"{"envelopeVersion":1,"eventId":"019B7E5A-7C2E-7B6A-8D5E-3F1C2B4A5D6E","eventType":"order.placed","eventVersion":"2.0","timestamp":"2026-01-02T03:04:05.678901Z","source":"shop","correlationId":"c-1","aggregateType":"order","aggregateId":"ord_1","data":{ "n" : 1.50 }}"#;

#[test]
fn the_native_envelope_is_read_from_its_body_with_or_without_headers() {
    for headers in [&[("envelope-version", "1")][..], &[]] {
        let event = decoded(&record(headers, Some(NATIVE.as_bytes())));
        assert_eq!(event.id.as_str(), "019b7e5a-7c2e-7b6a-8d5e-3f1c2b4a5d6e");
        assert_eq!(event.event_version, "2.0");
        assert_eq!(event.created_at, Some(micros_2026(678_901)));
        assert_eq!(event.correlation_id.as_deref(), Some("c-1"));
        let Payload::Json(data) = event.payload else {
            panic!("not JSON");
        };
        assert_eq!(data.get(), r#"{ "n" : 1.50 }"#, "byte for byte");
    }
}

#[test]
fn a_json_null_is_data_and_a_missing_value_is_a_tombstone() {
    let null = NATIVE.replace(r#"{ "n" : 1.50 }"#, "null");
    let event = decoded(&record(&[], Some(null.as_bytes())));
    assert!(matches!(event.payload, Payload::Json(data) if data.get() == "null"));

    let headers = [
        ("envelope-version", "1"),
        ("event-id", "019b7e5a-7c2e-7b6a-8d5e-3f1c2b4a5d6e"),
        ("event-type", "order.forgotten"),
        ("event-version", "1"),
    ];
    let event = decoded(&record(&headers, None));
    assert!(matches!(event.payload, Payload::Tombstone));
    assert_eq!(event.created_at, Some(micros_2026(678_000)));
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason_that_shows_no_payload() {
    let native = |text: &str| record(&[("envelope-version", "1")], Some(text.as_bytes()));
    let secret = NATIVE.replace(r#""order.placed""#, r#"{"secret":1}"#);
    let structured = [("content-type", "application/cloudevents+json")];
    let cases = [
        (record(&[], Some(b"hello")), "no decoder knows"),
        (record(&[], None), "no decoder knows"),
        (native("{\"envelopeVersion\":1"), "not valid JSON"),
        (native(&secret), "does not have the format's fields"),
        (
            native(&NATIVE.replace("Version\":1", "Version\":9")),
            "must be 1, is 9",
        ),
        (
            native(&NATIVE.replace("\"data\":", "\"other\":")),
            "either data or dataBase64",
        ),
        (record(&structured, Some(b"{\"id\":\"1\"}")), "specversion"),
        (
            record(&[("ce_specversion", "0.3"), ("ce_id", "1")], None),
            "must be 1.0",
        ),
        (
            record(&[("ce_specversion", "1.0"), ("ce_source", "/s")], None),
            "id is missing",
        ),
    ];
    for (record, expected) in cases {
        let reason = refused(&record);
        assert!(reason.contains(expected), "{reason:?}, not {expected:?}");
        assert!(!reason.contains("secret"), "{reason:?}");
    }
}
