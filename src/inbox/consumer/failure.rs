//! What an error means for the events of a transaction: whose fault it is, if anybody's.

use std::error::Error;

use super::handler::HandlerError;
use crate::inbox::{InboxError, is_transient};
use crate::outage::chain;

/// Why a transaction did not come to its end.
pub(super) enum Failure {
    /// Postgres is away: nothing was tried.
    Outage(String),
    /// The connection was lost on the way: by an outage, or by what was done on it.
    Lost(String),
    /// A deadlock, a serialization failure, a lock that was not to be had: nobody's fault.
    Contention,
    /// The handler's fault, as far as one can tell.
    Handler(HandlerError),
    /// A handler ended its transaction by itself.
    Ended,
    /// The batch holds something that must be looked at alone.
    Mixed,
}

impl Failure {
    pub(super) fn of_query(error: &sqlx::Error) -> Failure {
        match error {
            sqlx::Error::Database(database) => match database.code().as_deref() {
                Some(code) if code.starts_with("40") || code == "55P03" => Failure::Contention,
                Some(code) if ends_the_session(code) => Failure::Lost(chain(error)),
                _ => Failure::Outage(chain(error)),
            },
            sqlx::Error::Io(_) => Failure::Lost(chain(error)),
            _ => Failure::Outage(chain(error)),
        }
    }

    /// The commit failed, or what is checked before it: what Postgres itself refuses there, such as a
    /// deferred constraint, is the handlers' doing.
    pub(super) fn of_commit(error: InboxError) -> Failure {
        match &error {
            InboxError::Query {
                source: sqlx::Error::Database(_),
                ..
            } if !error.is_transient() => Failure::Handler(HandlerError::retry(error)),
            _ => Failure::of_inbox(error),
        }
    }

    /// Beginning or claiming failed. What cannot pass by itself (no schema, no rights) is waited
    /// for like an outage: an operator mends it.
    pub(super) fn of_inbox(error: InboxError) -> Failure {
        match &error {
            InboxError::Aborted => Failure::Handler(HandlerError::retry(error)),
            InboxError::Query { source, .. } => match Failure::of_query(source) {
                Failure::Outage(_) => Failure::Outage(chain(&error)),
                Failure::Lost(_) => Failure::Lost(chain(&error)),
                other => other,
            },
            _ => Failure::Outage(chain(&error)),
        }
    }

    pub(super) fn of_handler(error: HandlerError) -> Failure {
        if error.is_reject() {
            return Failure::Handler(error);
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(error.cause());
        while let Some(error) = cause {
            if let Some(query) = error.downcast_ref::<sqlx::Error>()
                && is_transient(query)
            {
                return match Failure::of_query(query) {
                    // Of another server or pool perhaps: the next claim tells.
                    Failure::Outage(reason) => Failure::Lost(reason),
                    failure => failure,
                };
            }
            cause = error.source();
        }
        Failure::Handler(error)
    }

    pub(super) fn text(&self) -> String {
        match self {
            Failure::Outage(reason) | Failure::Lost(reason) => reason.clone(),
            Failure::Handler(error) => chain(error.cause()),
            Failure::Ended => {
                "the handler ended its transaction, which is the consumer's, by itself: \
                 what it did after that is committed without a claim"
                    .to_owned()
            }
            Failure::Contention | Failure::Mixed => "a lock was not to be had".to_owned(),
        }
    }
}

/// Shut down, crashed or starting up; connection exceptions; and a transaction that was idle
/// (`idle_in_transaction_session_timeout`) or open for too long (`transaction_timeout`).
fn ends_the_session(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08") || code == "25P03" || code == "25P04"
}
