//! Since when something waits of which nothing comes through.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds on the clock of its owner, never 0 there; 0 while nothing waits.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

impl Waiting {
    /// `waits`: there is something to wait for. `moved`: some of it came through since the last call.
    pub fn note(&self, waits: bool, moved: bool, now: impl FnOnce() -> u64) {
        if !waits {
            self.0.store(0, Ordering::Relaxed);
        } else if moved || self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(now(), Ordering::Relaxed);
        }
    }

    pub fn since(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_first_that_waits_and_again_with_each_that_comes_through() {
        let waiting = Waiting::default();
        waiting.note(false, true, || 1);
        assert_eq!(waiting.since(), None);
        waiting.note(true, false, || 2);
        waiting.note(true, false, || 3);
        assert_eq!(waiting.since(), Some(2));
        waiting.note(true, true, || 4);
        assert_eq!(waiting.since(), Some(4));
        waiting.note(false, false, || 5);
        assert_eq!(waiting.since(), None);
    }
}
