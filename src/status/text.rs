//! A report as text.

use std::fmt::Write;

use super::report::{OutboxReport, Report, SaidBy, Service, ServiceWord, Who};
use super::words::{duration, since};
use crate::terminal::{counted, grouped, plain};

/// Everything, what is stuck first.
pub fn page(report: &Report) -> String {
    let mut text = header(report);
    text.push('\n');
    match report.stuck.is_empty() {
        true => text.push_str("\nnothing is stuck\n"),
        false => text.push_str("\nstuck:\n"),
    }
    for line in stuck_lines(report) {
        let _ = writeln!(text, "  {line}");
    }
    for outbox in &report.outboxes {
        let _ = writeln!(text, "\noutbox \"{}\", {}", outbox.name, outbox.table);
        for (name, value) in facts(outbox, &report.at) {
            let _ = writeln!(text, "  {name:<11} {}", plain(&value));
        }
    }
    text
}

/// Who says it, and how the services are.
pub fn header(report: &Report) -> String {
    let who = match (&report.relay, report.said_by) {
        (Some(relay), _) => format!(
            "relay {}, outboxd {}, up {}",
            relay.id,
            relay.version,
            duration(relay.up_seconds as f64)
        ),
        (None, SaidBy::Postgres) => "no relay answers, this is what postgres knows".to_owned(),
        (None, SaidBy::Relay) => "a relay".to_owned(),
    };
    format!("{who}; {}", services(report))
}

/// Whether they answer.
pub fn services(report: &Report) -> String {
    let (postgres, kafka) = (&report.services.postgres, &report.services.kafka);
    format!("postgres {}, kafka {}", word(postgres), word(kafka))
}

fn word(service: &Service) -> &'static str {
    match service.state {
        ServiceWord::Up => "up",
        ServiceWord::Down => "DOWN",
        ServiceWord::Unknown => "not asked",
    }
}

/// One line each.
pub fn stuck_lines(report: &Report) -> impl Iterator<Item = String> {
    report.stuck.iter().map(|stuck| match &stuck.outbox {
        Some(outbox) => format!("{outbox}: {}", plain(&stuck.what)),
        None => plain(&stuck.what),
    })
}

fn facts(outbox: &OutboxReport, now: &str) -> Vec<(&'static str, String)> {
    let mut facts = vec![("owner", owner(outbox))];
    if let Some(health) = &outbox.health {
        facts.push(("health", health.text.clone()));
    }
    if let (Some(rate), Some(published)) = (outbox.per_second, outbox.published) {
        let published = grouped(published);
        facts.push(("published", format!("{rate:.1}/s, {published} in all")));
    }
    facts.push(("pending", pending(outbox)));
    if let Some(late) = outbox.late_rows {
        facts.push(("late", counted(late, "row")));
    }
    if let Some(window) = outbox.window {
        let (rows, in_flight) = (grouped(window.rows as u64), window.in_flight);
        let unmarked = window.unmarked;
        facts.push((
            "window",
            format!("{rows} rows, {in_flight} in flight, {unmarked} unmarked"),
        ));
    }
    let outside = outbox.held.rows.filter(|rows| *rows > 0);
    let outside = outside.map(|rows| format!("; {} outside of the window", counted(rows, "row")));
    facts.push(("held", held(outbox) + &outside.unwrap_or_default()));
    if let Some(rows) = outbox.parked.rows {
        facts.push(("parked", counted(rows.unsigned_abs(), "row")));
    }
    for pause in &outbox.paused {
        let what = pause.topic.as_deref().unwrap_or("all of it");
        facts.push(("paused", format!("{what}{}", since(&pause.since, now))));
    }
    for bypass in &outbox.bypassed {
        let since = since(&bypass.since, now);
        facts.push(("bypassed", format!("breaker of {}{since}", bypass.topic)));
    }
    if let Some(error) = &outbox.last_error {
        let at = since(&error.at, now);
        let at = at.trim_start_matches(" since ");
        facts.push(("last error", format!("{at}: {}", error.text)));
    }
    facts
}

/// Whose it is.
pub fn owner(outbox: &OutboxReport) -> String {
    let owner = &outbox.owner;
    let id = owner.id.as_deref().unwrap_or("unknown");
    match owner.who {
        Who::ThisRelay => "this relay".to_owned(),
        Who::AnotherRelay => format!("relay {id}"),
        Who::Nobody => "nobody".to_owned(),
        Who::Unknown => "not known".to_owned(),
    }
}

/// How many rows wait, and for how long.
fn pending(outbox: &OutboxReport) -> String {
    let rows = match outbox.pending_rows {
        Some(rows) => counted(rows.unsigned_abs(), "row"),
        None => return "not known".to_owned(),
    };
    match outbox.oldest_pending_seconds {
        Some(age) if outbox.pending_rows != Some(0) => {
            format!("{rows}, the oldest {} old", duration(age))
        }
        _ => rows,
    }
}

/// What of it waits for more than its turn.
pub fn held(outbox: &OutboxReport) -> String {
    let held = &outbox.held;
    let topics = held.topic_count.map(|topics| counted(topics, "topic"));
    let keys = counted(held.key_count, "key");
    topics.map_or_else(|| keys.clone(), |topics| format!("{keys}, {topics}"))
}

/// One line for each outbox, for a log or a pipe.
pub fn lines(report: &Report) -> Vec<String> {
    let time = report.at.get(11..19).unwrap_or(&report.at);
    let line = |outbox: &OutboxReport| {
        let rate = outbox.per_second.map(|rate| format!("{rate:.1}/s, "));
        format!(
            "{time} {}: {}, {}pending {}, held {}, parked {}",
            outbox.name,
            owner(outbox),
            rate.unwrap_or_default(),
            pending(outbox),
            held(outbox),
            outbox.parked.rows.unwrap_or(0),
        )
    };
    let stuck = stuck_lines(report).map(|line| format!("{time} stuck: {line}"));
    let outboxes = report.outboxes.iter().map(line);
    outboxes.chain(stuck).collect()
}
