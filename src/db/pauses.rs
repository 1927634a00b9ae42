//! What somebody has paused: an outbox, or one topic of it.

use std::collections::BTreeSet;

use super::wishes::{Kind, Wish, Wishes};

/// One pause. Without a topic it is of all of the outbox.
pub type Pause = Wish<Option<String>>;

/// The pauses of one outbox.
pub type Pauses = Wishes<Option<String>>;

const PAUSES: Kind = Kind {
    one: "a pause",
    several: "the pauses",
    in_force: "outboxd_pauses where true",
    note: "outbox_pause",
    take_back: "outbox_resume",
};

impl Pauses {
    /// `outbox` as it is named in its lease.
    pub fn new(relay_schema: &str, outbox: &str) -> Pauses {
        Wishes::of(&PAUSES, relay_schema, outbox)
    }
}

/// What of an outbox is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    /// All of it.
    pub outbox: bool,
    pub topics: BTreeSet<String>,
}

impl Paused {
    pub fn covers(&self, topic: &str) -> bool {
        self.outbox || self.topics.contains(topic)
    }
}

impl FromIterator<Pause> for Paused {
    fn from_iter<T: IntoIterator<Item = Pause>>(pauses: T) -> Paused {
        let mut paused = Paused::default();
        for pause in pauses {
            match pause.topic {
                Some(topic) => drop(paused.topics.insert(topic)),
                None => paused.outbox = true,
            }
        }
        paused
    }
}
