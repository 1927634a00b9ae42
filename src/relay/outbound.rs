//! The producers of a lane: one for all messages, and one for suspects, made when there are any.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::window::{Limits, Outgoing, Route, Ticket};
use crate::kafka::{
    KafkaClient, KafkaSetupError, Producer, ProducerSizes, Report, Reports, SendError, Sharing,
};
use crate::outage::chain;

/// What librdkafka keeps of a message besides its bytes, roughly: headers are copied one by one.
const MESSAGE_OVERHEAD: usize = 1024;

/// How long what is in flight is waited for until the producers are made anew of certificates that were replaced: an
/// answer takes milliseconds, and nothing goes out meanwhile.
const REFIT_PATIENCE: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Outbound {
    client: KafkaClient,
    sizes: ProducerSizes,
    reports: Arc<Reports>,
    batched: Option<Producer>,
    alone: Option<Producer>,
    fatal: bool,
    purged: usize,
    /// The bytes of a message set, at most, where a topic takes less than the client's own bound.
    batch_limit: Option<usize>,
    /// The producer at hand makes larger ones.
    is_to_refit: bool,
}

impl Outbound {
    /// # Errors
    /// When Kafka's client refuses a property.
    pub fn new(client: KafkaClient, limits: Limits) -> Result<Outbound, KafkaSetupError> {
        let reports = Arc::new(Reports::default());
        // A window always fits, with one batch to spare: librdkafka's own bound is never what holds back.
        let sizes = ProducerSizes {
            messages: limits.rows.saturating_mul(2),
            bytes: limits
                .bytes
                .saturating_mul(2)
                .saturating_add(limits.rows.saturating_mul(MESSAGE_OVERHEAD)),
            batch_bytes: None,
        };
        let batched = Producer::new(&client, Sharing::Batched, sizes, &reports)?;
        Ok(Outbound {
            client,
            sizes,
            reports,
            batched: Some(batched),
            alone: None,
            fatal: false,
            purged: 0,
            batch_limit: None,
            is_to_refit: false,
        })
    }

    /// Has message sets stay within what a topic takes: a larger one is refused as a whole, and the client
    /// does not divide it. Takes effect with [`refit`](Self::refit), when nothing is in flight.
    pub fn limit_batches(&mut self, bytes: usize) {
        if bytes < self.batch_limit.unwrap_or(self.client.batch_bytes()) {
            self.batch_limit = Some(bytes);
            self.is_to_refit = true;
        }
    }

    /// The producers are to be made anew when nothing is in flight.
    pub fn is_to_refit(&self) -> bool {
        self.is_to_refit || self.outdated_since().is_some()
    }

    /// Since when a producer is made of certificates that were replaced.
    fn outdated_since(&self) -> Option<Instant> {
        let producers = [&self.batched, &self.alone].into_iter().flatten();
        producers.filter_map(Producer::outdated_since).min()
    }

    /// Makes the producers anew, for smaller message sets, or of certificates that were replaced.
    pub async fn refit(&mut self) {
        if self.outdated_since().is_some() {
            tracing::info!("kafka's certificates were replaced, making a new kafka producer");
        }
        self.close().await;
        self.reopen();
    }

    /// Hands a row over.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn send(
        &mut self,
        route: Route,
        topic: &str,
        row: &Outgoing,
        ticket: Ticket,
    ) -> Result<(), SendError> {
        let (slot, sharing) = match route {
            Route::Batched => (&mut self.batched, Sharing::Batched),
            Route::Alone => (&mut self.alone, Sharing::Alone),
        };
        if slot.is_none() {
            *slot = open(&self.client, sharing, self.sizes, &self.reports);
        }
        let Some(producer) = slot else {
            self.fatal = true;
            return Err(SendError::Fatal);
        };
        let sent = producer.send(topic, &row.message, row.timestamp_ms, ticket.0);
        self.fatal |= sent == Err(SendError::Fatal);
        sent
    }

    /// Waits for reports. Cancel-safe: takes none.
    pub async fn reported(&self) {
        self.reports.wait().await;
    }

    /// Exchanges the reports that have arrived for those in `into`.
    pub fn take_reports(&mut self, into: &mut Vec<Report>) {
        self.reports.take(into);
        let failed = into.iter().filter(|report| report.outcome.is_err()).count();
        if failed > 0 {
            let fatal =
                |producer: &Option<Producer>| producer.as_ref().is_some_and(Producer::is_fatal);
            self.fatal |= fatal(&self.batched) || fatal(&self.alone);
            self.purged += failed;
        }
    }

    /// Why the producers must be made anew with what is in flight, if they must: one takes nothing any more, or the
    /// brokers perhaps take its certificate no more.
    pub fn needs_rebuild(&self) -> Option<&'static str> {
        if self.fatal {
            return Some("a producer gave up");
        }
        let since = self.outdated_since()?;
        let is_stuck = self.client.health().is_down() || since.elapsed() > REFIT_PATIENCE;
        is_stuck.then_some("kafka's certificates were replaced")
    }

    /// Messages that came back unacknowledged since the last [`close`](Self::close) began.
    pub fn purged(&self) -> usize {
        self.purged
    }

    /// Drops the producers with everything they have not delivered; when this returns, every report has
    /// arrived. Takes up to a second or so.
    pub async fn close(&mut self) {
        self.purged = 0;
        let producers = (self.batched.take(), self.alone.take());
        // The wrapper's destructor purges, flushes and joins its thread. If the runtime is going down,
        // the destructor has run all the same.
        let _ = tokio::task::spawn_blocking(move || drop(producers)).await;
    }

    /// Makes the producers anew with the next message.
    pub fn reopen(&mut self) {
        self.fatal = false;
        self.is_to_refit = false;
        self.sizes.batch_bytes = self.batch_limit;
    }

    /// Drops the producer for suspects when there are none.
    pub fn tidy(&mut self, no_suspects: bool) {
        if no_suspects && let Some(alone) = self.alone.take() {
            tokio::task::spawn_blocking(move || drop(alone));
        }
    }
}

fn open(
    client: &KafkaClient,
    sharing: Sharing,
    sizes: ProducerSizes,
    reports: &Arc<Reports>,
) -> Option<Producer> {
    match Producer::new(client, sharing, sizes, reports) {
        Ok(producer) => Some(producer),
        // The same properties worked when the lane started; memory or threads are short then.
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "a kafka producer could not be made, trying again"
            );
            None
        }
    }
}
