//! A mapping beside the table that it should fit.

use super::asked::Asked;
use super::mistakes::Mistakes;
use super::reading;
use super::sent::Sending;
use super::table::{Column, Table};
use super::types::{self, Type};
use crate::config::{Field, PayloadEncoding};
use crate::db::shape::{Column as Selected, Length, PayloadForm, RowForm, Shape};

/// What is compared.
pub struct Comparison<'a> {
    pub asked: &'a Asked<'a>,
    pub table: &'a Table,
}

impl Comparison<'_> {
    /// The shape, if every column is there and of a type that fits.
    pub fn shape(&self, mistakes: &mut Mistakes) -> Option<Shape> {
        let columns = self.columns(mistakes);
        for field in [Field::Id, Field::EventId] {
            if let Some(column) = self.mapped(field).filter(|column| !column.not_null) {
                let (name, option) = (&column.name, option(field));
                mistakes.add(format!("column {name:?} ({option}) must be not null"));
            }
        }
        let sending = Sending::read(self.asked, self.table, mistakes)?;
        let (id, event_id) = (self.mapped(Field::Id)?, self.mapped(Field::EventId)?);
        let is_uuid = event_id.kind == Type::Uuid;
        let mut columns = columns?;
        if !is_uuid {
            let fingerprint = self.fingerprint(event_id);
            columns.push(Selected::new("fingerprint", fingerprint, Length::Short));
        }
        Some(Shape {
            table: self.table.name.clone(),
            id_column: id.name.clone(),
            id: id.sql(),
            id_value: format!("{}::bigint", id.sql()),
            fingerprint: match is_uuid {
                true => event_id.sql(),
                false => self.fingerprint(event_id),
            },
            columns,
            other_columns: 0,
            created_at: self
                .mapped(Field::CreatedAt)
                .map(|column| column.as_timestamptz()),
            unsent: sending.unsent,
            is_sent: sending.is_sent,
            mark: sending.mark,
            sent: sending.sent,
            form: RowForm::Mapped {
                uuid: is_uuid,
                payload: self.payload(),
            },
        })
    }

    /// The column of a field, if it has one.
    fn mapped(&self, field: Field) -> Option<&Column> {
        let name = self.asked.mapping.columns.get(field)?;
        self.table.column(name.as_str())
    }

    /// The select list, in the order of outboxd's own fields, then the content type. What the table has not
    /// is null.
    fn columns(&self, mistakes: &mut Mistakes) -> Option<Vec<Selected>> {
        let own = [
            Field::Id,
            Field::EventId,
            Field::AggregateType,
            Field::AggregateId,
            Field::EventType,
            Field::EventVersion,
            Field::Payload,
            Field::PayloadBytes,
            Field::CorrelationId,
            Field::CausationId,
            Field::Traceparent,
            Field::Tracestate,
            Field::Headers,
            Field::Topic,
            Field::PartitionKey,
            Field::CreatedAt,
            Field::ContentType,
        ];
        let columns: Vec<Option<Selected>> = own
            .into_iter()
            .map(|field| match self.asked.mapping.columns.get(field) {
                None => Some(Selected::new(
                    field.name(),
                    "null".to_owned(),
                    Length::Short,
                )),
                Some(name) => {
                    let column = self.table.typed(name, &option(field), types::of(field));
                    Some(reading::select(field, mistakes.take(column)?))
                }
            })
            .collect();
        columns.into_iter().collect()
    }

    fn payload(&self) -> PayloadForm {
        let kind = self.mapped(Field::Payload).map(|column| column.kind);
        let is_json = matches!(kind, Some(Type::Json | Type::Jsonb));
        match self.asked.mapping.payload_encoding {
            PayloadEncoding::Auto if is_json => PayloadForm::Json,
            PayloadEncoding::Auto if kind == Some(Type::Bytea) => PayloadForm::Bytes,
            PayloadEncoding::Auto => PayloadForm::Text,
            PayloadEncoding::Json if is_json => PayloadForm::Json,
            PayloadEncoding::Json => PayloadForm::UncheckedJson,
            PayloadEncoding::Text => PayloadForm::Text,
            PayloadEncoding::Bytes => PayloadForm::Bytes,
        }
    }

    /// Sixteen bytes that stand for an event id that is not a UUID. If the id of the event is its place in
    /// the table, its time belongs to it: after a crash of Postgres the sequence can draw an id again, for
    /// another row. SHA-256, because MD5 fails where FIPS is asked for.
    fn fingerprint(&self, event_id: &Column) -> String {
        let bytes = match (
            self.asked.mapping.columns.id == self.asked.mapping.columns.event_id,
            self.mapped(Field::CreatedAt),
        ) {
            (true, Some(created_at)) => format!(
                "int8send({}::bigint) || coalesce(timestamptz_send({}), '')",
                event_id.sql(),
                created_at.as_timestamptz()
            ),
            _ => format!("convert_to({}::text, 'UTF8')", event_id.sql()),
        };
        format!("encode(substring(sha256({bytes}) from 1 for 16), 'hex')::uuid")
    }
}

/// Where the mapping names a field's column.
fn option(field: Field) -> String {
    format!("columns.{}", field.name())
}
