//! Copies parked rows to a topic for dead letters, if the outbox has one: the message as far as it could be made,
//! with headers that say why it is here.
//!
//! Parking never waits for it: what was parked and not copied is found in Postgres, by whoever owns the outbox,
//! until the brokers have it. A copy whose note is lost is made again.

mod letter;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Postgres;
use super::failure::failure;
use super::router::{Origin, Router};
use super::window::{Failure, Outgoing};
use crate::admin::metrics::OutboxMetrics;
use crate::config::OutboxConfig;
use crate::db::copies::{Copies, Uncopied};
use crate::db::outbox::{BatchLimit, Outbox};
use crate::db::{DbError, Role, Session};
use crate::envelope::Message;
use crate::event::EventRef;
use crate::kafka::{
    KafkaClient, KafkaSetupError, Producer, ProducerSizes, REQUEST_TIMEOUT, Reports, SendError,
    Sharing, TopicStatus, Topics,
};
use crate::outage::{Retry, chain, jittered};

use letter::{Form, Letter};

/// Rows of one round, and their bytes: nobody waits for copies, so they take little room.
const ROWS: usize = 100;
const BYTES: usize = 4 << 20;

/// How often parked rows are looked for: an index that holds nothing else.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest wait until what failed is tried again.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// How long the brokers may take for one round.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why rows were not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Postgres(#[from] DbError),
    #[error(transparent)]
    Kafka(#[from] KafkaSetupError),
    #[error("topic \"{topic}\" cannot be used: {reason}")]
    Topic { topic: String, reason: String },
    #[error("copying row {row}: {reason}")]
    Row { row: i64, reason: String },
}

/// The task that copies.
pub struct Copier {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub config: OutboxConfig,
    pub kafka: KafkaClient,
    pub topics: Topics,
    /// Where the copies go.
    pub topic: String,
    pub copies: Copies,
    pub metrics: OutboxMetrics,
}

impl Copier {
    /// Copies what is parked, again and again. Cancel-safe: what was not noted is copied again.
    pub async fn run(self) {
        let mut session = None;
        let mut retry = Retry::new(MOST_WAIT);
        loop {
            let wait = match self.walk(&mut session).await {
                Ok(()) => {
                    retry.reset();
                    jittered(LOOK_EVERY)
                }
                Err(CopyError::Postgres(error)) => {
                    session = None;
                    let message = "copying parked rows failed, trying again";
                    self.postgres.note(&error, &mut retry, message);
                    retry.next_wait()
                }
                Err(error) => {
                    let wait = retry.next_wait();
                    if retry.is_news(&chain(&error), std::time::Instant::now()) {
                        tracing::warn!(
                            outbox = self.config.name,
                            error = chain(&error),
                            retry_in_ms = wait.as_millis() as u64,
                            "parked rows cannot be copied to the topic for dead letters, they stay parked"
                        );
                    }
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Copies every row that was not, but for those that the brokers refuse; the error is then the first of them.
    async fn walk(&self, session: &mut Option<Session>) -> Result<(), CopyError> {
        let session = self
            .postgres
            .session(session, self.outbox.table(), Role::Parker)
            .await?;
        let mut out = None;
        let mut refused = None;
        let mut after = i64::MIN;
        loop {
            let round = self
                .postgres
                .deadline("reading parked rows", self.read(session, after));
            let letters = round.await?;
            let Some(last) = letters.last() else {
                return refused.map_or(Ok(()), Err);
            };
            after = last.note.event.id;
            if out.is_none() {
                out = Some(self.open().await?);
            }
            if let Some(out) = &out {
                let error = self.copy(session, out, &letters).await?;
                refused = refused.or(error);
            }
        }
    }

    /// Rows to be copied, as far as they may be read and are still there.
    async fn read(&self, session: &mut Session, after: i64) -> Result<Vec<Letter>, DbError> {
        let name = self.outbox.table().to_string();
        session.begin().await?;
        let notes = self
            .copies
            .uncopied(session, &name, after, ROWS as i64)
            .await?;
        let readable = notes.iter().filter(|note| note.is_readable);
        let ids: Vec<i64> = readable.map(|note| note.event.id).collect();
        // One row more than there are, so that only bytes can be too many.
        let limit = BatchLimit {
            rows: ids.len() + 1,
            bytes: BYTES,
        };
        let mut router = Router::new(&self.config);
        let read = self
            .outbox
            .with_ids(session, ids, limit, |event| router.route(event));
        let read = read.await?;
        session.commit().await?;
        let upto = read
            .rows
            .last()
            .filter(|_| read.full)
            .map(|row| row.event.id);
        let rows = router.batch(read.rows, Origin::Poll).rows.into_iter();
        let mut rows: HashMap<EventRef, Outgoing> = rows.map(|row| (row.event, row)).collect();
        let notes = notes.into_iter();
        let notes = notes.take_while(|note| upto.is_none_or(|upto| note.event.id <= upto));
        let letter = |note: Uncopied| Letter {
            row: rows.remove(&note.event),
            note,
        };
        Ok(notes.map(letter).collect())
    }

    /// A producer for copies, if their topic is there: librdkafka says so only after half a minute.
    async fn open(&self) -> Result<Out, CopyError> {
        match self.topics.ensure(&self.topic, REQUEST_TIMEOUT).await? {
            TopicStatus::Ready { .. } => Ok(Out::open(&self.kafka)?),
            TopicStatus::Unusable(reason) => Err(CopyError::Topic {
                topic: self.topic.clone(),
                reason,
            }),
        }
    }

    /// Copies rows and notes it. What is refused goes out with less of it; the answer is what is refused even so.
    async fn copy(
        &self,
        session: &mut Session,
        out: &Out,
        letters: &[Letter],
    ) -> Result<Option<CopyError>, CopyError> {
        let mut left: Vec<&Letter> = letters.iter().collect();
        let mut refused = None;
        for form in Form::ALL {
            let messages = left
                .iter()
                .map(|letter| letter.message(&self.config.name, form));
            let sent = out.send(&self.topic, messages.collect()).await?;
            let mut copied = Vec::new();
            let mut rest = Vec::new();
            for (letter, outcome) in left.into_iter().zip(sent) {
                match outcome {
                    Ok(()) => copied.push(&letter.note),
                    Err(reason) => {
                        let row = letter.note.event.id;
                        refused = Some(CopyError::Row { row, reason });
                        rest.push(letter);
                    }
                }
            }
            self.note(session, &copied).await?;
            left = rest;
            if left.is_empty() {
                return Ok(None);
            }
        }
        Ok(refused)
    }

    async fn note(&self, session: &mut Session, copied: &[&Uncopied]) -> Result<(), DbError> {
        if copied.is_empty() {
            return Ok(());
        }
        let name = self.outbox.table().to_string();
        let note = async {
            session.begin().await?;
            self.copies.copied(session, &name, copied).await?;
            session.commit().await
        };
        self.postgres.deadline("noting copied rows", note).await?;
        self.metrics.copied.inc_by(copied.len() as u64);
        Ok(())
    }
}

/// A producer for copies and its reports.
struct Out {
    /// Nothing only while it is dropped.
    producer: Option<Producer>,
    reports: Arc<Reports>,
}

impl Out {
    fn open(kafka: &KafkaClient) -> Result<Out, KafkaSetupError> {
        let reports = Arc::new(Reports::default());
        let sizes = ProducerSizes {
            messages: ROWS,
            bytes: 2 * BYTES,
            batch_bytes: None,
        };
        // What is refused is then refused for itself.
        let producer = Producer::new(kafka, Sharing::Alone, sizes, &reports)?;
        Ok(Out {
            producer: Some(producer),
            reports,
        })
    }

    /// Hands all of them over and waits for what becomes of each; the inner error is why it was refused.
    async fn send(
        &self,
        topic: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<Result<(), String>>, CopyError> {
        let fail = |reason: String| CopyError::Topic {
            topic: topic.to_owned(),
            reason,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut outcomes: Vec<Option<Result<(), String>>> = vec![None; messages.len()];
        for (ticket, message) in messages.iter().enumerate() {
            let Some(producer) = &self.producer else {
                break;
            };
            match producer.send(topic, message, None, ticket as u64) {
                Ok(()) => {}
                Err(SendError::Refused(code)) => outcomes[ticket] = Some(Err(code.to_string())),
                Err(error @ (SendError::QueueFull | SendError::Fatal)) => {
                    return Err(fail(format!("{error:?}")));
                }
            }
        }
        let mut reports = Vec::new();
        while outcomes.iter().any(Option::is_none) {
            // Cancel-safe: no report is taken.
            if tokio::time::timeout_at(deadline, self.reports.wait())
                .await
                .is_err()
            {
                return Err(fail(format!("no answer within {} s", PATIENCE.as_secs())));
            }
            self.reports.take(&mut reports);
            for report in &reports {
                let outcome = match report.outcome {
                    Ok(_) => Ok(()),
                    Err(code) if failure(code) == Failure::Refused => Err(code.to_string()),
                    Err(code) => return Err(fail(code.to_string())),
                };
                if let Some(place) = outcomes.get_mut(report.ticket as usize) {
                    *place = Some(outcome);
                }
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }
}

impl Drop for Out {
    /// Its destructor joins a thread.
    fn drop(&mut self) {
        let producer = self.producer.take();
        tokio::task::spawn_blocking(move || drop(producer));
    }
}
