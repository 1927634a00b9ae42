//! The events a lane has read and not yet settled: what may be published now, in which order, and what
//! may be marked. A pure state machine: it is told what happened and answers what to do, with time as
//! a value.
//!
//! * Rows of one order key (topic and Kafka key) are offered in the order of their ids.
//! * Several of them may be in flight at once; the producer keeps their order.
//! * A failed row stops its key: nothing more of the key is offered until everything of it that is in
//!   flight has been reported and the back-off has passed. Then its rows go alone, one at a time,
//!   until every row that was reported failed is through; then the key flows again.
//! * A row counts until its mark is confirmed, so late marks fill the window and stop the reading.
//! * Acknowledged events are remembered for a while: one that is read again, because its mark was lost
//!   with the database or had not arrived yet, is marked again instead of published again.

mod entry;
mod recent;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::event::EventRef;

pub use entry::{Admission, Backoff, Failure, Fill, Limits, Outgoing, Route, Ticket, TopicId};
use recent::Recent;
use slots::{KeySlots, Slots};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyState {
    /// Rows go out as they come.
    Flowing,
    /// A row failed: nothing goes out before the instant, nor while something is in flight.
    Stopped { until: Instant },
    /// Rows that failed go out one at a time.
    Probing,
}

/// One order key that has rows in the window.
#[derive(Debug)]
pub(super) struct Key {
    topic: TopicId,
    name: Box<[u8]>,
    hash: u64,
    state: KeyState,
    /// Failures without a success between.
    failures: u32,
    in_flight: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Queued,
    InFlight,
    /// Reported as refused; it must go out alone.
    Suspect,
}

#[derive(Debug)]
pub(super) struct Row {
    outgoing: Outgoing,
    state: EntryState,
    /// It stands in `ready`, or in its topic's `waiting`.
    offered: bool,
}

#[derive(Debug, Default)]
struct Topic {
    open: bool,
    /// Rows that were offered while the topic was closed.
    waiting: VecDeque<Ticket>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Window {
    limits: Limits,
    backoff: Backoff,
    slots: Slots<Row>,
    keys: KeySlots<Key>,
    key_index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    known: HashMap<EventRef, Ticket>,
    topics: Vec<Topic>,
    ready: VecDeque<Ticket>,
    /// Keys in `Stopped`, by their instants; few, so a list that is searched.
    stopped: Vec<u32>,
    recent: Recent,
    fill: Fill,
}

impl Window {
    pub fn new(limits: Limits, backoff: Backoff) -> Window {
        Window {
            limits,
            backoff,
            slots: Slots::default(),
            keys: KeySlots::default(),
            key_index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            known: HashMap::new(),
            topics: Vec::new(),
            ready: VecDeque::new(),
            stopped: Vec::new(),
            // Rows read in one snapshot can be settled before they are handed in: at most a window of
            // them, and the batches between. Four windows also cover the marks that Postgres may lose
            // in a crash (field measurements: 0.6 s of them).
            recent: Recent::new(limits.rows.saturating_mul(4)),
            fill: Fill::default(),
        }
    }

    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Whether a batch of up to `rows` and `bytes` fits. An empty window takes any batch, so that one
    /// row larger than the limit passes alone.
    pub fn has_room(&self, rows: usize, bytes: usize) -> bool {
        let taken = self.fill.rows + self.fill.unmarked;
        taken == 0
            || (taken + rows <= self.limits.rows && self.fill.bytes + bytes <= self.limits.bytes)
    }

    /// Nothing is in flight and every acknowledged row is marked: stopping now repeats nothing.
    pub fn is_settled(&self) -> bool {
        self.fill.in_flight == 0 && self.fill.unmarked == 0
    }

    /// Nothing is left at all.
    pub fn is_empty(&self) -> bool {
        self.fill.rows == 0 && self.fill.unmarked == 0
    }

    /// The oldest unacknowledged row's creation, in microseconds since 1970.
    pub fn oldest_created_at_us(&self) -> Option<i64> {
        self.slots
            .iter()
            .map(|(_, row)| row.outgoing.created_at_us)
            .min()
    }

    /// The row of a ticket, as long as it is in the window.
    pub fn outgoing(&self, ticket: Ticket) -> Option<&Outgoing> {
        self.slots.get(ticket).map(|row| &row.outgoing)
    }

    /// Takes a row in. Rows of one key must come in the order of their ids.
    ///
    /// For [`Admission::Acknowledged`] the row counts as acknowledged and unmarked once more.
    pub fn admit(&mut self, outgoing: Outgoing) -> Admission {
        let event = outgoing.event;
        if self.known.contains_key(&event) {
            return Admission::Known;
        }
        if self.recent.contains(&event) {
            self.fill.unmarked += 1;
            return Admission::Acknowledged;
        }
        let topic = outgoing.topic;
        let key = self.key(topic, outgoing.message.key());
        self.fill.rows += 1;
        self.fill.bytes += outgoing.message.size();
        let row = Row {
            outgoing,
            state: EntryState::Queued,
            offered: false,
        };
        let ticket = self.slots.push(key, &mut self.keys, row);
        self.known.insert(event, ticket);
        if self.keys[key].state == KeyState::Flowing {
            self.offer(topic, ticket);
        }
        Admission::New
    }

    /// The index of the order key, made if it has no rows yet.
    fn key(&mut self, topic: TopicId, name: &[u8]) -> u32 {
        let hash = self.hasher.hash_one((topic, name));
        let keys = &self.keys;
        let same = |&index: &u32| keys[index].topic == topic && *keys[index].name == *name;
        match self.key_index.entry(hash, same, |&index| keys[index].hash) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let index = self.keys.insert(Key {
                    topic,
                    name: name.into(),
                    hash,
                    state: KeyState::Flowing,
                    failures: 0,
                    in_flight: 0,
                });
                entry.insert(index);
                index
            }
        }
    }

    fn topic(&mut self, topic: TopicId) -> &mut Topic {
        let index = topic.0 as usize;
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, Topic::default);
        }
        &mut self.topics[index]
    }

    fn offer(&mut self, topic: TopicId, ticket: Ticket) {
        match self.slots.get_mut(ticket) {
            Some(row) if !row.offered => row.offered = true,
            _ => return,
        }
        let gate = self.topic(topic);
        if gate.open {
            self.ready.push_back(ticket);
        } else {
            gate.waiting.push_back(ticket);
        }
    }

    /// The topic exists: its rows may go out. Topics start closed.
    pub fn open_topic(&mut self, topic: TopicId) {
        let gate = self.topic(topic);
        gate.open = true;
        let waiting = std::mem::take(&mut gate.waiting);
        self.ready.extend(waiting);
    }

    /// The topic cannot be used: its rows wait.
    pub fn close_topic(&mut self, topic: TopicId) {
        self.topic(topic).open = false;
    }

    pub fn is_open(&self, topic: TopicId) -> bool {
        self.topics.get(topic.0 as usize).is_some_and(|t| t.open)
    }

    /// The row that goes out next, which then counts as in flight.
    ///
    /// If the producer does not take it, give it back with [`Window::not_sent`].
    pub fn next_to_send(&mut self) -> Option<(Ticket, Route)> {
        while let Some(ticket) = self.ready.pop_front() {
            let Some(row) = self.slots.get_mut(ticket) else {
                continue;
            };
            row.offered = false;
            let (state, topic) = (row.state, row.outgoing.topic);
            let key = self.slots.key_of(ticket);
            let route = match (self.keys[key].state, state) {
                (KeyState::Flowing, EntryState::Queued) => Route::Batched,
                (KeyState::Probing, EntryState::Suspect | EntryState::Queued)
                    if self.keys[key].in_flight == 0 =>
                {
                    Route::Alone
                }
                // Offered before its key stopped: it is offered again when the key goes on.
                _ => continue,
            };
            if !self.is_open(topic) {
                self.offer(topic, ticket);
                continue;
            }
            // Invariant: a row goes out only after every earlier row of its key. One that comes too
            // early (the queue is older than a stop of its key, or of its topic) follows its predecessor.
            let previous = self.slots.previous_of_key(ticket);
            if previous.is_some_and(|row| row.state != EntryState::InFlight) {
                continue;
            }
            if let Some(row) = self.slots.get_mut(ticket) {
                row.state = EntryState::InFlight;
            }
            self.keys[key].in_flight += 1;
            self.fill.in_flight += 1;
            self.call_follower(ticket, route);
            return Some((ticket, route));
        }
        None
    }

    /// The next row of the key comes first if it had come too early.
    fn call_follower(&mut self, ticket: Ticket, route: Route) {
        if route == Route::Batched
            && let Some(next) = self.slots.next_of_key(ticket)
            && let Some(row) = self.slots.get_mut(next)
            && row.state == EntryState::Queued
            && !row.offered
        {
            row.offered = true;
            self.ready.push_front(next);
        }
    }

    /// The producer's queue was full: the row comes first again.
    pub fn not_sent(&mut self, ticket: Ticket) {
        if self.land(ticket, EntryState::Queued)
            && let Some(row) = self.slots.get_mut(ticket)
        {
            row.offered = true;
            self.ready.push_front(ticket);
        }
    }

    /// Takes an entry out of flight; false if it was not in flight.
    fn land(&mut self, ticket: Ticket, state: EntryState) -> bool {
        let Some(row) = self.slots.get_mut(ticket) else {
            return false;
        };
        if row.state != EntryState::InFlight {
            return false;
        }
        row.state = state;
        let key = self.slots.key_of(ticket);
        self.keys[key].in_flight -= 1;
        self.fill.in_flight -= 1;
        true
    }

    /// The broker has the message: hands out the row, which is to be marked now.
    ///
    /// An acknowledgement counts whenever it comes, also one that arrives after the message was given
    /// up: nothing is published again that is known to be there.
    pub fn acknowledged(&mut self, ticket: Ticket, now: Instant) -> Option<Outgoing> {
        self.land(ticket, EntryState::Queued);
        let key = self.slots.get(ticket).map(|_| self.slots.key_of(ticket))?;
        let row = self.slots.remove(ticket, &mut self.keys)?;
        let event = row.outgoing.event;
        self.known.remove(&event);
        self.recent.push(event);
        self.fill.rows -= 1;
        self.fill.bytes -= row.outgoing.message.size();
        self.fill.unmarked += 1;
        if self.keys[key].state == KeyState::Probing {
            self.keys[key].failures = 0;
        }
        self.advance(key, now);
        Some(row.outgoing)
    }

    /// The message did not get through. Returns how often its key has failed in succession, and for
    /// how long the key waits now.
    pub fn failed(
        &mut self,
        ticket: Ticket,
        failure: Failure,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) -> Option<(u32, Duration)> {
        let state = match failure {
            Failure::Refused => EntryState::Suspect,
            Failure::Collateral | Failure::TopicMissing => EntryState::Queued,
        };
        if !self.land(ticket, state) {
            return None;
        }
        let index = self.slots.key_of(ticket);
        let key = &mut self.keys[index];
        let mut wait = Duration::ZERO;
        if failure == Failure::Refused {
            // Batch-mates and followers fail together: one failure of the key.
            if !matches!(key.state, KeyState::Stopped { .. }) {
                key.failures = key.failures.saturating_add(1);
            }
            wait = jitter(self.backoff.after(key.failures));
        }
        let failures = key.failures;
        self.stop(index, now + wait);
        self.advance(index, now);
        Some((failures, wait))
    }

    fn stop(&mut self, index: u32, until: Instant) {
        let key = &mut self.keys[index];
        match &mut key.state {
            KeyState::Stopped { until: earlier } => *earlier = until.max(*earlier),
            state => {
                if *state == KeyState::Flowing {
                    self.fill.held_keys += 1;
                }
                *state = KeyState::Stopped { until };
                self.stopped.push(index);
            }
        }
    }

    /// The next instant at which [`Window::wake`] may have something to do.
    pub fn next_wake(&self) -> Option<Instant> {
        self.stopped
            .iter()
            .filter(|&&index| self.keys[index].in_flight == 0)
            .filter_map(|&index| match self.keys[index].state {
                KeyState::Stopped { until } => Some(until),
                _ => None,
            })
            .min()
    }

    /// Lets the keys go on whose back-off has passed.
    pub fn wake(&mut self, now: Instant) {
        let stopped = std::mem::take(&mut self.stopped);
        for index in stopped {
            match self.keys[index].state {
                KeyState::Stopped { until } if until <= now && self.keys[index].in_flight == 0 => {
                    self.keys[index].state = KeyState::Probing;
                    self.advance(index, now);
                }
                KeyState::Stopped { .. } => self.stopped.push(index),
                KeyState::Flowing | KeyState::Probing => {}
            }
        }
    }

    /// Moves a key on after something of it has landed: offers the next row that goes alone, or lets
    /// the key flow again, or forgets a key without rows.
    fn advance(&mut self, index: u32, now: Instant) {
        let Some(head) = self.keys.head(index) else {
            self.forget(index);
            return;
        };
        if let KeyState::Stopped { until } = self.keys[index].state
            && until <= now
            && self.keys[index].in_flight == 0
        {
            self.keys[index].state = KeyState::Probing;
            self.stopped.retain(|&stopped| stopped != index);
        }
        if self.keys[index].state != KeyState::Probing || self.keys[index].in_flight > 0 {
            return;
        }
        let topic = self.keys[index].topic;
        if self.has_suspect(index) {
            self.offer(topic, head);
            return;
        }
        self.keys[index].state = KeyState::Flowing;
        self.keys[index].failures = 0;
        self.fill.held_keys -= 1;
        let mut next = Some(head);
        while let Some(ticket) = next {
            next = self.slots.next_of_key(ticket);
            self.offer(topic, ticket);
        }
    }

    fn has_suspect(&self, index: u32) -> bool {
        let mut next = self.keys.head(index);
        while let Some(ticket) = next {
            if self
                .slots
                .get(ticket)
                .is_some_and(|row| row.state == EntryState::Suspect)
            {
                return true;
            }
            next = self.slots.next_of_key(ticket);
        }
        false
    }

    fn forget(&mut self, index: u32) {
        if self.keys[index].state != KeyState::Flowing {
            self.fill.held_keys -= 1;
            self.stopped.retain(|&stopped| stopped != index);
        }
        let hash = self.keys[index].hash;
        if let Ok(entry) = self.key_index.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.keys.remove(index);
    }

    /// The marks of `count` rows are confirmed.
    pub fn marked(&mut self, count: usize) {
        self.fill.unmarked = self.fill.unmarked.saturating_sub(count);
    }

    /// The producer that carried everything of `route` is gone: what it had not reported goes out again.
    /// Returns how many rows that were.
    pub fn producer_lost(
        &mut self,
        tickets: impl IntoIterator<Item = Ticket>,
        now: Instant,
    ) -> usize {
        tickets
            .into_iter()
            .filter(|&ticket| {
                self.failed(ticket, Failure::Collateral, now, |wait| wait)
                    .is_some()
            })
            .count()
    }

    /// The tickets of everything in flight.
    pub fn in_flight(&self) -> Vec<Ticket> {
        self.slots
            .iter()
            .filter(|(_, row)| row.state == EntryState::InFlight)
            .map(|(ticket, _)| ticket)
            .collect()
    }
}
