//! A trace for people: a tree with a column of times, all counted from the first event.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::{Effect, Node, Trace};
use crate::db::outbox::traced::Fate;
use crate::terminal::{counted, plain, short};

/// Everything.
pub fn page(trace: &Trace) -> String {
    let tree = &trace.tree;
    let mut text = String::new();
    let id = plain(&trace.correlation_id);
    let Some((first, last)) = tree.span() else {
        let _ = writeln!(text, "correlation id {id}: no event was found");
        notes(trace, &mut text);
        return text;
    };
    let _ = writeln!(
        text,
        "correlation id {id}: {}, {}, {} from {}\n",
        counted(tree.events as u64, "event"),
        counted(tree.effects as u64, "effect"),
        short(micros(last - first)),
        time(first)
    );
    let mut page = Page { first, text };
    for root in &tree.roots {
        page.node(root, None, "", "");
    }
    let mut text = page.text;
    notes(trace, &mut text);
    text
}

fn notes(trace: &Trace, text: &mut String) {
    if !trace.notes.is_empty() {
        text.push('\n');
    }
    for note in &trace.notes {
        let _ = writeln!(text, "{}", plain(note));
    }
}

struct Page {
    /// The time that all are counted from, in microseconds since 1970.
    first: i64,
    text: String,
}

impl Page {
    /// `lead`: what stands before the event, `below`: before everything that belongs to it.
    fn node(&mut self, node: &Node, cause_us: Option<i64>, lead: &str, below: &str) {
        let row = &node.step.row;
        let kind = [row.event_type.as_deref(), Some(row.event_id.as_str())];
        let kind: Vec<&str> = kind.into_iter().flatten().collect();
        let mut line = format!(
            "{}  row {} of {} in {}",
            kind.join("  "),
            row.id,
            node.step.outbox,
            node.step.database
        );
        if let (Some(cause), Some(created)) = (cause_us, row.created_us) {
            let _ = write!(line, ", {} after its cause", gap(cause, created));
        } else if let Some(cause) = &row.causation_id {
            let _ = write!(line, ", caused by {cause}, which was not found");
        }
        self.line(row.created_us, lead, &line);
        let bar = match node.caused.is_empty() {
            true => format!("{below}   "),
            false => format!("{below}│  "),
        };
        let mut told: Vec<(Option<i64>, String)> = vec![fate(node)];
        let effects = node.effects.iter();
        told.extend(
            effects.map(|effect| (Some(effect.processed.at_us), done(effect, row.created_us))),
        );
        told.sort_by_key(|(at, _)| at.unwrap_or(i64::MAX));
        for (at, line) in told {
            self.line(at, &bar, &line);
        }
        let count = node.caused.len();
        for (index, caused) in node.caused.iter().enumerate() {
            let (lead, next) = match index + 1 == count {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            let (lead, next) = (format!("{below}{lead}"), format!("{below}{next}"));
            self.node(caused, row.created_us, &lead, &next);
        }
    }

    fn line(&mut self, at_us: Option<i64>, lead: &str, line: &str) {
        let at = match at_us {
            Some(at) => format!("+{}", short(micros(at - self.first))),
            None => String::new(),
        };
        let _ = writeln!(self.text, "{at:>10}  {lead}{}", plain(line));
    }
}

fn fate(node: &Node) -> (Option<i64>, String) {
    let created = node.step.row.created_us;
    let after = |at: Option<i64>| match (created, at) {
        (Some(created), Some(at)) => format!(", {} later", gap(created, at)),
        _ => String::new(),
    };
    match &node.step.row.fate {
        Fate::Pending => (None, "not published yet".to_owned()),
        Fate::Sent { at_us } => (*at_us, format!("marked sent{}", after(*at_us))),
        Fate::Parked { reason } => (None, format!("parked: {reason}")),
        Fate::Discarded => (None, "discarded, it was never published".to_owned()),
    }
}

fn done(effect: &Effect, created_us: Option<i64>) -> String {
    let processed = &effect.processed;
    let what = processed.outcome.replace('_', "-");
    let later = created_us.map(|created| format!(", {} later", gap(created, processed.at_us)));
    format!(
        "{what} by {} in {}{}",
        processed.consumer,
        effect.database,
        later.unwrap_or_default()
    )
}

/// Clocks differ: what seems to be earlier is no later.
fn gap(from_us: i64, to_us: i64) -> String {
    short(micros(to_us - from_us))
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn time(micros: i64) -> String {
    let time = Timestamp::from_microsecond(micros);
    time.map_or_else(|_| micros.to_string(), |time| format!("{time:.6}"))
}
