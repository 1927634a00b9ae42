//! What a lane shows of itself while it works: plain numbers that its tasks write and others read.

mod listing;
mod rate;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::horizon::Horizon;
use super::window::{Fill, Held};
use crate::db::standing::Standing;

pub use listing::{HeldKey, HeldTopic, LISTED, Listing, TopicHold};
pub use rate::Rate;
use waiting::Waiting;

/// Whose the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Not known yet: Postgres has not answered.
    Unknown,
    /// Another live relay's.
    Standby { owner: Uuid },
    /// Ours.
    Owner,
}

/// What came through since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Kafka acknowledged something, or a row was parked.
    pub acknowledged: bool,
    pub marked: bool,
}

/// What went wrong last, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    pub at: SystemTime,
    pub text: String,
}

/// The progress of one outbox.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    ownership: Mutex<Ownership>,
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
    blocked_keys: AtomicUsize,
    parked: AtomicUsize,
    unanswered: AtomicUsize,
    on_the_way: AtomicUsize,
    oldest_us: AtomicI64,
    /// Milliseconds since `started`.
    polled_at: AtomicU64,
    unacknowledged: Waiting,
    unmarked_since: Waiting,
    words: Mutex<Words>,
}

/// What does not fit into a number.
#[derive(Debug, Default)]
struct Words {
    rate: Rate,
    listing: Listing,
    standing: Option<Standing>,
    last_error: Option<LastError>,
}

/// No row.
const NONE: i64 = i64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Progress {
            started: Instant::now(),
            ownership: Mutex::new(Ownership::Unknown),
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
            blocked_keys: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            on_the_way: AtomicUsize::new(0),
            oldest_us: AtomicI64::new(NONE),
            polled_at: AtomicU64::new(0),
            unacknowledged: Waiting::default(),
            unmarked_since: Waiting::default(),
            words: Mutex::default(),
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

    /// Held for a few instructions only; what is in it is whole at any moment, whoever panicked.
    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outbox changes hands, or somebody has looked and it is still another's.
    pub(super) fn set_ownership(&self, now: Ownership) {
        let mut ownership = self
            .ownership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.polled_at.store(self.millis(), Ordering::Relaxed);
        if std::mem::replace(&mut *ownership, now) != now {
            self.set_held(Held::default());
            self.filled(Fill::default(), Moved::default());
            self.set_oldest(None);
            self.on_the_way.store(0, Ordering::Relaxed);
            let mut words = self.words();
            *words = Words {
                last_error: words.last_error.take(),
                ..Words::default()
            };
        }
    }

    pub fn ownership(&self) -> Ownership {
        *self
            .ownership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_schema_seen(&self) {
        self.schema_seen.store(true, Ordering::Relaxed);
    }

    pub fn is_schema_seen(&self) -> bool {
        self.schema_seen.load(Ordering::Relaxed)
    }

    /// A poll brought `rows`, which are on their way to the window from now on.
    pub(super) fn polled(&self, horizon: &Horizon, rows: usize) {
        self.on_the_way.fetch_add(rows, Ordering::Relaxed);
        self.position.store(horizon.position(), Ordering::Relaxed);
        self.gaps.store(horizon.gap_count(), Ordering::Relaxed);
        self.polled_at.store(self.millis(), Ordering::Relaxed);
    }

    /// The window has taken so many rows of polls, or knows them.
    pub(super) fn arrived(&self, rows: usize) {
        // What is dropped with its lane is set to nothing with the ownership.
        let _ = self
            .on_the_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_sub(rows))
            });
    }

    /// Rows that were read and have not come to the window.
    pub fn on_the_way(&self) -> usize {
        self.on_the_way.load(Ordering::Relaxed)
    }

    /// How the window stands, and what came through since the last call.
    pub(super) fn filled(&self, fill: Fill, moved: Moved) {
        self.rows.store(fill.rows, Ordering::Relaxed);
        self.bytes.store(fill.bytes, Ordering::Relaxed);
        self.in_flight.store(fill.in_flight, Ordering::Relaxed);
        self.unmarked.store(fill.unmarked, Ordering::Relaxed);
        self.held_keys.store(fill.held_keys, Ordering::Relaxed);
        let waits = fill.in_flight + self.unanswered() > 0;
        self.unacknowledged
            .note(waits, moved.acknowledged, || self.millis());
        self.unmarked_since
            .note(fill.unmarked > 0, moved.marked, || self.millis());
    }

    pub(super) fn set_held(&self, held: Held) {
        self.held_rows.store(held.rows, Ordering::Relaxed);
        self.held_topics.store(held.topics, Ordering::Relaxed);
        self.blocked_keys
            .store(held.blocked_keys, Ordering::Relaxed);
        self.parked.store(held.parked, Ordering::Relaxed);
        self.unanswered.store(held.unanswered, Ordering::Relaxed);
    }

    /// What is held outside of the window.
    pub fn held(&self) -> Held {
        Held {
            rows: self.held_rows.load(Ordering::Relaxed),
            topics: self.held_topics.load(Ordering::Relaxed),
            blocked_keys: self.blocked_keys.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed),
            unanswered: self.unanswered(),
        }
    }

    /// Rows that wait because Kafka was asked about their topic and has not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
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

    /// Time since the last poll, since the lane changed hands, or, on standby, since the lease was seen.
    pub fn since_poll(&self) -> Duration {
        self.since(self.polled_at.load(Ordering::Relaxed))
    }

    /// How long Kafka has owed something, an acknowledgement or an answer about a topic, without any coming.
    pub fn unacknowledged_for(&self) -> Option<Duration> {
        self.unacknowledged.since().map(|since| self.since(since))
    }

    /// How long acknowledged rows have waited for their marks, without any coming.
    pub fn unmarked_for(&self) -> Option<Duration> {
        self.unmarked_since.since().map(|since| self.since(since))
    }

    /// So many events were acknowledged in all.
    pub(super) fn note_published(&self, total: u64) {
        self.words().rate.note(total, Instant::now());
    }

    /// Acknowledged events a second, of late.
    pub fn per_second(&self) -> f64 {
        self.words().rate.per_second(Instant::now())
    }

    pub(super) fn set_listing(&self, listing: Listing) {
        self.words().listing = listing;
    }

    /// Which keys and topics are held.
    pub fn listing(&self) -> Listing {
        self.words().listing.clone()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.words().standing = Some(standing);
    }

    /// What Postgres said last of the lease, the parked rows and the pauses.
    pub fn standing(&self) -> Option<Standing> {
        self.words().standing.clone()
    }

    pub(super) fn note_error(&self, text: &str) {
        self.words().last_error = Some(LastError {
            at: SystemTime::now(),
            text: text.to_owned(),
        });
    }

    /// It may long be over: nothing takes it back.
    pub fn last_error(&self) -> Option<LastError> {
        self.words().last_error.clone()
    }
}
