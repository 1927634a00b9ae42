//! Every SQL statement, and the connections they run on.

pub mod bench;
pub mod bypasses;
pub mod catalogue;
mod certificate;
mod connect;
pub mod copies;
pub mod dead_letters;
pub mod facts;
pub mod lease;
pub mod migrate;
pub mod outbox;
pub mod parked;
pub mod pauses;
pub mod sequence;
mod servers;
mod shape;
pub mod standing;
pub mod wishes;

pub use connect::{Database, Role, ServerLife, Session};
pub use migrate::Roles;

pub use crate::config::TableName;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::config::ConfigError;
use crate::event::EventRef;

/// An instant as RFC 3339 in UTC, with microseconds.
fn rfc3339(instant: &str) -> String {
    format!("to_char({instant} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

/// Why something could not be done with Postgres.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("connecting to postgres{hint}")]
    Connect {
        hint: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("connecting to postgres: {problem}")]
    Certificate { problem: String },
    /// The file that holds the address.
    #[error("connecting to postgres")]
    Secret(#[source] ConfigError),
    #[error(
        "connecting to postgres: every server of the list is in recovery, and a standby cannot take marks"
    )]
    Recovery,
    #[error("connecting to postgres: no answer within {seconds} s")]
    ConnectTimeout { seconds: f64 },
    #[error("{action}{hint}")]
    Query {
        action: String,
        hint: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("{action}: no answer within {seconds} s")]
    Timeout { action: String, seconds: f64 },
    #[error("observing the id sequence")]
    FellBack(#[source] crate::relay::horizon::SequenceFellBack),
    #[error("{0}")]
    Schema(String),
}

const POOLER_HINT: &str =
    " (is this PgBouncer in transaction mode? then set postgres.pooler = \"transaction\")";

impl DbError {
    pub(crate) fn query(action: impl Into<String>) -> impl FnOnce(sqlx::Error) -> DbError {
        let action = action.into();
        move |source| DbError::Query {
            hint: pooler_hint(&source),
            action,
            source,
        }
    }

    /// Whether the server is away, starting or stopping, rather than refusing something.
    pub fn is_outage(&self) -> bool {
        match self {
            DbError::ConnectTimeout { .. }
            | DbError::Timeout { .. }
            | DbError::Recovery
            | DbError::Certificate { .. }
            | DbError::Secret(_) => true,
            DbError::Connect { source, .. } | DbError::Query { source, .. } => match source {
                sqlx::Error::Io(_) => true,
                // Class 57P: shut down, crashed, starting up. Class 08: connection exceptions.
                sqlx::Error::Database(error) => error
                    .code()
                    .is_some_and(|code| code.starts_with("57P") || code.starts_with("08")),
                _ => false,
            },
            DbError::FellBack(_) | DbError::Schema(_) => false,
        }
    }

    /// What is said of a row, if it may be for what a row holds: Postgres cannot make of it what is asked for, or its
    /// answer cannot be read. The classes are those of the manual's appendix on error codes.
    pub fn said_of_a_row(&self) -> Option<String> {
        let DbError::Query { source, .. } = self else {
            return None;
        };
        match source {
            // Data exceptions, exceeded limits (a text of more than 1 GB), corrupt data.
            sqlx::Error::Database(error) => {
                let code = error.code()?;
                let mut classes = ["22", "54", "XX"].iter();
                let is_of_data = classes.any(|class| code.starts_with(class));
                is_of_data.then(|| error.message().to_owned())
            }
            sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
                Some(source.to_string())
            }
            _ => None,
        }
    }

    /// Whether an outage ends only when somebody changes a certificate or a secret.
    pub fn is_for_somebody(&self) -> bool {
        matches!(self, DbError::Certificate { .. } | DbError::Secret(_))
    }

    /// Whether trying again later can help: everything does that is not a mistake of the setup.
    pub fn is_permanent(&self) -> bool {
        matches!(self, DbError::Schema(_))
    }
}

/// PgBouncer refuses start-up parameters it does not know, and loses named statements between
/// transactions: both show as these errors.
fn pooler_hint(error: &sqlx::Error) -> &'static str {
    let sqlx::Error::Database(error) = error else {
        return "";
    };
    let message = error.message();
    let lost_statement = matches!(error.code().as_deref(), Some("26000" | "42P05"));
    if lost_statement || message.contains("unsupported startup parameter") {
        POOLER_HINT
    } else {
        ""
    }
}

/// An event, of which id and UUID stand first in the row.
fn event_ref(row: &PgRow) -> sqlx::Result<EventRef> {
    Ok(EventRef {
        id: row.try_get(0)?,
        event_id: row.try_get(1)?,
    })
}

/// The events of `rows`, a statement with the columns `id` and `event_id`, in its order: as two arrays in one row,
/// since a row for each costs more to send and to read.
fn as_arrays(rows: &str) -> String {
    format!(
        "select coalesce(array_agg(r.id), '{{}}'), coalesce(array_agg(r.event_id), '{{}}') from ({rows}) r"
    )
}

/// Reads the answer to [`as_arrays`].
fn event_refs(row: &PgRow) -> sqlx::Result<Vec<EventRef>> {
    let (ids, event_ids): (Vec<i64>, Vec<Uuid>) = (row.try_get(0)?, row.try_get(1)?);
    let events = ids.into_iter().zip(event_ids);
    Ok(events
        .map(|(id, event_id)| EventRef { id, event_id })
        .collect())
}

/// A string of SQL, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", escaped.replace('\\', "\\\\")),
        false => format!("'{escaped}'"),
    }
}
