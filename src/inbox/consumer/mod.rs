//! The consumer runtime: handlers that read like those of a small web server, and an effect that happens
//! once.
//!
//! ```no_run
//! use outboxd::inbox::consumer::{Consumer, Event, HandlerError, HandlerResult, Tx};
//! use outboxd::outbox::{self, NewEvent};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "camelCase")]
//! struct OrderPlaced {
//!     order_id: String,
//!     total_cents: i64,
//! }
//!
//! async fn charge(mut tx: Tx, event: Event<OrderPlaced>) -> HandlerResult {
//!     let order = event.data;
//!     if order.total_cents < 0 {
//!         return Err(HandlerError::reject("a negative total")); // to the dead letters at once
//!     }
//!     sqlx::query("update accounts set cents = cents - $1 where id = $2")
//!         .bind(order.total_cents)
//!         .bind(&order.order_id)
//!         .execute(&mut *tx)
//!         .await?; // any error: tried again, later
//!     let paid = NewEvent::json("order", order.order_id, "order.paid", &order.total_cents)?;
//!     outbox::append(&mut tx, paid).await?; // caused by the event at hand, and says so
//!     Ok(())
//! }
//!
//! # async fn run(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! Consumer::new("billing", pool)
//!     .kafka([("bootstrap.servers", "localhost:9092")])
//!     .topics(["order-events"])
//!     .on("order.placed", charge)
//!     .upcast("order.placed", "1", "2", |mut data| {
//!         data["totalCents"] = (data["total"].as_f64().unwrap_or(0.0) * 100.0).round().into();
//!         Ok(data)
//!     })
//!     .run_until(std::future::pending())
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * A handler's effect in its transaction happens once per consumer and event, whatever is redelivered,
//!   replayed or crashed, and whoever else believes that a partition is theirs: the event is claimed in that
//!   very transaction ([`crate::inbox`]). A handler may *run* more than once; what it does outside its
//!   transaction is not covered.
//! * Offsets are committed after the effects.
//! * Events of one key are handled in the order of their partition; keys are worked on in parallel, many
//!   events in one transaction. A handler that fails in company is judged alone.
//! * A failed event is tried again, with its key waiting and all other keys flowing; after
//!   [`Consumer::attempts`] it goes to the dead-letter topic with its reason. So does, at once, what a
//!   handler rejects, what no decoder can read, and what is older than anything remembered.
//! * Nothing is lost: what the dead-letter topic does not take waits. Outages, deadlocks and serialization
//!   failures are no attempts; losing the connection again and again is, for the event at hand alone.
//! * A handler cannot commit its transaction, and one that rolls it back by SQL has failed.
//!
//! `outboxd inbox dlq` shows dead letters, sends them back or gives them up.

mod aside;
mod attempt;
mod builder;
mod commits;
mod dead_letter;
pub mod decode;
mod dispatcher;
pub mod dlq;
mod event;
mod failure;
mod feed;
mod handler;
mod metrics;
mod properties;
mod record;
mod schedule;
mod start;
mod transaction;
mod upcast;
mod worker;

use rdkafka::error::KafkaError;

use super::{IdentityError, InboxError};

pub use crate::inbox::Tx;
pub use builder::Consumer;
#[cfg(feature = "relay")]
pub(crate) use dead_letter::{header as dead_letter_header, shortened};
pub use event::{Event, FromPayload, NotOfType, Raw};
pub use handler::{HandlerError, HandlerResult};
pub use metrics::Metrics;
pub use properties::PropertyError;
pub use record::{Place, Record};
pub use upcast::UpcastCycle;

/// Why a consumer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error(transparent)]
    Name(#[from] IdentityError),
    #[error("the consumer's inbox")]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Upcasts(#[from] UpcastCycle),
    #[error("consumer \"{consumer}\": {missing}")]
    Incomplete {
        consumer: String,
        missing: &'static str,
    },
    #[error("consumer \"{consumer}\"")]
    Property {
        consumer: String,
        #[source]
        source: PropertyError,
    },
    #[error("kafka's client of consumer \"{consumer}\"")]
    Kafka {
        consumer: String,
        #[source]
        source: KafkaError,
    },
    /// A part of the consumer ended that must not: start it again.
    #[error("consumer \"{consumer}\": {reason}")]
    Broken { consumer: String, reason: String },
}

/// How a consumer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Batches that did not end before the deadline. They were rolled back, and their events come again.
    pub unfinished_batches: usize,
}

#[cfg(test)]
mod tests {
    use super::decode::{Decoded, Payload};
    use crate::inbox::EventId;

    /// An event of this type, version and data.
    pub(super) fn decoded(event_type: &str, event_version: &str, data: &str) -> Decoded {
        Decoded {
            id: EventId::from(uuid::Uuid::from_u128(1)),
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            created_at: None,
            source: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            tracestate: None,
            aggregate_type: None,
            aggregate_id: None,
            payload: Payload::Json(serde_json::from_str(data).expect("JSON")),
        }
    }
}
