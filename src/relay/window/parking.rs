//! Rows that are set aside: noted in Postgres first, then out of the way of the later rows of their key, or,
//! where the key is to be blocked, before them until somebody decides.

use std::time::Instant;

use super::{EntryState, KeyState, Outgoing, Ticket, TopicId, Window};
use crate::event::EventRef;

impl Window {
    /// The row is to be parked: nothing of its key goes out until that is noted. Says false of a row that
    /// has left, or is under way.
    pub fn park(&mut self, ticket: Ticket) -> bool {
        let Some(row) = self.slots.get_mut(ticket) else {
            return false;
        };
        if row.state == EntryState::InFlight {
            return false;
        }
        row.state = EntryState::Parking;
        self.hold_up(self.slots.key_of(ticket), KeyState::Parking);
        true
    }

    /// It is noted: hands out the row. Its key goes on, or, with `blocks`, holds the later rows until
    /// [`unblock`](Self::unblock).
    pub fn parked(&mut self, ticket: Ticket, blocks: bool, now: Instant) -> Option<Outgoing> {
        self.slots
            .get(ticket)
            .filter(|row| row.state == EntryState::Parking)?;
        let index = self.slots.key_of(ticket);
        if blocks {
            self.hold_behind(ticket);
        }
        let row = self.take_out(ticket)?;
        self.parked.insert(row.event);
        self.keys[index].succeed();
        if self.keys.head(index).is_none() {
            self.forget(index);
        } else if !self.has_parking(index) {
            self.keys[index].state = KeyState::Stopped { until: now };
            self.stopped.push(index);
            self.advance(index, now);
        }
        Some(row)
    }

    /// The rows of the key behind this one leave the window.
    fn hold_behind(&mut self, ticket: Ticket) {
        let index = self.slots.key_of(ticket);
        let (topic, name) = (self.keys[index].topic, self.keys[index].name.clone());
        let Some(first) = self.slots.get(ticket).map(|row| row.outgoing.event.id) else {
            return;
        };
        self.topic(topic).holds.block_key(&name, first);
        let mut next = self.slots.next_of_key(ticket);
        while let Some(ticket) = next {
            next = self.slots.next_of_key(ticket);
            if let Some(row) = self.take_out(ticket) {
                self.topic(topic).holds.evict_by_key(&row);
            }
        }
    }

    fn has_parking(&self, index: u32) -> bool {
        let mut next = self.keys.head(index);
        while let Some(ticket) = next {
            let row = self.slots.get(ticket);
            if row.is_some_and(|row| row.state == EntryState::Parking) {
                return true;
            }
            next = self.slots.next_of_key(ticket);
        }
        false
    }

    /// Takes a row out of the window, for whatever reason; its key is seen to by the caller.
    pub(super) fn take_out(&mut self, ticket: Ticket) -> Option<Outgoing> {
        let row = self.slots.remove(ticket, &mut self.keys)?;
        self.known.remove(&row.outgoing.event);
        self.fill.rows -= 1;
        self.fill.bytes -= row.outgoing.message.size();
        Some(row.outgoing)
    }

    /// A row was parked before: it is passed over.
    pub fn pass_over_parked(&mut self, event: EventRef) {
        self.parked.insert(event);
    }

    /// How many rows are passed over because they are parked.
    pub fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// A parked row is to go out after all: the next pass begins with it, or before.
    pub fn retry(&mut self, event: EventRef) {
        if self.parked.remove(&event) {
            let first = self.pass_from.map_or(event.id, |from| from.min(event.id));
            self.pass_from = Some(first);
            self.wants_pass = true;
        }
    }

    /// A parked row was discarded.
    pub fn discard(&mut self, event: EventRef) {
        self.parked.remove(&event);
    }

    /// A row from before our time blocks its key: rows from `from` on are held.
    pub fn block(&mut self, topic: TopicId, key: &[u8], from: i64) {
        self.topic(topic).holds.block_key(key, from);
    }

    /// Nothing blocks the key any more: its rows come with the next pass.
    pub fn unblock(&mut self, topic: TopicId, key: &[u8]) {
        self.wants_pass |= self.topic(topic).holds.unblock_key(key);
    }
}
