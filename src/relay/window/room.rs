//! Room for the rows of others: what cannot go on leaves the window, and passes of the reader bring it back.

use super::{EntryState, KeyState, Ticket, Window};

/// Keys that are held outside of the window, at most: about 200 bytes each. The rows of more keys that
/// fail at the same time stay in the window and take its room.
const MAX_HELD_KEYS: usize = 100_000;

/// Rows of a tripped topic, each of another key, that stay in the window to be tried.
const TRIALS: usize = 64;

/// What is held, for those who want to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Rows outside of the window.
    pub rows: u64,
    /// Topics that cannot be used.
    pub topics: usize,
    /// Keys that wait for a decision about a parked row.
    pub blocked_keys: usize,
    /// Rows in the window that wait to hear whether their topic can be used.
    pub unanswered: usize,
    /// Rows that are parked.
    pub parked: usize,
}

impl Window {
    /// Whether one more row of this size fits. An empty window takes any, so that one that is larger than
    /// the limit passes alone.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let taken = self.fill.rows + self.fill.unmarked;
        taken == 0 || (taken < self.limits.rows && self.fill.bytes + bytes <= self.limits.bytes)
    }

    /// Lets go of every row that cannot go on: those of topics that are shut, and those behind a failed row
    /// of their key, which itself stays to be tried again.
    ///
    /// Invariant: a key's rows leave from some row on, all of them, and none while others of the key are in
    /// flight: what is left in the window comes before what is held.
    pub(super) fn make_room(&mut self) {
        if !std::mem::take(&mut self.may_evict) {
            return;
        }
        let leaving: Vec<Ticket> = self.slots.iter().map(|(ticket, _)| ticket).collect();
        let mut held_keys: usize = self
            .topics
            .iter()
            .map(|topic| topic.holds.key_count())
            .sum();
        for ticket in leaving {
            held_keys += usize::from(self.evict(ticket, held_keys < MAX_HELD_KEYS));
        }
        for topic in self.topics.iter_mut().filter(|topic| topic.is_shut()) {
            topic.trials = 0;
            let slots = &self.slots;
            topic.waiting.retain(|&ticket| slots.get(ticket).is_some());
        }
    }

    /// Lets go of one row if it may go; says whether that took a new hold of a key.
    fn evict(&mut self, ticket: Ticket, may_hold_key: bool) -> bool {
        let Some(row) = self.slots.get(ticket) else {
            return false;
        };
        let index = self.slots.key_of(ticket);
        let key = &self.keys[index];
        if key.in_flight > 0 || row.state == EntryState::Parking {
            return false;
        }
        let topic = &mut self.topics[key.topic.0 as usize];
        let before = topic.holds.key_count();
        let is_first = self.keys.head(index) == Some(ticket);
        if topic.is_tripped() && is_first && topic.trials < TRIALS {
            topic.trials += 1;
            return false;
        } else if topic.is_shut() {
            topic.holds.evict_by_topic(&row.outgoing);
        } else if key.state == KeyState::Flowing || is_first {
            return false;
        } else if may_hold_key || topic.holds.has_key(&key.name) {
            topic.holds.evict_by_key(&row.outgoing);
        } else {
            return false;
        }
        let is_new = topic.holds.key_count() > before;
        self.take_out(ticket);
        if self.keys.head(index).is_none() {
            self.forget(index);
        }
        is_new
    }

    /// Where the reader is to begin a pass: at the first row that is held and need not be any more. Nothing
    /// while a pass is under way, or when none is wanted.
    pub fn begin_pass(&mut self) -> Option<i64> {
        if self.passing || !self.wants_pass {
            return None;
        }
        self.wants_pass = false;
        let from = self
            .topics
            .iter_mut()
            .filter_map(|topic| topic.holds.begin_pass())
            .chain(self.pass_from.take())
            .min();
        self.passing = from.is_some();
        from
    }

    /// The rows that come next are everything unsent from where the pass stood up to here, besides late
    /// rows.
    pub fn reread(&mut self, upto: i64) {
        self.reread_upto = upto;
    }

    /// The pass has brought everything up to the reader's position: what comes now comes in order.
    pub fn end_pass(&mut self) {
        self.passing = false;
        self.reread_upto = i64::MIN;
        for topic in &mut self.topics {
            topic.holds.end_pass();
        }
    }

    /// What is held outside of the window.
    pub fn held(&self) -> Held {
        Held {
            rows: self.topics.iter().map(|topic| topic.holds.rows()).sum(),
            topics: self.topics.iter().filter(|topic| topic.is_shut()).count(),
            blocked_keys: self.blocked_keys(),
            unanswered: self.unanswered(),
            parked: self.parked.len(),
        }
    }
}
