//! The events a lane has read and not yet settled: what may be published now, in which order, and what
//! may be marked. A pure state machine: it is told what happened and answers what to do, with time as
//! a value.
//!
//! * Rows of one order key (topic and Kafka key) are offered in the order of their ids.
//! * Several of them may be in flight at once; the producer keeps their order.
//! * The first of them goes out without company, and the others once it is acknowledged; not so where each
//!   partition of the topic has acknowledged something.
//! * A failed row stops its key: nothing more of the key is offered until everything of it that is in
//!   flight has been reported and the back-off has passed. Then its rows go alone, one at a time,
//!   until every row that was reported failed is through; then the key flows again.
//! * A row counts until its mark is confirmed, so late marks fill the window and stop the reading.
//! * Rows that cannot go on leave the window when others want their room (`holds`).
//! * Acknowledged events are remembered for a while: one that is read again, because its mark was lost
//!   with the database or had not arrived yet, is marked again instead of published again.

mod barrier;
mod entry;
mod flow;
mod gate;
mod holds;
mod introduced;
mod listing;
mod parking;
mod recent;
mod room;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Instant;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::event::EventRef;

pub use entry::{
    Admission, Backoff, Failed, Failure, Fill, Limits, Outgoing, Route, Ticket, TopicId,
};
use gate::Topic;
use introduced::Introduced;
pub use listing::{FailingKey, ShutTopic};
use recent::Recent;
pub use room::Held;
use slots::{KeySlots, Slots};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyState {
    /// Rows go out as they come.
    Flowing,
    /// A row failed: nothing goes out before the instant, nor while something is in flight.
    Stopped { until: Instant },
    /// Rows that failed go out one at a time.
    Probing,
    /// One of its rows is being parked: nothing goes out until that is done.
    Parking,
}

/// One order key that has rows in the window.
#[derive(Debug)]
pub(super) struct Key {
    topic: TopicId,
    name: Box<[u8]>,
    hash: u64,
    state: KeyState,
    /// The broker took a row of it from the producer at hand, without a refusal since. Until then there is at
    /// most one in flight: a partition's leader checks the order of a producer's message sets only once it
    /// has taken one of them (`ProducerAppendInfo.checkSequence` in Kafka's storage module), so when the very
    /// first is refused, those sent behind it would be written. Once every partition has taken one
    /// ([`Leaders`](introduced::Leaders)), this does not matter.
    is_introduced: bool,
    /// Failures without a success between.
    failures: u32,
    /// Of them, those of its first row alone.
    attempts: u32,
    /// The first failure.
    failing_since: Option<Instant>,
    /// What was said of the last one.
    why: Option<Box<str>>,
    in_flight: u32,
}

impl Key {
    /// A row is through, or out of the way.
    fn succeed(&mut self) {
        self.failures = 0;
        self.attempts = 0;
        self.failing_since = None;
        self.why = None;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Queued,
    InFlight,
    /// Reported as refused; it must go out alone.
    Suspect,
    /// It is being parked.
    Parking,
}

#[derive(Debug)]
pub(super) struct Row {
    outgoing: Outgoing,
    state: EntryState,
    /// It stands in `ready`, or in its topic's `waiting`.
    offered: bool,
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
    introduced: Introduced,
    fill: Fill,
    /// Rows may have come to a stop since room was last made.
    may_evict: bool,
    /// The row of a tripped topic that goes out next.
    trial: Option<Ticket>,
    /// Rows that are set aside, wherever they are met.
    parked: HashSet<EventRef>,
    /// A parked row that is to go out after all.
    pass_from: Option<i64>,
    /// A hold has ended: its rows must be read again.
    wants_pass: bool,
    /// The reader is at it.
    passing: bool,
    /// How far it has come.
    reread_upto: i64,
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
            introduced: Introduced::default(),
            fill: Fill::default(),
            may_evict: false,
            trial: None,
            parked: HashSet::new(),
            pass_from: None,
            wants_pass: false,
            passing: false,
            reread_upto: i64::MIN,
        }
    }

    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Nothing is in flight and every acknowledged row is marked: stopping now repeats nothing.
    pub fn is_settled(&self) -> bool {
        self.fill.in_flight == 0 && self.fill.unmarked == 0
    }

    /// Nothing goes on by itself: what is left waits for its topic, for a time to try again, or for somebody's
    /// decision.
    pub fn is_quiet(&self) -> bool {
        self.is_settled()
            && self.ready.is_empty()
            && self.topics.iter().all(|topic| !topic.waits_for_answer())
            && self
                .slots
                .iter()
                .all(|(_, row)| row.state != EntryState::Parking)
    }

    /// Nothing is left but what waits for somebody's decision: behind a pause, or a parked row.
    pub fn waits_for_people(&self) -> bool {
        let is_paused = |row: &Row| self.topics[row.outgoing.topic.0 as usize].is_paused;
        let waits = |row: &Row| is_paused(row) && row.state != EntryState::Parking;
        self.is_settled()
            && !(self.wants_pass || self.passing)
            && self.slots.iter().all(|(_, row)| waits(row))
            && self.topics.iter().all(Topic::waits_for_people)
    }

    /// Rows that are left, parked ones included.
    pub fn undecided(&self) -> u64 {
        let held = self.held();
        (self.fill.rows + held.parked) as u64 + held.rows
    }

    /// The oldest unacknowledged row's creation, in microseconds since 1970.
    pub fn oldest_created_at_us(&self) -> Option<i64> {
        let rows = self.slots.iter().map(|(_, row)| row.outgoing.created_at_us);
        let held = self
            .topics
            .iter()
            .filter_map(|topic| topic.holds.oldest_us());
        rows.chain(held).min()
    }

    /// The row of a ticket, as long as it is in the window.
    pub fn outgoing(&self, ticket: Ticket) -> Option<&Outgoing> {
        self.slots.get(ticket).map(|row| &row.outgoing)
    }

    /// Takes a row in. Rows of one key must come in the order of their ids.
    ///
    /// For [`Admission::Acknowledged`] the row counts as acknowledged and unmarked once more.
    ///
    /// # Errors
    /// Gives the row back when there is no room for it now.
    #[expect(clippy::result_large_err, reason = "the row is handed back as it came")]
    pub fn admit(&mut self, outgoing: Outgoing) -> Result<Admission, Outgoing> {
        let event = outgoing.event;
        if self.known.contains_key(&event) {
            return Ok(Admission::Known);
        }
        if self.recent.contains(&event) {
            self.fill.unmarked += 1;
            return Ok(Admission::Acknowledged);
        }
        if self.parked.contains(&event) {
            return Ok(Admission::Parked);
        }
        if !self.has_room(outgoing.message.size()) {
            self.make_room();
        }
        let reread_upto = self.reread_upto;
        let topic = outgoing.topic;
        let holds = &mut self.topic(topic).holds;
        if holds.holds(&outgoing, reread_upto) {
            self.wants_pass |= holds.pass_over(&outgoing, reread_upto);
            return Ok(Admission::Held);
        }
        if !self.has_room(outgoing.message.size()) {
            return Err(outgoing);
        }
        let name = outgoing.message.key();
        self.topic(topic).holds.let_in(name);
        let key = self.key(topic, name);
        self.fill.rows += 1;
        self.fill.bytes += outgoing.message.size();
        let row = Row {
            outgoing,
            state: EntryState::Queued,
            offered: false,
        };
        let ticket = self.slots.push(key, &mut self.keys, row);
        self.known.insert(event, ticket);
        match self.keys[key].state {
            KeyState::Flowing => self.offer(topic, ticket),
            KeyState::Stopped { .. } | KeyState::Probing | KeyState::Parking => {
                self.may_evict = true;
            }
        }
        Ok(Admission::New)
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
                    is_introduced: self.introduced.contains(hash),
                    failures: 0,
                    attempts: 0,
                    failing_since: None,
                    why: None,
                    in_flight: 0,
                });
                entry.insert(index);
                index
            }
        }
    }
}
