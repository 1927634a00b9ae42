//! What is noted of parked rows, and what people decide: about such rows, about an outbox, about a topic.

use std::time::Instant;

use super::{BlockedKey, LaneCore, TopicId};
use crate::db::parked::{Blocked, Class, Decided, Decision, Parked};
use crate::otlp::Outcome;
use crate::relay::park::{Parks, Wishes};

impl LaneCore {
    /// News of the parker; says false when the lease is somebody else's.
    pub(super) fn take_parks(&mut self, parks: Parks) -> bool {
        match parks {
            Parks::Loaded(loaded) => {
                self.begin_reading(&loaded);
                self.take_parked(loaded.parked);
                self.take_wishes(loaded.wishes);
            }
            Parks::Wished(wishes) => self.take_wishes(wishes),
            Parks::Done(parked) => {
                let now = Instant::now();
                let mut unreadable = Vec::new();
                for (ticket, class) in parked {
                    let row = self.window.outgoing(ticket);
                    let blocks = row.is_some_and(|row| self.blocks_key(row));
                    let Some(row) = self.window.parked(ticket, blocks, now) else {
                        continue;
                    };
                    unreadable.extend((class == Class::Unreadable).then_some(row.event));
                    let class = class.name();
                    self.make_span(&row, Outcome::Parked { class }, now);
                }
                self.leave_unread(&unreadable);
                self.moved.acknowledged = true;
                self.vain_rebuilds = 0;
                self.make_progress();
            }
            Parks::Noted => self.noted(),
            Parks::Decided(decided) => {
                self.all_is_decided = decided.is_empty();
                self.let_read(decided.iter().map(|decided| decided.event));
                decided.into_iter().for_each(|decided| self.act(decided));
            }
            Parks::Fenced => return false,
        }
        true
    }

    /// What was parked before our time. A blocked key's topic gets its number with its first row.
    fn take_parked(&mut self, parked: Parked) {
        for event in parked.events {
            self.window.pass_over_parked(event);
        }
        for (from, Blocked { topic, key }) in parked.blocks {
            let keys = self.blocked.entry(topic).or_default();
            keys.push(BlockedKey {
                key,
                from,
                is_decided: false,
            });
        }
        self.is_loaded = true;
    }

    fn take_wishes(&mut self, wishes: Wishes) {
        let Wishes { paused, bypassed } = &wishes;
        if *paused != self.wishes.paused {
            tracing::info!(
                outbox = self.name,
                outbox.is_paused = paused.outbox,
                topics.paused = ?paused.topics,
                "what is paused has changed"
            );
        }
        if *bypassed != self.wishes.bypassed {
            tracing::info!(
                outbox = self.name,
                topics.bypassed = ?bypassed,
                "the topics whose refused rows are to be parked have changed"
            );
        }
        self.wishes = wishes;
        let topics: Vec<_> = self
            .topics
            .ids()
            .map(|(name, id)| (name.to_owned(), id))
            .collect();
        for (name, topic) in topics {
            self.obey_wishes(topic, &name);
        }
    }

    /// Does what people want of a topic.
    pub(super) fn obey_wishes(&mut self, topic: TopicId, name: &str) {
        self.window
            .pause_topic(topic, self.wishes.paused.covers(name));
        if !self.wishes.bypassed.contains(name) {
            self.breaker.arm(topic);
        } else if self.breaker.bypass(topic) {
            self.window.open_topic(topic);
        }
    }

    /// A topic is numbered: its blocked keys can be held.
    pub(super) fn block_keys_of(&mut self, topic: TopicId, name: &str) {
        for blocked in self.blocked.remove(name).unwrap_or_default() {
            self.window.block(topic, &blocked.key, blocked.from);
            if blocked.is_decided {
                self.window.unblock(topic, &blocked.key);
            }
        }
    }

    /// Nothing blocks the key any more.
    fn unblock(&mut self, Blocked { topic, key }: &Blocked) {
        if let Some(topic) = self.topics.id(topic) {
            self.window.unblock(topic, key);
            return;
        }
        let of_topic = self.blocked.get_mut(topic).into_iter().flatten();
        for blocked in of_topic.filter(|blocked| blocked.key == *key) {
            blocked.is_decided = true;
        }
    }

    fn act(&mut self, decided: Decided) {
        let Decided {
            event,
            decision,
            unblocks,
        } = decided;
        match decision {
            Decision::Retry => self.window.retry(event),
            Decision::Discard => self.window.discard(event),
        }
        if let Some(blocked) = unblocks {
            self.unblock(&blocked);
        }
        tracing::info!(
            outbox = self.name,
            event.row = event.id,
            event.id = %event.event_id,
            decision = ?decision,
            "acted upon a decision about a parked row"
        );
    }
}
