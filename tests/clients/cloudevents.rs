//! The official CloudEvents SDK for Python, on what the relay publishes.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::language::prepared;
use crate::envelopes::{Published, Sent, publish};

#[tokio::test]
#[ignore = "tests/clients/run runs it"]
async fn the_sdk_for_python_reads_cloudevents_back_with_all_attributes_and_data() {
    for (name, envelope) in [
        ("python_structured", "cloudevents"),
        ("python_binary", "cloudevents_binary"),
    ] {
        let rows = publish(name, envelope).await;
        // A tombstone is no event.
        let events = rows.iter().filter_map(line);
        let events: Vec<Value> = events.collect();

        let read = read(&events);

        assert_eq!(read, events.len().to_string(), "{envelope}");
    }
}

/// What the script takes.
fn line(row: &Published) -> Option<Value> {
    let headers = row.record.headers.iter();
    let headers = headers.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let mut line = json!({
        "headers": Value::Object(headers.collect()),
        "valueBase64": STANDARD.encode(row.record.value.as_deref()?),
        "attributes": row.attributes,
    });
    match &row.sent {
        Sent::Json(text) => line["json"] = Value::from(text.as_str()),
        Sent::Bytes(bytes) => line["bytesBase64"] = Value::from(STANDARD.encode(bytes)),
        Sent::Nothing => {}
    }
    Some(line)
}

/// What the script printed.
fn read(events: &[Value]) -> String {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/clients/cloudevents/read.py"
    );
    let mut reader = Command::new(prepared("cloudevents/bin/python"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting Python");
    let mut input = reader.stdin.take().expect("its input");
    for event in events {
        // It ends early if an event is not what was sent, and has said so.
        if writeln!(input, "{event}").is_err() {
            break;
        }
    }
    drop(input);
    let output = reader.wait_with_output().expect("waiting for Python");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
