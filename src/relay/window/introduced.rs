//! Where the producer at hand is known: partitions whose leaders have taken something from it, and, until that is
//! all of a topic's, order keys, beyond the time that they have rows in the window.

use std::time::{Duration, Instant};

use hashbrown::HashSet;

/// So many keys are remembered, at most: 8 bytes each, and as much again for the table.
const MAX_KEYS: usize = 100_000;

/// For so long. A leader forgets a producer after a day without anything of it
/// (`producer.id.expiration.ms`); far less than that does no harm.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Keys by their hashes. Two that have the same by chance, one in 10¹⁰ times, go without an introduction of the
/// second, which matters only if the very first message set of its partition is refused.
#[derive(Debug, Default)]
pub(super) struct Introduced {
    keys: HashSet<u64>,
    since: Option<Instant>,
}

impl Introduced {
    pub fn contains(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    pub fn insert(&mut self, key: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if self.keys.len() >= MAX_KEYS || now.saturating_duration_since(since) >= KEPT_FOR {
            self.clear();
            self.since = Some(now);
        }
        self.keys.insert(key);
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.since = None;
    }
}

/// The partitions of a topic, and which of them have taken something.
///
/// One that the topic gets later has no part in it until something was sent there, or the topic is asked for again.
/// Until then it is as if a key went there whose rows had gone elsewhere before.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// Empty: how many there are is not known.
    know: Vec<bool>,
    strangers: usize,
    since: Option<Instant>,
}

impl Leaders {
    /// Any key may go without an introduction.
    pub fn all_know(&self) -> bool {
        self.strangers == 0 && !self.know.is_empty()
    }

    /// There are so many.
    pub fn count(&mut self, partitions: usize) {
        self.know.resize(partitions, false);
        self.strangers = self.know.iter().filter(|&&knows| !knows).count();
    }

    pub fn took(&mut self, partition: i32, now: Instant) {
        let Ok(partition) = usize::try_from(partition) else {
            return;
        };
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= KEPT_FOR {
            self.forget();
            self.since = Some(now);
        }
        if partition >= self.know.len() {
            self.count(partition + 1);
        }
        if !std::mem::replace(&mut self.know[partition], true) {
            self.strangers -= 1;
        }
    }

    pub fn forget(&mut self) {
        self.know.fill(false);
        self.strangers = self.know.len();
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_forgotten_when_there_are_many_or_after_a_while() {
        let now = Instant::now();
        let mut introduced = Introduced::default();
        for key in 0..MAX_KEYS as u64 {
            introduced.insert(key, now);
        }
        assert!(introduced.contains(0));
        introduced.insert(u64::MAX, now);
        assert!(!introduced.contains(0) && introduced.contains(u64::MAX));
        introduced.insert(1, now + KEPT_FOR);
        assert!(introduced.contains(1) && !introduced.contains(u64::MAX));
    }

    #[test]
    fn all_leaders_know_the_producer_when_each_has_taken_something_and_for_a_while() {
        let now = Instant::now();
        let mut leaders = Leaders::default();
        assert!(!leaders.all_know(), "nobody knows how many there are");
        leaders.count(2);
        leaders.took(1, now);
        leaders.took(1, now);
        assert!(!leaders.all_know());
        leaders.took(0, now);
        assert!(leaders.all_know());
        leaders.count(3);
        assert!(!leaders.all_know(), "another partition");
        leaders.took(2, now);
        assert!(leaders.all_know());
        leaders.took(4, now);
        assert!(!leaders.all_know(), "and two that nobody has told of");
        leaders.took(3, now);
        leaders.took(3, now + KEPT_FOR);
        assert!(!leaders.all_know(), "that was long ago");
        leaders.count(1);
        leaders.took(0, now + KEPT_FOR);
        assert!(leaders.all_know());
        leaders.forget();
        assert!(!leaders.all_know());
    }
}
