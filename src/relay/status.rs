//! What a lane shows of itself while it works: plain numbers that its tasks write and others read.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::horizon::Horizon;
use super::window::{Fill, Held};

/// Whose the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Not known yet: Postgres has not answered.
    Unknown,
    /// Another live relay's.
    Standby,
    /// Ours.
    Owner,
}

/// The progress of one outbox.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    ownership: AtomicUsize,
    schema_seen: AtomicBool,
    position: AtomicI64,
    gaps: AtomicUsize,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    in_flight: AtomicUsize,
    unmarked: AtomicUsize,
    held_keys: AtomicUsize,
    held_rows: AtomicU64,
    held_topics: AtomicUsize,
    parked: AtomicUsize,
    oldest_us: AtomicI64,
    /// Milliseconds since `started`.
    polled_at: AtomicU64,
    /// Since when something has been waiting for its acknowledgement, or its mark, without any coming;
    /// 0 when nothing waits.
    waiting_since: AtomicU64,
}

/// No row.
const NONE: i64 = i64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Progress {
            started: Instant::now(),
            ownership: AtomicUsize::new(0),
            schema_seen: AtomicBool::new(false),
            position: AtomicI64::new(i64::MIN),
            gaps: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            unmarked: AtomicUsize::new(0),
            held_keys: AtomicUsize::new(0),
            held_rows: AtomicU64::new(0),
            held_topics: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            oldest_us: AtomicI64::new(NONE),
            polled_at: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
        }
    }
}

impl Progress {
    fn millis(&self) -> u64 {
        // Never 0, which stands for "not".
        u64::try_from(self.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn since(&self, millis: u64) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(millis))
    }

    pub(super) fn set_ownership(&self, ownership: Ownership) {
        self.ownership.store(ownership as usize, Ordering::Relaxed);
        self.polled_at.store(self.millis(), Ordering::Relaxed);
        self.waiting_since.store(0, Ordering::Relaxed);
    }

    pub fn ownership(&self) -> Ownership {
        match self.ownership.load(Ordering::Relaxed) {
            1 => Ownership::Standby,
            2 => Ownership::Owner,
            _ => Ownership::Unknown,
        }
    }

    pub(super) fn set_schema_seen(&self) {
        self.schema_seen.store(true, Ordering::Relaxed);
    }

    pub fn is_schema_seen(&self) -> bool {
        self.schema_seen.load(Ordering::Relaxed)
    }

    pub(super) fn polled(&self, horizon: &Horizon) {
        self.position.store(horizon.position(), Ordering::Relaxed);
        self.gaps.store(horizon.gap_count(), Ordering::Relaxed);
        self.polled_at.store(self.millis(), Ordering::Relaxed);
    }

    /// `moved`: something was acknowledged or marked since the last call.
    pub(super) fn filled(&self, fill: Fill, moved: bool) {
        self.rows.store(fill.rows, Ordering::Relaxed);
        self.bytes.store(fill.bytes, Ordering::Relaxed);
        self.in_flight.store(fill.in_flight, Ordering::Relaxed);
        self.unmarked.store(fill.unmarked, Ordering::Relaxed);
        self.held_keys.store(fill.held_keys, Ordering::Relaxed);
        let waits = fill.in_flight + fill.unmarked > 0;
        if !waits {
            self.waiting_since.store(0, Ordering::Relaxed);
        } else if moved || self.waiting_since.load(Ordering::Relaxed) == 0 {
            self.waiting_since.store(self.millis(), Ordering::Relaxed);
        }
    }

    pub(super) fn set_held(&self, held: Held) {
        self.held_rows.store(held.rows, Ordering::Relaxed);
        self.held_topics.store(held.topics, Ordering::Relaxed);
        self.parked.store(held.parked, Ordering::Relaxed);
    }

    /// What is held outside of the window.
    pub fn held(&self) -> Held {
        Held {
            rows: self.held_rows.load(Ordering::Relaxed),
            topics: self.held_topics.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed),
        }
    }

    pub(super) fn set_oldest(&self, created_at_us: Option<i64>) {
        self.oldest_us
            .store(created_at_us.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// The highest id read.
    pub fn position(&self) -> i64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Ranges of ids below the position that may still bring rows.
    pub fn gaps(&self) -> usize {
        self.gaps.load(Ordering::Relaxed)
    }

    pub fn fill(&self) -> Fill {
        Fill {
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            unmarked: self.unmarked.load(Ordering::Relaxed),
            held_keys: self.held_keys.load(Ordering::Relaxed),
        }
    }

    /// The creation of the oldest row in the window, in microseconds since 1970.
    pub fn oldest_us(&self) -> Option<i64> {
        Some(self.oldest_us.load(Ordering::Relaxed)).filter(|oldest| *oldest != NONE)
    }

    /// Time since the last poll, or since the lane changed hands.
    pub fn since_poll(&self) -> Duration {
        self.since(self.polled_at.load(Ordering::Relaxed))
    }

    /// How long something has waited for its acknowledgement or its mark, without any coming.
    pub fn waiting(&self) -> Option<Duration> {
        match self.waiting_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(self.since(since)),
        }
    }
}
