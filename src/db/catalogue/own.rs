//! Outboxd's own table, as the migrations make it: what became of it since.

use super::mistakes::Mistakes;
use super::obstacles::{self, Usage};
use super::reading::add_other_columns;
use super::sent::born_sent;
use super::types::Type;
use crate::config::{OnSent, OutboxConfig, Retention};
use crate::db::shape::Shape;
use crate::db::{DbError, Session};

/// Its columns, and whether they must not be null.
const COLUMNS: [(&str, Type, bool); 17] = [
    ("id", Type::Bigint, true),
    ("event_id", Type::Uuid, true),
    ("aggregate_type", Type::Text, true),
    ("aggregate_id", Type::Text, true),
    ("event_type", Type::Text, true),
    ("event_version", Type::Text, true),
    ("payload", Type::Json, false),
    ("payload_bytes", Type::Bytea, false),
    ("correlation_id", Type::Text, false),
    ("causation_id", Type::Text, false),
    ("traceparent", Type::Text, false),
    ("tracestate", Type::Text, false),
    ("headers", Type::Jsonb, false),
    ("topic", Type::Text, false),
    ("partition_key", Type::Text, false),
    ("created_at", Type::Timestamptz, true),
    ("sent_at", Type::Timestamptz, false),
];

/// Compares the table with what the statements take for granted.
pub async fn examine(session: &mut Session, config: &OutboxConfig) -> Result<Mistakes, DbError> {
    let mut mistakes = Mistakes::default();
    let Some(table) = mistakes.table(session, &config.table).await? else {
        return Ok(mistakes);
    };
    for (name, kind, not_null) in COLUMNS {
        match table.column(name) {
            None => mistakes.add(format!("column {name:?} does not exist")),
            Some(column) if column.kind != kind => {
                let found = &column.type_name;
                mistakes.add(format!("column {name:?} must be {kind}, is {found}"));
            }
            Some(column) if not_null && !column.not_null => {
                mistakes.add(format!("column {name:?} must be not null"));
            }
            Some(_) => {}
        }
    }
    if let Some(fault) = table.column("sent_at").and_then(|at| born_sent(at, None)) {
        mistakes.add(format!("column \"sent_at\" {fault}"));
    }
    add_other_columns(
        &mut Shape::own(&config.table),
        &table,
        config,
        &mut mistakes,
    );
    let deletes = config.on_sent == OnSent::Delete;
    let usage = Usage {
        reads: COLUMNS.map(|(name, ..)| name.to_owned()).to_vec(),
        marks: vec!["sent_at".to_owned()],
        deletes,
        expires: !deletes && config.retention != Retention::Forever,
        trusted_triggers: None,
    };
    let id = table.column("id");
    obstacles::add(&mut mistakes, session, &table, id, &usage).await?;
    Ok(mistakes)
}
