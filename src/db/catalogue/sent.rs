//! How a sent row is told from an unsent one, and how it is marked.

use super::asked::Asked;
use super::mistakes::Mistakes;
use super::table::{Column, Table};
use super::types::{TIMES, Type};
use crate::config::{SentColumn, SentValues};
use crate::db::literal;
use crate::db::shape::Sent;

/// The parts of a [`Shape`](crate::db::shape::Shape) that tell and mark.
#[derive(Debug)]
pub struct Sending {
    pub unsent: Option<String>,
    pub is_sent: Option<String>,
    pub mark: String,
    pub sent: Option<Sent>,
}

impl Sending {
    pub fn read(asked: &Asked<'_>, table: &Table, mistakes: &mut Mistakes) -> Option<Sending> {
        let Some(sent) = &asked.mapping.sent else {
            return Some(Sending {
                unsent: None,
                is_sent: None,
                mark: String::new(),
                sent: None,
            });
        };
        let types = match sent.values {
            Some(_) => &[Type::Text, Type::Varchar, Type::Char, Type::Enum][..],
            None => &[Type::Timestamptz, Type::Timestamp, Type::Boolean],
        };
        let option = match sent.values {
            Some(_) => "sent.column, with values",
            None => "sent.column, without values",
        };
        let column = mistakes.take(table.typed(&sent.column, option, types));
        let at = match &sent.at {
            Some(name) => Some(mistakes.take(table.typed(name, "sent.at", TIMES))?),
            None => None,
        };
        let column = column?;
        if !asked.deletes {
            for column in [Some(column), at].into_iter().flatten() {
                if column.is_generated {
                    let name = &column.name;
                    mistakes.add(format!(
                        "column {name:?} (sent) must not be a generated column"
                    ));
                }
            }
        }
        if TIMES.contains(&column.kind) && column.not_null {
            let name = &column.name;
            mistakes.add(format!(
                "column {name:?} (sent.column) must allow null, which it is until the row is sent"
            ));
        } else if let Some(fault) = born_sent(column, sent.values.as_ref()) {
            let name = &column.name;
            mistakes.add(format!(
                "column {name:?} (sent.column) {fault}: drop it, or set that of an unsent row"
            ));
        }
        check_labels(column, sent, mistakes);
        let is_sent = is_sent(column, sent.values.as_ref());
        let at_or_column = at.or(TIMES.contains(&column.kind).then_some(column));
        if asked.expires && at_or_column.is_none() {
            let (name, kind) = (&column.name, &column.type_name);
            mistakes.add(format!(
                "column {name:?} (sent.column) is {kind} and does not say when a row was sent: name a timestamp \
                 as sent.at, or set retention to \"forever\""
            ));
        }
        Some(Sending {
            unsent: Some(unsent(column, sent.values.as_ref())),
            mark: mark(column, sent.values.as_ref(), at),
            sent: at_or_column.map(|time| Sent {
                condition: match column.name == time.name {
                    true => is_sent.clone(),
                    // Its own time may be another's.
                    false => format!("{is_sent} and {} is not null", time.sql()),
                },
                at: time.as_timestamptz(),
            }),
            is_sent: Some(is_sent),
        })
    }
}

/// What is wrong with the column's default, if by it a row is sent when it is inserted. It is read and not tried:
/// what it calls may do something, or be forbidden to the relay.
pub fn born_sent(column: &Column, values: Option<&SentValues>) -> Option<String> {
    let default = column.default.as_deref()?;
    // Postgres writes a constant with its type behind it.
    let (value, _) = default.rsplit_once("::").unwrap_or((default, ""));
    let is_sent = match (values, column.kind) {
        (Some(values), _) => value == literal(&values.sent),
        (None, Type::Boolean) => value == "true",
        (None, _) => !value.eq_ignore_ascii_case("null"),
    };
    is_sent.then(|| {
        format!(
            "has the default {default}, with which rows are born as sent and are never published"
        )
    })
}

fn check_labels(column: &Column, sent: &SentColumn, mistakes: &mut Mistakes) {
    let (Type::Enum, Some(values)) = (column.kind, &sent.values) else {
        return;
    };
    for (option, value) in [("unsent", &values.unsent), ("sent", &values.sent)] {
        if !column.labels.contains(value) {
            let (name, labels) = (&column.name, column.labels.join(", "));
            mistakes.add(format!(
                "column {name:?} (sent.column) has no label {value:?} (sent.{option}), has {labels}"
            ));
        }
    }
}

fn unsent(column: &Column, values: Option<&SentValues>) -> String {
    let sql = column.sql();
    match (values, column.kind) {
        (Some(values), _) => format!("{sql} = {}", literal(&values.unsent)),
        // Where null is possible, it is not sent either.
        (None, Type::Boolean) if column.not_null => format!("not {sql}"),
        (None, Type::Boolean) => format!("{sql} is not true"),
        (None, _) => format!("{sql} is null"),
    }
}

fn is_sent(column: &Column, values: Option<&SentValues>) -> String {
    let sql = column.sql();
    match (values, column.kind) {
        (Some(values), _) => format!("{sql} = {}", literal(&values.sent)),
        (None, Type::Boolean) => sql,
        (None, _) => format!("{sql} is not null"),
    }
}

fn mark(column: &Column, values: Option<&SentValues>, at: Option<&Column>) -> String {
    let value = marked_value(column, values);
    let mut mark = format!("{} = {value}", column.quoted());
    if let Some(at) = at.filter(|at| at.name != column.name) {
        mark.push_str(&format!(", {} = {}", at.quoted(), now(at)));
    }
    mark
}

/// What a mark sets the column to.
pub fn marked_value(column: &Column, values: Option<&SentValues>) -> String {
    match (values, column.kind) {
        (Some(values), _) => literal(&values.sent),
        (None, Type::Boolean) => "true".to_owned(),
        (None, _) => now(column),
    }
}

/// The time of the mark, as the column keeps it.
pub fn now(column: &Column) -> String {
    match column.kind {
        Type::Timestamp => "clock_timestamp() at time zone 'UTC'".to_owned(),
        _ => "clock_timestamp()".to_owned(),
    }
}
