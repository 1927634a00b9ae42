//! Sends rows again that were sent and are still in their table: the same bytes by the same router and
//! envelope, in the order of their ids, through one gapless producer of its own. It owns no lease and marks
//! nothing, so it runs beside the outbox's relay.

mod reader;
mod survey;
mod unsettled;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Postgres;
use super::window::Outgoing;
use crate::config::{Config, OutboxConfig};
use crate::db::outbox::sent_rows::{Choice, SentRows};
use crate::db::{DbError, Role, Session, migrate};
use crate::kafka::{
    KafkaClient, KafkaSetupError, Producer, ProducerSizes, Report, Reports, SendError, Sharing,
    Topics,
};

use reader::Reader;
use unsettled::Unsettled;

pub use survey::{Survey, TopicSurvey};

/// How long a full queue is waited for without a report.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

/// What is to be sent again.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub choice: Choice,
    /// As it is resolved from the row and the outbox's template.
    pub topic: Option<String>,
    /// Only rows above this id.
    pub after: Option<i64>,
}

/// Why nothing could be sent again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Postgres(#[from] DbError),
    #[error(transparent)]
    Kafka(#[from] KafkaSetupError),
    #[error("topic \"{topic}\" cannot be used: {reason}")]
    Topic { topic: Arc<str>, reason: String },
}

/// How far a replay came.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Rows that the brokers acknowledged.
    pub rows: u64,
    /// Everything that is wanted up to this id is acknowledged.
    pub settled: Option<i64>,
    /// Everything was sent and acknowledged.
    pub is_complete: bool,
    /// What ended it, unless somebody did.
    pub failure: Option<String>,
}

/// A replay of one outbox.
pub struct Replay {
    outbox: OutboxConfig,
    postgres: Arc<Postgres>,
    kafka: KafkaClient,
    topics: Topics,
    rows: SentRows,
    session: Session,
    /// How long to wait for what is in flight once it is to stop.
    patience: Duration,
}

impl Replay {
    /// Compares the schema; sends nothing.
    ///
    /// # Errors
    /// When Postgres does not answer or its schema does not fit, or Kafka's client refuses a property.
    pub async fn open(config: &Config, outbox: &OutboxConfig) -> Result<Replay, ReplayError> {
        let postgres = Arc::new(Postgres::new(&config.postgres)?);
        let mut session = postgres.database().connect("replay", Role::Command).await?;
        session.begin().await?;
        migrate::verify(&mut session, postgres.schema(), outbox).await?;
        let kafka = KafkaClient::new(&config.kafka);
        let max_message_bytes = kafka.rules().max_message_bytes;
        let rows = SentRows::open(&mut session, outbox, postgres.schema(), max_message_bytes);
        let rows = rows.await?;
        session.commit().await?;
        Ok(Replay {
            outbox: outbox.clone(),
            topics: Topics::new(&kafka)?,
            postgres,
            kafka,
            rows,
            session,
            patience: config.relay.shutdown_deadline,
        })
    }

    /// Whether rows can be chosen by the time of their creation.
    pub fn has_time(&self) -> bool {
        self.rows.has_time
    }

    /// Sends what the survey found, until `stop` says so; `moved` is told how many rows are acknowledged.
    ///
    /// # Errors
    /// When Kafka's client refuses a property: then nothing was sent. Whatever comes later is in the answer.
    pub async fn send(
        &mut self,
        wanted: &Wanted,
        survey: &Survey,
        rate: Option<NonZeroU32>,
        mut stop: watch::Receiver<bool>,
        mut moved: impl FnMut(u64),
    ) -> Result<Replayed, ReplayError> {
        let mut out = Out::open(&self.kafka, &self.outbox, survey)?;
        let sent = self
            .send_all(wanted, survey, rate, &mut stop, &mut out, &mut moved)
            .await;
        let ended = match sent {
            Ok(ended) => ended,
            Err(error) => Ended::Failed(crate::outage::chain(&error)),
        };
        // What is in flight goes on, and each acknowledgement is a row less to repeat.
        let deadline = Instant::now() + self.patience;
        while !out.unsettled.is_empty() && out.failure.is_none() {
            let is_over = tokio::select! {
                // Cancel-safe: no report is taken.
                () = out.reports.wait() => false,
                () = tokio::time::sleep_until(deadline), if !matches!(ended, Ended::Complete) => true,
                // Complete but for what is in flight: that may take as long as the brokers are down.
                _ = stop.wait_for(|stop| *stop), if matches!(ended, Ended::Complete) => true,
            };
            out.take_reports(&mut moved);
            if is_over {
                break;
            }
        }
        Ok(out.close(ended).await)
    }

    async fn send_all(
        &mut self,
        wanted: &Wanted,
        survey: &Survey,
        rate: Option<NonZeroU32>,
        stop: &mut watch::Receiver<bool>,
        out: &mut Out,
        moved: &mut impl FnMut(u64),
    ) -> Result<Ended, DbError> {
        let started = Instant::now();
        let mut sent: u32 = 0;
        let client = self.kafka.rules();
        let Some(last) = survey.last else {
            return Ok(Ended::Complete);
        };
        let mut reader = self.reader(wanted, last);
        while let Some(rows) = reader.next().await? {
            for (topic, row) in rows {
                let now_ms = survey::now_ms();
                if survey.refuses(&client, &topic, &row, now_ms).is_some() {
                    continue;
                }
                let due = rate.map(|rate| started + Duration::from_secs(1) * sent / rate.get());
                sent = sent.saturating_add(1);
                if let Some(due) = due.filter(|due| *due > Instant::now()) {
                    tokio::select! {
                        // `wait_for` and a sleep keep nothing.
                        _ = stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                if !out.send(&topic, row, stop, moved).await {
                    return Ok(Ended::Stopped);
                }
            }
        }
        Ok(Ended::Complete)
    }

    fn reader(&mut self, wanted: &Wanted, last: i64) -> Reader<'_> {
        Reader::new(
            &self.postgres,
            &mut self.session,
            &self.rows,
            &self.outbox,
            wanted,
            last,
        )
    }
}

/// Why no more is sent.
#[derive(Debug)]
enum Ended {
    Complete,
    Stopped,
    Failed(String),
}

/// The producer, and what it has not acknowledged.
struct Out {
    producer: Producer,
    reports: Arc<Reports>,
    taken: Vec<Report>,
    unsettled: Unsettled,
    most: usize,
    acknowledged: u64,
    failure: Option<String>,
}

impl Out {
    fn open(
        kafka: &KafkaClient,
        outbox: &OutboxConfig,
        survey: &Survey,
    ) -> Result<Out, KafkaSetupError> {
        let reports = Arc::new(Reports::default());
        let most = outbox.window_rows.get() as usize;
        let sizes = ProducerSizes {
            messages: most,
            bytes: outbox.window_bytes.as_u64() as usize,
            // A larger set is refused as a whole, and the client does not divide it.
            batch_bytes: survey
                .set_bytes()
                .filter(|bytes| *bytes < kafka.batch_bytes()),
        };
        Ok(Out {
            producer: Producer::new(kafka, Sharing::Batched, sizes, &reports)?,
            reports,
            taken: Vec::new(),
            unsettled: Unsettled::default(),
            most,
            acknowledged: 0,
            failure: None,
        })
    }

    /// Hands a row over as soon as there is room; false if there is nothing to wait for any more.
    async fn send(
        &mut self,
        topic: &str,
        row: Outgoing,
        stop: &mut watch::Receiver<bool>,
        moved: &mut impl FnMut(u64),
    ) -> bool {
        let (id, message) = (row.event.id, row.message);
        loop {
            self.take_reports(moved);
            if self.failure.is_some() || *stop.borrow() {
                return false;
            }
            if self.unsettled.len() < self.most {
                let ticket = self.unsettled.next_ticket();
                match self
                    .producer
                    .send(topic, &message, row.timestamp_ms, ticket)
                {
                    Ok(()) => {
                        self.unsettled.push(id);
                        return true;
                    }
                    Err(SendError::QueueFull) => {}
                    Err(SendError::Refused(code)) => {
                        self.failure = Some(format!("row {id} to topic \"{topic}\": {code}"));
                    }
                    // The report that says why is on its way.
                    Err(SendError::Fatal) if !self.unsettled.is_empty() => {}
                    Err(SendError::Fatal) => {
                        self.failure = Some("the kafka producer gave up".to_owned());
                    }
                }
                if self.failure.is_some() {
                    return false;
                }
            }
            tokio::select! {
                // Cancel-safe both: no report is taken, and `wait_for` keeps nothing.
                _ = stop.wait_for(|stop| *stop) => return false,
                () = self.reports.wait() => {}
                // What was reported can count a moment longer: the last report may have come.
                () = tokio::time::sleep(ROOM_PATIENCE) => {}
            }
        }
    }

    fn take_reports(&mut self, moved: &mut impl FnMut(u64)) {
        self.reports.take(&mut self.taken);
        if self.taken.is_empty() {
            return;
        }
        for report in &self.taken {
            match report.outcome {
                Ok(_) => {
                    self.acknowledged += 1;
                    self.unsettled.acknowledged(report.ticket);
                }
                // The first that is told: the others are its mates, or what the producer gave back.
                Err(code) if self.failure.is_none() => {
                    let id = self.unsettled.id(report.ticket).unwrap_or_default();
                    self.failure =
                        Some(format!("row {id} or one sent with it was refused: {code}"));
                }
                Err(_) => {}
            }
        }
        moved(self.acknowledged);
    }

    async fn close(self, ended: Ended) -> Replayed {
        let producer = self.producer;
        // Its destructor joins a thread; what it gives back is sent by whoever goes on.
        let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
        let is_complete = matches!(ended, Ended::Complete) && self.unsettled.is_empty();
        Replayed {
            rows: self.acknowledged,
            settled: self.unsettled.settled(),
            is_complete: is_complete && self.failure.is_none(),
            failure: match ended {
                Ended::Failed(reason) => Some(self.failure.unwrap_or(reason)),
                Ended::Complete | Ended::Stopped => self.failure,
            },
        }
    }
}
