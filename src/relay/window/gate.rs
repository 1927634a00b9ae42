//! The topics of a lane: whether their rows may go out.

use std::collections::VecDeque;

use super::holds::Holds;
use super::introduced::Leaders;
use super::{EntryState, Ticket, TopicId, Window};

/// Whether a topic takes rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// Not known yet: its rows wait in the window.
    #[default]
    Asked,
    Open,
    /// It cannot be used for now: its rows wait, and leave the window when others want the room.
    Shut,
    /// Its rows were refused in turn. As before, but for some that are tried one at a time.
    Tripped,
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    pub gate: Gate,
    /// Somebody has stopped it.
    pub is_paused: bool,
    /// Rows that were offered while the topic was not open.
    pub waiting: VecDeque<Ticket>,
    /// Rows that were kept back to be tried, while room is made.
    pub trials: usize,
    pub holds: Holds,
    pub leaders: Leaders,
}

impl Topic {
    pub fn is_shut(&self) -> bool {
        self.is_paused || matches!(self.gate, Gate::Shut | Gate::Tripped)
    }

    /// Rows wait because it is not known whether the topic can be used.
    pub fn waits_for_answer(&self) -> bool {
        self.gate == Gate::Asked && !self.is_paused && !self.waiting.is_empty()
    }

    /// Whether nothing is held but what somebody has to decide about.
    pub fn waits_for_people(&self) -> bool {
        self.is_paused || !self.holds.waits()
    }

    pub fn is_tripped(&self) -> bool {
        self.gate == Gate::Tripped
    }

    pub fn is_open(&self) -> bool {
        self.gate == Gate::Open && !self.is_paused
    }
}

impl Window {
    pub(super) fn topic(&mut self, topic: TopicId) -> &mut Topic {
        let index = topic.0 as usize;
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, Topic::default);
        }
        &mut self.topics[index]
    }

    pub fn is_open(&self, topic: TopicId) -> bool {
        let known = self.topics.get(topic.0 as usize);
        known.is_some_and(Topic::is_open)
    }

    /// The topic has so many partitions.
    pub fn partitions(&mut self, topic: TopicId, count: usize) {
        self.topic(topic).leaders.count(count);
    }

    /// The topic exists: its rows may go out.
    pub fn open_topic(&mut self, topic: TopicId) {
        self.topic(topic).gate = Gate::Open;
        self.release(topic);
    }

    /// Somebody stops the topic, or lets it go on: its rows wait as those of one that cannot be used.
    pub fn pause_topic(&mut self, topic: TopicId, is_paused: bool) {
        self.topic(topic).is_paused = is_paused;
        self.may_evict |= is_paused;
        self.release(topic);
    }

    /// Lets the rows go on that wait for the topic, if it is open.
    fn release(&mut self, topic: TopicId) {
        let topic = self.topic(topic);
        if !topic.is_open() {
            return;
        }
        let waiting = std::mem::take(&mut topic.waiting);
        let holds = topic.holds.end_topic();
        self.ready.extend(waiting);
        self.wants_pass |= holds;
    }

    /// Whether the topic can be used is not known (any more): its rows wait for the answer.
    pub fn close_topic(&mut self, topic: TopicId) {
        self.topic(topic).gate = Gate::Asked;
        // It may be made anew meanwhile.
        self.forget_introductions();
    }

    /// The topic cannot be used: its rows wait for as long as that may take.
    pub fn shut_topic(&mut self, topic: TopicId) {
        self.topic(topic).gate = Gate::Shut;
        self.may_evict = true;
    }

    /// The topic's rows are refused, whichever they are: only [`try_topic`](Self::try_topic) sends any. Says
    /// whether that is new.
    pub fn trip_topic(&mut self, topic: TopicId) -> bool {
        self.may_evict = true;
        let before = std::mem::replace(&mut self.topic(topic).gate, Gate::Tripped);
        before != Gate::Tripped
    }

    /// Lets one row of a tripped topic go out alone, preferably of a key that was not tried for long. Says
    /// false if there is none.
    pub fn try_topic(&mut self, topic: TopicId) -> bool {
        let topic = &mut self.topics[topic.0 as usize];
        if topic.is_paused {
            return false;
        }
        for _ in 0..topic.waiting.len() {
            let Some(ticket) = topic.waiting.pop_front() else {
                break;
            };
            let Some(row) = self.slots.get(ticket) else {
                continue;
            };
            topic.waiting.push_back(ticket);
            let is_free = row.state != EntryState::InFlight && row.state != EntryState::Parking;
            let key = self.slots.key_of(ticket);
            if is_free && self.keys[key].in_flight == 0 && self.keys.head(key) == Some(ticket) {
                self.trial = Some(ticket);
                return true;
            }
        }
        false
    }

    /// Puts a row into the queue, or before its topic's gate.
    pub(super) fn offer(&mut self, topic: TopicId, ticket: Ticket) {
        match self.slots.get_mut(ticket) {
            Some(row) if !row.offered => row.offered = true,
            _ => return,
        }
        let topic = self.topic(topic);
        if topic.is_open() {
            self.ready.push_back(ticket);
        } else {
            topic.waiting.push_back(ticket);
            self.may_evict |= topic.is_shut();
        }
    }
}
