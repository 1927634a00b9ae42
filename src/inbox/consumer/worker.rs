//! One batch of events: claimed, handled and committed in one transaction; or, when that fails, each in one
//! of its own, so that only the guilty one is held to account.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;

use super::dead_letter::{DeadLetters, header};
use super::decode::{self, Decoded, Decoder};
use super::failure::Failure;
use super::handler::{HandlerError, Routes};
use super::metrics::ConsumerMetrics;
use super::record::Record;
use super::schedule::{Job, Outcome};
use super::transaction::{begin, end, set_patience};
use super::upcast::Upcasters;
use crate::inbox::outcome::Outcomes;
use crate::inbox::{Claim, EventId, Identity, Inbox};
use crate::outage::{Outage, chain, jittered};

/// How long a worker waits after Postgres did not answer: the next batch would meet the same.
const OUTAGE_WAIT: Duration = Duration::from_millis(500);

pub type Message = Arc<Record>;

/// Works on batches; shared by all tasks of a consumer.
pub struct Worker {
    pub pool: PgPool,
    pub inbox: Inbox,
    pub outcomes: Outcomes,
    pub decoders: Vec<Box<dyn Decoder>>,
    pub upcasters: Upcasters,
    pub routes: Routes,
    pub dead_letters: DeadLetters,
    pub metrics: ConsumerMetrics,
    pub postgres: Outage,
    /// A handler has ended its transaction by itself: no event is handled in company any more.
    pub distrust: AtomicBool,
    /// Runs alone before an event is dead-lettered.
    pub attempts: NonZeroU32,
    pub handler_timeout: Duration,
    /// Events of types without a handler are dead letters.
    pub reject_unhandled: bool,
    /// A dead letter holds the later events of its key.
    pub hold_key: bool,
}

/// A job on its way.
struct Task {
    job: Job<Message>,
    reading: Reading,
    outcome: Option<Outcome>,
}

enum Reading {
    Event(Box<Decoded>),
    /// Nothing is to be done for it.
    Skip,
    /// It is no event that can be handled: its id as a dead letter, and why.
    Unreadable(EventId, String),
}

impl Worker {
    /// Brings every job of the batch to an outcome, in the order given.
    pub async fn run(self: Arc<Self>, batch: Vec<Job<Message>>) -> Vec<(Job<Message>, Outcome)> {
        let mut tasks: Vec<Task> = batch.into_iter().map(|job| self.read(job)).collect();
        let shared = match tasks.len() > 1 {
            true => self.share(&mut tasks).await,
            false => Err(Failure::Mixed),
        };
        let mut outage = None;
        match shared {
            Ok(()) => self.set_aside_expired(&mut tasks).await,
            Err(Failure::Outage(reason)) => outage = Some(reason),
            // A verdict counts only alone: what fails in company may be a mate's fault.
            Err(failure) => {
                if matches!(failure, Failure::Ended) {
                    self.lose_trust(&tasks);
                }
                outage = self.isolate(&mut tasks).await;
            }
        }
        if let Some(reason) = outage {
            self.postgres.note_down(&reason);
            tokio::time::sleep(jittered(OUTAGE_WAIT)).await;
        } else {
            self.postgres.note_up();
        }
        let outcomes = tasks.into_iter().map(|task| {
            let outcome = task.outcome.unwrap_or(Outcome::NotTried);
            (task.job, outcome)
        });
        outcomes.collect()
    }

    /// What the message is, by itself.
    fn read(&self, job: Job<Message>) -> Task {
        let record = &*job.item;
        let redriven_for = record.header(header::REDRIVE);
        let consumer = self.inbox.consumer().as_str().as_bytes();
        let reading = if redriven_for.is_some_and(|name| name != consumer) {
            Reading::Skip
        } else {
            let decoded = catch_unwind(AssertUnwindSafe(|| {
                decode::decode(&self.decoders, record).map_err(|error| chain(&error))
            }));
            match decoded.unwrap_or_else(|_| Err("the decoder panicked".to_owned())) {
                Err(reason) => Reading::Unreadable(record.place().event_id(), reason),
                Ok(event) if self.routes.handles(&event.event_type) => {
                    Reading::Event(Box::new(event))
                }
                Ok(event) if self.reject_unhandled => {
                    let reason = format!("no handler for events of type \"{}\"", event.event_type);
                    Reading::Unreadable(event.id, reason)
                }
                Ok(_) => Reading::Skip,
            }
        };
        Task {
            job,
            reading,
            outcome: None,
        }
    }

    /// All events of the batch in one transaction. Leaves those without an outcome that are to be dead
    /// letters.
    async fn share(&self, tasks: &mut [Task]) -> Result<(), Failure> {
        let unreadable = |task: &Task| matches!(task.reading, Reading::Unreadable(..));
        if self.distrust.load(Ordering::Relaxed) || self.hold_key && tasks.iter().any(unreadable) {
            return Err(Failure::Mixed);
        }
        let identities: Vec<Identity> = tasks.iter().filter_map(Task::identity).collect();
        let mut claims = Vec::new();
        if !identities.is_empty() {
            let (mut tx, patience) = begin(&self.pool, self.handler_timeout).await?;
            let answers = self.inbox.claim_batch(&mut tx, &identities).await;
            claims = answers.map_err(Failure::of_inbox)?;
            set_patience(&mut tx, &patience).await?;
            if self.hold_key && self.holds_any(&mut tx, &identities, &claims).await? {
                return Err(Failure::Mixed);
            }
            let events = tasks.iter().filter(|task| task.identity().is_some());
            for (task, claim) in events.zip(&claims) {
                if let (Claim::New, Reading::Event(event)) = (claim, &task.reading) {
                    tx = self.handle(tx, event, &task.job.item).await?;
                }
            }
            match claims.contains(&Claim::New) {
                true => end(tx).await?,
                false => drop(tx),
            }
        }
        let mut claims = claims.into_iter();
        for task in tasks {
            match &task.reading {
                Reading::Event(event) => match claims.next() {
                    Some(Claim::New) => {
                        self.metrics.took_effect(event.created_at);
                        task.outcome = Some(Outcome::Done);
                    }
                    Some(Claim::Duplicate) => {
                        self.metrics.duplicates.inc();
                        task.outcome = Some(Outcome::Done);
                    }
                    Some(Claim::Expired) | None => {}
                },
                Reading::Skip => {
                    self.metrics.skipped.inc();
                    task.outcome = Some(Outcome::Done);
                }
                Reading::Unreadable(..) => {}
            }
        }
        Ok(())
    }

    /// After a batch was committed: what is left of it goes to the dead letters.
    async fn set_aside_expired(&self, tasks: &mut [Task]) {
        for task in tasks {
            if task.outcome.is_none() {
                task.outcome = Some(match &task.reading {
                    Reading::Event(event) => self.expired(&task.job, &event.id).await,
                    Reading::Unreadable(id, reason) => {
                        self.dead_letter(&task.job, id, reason, 0).await
                    }
                    Reading::Skip => Outcome::Done,
                });
            }
        }
    }

    /// Each event in a transaction of its own, in order; what follows a failed one of its key is not tried.
    /// Returns why it gave up, if Postgres went away.
    async fn isolate(&self, tasks: &mut [Task]) -> Option<String> {
        for index in 0..tasks.len() {
            let (before, rest) = tasks.split_at_mut(index);
            let task = rest.first_mut()?;
            let stopped = before.iter().any(|earlier| {
                earlier.job.is_of_same_key(&task.job) && earlier.outcome != Some(Outcome::Done)
            });
            if stopped {
                task.outcome = Some(Outcome::NotTried);
                continue;
            }
            match self.alone(task).await {
                Ok(outcome) => task.outcome = Some(outcome),
                Err(reason) => return Some(reason),
            }
        }
        None
    }

    /// One event by itself.
    async fn alone(&self, task: &Task) -> Result<Outcome, String> {
        let event = match &task.reading {
            Reading::Event(event) => event,
            Reading::Skip => {
                self.metrics.skipped.inc();
                return Ok(Outcome::Done);
            }
            Reading::Unreadable(id, reason) => {
                return Ok(self.dead_letter(&task.job, id, reason, 0).await);
            }
        };
        match self.attempt(event, &task.job.item).await {
            Ok(Claim::New) => {
                self.metrics.took_effect(event.created_at);
                Ok(Outcome::Done)
            }
            Ok(Claim::Duplicate) => {
                self.metrics.duplicates.inc();
                Ok(self.hold_or_go_on(&event.id).await)
            }
            Ok(Claim::Expired) => Ok(self.expired(&task.job, &event.id).await),
            Err(Failure::Outage(reason)) => Err(reason),
            Err(Failure::Lost(reason)) => self.lost(&task.job, event, &reason).await,
            Err(Failure::Contention | Failure::Mixed) => Ok(Outcome::Blocked),
            Err(failure @ Failure::Ended) => {
                let error = HandlerError::retry(failure.text());
                Ok(self.failed(&task.job, event, &error).await)
            }
            Err(Failure::Handler(error)) => Ok(self.failed(&task.job, event, &error).await),
        }
    }

    /// The event was alone when the connection was lost. If another is to be had, it may be the event's own
    /// doing: a statement that breaks the server's process, or a transaction that the server ends because of
    /// its length. An outage does the same, but hardly twice in succession to the same event.
    async fn lost(
        &self,
        job: &Job<Message>,
        event: &Decoded,
        reason: &str,
    ) -> Result<Outcome, String> {
        if let Err(outage) = begin(&self.pool, self.handler_timeout).await {
            return Err(outage.text());
        }
        if job.suspect {
            let error = HandlerError::retry(format!("the connection was lost: {reason}"));
            return Ok(self.failed(job, event, &error).await);
        }
        tracing::warn!(
            consumer = self.inbox.consumer().as_str(),
            event.id = event.id.as_str(),
            event.r#type = event.event_type,
            error = reason,
            "lost the connection while handling an event, trying again"
        );
        Ok(Outcome::Blocked)
    }

    /// What handlers did after one of them had ended the transaction was committed without its claim, and
    /// is done again now. From here on it cannot happen: a handler has no company whose claims it could end.
    fn lose_trust(&self, tasks: &[Task]) {
        self.distrust.store(true, Ordering::Relaxed);
        let ids = tasks.iter().filter_map(Task::identity);
        let ids: Vec<String> = ids.map(|event| event.id.as_str().to_owned()).collect();
        tracing::error!(
            consumer = self.inbox.consumer().as_str(),
            event.ids = ?ids,
            error = Failure::Ended.text(),
            "effects of these events may have happened twice, each event is handled alone from now on"
        );
    }

    /// The handler failed for the event alone.
    async fn failed(&self, job: &Job<Message>, event: &Decoded, error: &HandlerError) -> Outcome {
        let attempts = job.failures + 1;
        let reason = chain(error.cause());
        if error.is_reject() || attempts >= self.attempts.get() {
            return self.dead_letter(job, &event.id, &reason, attempts).await;
        }
        self.metrics.retried.inc();
        tracing::warn!(
            consumer = self.inbox.consumer().as_str(),
            event.id = event.id.as_str(),
            event.r#type = event.event_type,
            attempts,
            error = reason,
            "handling an event failed, trying again"
        );
        Outcome::Failed
    }
}

impl Task {
    fn identity(&self) -> Option<Identity> {
        match &self.reading {
            Reading::Event(event) => Some(identity(event)),
            Reading::Skip | Reading::Unreadable(..) => None,
        }
    }
}

pub(super) fn identity(event: &Decoded) -> Identity {
    Identity {
        id: event.id.clone(),
        created_at: event.created_at,
    }
}
