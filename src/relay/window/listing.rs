//! What is held, for those who want to know.

use std::time::Instant;

use super::gate::Gate;
use super::{Ticket, TopicId, Window};

/// A key that waits behind a row which does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailingKey<'w> {
    pub topic: TopicId,
    /// Nothing for a row without one.
    pub key: Option<&'w [u8]>,
    /// What was said of the row last.
    pub why: Option<&'w str>,
    pub since: Instant,
    pub attempts: u32,
    /// The row and those behind it, as far as they were read.
    pub rows: u64,
}

/// A topic that takes no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutTopic {
    pub topic: TopicId,
    pub is_paused: bool,
    pub is_tripped: bool,
    /// As far as they were read.
    pub rows: u64,
}

impl Window {
    /// Notes why a row of the window does not get through.
    pub fn explain(&mut self, ticket: Ticket, why: &str) {
        if self.slots.get(ticket).is_some() {
            self.keys[self.slots.key_of(ticket)].why = Some(why.into());
        }
    }

    /// The keys with a row that does not get through, the longest first, `most` at most.
    pub fn failing_keys(&self, most: usize) -> Vec<FailingKey<'_>> {
        let failing = self.keys.iter().filter_map(|(index, key)| {
            let since = key.failing_since?;
            Some((since, index, key))
        });
        let mut failing: Vec<_> = failing.collect();
        failing.sort_unstable_by_key(|(since, index, _)| (*since, *index));
        failing.truncate(most);
        let listed = failing.into_iter().map(|(since, index, key)| {
            let head = self.keys.head(index);
            let first = head.and_then(|head| self.slots.get(head));
            let in_window = std::iter::successors(head, |row| self.slots.next_of_key(*row)).count();
            let holds = &self.topics[key.topic.0 as usize].holds;
            FailingKey {
                topic: key.topic,
                key: first.and_then(|row| row.outgoing.message.kafka_key()),
                why: key.why.as_deref(),
                since,
                attempts: key.attempts,
                rows: in_window as u64 + holds.rows_of_key(&key.name),
            }
        });
        listed.collect()
    }

    /// The topics that take no rows.
    pub fn shut_topics(&self) -> impl Iterator<Item = ShutTopic> {
        let shut = self.topics.iter().enumerate();
        let shut = shut.filter(|(_, topic)| topic.is_shut());
        shut.map(|(index, topic)| ShutTopic {
            topic: TopicId(index as u32),
            is_paused: topic.is_paused,
            is_tripped: topic.is_tripped(),
            rows: topic.waiting.len() as u64 + topic.holds.rows(),
        })
    }

    /// Rows that wait because it is not known whether their topic can be used.
    pub(super) fn unanswered(&self) -> usize {
        let asked = self.topics.iter();
        let asked = asked.filter(|topic| topic.gate == Gate::Asked && !topic.is_paused);
        asked.map(|topic| topic.waiting.len()).sum()
    }

    /// Keys that wait for a decision about a parked row.
    pub(super) fn blocked_keys(&self) -> usize {
        let topics = self.topics.iter();
        topics.map(|topic| topic.holds.blocked_keys()).sum()
    }
}
