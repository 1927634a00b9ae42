//! Out and back: which row goes out next, and what an acknowledgement does.

use std::time::Instant;

use super::{EntryState, KeyState, Outgoing, Route, Ticket, Window};

impl Window {
    /// The row that goes out next, which then counts as in flight.
    ///
    /// If the producer does not take it, give it back with [`Window::not_sent`].
    pub fn next_to_send(&mut self) -> Option<(Ticket, Route)> {
        if let Some(ticket) = self.trial.take()
            && self.slots.get(ticket).is_some()
        {
            self.begin_trial(ticket);
            return Some((ticket, Route::Alone));
        }
        while let Some(ticket) = self.ready.pop_front() {
            let Some(row) = self.slots.get_mut(ticket) else {
                continue;
            };
            row.offered = false;
            let (state, topic) = (row.state, row.outgoing.topic);
            let key = self.slots.key_of(ticket);
            let route = match (self.keys[key].state, state) {
                (KeyState::Flowing, EntryState::Queued)
                    if self.keys[key].is_introduced
                        || self.keys[key].in_flight == 0
                        || self.topic(topic).leaders.all_know() =>
                {
                    Route::Batched
                }
                (KeyState::Probing, EntryState::Suspect | EntryState::Queued)
                    if self.keys[key].in_flight == 0 =>
                {
                    Route::Alone
                }
                // Offered before its key stopped, or was introduced: it is offered again when the key goes on.
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
            self.take_off(ticket);
            self.call_follower(ticket, route);
            return Some((ticket, route));
        }
        None
    }

    /// The first row of its key, of which nothing is in flight, goes out though its topic is not open.
    fn begin_trial(&mut self, ticket: Ticket) {
        self.hold_up(self.slots.key_of(ticket), KeyState::Probing);
        self.take_off(ticket);
    }

    /// A row is in flight from now on, until it [lands](Self::land).
    fn take_off(&mut self, ticket: Ticket) {
        if let Some(row) = self.slots.get_mut(ticket) {
            row.state = EntryState::InFlight;
            let key = self.slots.key_of(ticket);
            self.keys[key].in_flight += 1;
            self.fill.in_flight += 1;
        }
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
    pub(super) fn land(&mut self, ticket: Ticket, state: EntryState) -> bool {
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
        let topic = self.keys[key].topic;
        self.may_evict |= self.keys[key].state != KeyState::Flowing || !self.is_open(topic);
        true
    }

    /// The broker has the message, in this partition: hands out the row, which is to be marked now.
    ///
    /// An acknowledgement counts whenever it comes, also one that arrives after the message was given
    /// up: nothing is published again that is known to be there.
    pub fn acknowledged(
        &mut self,
        ticket: Ticket,
        partition: i32,
        now: Instant,
    ) -> Option<Outgoing> {
        self.land(ticket, EntryState::Queued);
        let key = self.slots.get(ticket).map(|_| self.slots.key_of(ticket))?;
        let row = self.take_out(ticket)?;
        self.recent.push(row.event);
        self.fill.unmarked += 1;
        match self.keys[key].state {
            KeyState::Flowing => self.introduce(key, partition, now),
            KeyState::Probing => self.keys[key].succeed(),
            KeyState::Stopped { .. } | KeyState::Parking => {}
        }
        self.advance(key, now);
        Some(row)
    }

    /// A row of the key is through. If it is the first, the next one follows, and brings those behind it.
    fn introduce(&mut self, index: u32, partition: i32, now: Instant) {
        let topic = self.keys[index].topic;
        let leaders = &mut self.topic(topic).leaders;
        leaders.took(partition, now);
        let all_know = leaders.all_know();
        let key = &mut self.keys[index];
        if std::mem::replace(&mut key.is_introduced, true) {
            return;
        }
        if !all_know {
            self.introduced.insert(key.hash, now);
        }
        // Those that were sent before the key was to be introduced again are still under way.
        let mut next = self.keys.head(index);
        while let Some(ticket) = next {
            let row = self.slots.get(ticket);
            if row.is_some_and(|row| row.state != EntryState::InFlight) {
                self.offer(topic, ticket);
                return;
            }
            next = self.slots.next_of_key(ticket);
        }
    }

    /// The leaders may not know the producer, because it is new or they are: every key is introduced again.
    pub(super) fn forget_introductions(&mut self) {
        self.introduced.clear();
        for topic in &mut self.topics {
            topic.leaders.forget();
        }
        for key in self.keys.iter_mut() {
            key.is_introduced = false;
        }
    }

    /// The marks of `count` rows are confirmed.
    pub fn marked(&mut self, count: usize) {
        self.fill.unmarked = self.fill.unmarked.saturating_sub(count);
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
