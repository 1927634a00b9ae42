//! The inbox: an event that arrives twice takes effect once.
//!
//! A consumer claims an event in the very transaction of its effect. The claim is a row of
//! `processed_events`, made by `outboxd migrate --inbox`; it commits or rolls back together with the
//! effect, so whatever is redelivered, replayed or crashed, the effect happens once per consumer and event.
//!
//! ```no_run
//! use outboxd::inbox::{ConsumerName, EventId, Inbox, Processed};
//!
//! # async fn consume(pool: sqlx::PgPool, event_id: &str, cents: i64) -> Result<(), Box<dyn std::error::Error>> {
//! let inbox = Inbox::new(ConsumerName::new("billing")?);
//! let done = inbox
//!     .process(&pool, &EventId::text(event_id)?.into(), async |mut tx| {
//!         sqlx::query("update accounts set cents = cents + $1")
//!             .bind(cents)
//!             .execute(&mut *tx)
//!             .await
//!     })
//!     .await?;
//! match done {
//!     Processed::Done(_) => {}           // the effect and its claim are committed
//!     Processed::Duplicate => {}         // it took effect before; nothing ran
//!     Processed::Expired => {}           // too old to tell: to the dead letters, nothing ran
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * The effect of a claimed event happens once per consumer while its id is remembered, and ids are
//!   remembered for the retention, counted from when they were processed.
//! * An event that is older than anything still remembered is [`Claim::Expired`], never [`Claim::New`].
//!   Its age is its `created_at`, or the time in a UUIDv7; where neither is known it cannot be told, and an
//!   id that was forgotten is taken as new. So hand [`Identity::created_at`] over.
//! * Claims of the same event wait for each other. Under READ COMMITTED the second then answers
//!   duplicate, or new if the first rolled back. Under REPEATABLE READ and SERIALIZABLE it may fail with
//!   SQLSTATE 40001, see [`InboxError::is_transient`]: run the transaction again.
//! * Effects outside the database, such as a mail, are not covered: they are no part of the transaction.
//!
//! Everything goes through the SQL functions `inbox_claim` and `inbox_claim_batch`, which any other
//! language can call just as well.

mod claim;
#[cfg(feature = "consumer")]
pub mod consumer;
mod error;
mod identity;
#[cfg(feature = "consumer")]
mod outcome;
#[cfg(feature = "relay")]
mod processed;
mod prune;
mod sql;
mod status;
mod tx;

pub use claim::{Claim, Inbox, Processed, commit};
pub use error::{InboxError, ProcessError, is_transient};
pub use identity::{ConsumerName, EventId, Identity, IdentityError};
#[cfg(feature = "relay")]
pub use processed::{ProcessedEvent, forgotten, processed};
pub use prune::{Prune, Pruned};
#[cfg(feature = "relay")]
pub(crate) use sql::{MAX_IDENTIFIER_BYTES, is_identifier};
pub use status::{Count, InboxStatus, consumers};
pub use tx::Tx;
