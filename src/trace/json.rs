//! A trace for programs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Effect, Node, Trace};
use crate::db::outbox::traced::Fate;

/// Everything. Times are RFC 3339 in UTC.
pub fn report(trace: &Trace) -> Value {
    let span = trace.tree.span();
    json!({
        "correlationId": trace.correlation_id,
        "events": trace.tree.events,
        "effects": trace.tree.effects,
        "spanMillis": span.map(|(first, last)| millis(first, last)),
        "roots": trace.tree.roots.iter().map(|root| node(root, None)).collect::<Vec<_>>(),
        "notes": trace.notes,
    })
}

fn node(of: &Node, cause_us: Option<i64>) -> Value {
    let row = &of.step.row;
    let (state, reason) = match &row.fate {
        Fate::Pending => ("pending", None),
        Fate::Sent { .. } => ("sent", None),
        Fate::Parked { reason } => ("parked", Some(reason)),
        Fate::Discarded => ("discarded", None),
    };
    let effects = of.effects.iter().map(|done| effect(done, row.created_us));
    json!({
        "eventId": row.event_id,
        "eventType": row.event_type,
        "aggregateType": row.aggregate_type,
        "causationId": row.causation_id,
        "database": of.step.database,
        "outbox": of.step.outbox,
        "row": row.id,
        "createdAt": row.created_us.map(time),
        "afterCauseMillis": cause_us.zip(row.created_us).map(|(cause, at)| millis(cause, at)),
        "state": state,
        "reason": reason,
        "sentAt": of.step.sent_us().map(time),
        "effects": effects.collect::<Vec<_>>(),
        "caused": of.caused.iter().map(|caused| node(caused, row.created_us)).collect::<Vec<_>>(),
    })
}

fn effect(done: &Effect, created_us: Option<i64>) -> Value {
    let processed = &done.processed;
    json!({
        "consumer": processed.consumer,
        "database": done.database,
        "outcome": processed.outcome,
        "at": time(processed.at_us),
        "afterEventMillis": created_us.map(|created| millis(created, processed.at_us)),
    })
}

fn time(micros: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(micros).ok()?;
    Some(time.to_string())
}

fn millis(from_us: i64, to_us: i64) -> f64 {
    (to_us - from_us) as f64 / 1_000.0
}
