//! What becomes of rows that do not get through: tried again, held, or parked.

use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;

use super::{LaneCore, TopicId};
use crate::config::OnPoison;
use crate::db::parked::{Class, Parking};
use crate::outage::jittered;
use crate::relay::breaker::Ends;
use crate::relay::failure::{RefusedBy, Verdict, class, failure, verdict};
use crate::relay::park::{MAX_PARKED, Order, ToPark};
use crate::relay::topics::TopicAnswer;
use crate::relay::window::{Failed, Failure, Outgoing, Route, Ticket};

/// Why a row was refused.
pub(super) struct Refusal<'r> {
    class: Class,
    by: RefusedBy,
    pub(super) reason: &'r str,
}

impl LaneCore {
    /// Kafka or its client did not take a row.
    pub(super) fn failed(
        &mut self,
        ticket: Ticket,
        route: Route,
        by: RefusedBy,
        code: RDKafkaErrorCode,
    ) {
        let topic = self.window.outgoing(ticket).map(|row| row.topic);
        let failure = match failure(code) {
            // Somebody wants the rows parked for what is the topic's fault.
            Failure::TopicRefused if topic.is_some_and(|topic| self.breaker.is_bypassed(topic)) => {
                Failure::Refused
            }
            failure => failure,
        };
        match failure {
            Failure::Refused => {
                // Its topic's rules may have changed.
                if let Some(row) = self.window.outgoing(ticket) {
                    self.topics.are_rules_from_after(row.topic, row.first_seen);
                }
                let refusal = Refusal {
                    class: class(code),
                    by,
                    reason: &code.to_string(),
                };
                self.refused(ticket, route, &refusal);
            }
            Failure::TopicMissing => {
                if let Some(topic) = topic {
                    if self.window.is_open(topic) {
                        self.window.close_topic(topic);
                        self.topics.ask(topic);
                    }
                    self.window
                        .failed(ticket, Failure::TopicMissing, Instant::now(), jittered);
                }
            }
            Failure::TopicRefused => {
                let now = Instant::now();
                if let Some(topic) = topic {
                    self.breaker.open(topic, now, jittered);
                    self.trip(topic, &code.to_string());
                }
                self.window
                    .failed(ticket, Failure::TopicRefused, now, jittered);
            }
            Failure::Collateral => {
                self.window
                    .failed(ticket, Failure::Collateral, Instant::now(), jittered);
            }
        }
    }

    /// A row cannot be a message of its topic: it never goes to the producer.
    pub(super) fn unsendable(&mut self, ticket: Ticket, reason: &str) {
        let is_unreadable = |row: &Outgoing| row.is_unreadable;
        let refusal = Refusal {
            class: match self.window.outgoing(ticket).is_some_and(is_unreadable) {
                true => Class::Unreadable,
                false => Class::Row,
            },
            by: RefusedBy::Check,
            reason,
        };
        self.refused(ticket, Route::Alone, &refusal);
    }

    /// A row breaks the rules of its topic, as far as they are known. It is parked for rules that were asked
    /// for after it was read: somebody may have changed them to let it pass.
    pub(super) fn breaks_rules(&mut self, ticket: Ticket, reason: &str) {
        let Some(row) = self.window.outgoing(ticket) else {
            return;
        };
        let is_sure = self.topics.are_rules_from_after(row.topic, row.first_seen);
        let refusal = Refusal {
            class: if is_sure { Class::Row } else { Class::Unknown },
            by: RefusedBy::Check,
            reason,
        };
        self.refused(ticket, Route::Alone, &refusal);
    }

    /// Only a row that went alone is surely the cause: its batch-mates are sent again, and nothing is said of
    /// them.
    fn refused(&mut self, ticket: Ticket, route: Route, refusal: &Refusal<'_>) {
        let now = Instant::now();
        let Some(topic) = self.window.outgoing(ticket).map(|row| row.topic) else {
            return;
        };
        let failed = self.window.failed(ticket, Failure::Refused, now, jittered);
        self.metrics
            .refused
            .inc_by(u64::from(refusal.by == RefusedBy::Broker));
        self.window.explain(ticket, refusal.reason);
        let (Some(failed), Route::Alone) = (failed, route) else {
            return;
        };
        self.show_refusal(ticket, refusal);
        let topic_is_suspect =
            refusal.by == RefusedBy::Broker && self.breaker.refused(topic, now, jittered);
        if topic_is_suspect {
            self.trip(topic, refusal.reason);
        }
        let verdict = verdict(
            refusal.class,
            refusal.by,
            failed.attempts,
            self.poison.max_attempts,
            topic_is_suspect,
        );
        match verdict {
            Verdict::Park if self.window.parked_count() < MAX_PARKED => {
                self.park(ticket, refusal, failed);
            }
            Verdict::Park | Verdict::Retry => {
                self.warn_of(ticket, refusal, failed, topic_is_suspect)
            }
        }
    }

    /// Holds a topic whose rows are refused whichever they are.
    fn trip(&mut self, topic: TopicId, reason: &str) {
        if self.window.trip_topic(topic) {
            self.breaker.explain(topic, reason, Instant::now());
            let name = self.topics.name(topic).unwrap_or_default();
            self.progress.note_error(&format!("topic {name}: {reason}"));
            tracing::warn!(
                outbox = self.name,
                topic.name = self.topics.name(topic).unwrap_or_default(),
                error = reason,
                "kafka refuses the rows of the topic in turn, they wait until one is taken"
            );
        }
    }

    fn warn_of(&self, ticket: Ticket, refusal: &Refusal<'_>, failed: Failed, of_topic: bool) {
        let Some(event) = self.window.outgoing(ticket).map(|row| row.event) else {
            return;
        };
        tracing::warn!(
            outbox = self.name,
            event.row = event.id,
            event.id = %event.event_id,
            error = refusal.reason,
            attempts = failed.attempts,
            retry_in_ms = failed.wait.as_millis() as u64,
            topic.is_suspect = of_topic,
            "the row cannot be published, the later rows of its key wait for it"
        );
    }

    fn park(&mut self, ticket: Ticket, refusal: &Refusal<'_>, failed: Failed) {
        if !self.window.park(ticket) {
            return;
        }
        let Some(row) = self.window.outgoing(ticket) else {
            return;
        };
        let topic = self.topics.name(row.topic).unwrap_or_default();
        let parking = Parking {
            event: row.event,
            event_type: row.event_type.clone(),
            topic: topic.into(),
            key: row.message.kafka_key().map(Into::into),
            class: refusal.class,
            reason: refusal.reason.into(),
            attempts: failed.attempts.max(1),
            failing_for: failed.failing_for,
            blocks_key: self.blocks_key(row),
        };
        tracing::error!(
            outbox = self.name,
            event.row = row.event.id,
            event.id = %row.event.event_id,
            topic.name = topic,
            error = refusal.reason,
            attempts = parking.attempts,
            key.is_blocked = parking.blocks_key,
            "parking a row that cannot be published"
        );
        // A parker that has ended is noticed by the main loop.
        let _ = self.orders.send(Order::Park(ToPark { ticket, parking }));
    }

    /// Whether the later rows of its key are to wait for a decision about the row; one without a key has none.
    pub(super) fn blocks_key(&self, row: &Outgoing) -> bool {
        self.poison.on_poison == OnPoison::BlockKey && row.message.kafka_key().is_some()
    }

    pub(super) fn take_topic(&mut self, answer: TopicAnswer) {
        match self.topics.take(answer) {
            Some((topic, Some(partitions))) => {
                self.window.partitions(topic, partitions);
                // That it exists says nothing about rows that were refused in turn.
                if self.breaker.is_open(topic) {
                    return;
                }
                if let Some(limit) = self.topics.least_limit() {
                    self.outbound.limit_batches(limit);
                }
                self.window.open_topic(topic);
            }
            Some((topic, None)) => {
                self.window.shut_topic(topic);
                self.show_unusable(topic);
            }
            None => {}
        }
    }

    /// The broker took a row of a topic whose rows were refused in turn: it was not the topic's fault, or is
    /// not any more.
    pub(super) fn took(&mut self, topic: TopicId) {
        let Some(ends) = self.breaker.took(topic) else {
            return;
        };
        let topic_name = self.topics.name(topic).unwrap_or_default().to_owned();
        tracing::info!(
            outbox = self.name,
            topic.name = topic_name,
            "kafka takes rows of the topic again"
        );
        match ends {
            Ends::Open => self.window.open_topic(topic),
            Ends::Bypass => {
                self.wishes.bypassed.remove(&topic_name);
                // A parker that has ended is noticed by the main loop.
                let _ = self.orders.send(Order::EndBypass(topic_name));
            }
        }
    }

    /// Tries one row of each topic whose time has come.
    pub(super) fn try_suspect_topics(&mut self) {
        for topic in self.breaker.due(Instant::now()) {
            self.window.try_topic(topic);
        }
    }
}
