//! Order keys that the producer at hand is known for, beyond the time that they have rows in the window.

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
}
