//! Events that do not take effect: set aside as dead letters, and, by choice, their keys held.

use sqlx::{Postgres, Transaction};

use super::dead_letter::Reason;
use super::failure::Failure;
use super::record::Record;
use super::schedule::{Job, Outcome};
use super::transaction::{begin, end};
use super::worker::{Message, Worker};
use crate::inbox::outcome::State;
use crate::inbox::{Claim, EventId, Identity};
use crate::outage::chain;

impl Worker {
    pub(super) async fn expired(&self, job: &Job<Message>, id: &EventId) -> Outcome {
        self.metrics.expired.inc();
        let reason = "expired: older than anything the consumer remembers";
        self.dead_letter(job, id, reason, 0).await
    }

    /// Records the dead letter and writes it, both or neither; a crash in between may leave a second copy
    /// on the topic, and no effect.
    pub(super) async fn dead_letter(
        &self,
        job: &Job<Message>,
        id: &EventId,
        reason: &str,
        attempts: u32,
    ) -> Outcome {
        let record = &*job.item;
        match self.set_aside(record, id, reason, attempts).await {
            Ok(true) => {
                self.metrics.dead_lettered.inc();
                tracing::error!(
                    consumer = self.inbox.consumer().as_str(),
                    event.id = id.as_str(),
                    topic.name = &*record.topic,
                    partition = record.partition,
                    offset = record.offset,
                    attempts,
                    error = reason,
                    "dead-lettered an event"
                );
                self.hold_or_go_on(id).await
            }
            Ok(false) => {
                self.metrics.duplicates.inc();
                self.hold_or_go_on(id).await
            }
            Err(error) => {
                tracing::error!(
                    consumer = self.inbox.consumer().as_str(),
                    event.id = id.as_str(),
                    topic.name = self.dead_letters.topic(),
                    error,
                    "writing a dead letter failed, its key waits"
                );
                Outcome::Blocked
            }
        }
    }

    /// False if somebody was first.
    async fn set_aside(
        &self,
        record: &Record,
        id: &EventId,
        reason: &str,
        attempts: u32,
    ) -> Result<bool, String> {
        let begun = begin(&self.pool, self.handler_timeout).await;
        let (mut tx, _) = begun.map_err(|failure| failure.text())?;
        let recorded = self.outcomes.dead_letter(&mut tx, id).await;
        if !recorded.map_err(|error| chain(&error))? {
            return Ok(false);
        }
        let reason = Reason {
            event_id: id.as_str(),
            text: reason,
            attempts,
        };
        if let Err(error) = self.dead_letters.send(record, reason).await {
            drop(tx);
            // Kafka may have been away when the consumer started, and with it the topic.
            let made = self.dead_letters.ensure_topic().await;
            return Err(match made {
                Ok(()) => chain(&error),
                Err(missing) => format!("{}; {}", chain(&error), chain(&missing)),
            });
        }
        end(tx).await.map_err(|failure| failure.text())?;
        Ok(true)
    }

    /// Whether something that was claimed is, or is to be, a dead letter that holds its key.
    pub(super) async fn holds_any(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        identities: &[Identity],
        claims: &[Claim],
    ) -> Result<bool, Failure> {
        if claims.contains(&Claim::Expired) {
            return Ok(true);
        }
        let claimed = identities.iter().zip(claims);
        let seen: Vec<&str> = claimed
            .filter(|(_, claim)| **claim == Claim::Duplicate)
            .map(|(identity, _)| identity.id.as_str())
            .collect();
        if seen.is_empty() {
            return Ok(false);
        }
        let states = self.outcomes.states(tx, &seen).await;
        let states = states.map_err(Failure::of_inbox)?;
        Ok(states
            .values()
            .any(|state| matches!(state, State::DeadLettered | State::Redriven)))
    }

    /// With `hold_key`, a dead letter's key waits until a person has decided.
    pub(super) async fn hold_or_go_on(&self, id: &EventId) -> Outcome {
        if !self.hold_key {
            return Outcome::Done;
        }
        let states = async {
            // Behind a pooler, what is prepared outside a transaction may be gone when it is to run.
            let mut tx = self.pool.begin().await.map_err(|error| chain(&error))?;
            let states = self.outcomes.states(&mut tx, &[id.as_str()]).await;
            states.map_err(|error| chain(&error))
        };
        match states.await {
            Ok(states) => match states.get(id.as_str()) {
                Some(State::DeadLettered | State::Redriven) => Outcome::Blocked,
                Some(State::Processed | State::Discarded) | None => Outcome::Done,
            },
            Err(error) => {
                self.postgres.note_down(&error);
                Outcome::Blocked
            }
        }
    }
}
