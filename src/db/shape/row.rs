//! A row of the database's answer as an event, borrowed.

use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};

use super::select::UNSENDABLE;
use crate::event::{CreatedAt, Event, EventId, EventRef, Payload};

/// What the answer's columns hold where tables differ. Their order is the same for all:
/// [`own_columns`](super::shape::own_columns), why the row cannot be sent, and for mapped tables two more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowForm {
    /// Of outboxd's own table.
    Own,
    Mapped {
        /// The event's id is a UUID; else it comes as text, and as fingerprint.
        uuid: bool,
        payload: PayloadForm,
    },
}

/// What the payload's column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadForm {
    /// JSON, as the column's type ensures.
    Json,
    /// What should be JSON.
    UncheckedJson,
    Text,
    Bytes,
}

const NOT_JSON: &str = "payload must be JSON, as payload_encoding says";
const NOT_TEXT: &str = "payload must be UTF-8, as payload_encoding says";

/// The texts of the columns that no field holds, which are the row's last.
pub fn others(row: &PgRow, form: RowForm, count: usize) -> sqlx::Result<Vec<Option<&str>>> {
    let first = match form {
        RowForm::Own => 17,
        RowForm::Mapped { uuid: true, .. } => 18,
        RowForm::Mapped { uuid: false, .. } => 19,
    };
    (first..first + count)
        .map(|column| text(row, column))
        .collect()
}

/// Borrows an event from a row.
pub fn event<'r>(
    row: &'r PgRow,
    form: RowForm,
    other_columns: &'r [Option<&'r str>],
) -> sqlx::Result<Event<'r>> {
    let id = row.try_get(0)?;
    let uuid = |column| {
        let event_id = row.try_get(column)?;
        Ok::<_, sqlx::Error>(EventRef { id, event_id })
    };
    let (reference, event_id) = match form {
        RowForm::Mapped { uuid: false, .. } => (uuid(18)?, EventId::Text(required(row, 1)?)),
        RowForm::Own | RowForm::Mapped { .. } => {
            let reference = uuid(1)?;
            (reference, EventId::Uuid(reference.event_id))
        }
    };
    let payload = match (text(row, UNSENDABLE)?, bytes(row, 6)?, bytes(row, 7)?) {
        (Some(reason), _, _) => Err(reason),
        (None, Some(payload), _) => read_payload(payload, form),
        (None, None, Some(bytes)) => Ok(Payload::Bytes(bytes)),
        (None, None, None) => Ok(Payload::Tombstone),
    };
    Ok(Event {
        reference,
        event_id,
        aggregate_type: text(row, 2)?,
        aggregate_id: text(row, 3)?,
        event_type: text(row, 4)?,
        event_version: text(row, 5)?,
        payload: payload.unwrap_or(Payload::Tombstone),
        content_type: match form {
            RowForm::Own => None,
            RowForm::Mapped { .. } => text(row, 17)?,
        },
        correlation_id: text(row, 8)?,
        causation_id: text(row, 9)?,
        traceparent: text(row, 10)?,
        tracestate: text(row, 11)?,
        headers: text(row, 12)?,
        topic: text(row, 13)?,
        partition_key: text(row, 14)?,
        created_at: created_at(row, 15)?,
        other_columns,
        unsendable: payload.err(),
    })
}

/// Takes the payload as what it should be; the error is the rule that it breaks.
fn read_payload(bytes: &[u8], form: RowForm) -> Result<Payload<'_>, &'static str> {
    let form = match form {
        RowForm::Own => PayloadForm::Json,
        RowForm::Mapped { payload, .. } => payload,
    };
    match form {
        PayloadForm::Json => Ok(Payload::Json(bytes)),
        PayloadForm::UncheckedJson => match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(_) => Ok(Payload::Json(bytes)),
            Err(_) => Err(NOT_JSON),
        },
        PayloadForm::Text => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Payload::Text(text)),
            Err(_) => Err(NOT_TEXT),
        },
        PayloadForm::Bytes => Ok(Payload::Bytes(bytes)),
    }
}

fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Option<&[u8]>> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_bytes()
        .map(Some)
        .map_err(|error| decode(column, error))
}

fn text(row: &PgRow, column: usize) -> sqlx::Result<Option<&str>> {
    bytes(row, column)?
        .map(|bytes| utf8(column, bytes))
        .transpose()
}

fn required(row: &PgRow, column: usize) -> sqlx::Result<&str> {
    text(row, column)?.ok_or_else(|| decode(column, "unexpected null".into()))
}

/// The client encoding is UTF-8, so this fails only if the server breaks the protocol.
fn utf8(column: usize, bytes: &[u8]) -> sqlx::Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| decode(column, error.into()))
}

/// An instant in that column.
pub fn created_at(row: &PgRow, column: usize) -> sqlx::Result<Option<CreatedAt>> {
    let Some(value) = bytes(row, column)? else {
        return Ok(None);
    };
    let micros = value
        .try_into()
        .map_err(|_| decode(column, "not 8 bytes".into()))?;
    Ok(Some(CreatedAt::from_postgres_micros(i64::from_be_bytes(
        micros,
    ))))
}

fn decode(column: usize, source: sqlx::error::BoxDynError) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source,
    }
}
