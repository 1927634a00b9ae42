//! A message for people, and for programs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Facts;
use crate::inbox::consumer::Record;
use crate::inbox::consumer::decode::Payload;
use crate::terminal::plain;

/// One line; the payload, if it is asked for, is a second one.
pub fn line(record: &Record, facts: &Facts, with_payload: bool) -> String {
    let time = time(record).map(|time| time.strftime("%H:%M:%S%.3f").to_string());
    let key = record
        .key
        .as_deref()
        .map(|key| format!("key {:?}", String::from_utf8_lossy(key)));
    let correlation = facts
        .correlation_id
        .as_ref()
        .map(|id| format!("correlation {id}"));
    let replay = facts.is_replay.then(|| "(replay)".to_owned());
    let parts = [
        Some(time.unwrap_or_else(|| "-".to_owned())),
        Some(record.place().to_string()),
        Some(facts.event_type.clone().unwrap_or_else(|| "-".to_owned())),
        Some(facts.event_id.clone().unwrap_or_else(|| "-".to_owned())),
        key,
        correlation,
        replay,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let line = plain(&parts.join("  "));
    match with_payload {
        true => format!("{line}\n    {}", plain(&payload_text(record, facts))),
        false => line,
    }
}

fn payload_text(record: &Record, facts: &Facts) -> String {
    match payload(record, facts) {
        Shown::Json(json) => json.get().to_owned(),
        Shown::Text(text) => text,
        Shown::Bytes(bytes) => format!("base64:{}", STANDARD.encode(bytes)),
        Shown::Tombstone => "(tombstone)".to_owned(),
    }
}

/// One object. A payload that is no JSON comes as text, or else under `payloadBase64`.
pub fn json(record: &Record, facts: &Facts, with_payload: bool) -> Value {
    let mut shown = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at": time(record).map(|time| time.to_string()),
        "key": record.key.as_deref().map(String::from_utf8_lossy),
        "eventId": facts.event_id,
        "eventType": facts.event_type,
        "correlationId": facts.correlation_id,
        "causationId": facts.causation_id,
        "isReplay": facts.is_replay,
        "valueBytes": record.value.as_ref().map(|value| value.len()),
    });
    if with_payload {
        let (name, value) = match payload(record, facts) {
            Shown::Json(json) => {
                // What a Value cannot hold, such as a lone surrogate, is text.
                let parsed = serde_json::from_str(json.get());
                (
                    "payload",
                    parsed.unwrap_or_else(|_| Value::from(json.get())),
                )
            }
            Shown::Text(text) => ("payload", Value::from(text)),
            Shown::Bytes(bytes) => ("payloadBase64", Value::from(STANDARD.encode(bytes))),
            Shown::Tombstone => ("payload", Value::Null),
        };
        shown[name] = value;
    }
    shown
}

enum Shown<'r> {
    Json(&'r RawValue),
    Text(String),
    Bytes(&'r [u8]),
    Tombstone,
}

fn payload<'r>(record: &'r Record, facts: &'r Facts) -> Shown<'r> {
    let bytes = match &facts.payload {
        Some(Payload::Json(json)) => return Shown::Json(json),
        Some(Payload::Tombstone) => return Shown::Tombstone,
        Some(Payload::Bytes(bytes)) => bytes.as_slice(),
        None => match &record.value {
            None => return Shown::Tombstone,
            Some(value) => value,
        },
    };
    if let Ok(json) = serde_json::from_slice::<&RawValue>(bytes) {
        return Shown::Json(json);
    }
    match str::from_utf8(bytes) {
        Ok(text) => Shown::Text(text.to_owned()),
        Err(_) => Shown::Bytes(bytes),
    }
}

fn time(record: &Record) -> Option<Timestamp> {
    Timestamp::from_millisecond(record.timestamp_ms?).ok()
}
