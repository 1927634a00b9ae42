//! What a lane shows of what it holds, now and then.

use std::time::{Duration, Instant, SystemTime};

use super::failing::Refusal;
use super::{LaneCore, TopicId};
use crate::relay::router::Origin;
use crate::relay::status::{HeldKey, HeldTopic, LISTED, Listing, TopicHold};
use crate::relay::window::{ShutTopic, Ticket};

/// How often what is held is listed: for people.
const LIST_EVERY: Duration = Duration::from_secs(1);

impl LaneCore {
    /// Shows what the clock's tick is soon enough for.
    pub(super) fn show(&mut self) {
        self.progress.set_oldest(self.window.oldest_created_at_us());
        self.progress.set_held(self.window.held());
        self.progress.note_published(self.metrics.published.get());
        if self.listed_at.elapsed() >= LIST_EVERY {
            self.listed_at = Instant::now();
            self.progress.set_listing(self.listing());
        }
    }

    /// Moves rows into the window as far as there is room, and shows how many of a poll's came there.
    pub(super) fn admit_and_show(&mut self) {
        let (origin, before) = (self.inbox_origin, self.inbox.len());
        self.admit();
        if origin == Origin::Poll && self.inbox.len() < before {
            self.progress.arrived(before - self.inbox.len());
        }
    }

    fn listing(&self) -> Listing {
        let name = |topic| self.topics.name(topic).unwrap_or_default().to_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let failing = self.window.failing_keys(LISTED);
        let keys = failing.into_iter().map(|key| HeldKey {
            topic: name(key.topic),
            key: key.key.map(text),
            why: key.why.unwrap_or("it was not acknowledged").to_owned(),
            since: time_of(key.since),
            attempts: key.attempts,
            rows: key.rows,
        });
        let shut = self.window.shut_topics().take(LISTED);
        let topics = shut.map(|topic| HeldTopic {
            topic: name(topic.topic),
            hold: self.hold(topic),
            rows: topic.rows,
        });
        Listing {
            keys: keys.collect(),
            topics: topics.collect(),
        }
    }

    fn hold(&self, shut: ShutTopic) -> TopicHold {
        let said = |(why, since): (&str, Instant)| (why.to_owned(), time_of(since));
        let refused = self.breaker.opened(shut.topic).map(said);
        let unusable = self.topics.unusable(shut.topic).map(said);
        match (shut.is_tripped, refused, unusable) {
            (true, Some((why, since)), _) => TopicHold::Refused { why, since },
            (false, _, Some((why, since))) => TopicHold::Unusable { why, since },
            _ => TopicHold::Paused,
        }
    }

    /// A row was refused that went alone.
    pub(super) fn show_refusal(&self, ticket: Ticket, refusal: &Refusal<'_>) {
        if let Some(row) = self.window.outgoing(ticket) {
            let topic = self.topics.name(row.topic).unwrap_or_default();
            let (id, reason) = (row.event.id, refusal.reason);
            self.progress
                .note_error(&format!("row {id} to topic {topic}: {reason}"));
        }
    }

    /// The cluster said that a topic cannot be used.
    pub(super) fn show_unusable(&self, topic: TopicId) {
        if let Some((reason, _)) = self.topics.unusable(topic) {
            let name = self.topics.name(topic).unwrap_or_default();
            self.progress.note_error(&format!("topic {name}: {reason}"));
        }
    }
}

fn time_of(instant: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}
