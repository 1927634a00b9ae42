//! Messages out, reports back, and what becomes of producers that do not deliver.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::RDKafkaErrorCode;

use super::{BACKOFF, LaneCore, LaneEnd};
use crate::kafka::{SendError, Sharing};
use crate::otlp::{Outcome, Relayed};
use crate::outage::jittered;
use crate::relay::Ended;
use crate::relay::failure::{RefusedBy, failure};
use crate::relay::window::{Failure, Outgoing, Route, Ticket};

impl LaneCore {
    /// Hands everything to Kafka that may go out now.
    pub(super) fn send(&mut self) {
        let waits = self.outbound.is_to_refit() || Instant::now() < self.sending_from;
        if self.stopping || waits || !self.validity.is_valid() {
            return;
        }
        let now_ms = unix_micros() / 1_000;
        while let Some((ticket, route)) = self.window.next_to_send() {
            let Some(row) = self.window.outgoing(ticket) else {
                continue;
            };
            if let Some(reason) = row.unsendable.clone() {
                self.unsendable(ticket, &reason);
                continue;
            }
            if let Some(reason) = self.topics.refuses(row, now_ms) {
                self.breaks_rules(ticket, &reason);
                continue;
            }
            // Invariant: a topic is numbered before its first row is handed over.
            let Some(topic) = self.topics.name(row.topic) else {
                continue;
            };
            match self.outbound.send(route, topic, row, ticket) {
                Ok(()) => {}
                Err(SendError::QueueFull | SendError::Fatal) => {
                    self.window.not_sent(ticket);
                    return;
                }
                Err(SendError::Refused(code)) => {
                    self.failed(ticket, Route::Alone, RefusedBy::Check, code);
                }
            }
        }
    }

    pub(super) fn take_reports(&mut self) {
        let mut reports = std::mem::take(&mut self.reports);
        self.outbound.take_reports(&mut reports);
        let now = Instant::now();
        let now_us = unix_micros();
        let mut acknowledged = Vec::with_capacity(reports.len());
        let mut refused = 0_usize;
        let mut unproven = 0_usize;
        for report in &reports {
            let ticket = Ticket(report.ticket);
            let route = match report.sharing {
                Sharing::Batched => Route::Batched,
                Sharing::Alone => Route::Alone,
            };
            match report.outcome {
                Ok(partition) => {
                    if let Some(row) = self.window.acknowledged(ticket, partition, now) {
                        self.metrics.acknowledged(&row, now, now_us);
                        self.make_span(&row, Outcome::Acknowledged { partition }, now);
                        self.took(row.topic);
                        acknowledged.push(row.event);
                    }
                }
                Err(code) => {
                    refused +=
                        usize::from(route == Route::Batched && failure(code) == Failure::Refused);
                    unproven += usize::from(code == RDKafkaErrorCode::Inconsistent);
                    self.failed(ticket, route, RefusedBy::Broker, code);
                }
            }
        }
        if refused > 0 {
            tracing::warn!(
                outbox = self.name,
                rows = refused,
                "kafka refused a message set, its rows go out again one by one"
            );
        }
        if unproven > 0 {
            tracing::warn!(
                outbox = self.name,
                rows = unproven,
                "kafka has acknowledged later rows only, these go out again"
            );
        }
        if !acknowledged.is_empty() {
            self.moved.acknowledged = true;
            self.vain_rebuilds = 0;
            self.hand_to_marker(acknowledged);
        }
        self.reports = reports;
    }

    pub(super) fn make_span(&self, row: &Outgoing, outcome: Outcome, ended: Instant) {
        if let Some(spans) = &self.spans
            && let Some(trace) = &row.trace
            && let Some(topic) = self.topics.name(row.topic)
        {
            spans.relayed(Relayed {
                trace,
                event: row.event,
                event_type: row.event_type.as_deref(),
                topic,
                outcome,
                first_seen: row.first_seen,
                ended,
            });
        }
    }

    /// Replaces the producers: what they had not delivered goes out again, from the oldest unsettled row
    /// of each key. If the last one has delivered nothing, whatever ended it may last: then the next waits.
    pub(super) async fn rebuild(&mut self, reason: &'static str) {
        let rows = self.close_producers().await;
        let wait = match self.vain_rebuilds {
            0 => Duration::ZERO,
            vain => jittered(BACKOFF.after(vain)),
        };
        tracing::warn!(
            outbox = self.name,
            reason,
            rows,
            retry_in_ms = wait.as_millis() as u64,
            "making a new kafka producer"
        );
        self.vain_rebuilds = self.vain_rebuilds.saturating_add(1);
        self.sending_from = Instant::now() + wait;
        self.metrics.producer_rebuilds.inc();
        self.outbound.reopen();
    }

    /// The deadline has passed: purges what is in flight, and counts.
    pub(super) async fn give_up(&mut self) -> LaneEnd {
        let ended = Ended {
            in_flight: self.close_producers().await,
            unmarked: self.window.fill().unmarked,
            undecided: self.window.undecided(),
        };
        tracing::warn!(
            outbox = self.name,
            messages.purged = ended.in_flight,
            rows.unmarked = ended.unmarked,
            "the window did not settle before the deadline, some events may be published again"
        );
        LaneEnd::Stopped(ended)
    }

    /// Drops the producers; returns how many of their messages were not acknowledged.
    async fn close_producers(&mut self) -> usize {
        self.outbound.close().await;
        self.take_reports();
        let unreported = self
            .window
            .producer_lost(self.window.in_flight(), Instant::now());
        self.outbound.purged() + unreported
    }
}

fn unix_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
}
