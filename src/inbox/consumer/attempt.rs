//! A handler at work: for an event alone, or as one of a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use sqlx::{Postgres, Transaction};
use tracing::Instrument as _;

use super::decode::Decoded;
use super::failure::Failure;
use super::handler::HandlerError;
use super::transaction::{begin, end, set_patience};
use super::worker::{Message, Worker, identity};
use crate::inbox::{Claim, Tx};
use crate::outage::chain;
use crate::outbox::{Cause, because};

impl Worker {
    /// Claims the event and runs its handler, if it is new.
    pub(super) async fn attempt(
        &self,
        event: &Decoded,
        record: &Message,
    ) -> Result<Claim, Failure> {
        let identity = identity(event);
        let (mut tx, patience) = begin(&self.pool, self.handler_timeout).await?;
        let claim = self.inbox.claim(&mut tx, &identity).await;
        let claim = claim.map_err(Failure::of_inbox)?;
        set_patience(&mut tx, &patience).await?;
        if claim == Claim::New {
            let tx = self.handle(tx, event, record).await?;
            end(tx).await?;
        }
        Ok(claim)
    }

    /// Runs the handler in the transaction and hands that back.
    pub(super) async fn handle(
        &self,
        tx: Transaction<'static, Postgres>,
        event: &Decoded,
        record: &Message,
    ) -> Result<Transaction<'static, Postgres>, Failure> {
        let span = tracing::info_span!(
            "process",
            consumer = self.inbox.consumer().as_str(),
            event.id = event.id.as_str(),
            event.r#type = event.event_type,
            messaging.destination.name = &*record.topic,
            messaging.message.conversation_id = event.correlation_id,
            traceparent = event.traceparent,
        );
        let cause = Cause {
            event_id: event.id.as_str().to_owned(),
            correlation_id: event.correlation_id.clone(),
            traceparent: event.traceparent.clone(),
            tracestate: event.tracestate.clone(),
        };
        let (tx, lent) = Tx::lend(tx).await;
        let mut event = event.clone();
        let work = async {
            self.upcasters.apply(&mut event)?;
            self.routes.call(tx, event, Arc::clone(record)).await
        };
        let work = because(cause, caught(work)).instrument(span);
        let Ok(answer) = tokio::time::timeout(self.handler_timeout, work).await else {
            // Its statement may still run: the transaction is rolled back in the background.
            let seconds = self.handler_timeout.as_secs_f64();
            let error = format!("the handler did not end within {seconds} s");
            return Err(Failure::of_handler(HandlerError::retry(error)));
        };
        match (answer, lent.take_back()) {
            (Ok(()), Some(tx)) => Ok(tx),
            (Ok(()), None) => {
                let error = HandlerError::retry("the handler kept its transaction beyond its end");
                Err(Failure::Handler(error))
            }
            (Err(error), tx) => {
                let connected = match tx {
                    Some(tx) => tx.rollback().await.is_ok(),
                    None => true,
                };
                Err(match Failure::of_handler(error) {
                    // That is why the handler failed.
                    Failure::Handler(error) if !connected && !error.is_reject() => {
                        Failure::Lost(chain(error.cause()))
                    }
                    failure => failure,
                })
            }
        }
    }
}

/// A panic of the handler is an error like any other.
async fn caught(work: impl Future<Output = Result<(), HandlerError>>) -> Result<(), HandlerError> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        // The handler's future is not polled again after a panic.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            let error = format!("the handler panicked: {text}");
            Poll::Ready(Err(HandlerError::retry(error)))
        })
    })
    .await
}
