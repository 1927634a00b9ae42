//! What the statements on an outbox table are made of: SQL expressions over the alias `e`, built once from
//! checked names.

pub mod row;
mod select;

pub use row::{PayloadForm, RowForm};
pub use select::{Column, Length, Selection};

use crate::db::TableName;

/// The shape of one table.
#[derive(Debug, Clone)]
pub struct Shape {
    pub table: TableName,
    /// The monotonic column, as the catalogue spells it.
    pub id_column: String,
    /// The same in comparisons and as order.
    pub id: String,
    /// The same as the `bigint` that is read.
    pub id_value: String,
    /// The UUID that, with the id, tells an event from every other.
    pub fingerprint: String,
    /// The select list: [`own_columns`] in their order, then what the form says, then the columns that only
    /// templates name.
    pub columns: Vec<Column>,
    /// How many of those there are.
    pub other_columns: usize,
    pub created_at: Option<String>,
    /// What holds for an unsent row; nothing: every row is unsent.
    pub unsent: Option<String>,
    /// What holds for a sent row; nothing: they are not kept.
    pub is_sent: Option<String>,
    /// What marks a row, as assignments.
    pub mark: String,
    /// What holds for a sent row, and when it was sent; nothing: it is not known when.
    pub sent: Option<Sent>,
    pub form: RowForm,
}

/// See [`Shape::sent`].
#[derive(Debug, Clone)]
pub struct Sent {
    pub condition: String,
    pub at: String,
}

/// The columns of outboxd's own table that an event is made of.
pub fn own_columns() -> Vec<Column> {
    let short = |name| Column::new(name, format!("e.{name}"), Length::Short);
    let text = |name| Column::new(name, format!("e.{name}"), Length::Text);
    vec![
        short("id"),
        short("event_id"),
        text("aggregate_type"),
        text("aggregate_id"),
        text("event_type"),
        text("event_version"),
        Column::new(
            "payload",
            "e.payload".to_owned(),
            Length::of_json("e.payload"),
        ),
        Column::new("payload_bytes", "e.payload_bytes".to_owned(), Length::Bytes),
        text("correlation_id"),
        text("causation_id"),
        text("traceparent"),
        text("tracestate"),
        Column::new(
            "headers",
            "e.headers".to_owned(),
            Length::of_any("e.headers"),
        ),
        text("topic"),
        text("partition_key"),
        short("created_at"),
    ]
}

impl Shape {
    /// "Unsent" as the beginning of a condition that goes on.
    pub fn unsent_and(&self) -> String {
        match &self.unsent {
            Some(condition) => format!("{condition} and "),
            None => String::new(),
        }
    }

    /// What holds for a row that is not parked, in an outbox that is named by `$1` as in its lease.
    pub fn not_parked(&self, relay_schema: &str) -> String {
        let Shape {
            id, fingerprint, ..
        } = self;
        format!(
            "not exists (select from \"{relay_schema}\".outboxd_parked p \
             where p.outbox = $1 and p.id = {id} and p.event_id = {fingerprint})"
        )
    }

    /// Outboxd's own table.
    pub fn own(table: &TableName) -> Shape {
        Shape {
            table: table.clone(),
            id_column: "id".to_owned(),
            id: "e.id".to_owned(),
            id_value: "e.id".to_owned(),
            fingerprint: "e.event_id".to_owned(),
            columns: own_columns(),
            other_columns: 0,
            created_at: Some("e.created_at".to_owned()),
            unsent: Some("e.sent_at is null".to_owned()),
            is_sent: Some("e.sent_at is not null".to_owned()),
            mark: "sent_at = clock_timestamp()".to_owned(),
            sent: Some(Sent {
                condition: "e.sent_at is not null".to_owned(),
                at: "e.sent_at".to_owned(),
            }),
            form: RowForm::Own,
        }
    }
}
