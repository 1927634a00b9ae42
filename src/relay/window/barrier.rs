//! The barrier: what becomes of a key when one of its rows does not get through.

use std::time::{Duration, Instant};

use super::{EntryState, Failed, Failure, KeyState, Ticket, Window};

impl Window {
    /// The message did not get through. Returns how its key stands, if the message was under way.
    pub fn failed(
        &mut self,
        ticket: Ticket,
        failure: Failure,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) -> Option<Failed> {
        let state = match failure {
            Failure::Refused => EntryState::Suspect,
            Failure::Collateral | Failure::TopicMissing | Failure::TopicRefused => {
                EntryState::Queued
            }
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
                key.attempts += u32::from(key.state == KeyState::Probing);
            }
            key.failing_since.get_or_insert(now);
            wait = jitter(self.backoff.after(key.failures));
        }
        let failed = Failed {
            attempts: key.attempts,
            failing_for: key
                .failing_since
                .map_or(Duration::ZERO, |since| now - since),
            wait,
        };
        self.stop(index, now + wait);
        self.advance(index, now);
        Some(failed)
    }

    fn stop(&mut self, index: u32, until: Instant) {
        self.may_evict = true;
        let key = &mut self.keys[index];
        match &mut key.state {
            KeyState::Stopped { until: earlier } => *earlier = until.max(*earlier),
            // It stops anyway, and its suspects go out when that is done.
            KeyState::Parking => {}
            state => {
                if *state == KeyState::Flowing {
                    self.fill.held_keys += 1;
                }
                *state = KeyState::Stopped { until };
                self.stopped.push(index);
            }
        }
    }

    /// Takes a key out of whatever it is doing; `state` is one in which nothing goes out by the clock.
    pub(super) fn hold_up(&mut self, index: u32, state: KeyState) {
        let key = &mut self.keys[index];
        match std::mem::replace(&mut key.state, state) {
            KeyState::Flowing => self.fill.held_keys += 1,
            KeyState::Stopped { .. } => self.stopped.retain(|&stopped| stopped != index),
            KeyState::Probing | KeyState::Parking => {}
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
                KeyState::Flowing | KeyState::Probing | KeyState::Parking => {}
            }
        }
    }

    /// Moves a key on after something of it has landed: offers the next row that goes alone, or lets
    /// the key flow again, or forgets a key without rows.
    pub(super) fn advance(&mut self, index: u32, now: Instant) {
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
        self.keys[index].succeed();
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

    pub(super) fn forget(&mut self, index: u32) {
        if self.keys[index].state != KeyState::Flowing {
            self.fill.held_keys -= 1;
            self.stopped.retain(|&stopped| stopped != index);
        }
        // Nothing of the key is left in the window: what it held comes next.
        let key = &self.keys[index];
        let holds = &mut self.topics[key.topic.0 as usize].holds;
        self.wants_pass |= holds.end_key(&key.name);
        let hash = key.hash;
        if let Ok(entry) = self.key_index.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.keys.remove(index);
    }

    /// The producer that carried everything of `route` is gone: what it had not reported goes out again.
    /// Returns how many rows that were.
    pub fn producer_lost(
        &mut self,
        tickets: impl IntoIterator<Item = Ticket>,
        now: Instant,
    ) -> usize {
        self.forget_introductions();
        tickets
            .into_iter()
            .filter(|&ticket| {
                self.failed(ticket, Failure::Collateral, now, |wait| wait)
                    .is_some()
            })
            .count()
    }
}
