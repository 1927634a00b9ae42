//! What can go wrong at a claim.

use super::sql::MAX_IDENTIFIER_BYTES;

/// A statement of the inbox failed. The transaction it ran in is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// Postgres or the connection refused.
    #[error("{action}{hint}")]
    Query {
        action: String,
        hint: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// The functions answered something that this version does not know.
    #[error("{action}: the answer {answer:?} is not known to this version")]
    Answer { action: String, answer: String },
    /// The handler returned without an error, but one of its statements had failed: Postgres would answer
    /// the commit with a rollback, silently, and both effect and claim would be lost.
    #[error("committing: a statement of the transaction had failed, so all of it is rolled back")]
    Aborted,
    /// The handler returned and kept its transaction, in a task it spawned perhaps. It is rolled back as
    /// soon as it is let go.
    #[error("committing: the handler kept its transaction")]
    Kept,
    /// A schema's name that is none.
    #[error(
        "the inbox's schema must match [a-z_][a-z0-9_]* and have at most {MAX_IDENTIFIER_BYTES} bytes, is {0:?}"
    )]
    Schema(String),
}

impl InboxError {
    pub(super) fn query(action: impl Into<String>) -> impl FnOnce(sqlx::Error) -> InboxError {
        let action = action.into();
        move |source| InboxError::Query {
            hint: hint(&source),
            action,
            source,
        }
    }

    /// The SQLSTATE of Postgres' error, if it is one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            InboxError::Query {
                source: sqlx::Error::Database(error),
                ..
            } => error.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }

    /// Whether running the transaction again can help: a serialization failure, a deadlock, a lock that
    /// was not to be had in time, or a server or connection that went away.
    pub fn is_transient(&self) -> bool {
        match self {
            InboxError::Query { source, .. } => is_transient(source),
            InboxError::Aborted
            | InboxError::Kept
            | InboxError::Answer { .. }
            | InboxError::Schema(_) => false,
        }
    }
}

/// The same of an error of a handler's own statement.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // 40: serialization failure and deadlock. 57P: shut down, crashed, starting up. 08: connection
            // exceptions. 55P03: lock timeout. 25006: a server that became a standby.
            ["40", "57P", "08"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "55P03"
                || code == "25006"
        }),
        _ => false,
    }
}

/// Undefined function, table, column or schema: 42883, 42P01, 42703, 3F000.
fn hint(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("42883" | "42P01" | "42703" | "3F000") => {
                " (is the inbox's schema there? run outboxd migrate --inbox)"
            }
            _ => "",
        },
        _ => "",
    }
}

/// Why [`Inbox::process`](super::Inbox::process) did not finish; nothing is committed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError<E> {
    /// Beginning, claiming or committing failed.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The handler failed. The claim was rolled back with its effect: the event is free again.
    #[error("handling the event")]
    Handler(#[source] E),
}
