//! Handlers: what they are given, what they answer, and how they are kept by event type.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::decode::Decoded;
use super::event::{Event, FromPayload, event};
use super::record::Record;
use crate::inbox::Tx;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a handler answers.
pub type HandlerResult = Result<(), HandlerError>;

/// Why a handler could not do its work, and whether to try again.
///
/// Any error becomes one by `?`, and is then tried again. Everything the handler did in its transaction
/// is undone in either case.
///
/// ```
/// use outboxd::inbox::consumer::{Event, HandlerError, HandlerResult, Tx};
///
/// async fn charge(mut tx: Tx, event: Event<i64>) -> HandlerResult {
///     if event.data < 0 {
///         return Err(HandlerError::reject("a negative price")); // to the dead letters, at once
///     }
///     sqlx::query("update accounts set cents = cents - $1 where id = $2")
///         .bind(event.data)
///         .bind(event.key())
///         .execute(&mut *tx)
///         .await?; // tried again, later
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    verdict: Verdict,
    cause: BoxError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Retry,
    Reject,
}

impl HandlerError {
    /// Trying again cannot help: the event goes to the dead-letter topic at once.
    pub fn reject(cause: impl Into<BoxError>) -> HandlerError {
        HandlerError {
            verdict: Verdict::Reject,
            cause: cause.into(),
        }
    }

    /// Trying again may help: what `?` makes of any error.
    pub fn retry(cause: impl Into<BoxError>) -> HandlerError {
        HandlerError {
            verdict: Verdict::Retry,
            cause: cause.into(),
        }
    }

    pub fn is_reject(&self) -> bool {
        self.verdict == Verdict::Reject
    }

    /// The cause itself, to be looked into.
    pub fn cause(&self) -> &(dyn Error + 'static) {
        &*self.cause
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(cause: E) -> HandlerError {
        HandlerError::retry(cause)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("verdict", &self.verdict)
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

pub(super) type HandlerFuture = Pin<Box<dyn Future<Output = HandlerResult> + Send>>;

/// A handler whose data type is forgotten.
type Erased = Box<dyn Fn(Tx, Decoded, Arc<Record>) -> HandlerFuture + Send + Sync>;

/// The handlers by event type.
#[derive(Default)]
pub(super) struct Routes {
    handlers: HashMap<String, Erased>,
    repeats: bool,
}

impl Routes {
    pub(super) fn add<T, F, R>(&mut self, event_type: &str, handler: F)
    where
        T: FromPayload + 'static,
        F: Fn(Tx, Event<T>) -> R + Send + Sync + 'static,
        R: Future<Output = HandlerResult> + Send + 'static,
    {
        let erased: Erased = Box::new(move |tx, decoded, record| match event(decoded, record) {
            Ok(event) => Box::pin(handler(tx, event)),
            Err(error) => {
                drop(tx);
                Box::pin(std::future::ready(Err(HandlerError::reject(error))))
            }
        });
        let before = self.handlers.insert(event_type.to_owned(), erased);
        self.repeats |= before.is_some();
    }

    pub(super) fn handles(&self, event_type: &str) -> bool {
        self.handlers.contains_key(event_type)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handlers.is_empty()
    }

    /// A type was given a second handler, which replaced the first.
    pub(super) fn has_repeats(&self) -> bool {
        self.repeats
    }

    /// The work of the event's handler, not yet begun.
    pub(super) fn call(&self, tx: Tx, decoded: Decoded, record: Arc<Record>) -> HandlerFuture {
        match self.handlers.get(&decoded.event_type) {
            Some(handler) => handler(tx, decoded, record),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}
