//! `outboxd replay`: what was sent goes out again, the same bytes, when somebody asks for it.

mod choice;
mod sending;

use std::process::Output;

use serde_json::Value;

use crate::support::command::succeeds;
use crate::support::fixture::{Fixture, Record};

const REPLAY: &str = "outboxd-replay";

fn run(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = fixture.relay.command(&[&["replay"], arguments].concat());
    command.output().expect("running outboxd")
}

/// What a dry run says.
fn dry(fixture: &Fixture, arguments: &[&str]) -> Value {
    let output = run(fixture, &[arguments, &["--dry-run", "--json"]].concat());
    let text = succeeds(&output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Relays what is there to the end.
async fn relay(fixture: &mut Fixture) {
    fixture.relay.start_with(&["--until-empty"]);
    let ended = fixture.relay.wait(crate::support::fixture::PATIENCE).await;
    assert_eq!(ended, Some(0));
}

/// The same record as a replay sends it.
fn replayed(record: &Record) -> Record {
    let mut record = record.clone();
    record.headers.push((REPLAY.to_owned(), "1".to_owned()));
    record
}
