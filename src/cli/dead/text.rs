//! Notes and rows as text and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::db::dead_letters::Note;
use crate::db::outbox::inspect::Cell;

const GONE: &str =
    "\nThe row is gone: somebody deleted it, or its id belongs to another event now.\n";

/// What is in the table of a parked row.
pub enum Row {
    Stands(Vec<Cell>),
    Gone,
    /// Why Postgres cannot read it.
    Unreadable(String),
}

/// One line.
pub fn line(note: &Note) -> String {
    let mut line = format!(
        "{}  {}  {}  {}  {}  parked {}  {}: {}",
        note.event.id,
        plain(note.event_type.as_deref().unwrap_or("-")),
        plain(&note.topic),
        key(note),
        note.class,
        note.parked_at,
        attempts(note),
        plain(&note.reason),
    );
    if note.blocks_key {
        line.push_str("  (blocks its key)");
    }
    if let Some(verdict) = &note.verdict {
        let _ = write!(line, "  ({} decided)", verdict.decision);
    }
    line
}

/// What an application wrote, without what would steer somebody's terminal.
fn plain(text: &str) -> String {
    let is_safe = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(is_safe).collect()
}

fn attempts(note: &Note) -> String {
    match note.attempts {
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    }
}

fn key(note: &Note) -> String {
    match &note.key {
        Some(key) => format!("{:?}", String::from_utf8_lossy(key)),
        None => "-".to_owned(),
    }
}

/// Everything about a row, and the row itself if it is still there.
pub fn page(note: &Note, row: &Row) -> String {
    let event_id = note.event.event_id.to_string();
    let mut lines = vec![
        ("id", note.event.id.to_string()),
        ("event id", event_id),
        (
            "event type",
            note.event_type
                .as_deref()
                .unwrap_or("-")
                .escape_debug()
                .to_string(),
        ),
        ("topic", plain(&note.topic)),
        ("key", key(note)),
        ("class", note.class.clone()),
        ("reason", plain(&note.reason)),
        ("attempts", note.attempts.to_string()),
        ("first failed", note.first_failed_at.clone()),
        ("parked", note.parked_at.clone()),
        (
            "blocks its key",
            if note.blocks_key { "yes" } else { "no" }.to_owned(),
        ),
    ];
    if let Some(copied_at) = &note.copied_at {
        lines.push(("copied", copied_at.clone()));
    }
    if let Some(verdict) = &note.verdict {
        let why = verdict.why.as_deref().unwrap_or("no reason given");
        lines.push((
            "decided",
            format!(
                "{} by {} at {}: {why}",
                verdict.decision, verdict.by, verdict.at
            ),
        ));
    }
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<15} {value}");
    }
    match row {
        Row::Gone => text.push_str(GONE),
        Row::Unreadable(said) => {
            let _ = writeln!(text, "\nPostgres cannot read the row: {}", plain(said));
        }
        Row::Stands(cells) => {
            text.push_str("\nThe row in its table:\n");
            for cell in cells {
                let _ = writeln!(text, "{:<15} {}", cell.column, value(cell));
            }
        }
    }
    text
}

fn value(cell: &Cell) -> String {
    match &cell.value {
        None => "null".to_owned(),
        Some(value) if value.is_whole => plain(&value.shown),
        Some(value) => format!(
            "{}… ({} bytes in all: --payload)",
            plain(&value.shown),
            value.bytes
        ),
    }
}

/// The note.
pub fn json(note: &Note) -> Value {
    let verdict = note.verdict.as_ref();
    json!({
        "id": note.event.id,
        "eventId": note.event.event_id.to_string(),
        "eventType": note.event_type,
        "topic": note.topic,
        "key": note.key.as_deref().map(String::from_utf8_lossy),
        "class": note.class,
        "reason": note.reason,
        "attempts": note.attempts,
        "firstFailedAt": note.first_failed_at,
        "parkedAt": note.parked_at,
        "copiedAt": note.copied_at,
        "blocksKey": note.blocks_key,
        "decision": verdict.map(|verdict| json!({
            "decision": verdict.decision,
            "at": verdict.at,
            "by": verdict.by,
            "why": verdict.why,
        })),
    })
}

/// The note, and under `row` each column's value as Postgres writes it; null if the row is gone, or cannot be read
/// for what `unreadable` says. Under `shortened` the length in bytes of what is not there as a whole.
pub fn json_with_row(note: &Note, row: &Row) -> Value {
    let mut shown = json(note);
    let mut shortened = Map::new();
    let (cells, unreadable) = match row {
        Row::Stands(cells) => (Some(cells), None),
        Row::Gone => (None, None),
        Row::Unreadable(said) => (None, Some(said)),
    };
    shown["unreadable"] = unreadable.map_or(Value::Null, |said| said.as_str().into());
    shown["row"] = cells.map_or(Value::Null, |cells| {
        let columns = cells.iter().map(|cell| {
            let value = cell.value.as_ref().map(|value| {
                if !value.is_whole {
                    shortened.insert(cell.column.clone(), value.bytes.into());
                }
                value.shown.clone()
            });
            (cell.column.clone(), value.map_or(Value::Null, Value::from))
        });
        columns.collect::<Map<_, _>>().into()
    });
    shown["shortened"] = shortened.into();
    shown
}
