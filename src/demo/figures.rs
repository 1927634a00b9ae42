//! Rates and latencies over time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// One bar of a graph.
const BUCKET: Duration = Duration::from_millis(250);

/// Bars that are kept: more than the widest terminal shows.
const BUCKETS: usize = 400;

/// Buckets that a rate is taken from: long enough for a steady figure, short enough to follow.
const RATE_BUCKETS: usize = 20;

/// Latencies that "recent" means.
const RECENT: usize = 500;

/// How often something happened, in buckets of 250 ms.
#[derive(Debug)]
pub struct Series {
    start: Instant,
    /// The buckets that are over, the newest last.
    buckets: VecDeque<u64>,
    current: u64,
    /// Buckets that are over since the start, also the ones no longer kept.
    ended: u32,
}

impl Series {
    pub fn new(start: Instant) -> Series {
        Series {
            start,
            buckets: VecDeque::with_capacity(BUCKETS + 1),
            current: 0,
            ended: 0,
        }
    }

    pub fn add(&mut self, now: Instant) {
        self.advance(now);
        self.current += 1;
    }

    /// Ends the buckets that are over by `now`.
    pub fn advance(&mut self, now: Instant) {
        let behind = |ended: u32| {
            let end = BUCKET.saturating_mul(ended + 1);
            now.saturating_duration_since(self.start) >= end
        };
        let mut ended = self.ended;
        while behind(ended) {
            ended += 1;
            self.buckets.push_back(std::mem::take(&mut self.current));
            if self.buckets.len() > BUCKETS {
                self.buckets.pop_front();
            }
        }
        self.ended = ended;
    }

    /// The last `count` buckets, the newest last.
    pub fn last(&self, count: usize) -> Vec<u64> {
        let skipped = self.buckets.len().saturating_sub(count);
        self.buckets.iter().skip(skipped).copied().collect()
    }

    /// Per second, over the last five seconds.
    pub fn rate(&self) -> f64 {
        let buckets = self.last(RATE_BUCKETS);
        if buckets.is_empty() {
            return 0.0;
        }
        let seconds = BUCKET.as_secs_f64() * buckets.len() as f64;
        buckets.iter().sum::<u64>() as f64 / seconds
    }
}

/// Percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyFigures {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// How long events took from their INSERT to the consumer.
#[derive(Debug)]
pub struct Latencies {
    /// In microseconds. It grows with the largest value: 2 digits to an hour are some 40 KiB.
    all: Histogram<u64>,
    recent: VecDeque<Duration>,
}

impl Default for Latencies {
    fn default() -> Self {
        let mut all = Histogram::new_with_max(1000, 2)
            .unwrap_or_else(|_| unreachable!("1000 and 2 are within a histogram's limits"));
        all.auto(true);
        Latencies {
            all,
            recent: VecDeque::with_capacity(RECENT + 1),
        }
    }
}

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // Only a histogram that does not resize refuses a value.
        let _ = self.all.record(micros);
        self.recent.push_back(latency);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Of the last 500.
    pub fn recent(&self) -> Option<LatencyFigures> {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        Some(LatencyFigures {
            p50: at(50),
            p99: at(99),
            max,
        })
    }

    pub fn overall(&self) -> Option<LatencyFigures> {
        if self.all.is_empty() {
            return None;
        }
        Some(LatencyFigures {
            p50: Duration::from_micros(self.all.value_at_quantile(0.5)),
            p99: Duration::from_micros(self.all.value_at_quantile(0.99)),
            max: Duration::from_micros(self.all.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_counts_each_bucket_and_leaves_silence_empty() {
        let start = Instant::now();
        let mut series = Series::new(start);
        for millis in [0, 100, 249, 260, 1010] {
            series.add(start + Duration::from_millis(millis));
        }
        series.advance(start + Duration::from_millis(1250));
        assert_eq!(series.last(9), [3, 1, 0, 0, 1]);
        assert_eq!(series.last(2), [0, 1]);
        assert_eq!(series.rate(), 4.0);
    }

    #[test]
    fn percentiles_of_recent_and_of_all_agree() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.recent(), None);
        assert_eq!(latencies.overall(), None);
        for millis in 1..=100 {
            latencies.add(Duration::from_millis(millis));
        }
        let recent = latencies.recent().expect("figures");
        assert_eq!(recent.p50.as_millis(), 51);
        assert_eq!(recent.max.as_millis(), 100);
        let overall = latencies.overall().expect("figures");
        assert!(overall.p99.as_millis().abs_diff(99) <= 1);
    }
}
