//! Events a second, from a count that only grows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Long enough for a steady figure, short enough to follow.
const SAMPLES: usize = 11;

/// The last ten seconds of a count.
#[derive(Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, u64)>,
    total: u64,
}

impl Rate {
    pub fn note(&mut self, total: u64, now: Instant) {
        self.total = total;
        let is_due = match self.samples.back() {
            Some((last, _)) => now.saturating_duration_since(*last) >= EVERY,
            None => true,
        };
        if is_due {
            self.samples.push_back((now, total));
        }
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    pub fn per_second(&self, now: Instant) -> f64 {
        let Some((first, total)) = self.samples.front() else {
            return 0.0;
        };
        let seconds = now.saturating_duration_since(*first).as_secs_f64();
        match seconds > 0.0 {
            true => self.total.saturating_sub(*total) as f64 / seconds,
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(start), 0.0);
        for tick in 0..=50 {
            rate.note(1_000 + tick * 20, at(tick * 200));
        }
        assert_eq!(rate.per_second(at(10_000)), 100.0);
        for tick in 51..=150 {
            rate.note(2_000, at(tick * 200));
        }
        assert_eq!(rate.per_second(at(30_000)), 0.0, "nothing has moved since");
    }
}
