//! One line in the log when a service goes away and one when it is back, however many tasks notice.

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Whether a service answers, as all parts of the process see it together.
#[derive(Debug)]
pub struct Outage {
    service: &'static str,
    state: AtomicU8,
    /// When the last outage began, and what was said then.
    last: Mutex<Option<(SystemTime, String)>>,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// It was not needed yet, or has not answered yet.
    Unknown,
    Up,
    Down {
        since: SystemTime,
        reason: String,
    },
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Outage {
    pub const fn new(service: &'static str) -> Outage {
        Outage {
            service,
            state: AtomicU8::new(UNKNOWN),
            last: Mutex::new(None),
        }
    }

    pub fn is_down(&self) -> bool {
        self.state.load(Ordering::Relaxed) == DOWN
    }

    pub fn state(&self) -> ServiceState {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.state.load(Ordering::Relaxed), &*last) {
            (DOWN, Some((since, reason))) => ServiceState::Down {
                since: *since,
                reason: reason.clone(),
            },
            (UP, _) => ServiceState::Up,
            _ => ServiceState::Unknown,
        }
    }

    pub fn note_down(&self, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load(Ordering::Relaxed) != DOWN {
            *last = Some((SystemTime::now(), reason.to_owned()));
            self.state.store(DOWN, Ordering::Relaxed);
            tracing::warn!(
                service = self.service,
                error = reason,
                "service is unreachable, waiting for it"
            );
        }
    }

    /// Why it stays away, if it is away: said again only when it is another reason.
    pub fn note_cause(&self, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load(Ordering::Relaxed) == DOWN
            && let Some((_, known)) = &mut *last
            && known != reason
        {
            reason.clone_into(known);
            tracing::warn!(
                service = self.service,
                error = reason,
                "service is still unreachable, for another reason"
            );
        }
    }

    pub fn note_up(&self) {
        // A plain read first: this can run once a message.
        if self.state.load(Ordering::Relaxed) != UP
            && self.state.swap(UP, Ordering::Relaxed) == DOWN
        {
            tracing::info!(service = self.service, "service is reachable again");
        }
    }
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some libraries repeat the cause in their own message.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Waits between attempts at the same thing, and says which of its errors are worth a line in the log:
/// a new one, and an old one once a minute.
#[derive(Debug)]
pub struct Retry {
    wait: Duration,
    most: Duration,
    logged: Option<(String, Instant)>,
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LOG_AGAIN: Duration = Duration::from_secs(60);

impl Retry {
    /// Doubles the wait from 100 ms up to `most`.
    pub fn new(most: Duration) -> Retry {
        Retry {
            wait: FIRST_WAIT,
            most,
            logged: None,
        }
    }

    /// It worked. What was logged stays known, so that an error which comes and goes is no flood.
    pub fn reset(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// Whether to log this error now.
    pub fn is_news(&mut self, error: &str, now: Instant) -> bool {
        let news = match &self.logged {
            Some((last, at)) => last != error || now.duration_since(*at) >= LOG_AGAIN,
            None => true,
        };
        if news {
            self.logged = Some((error.to_owned(), now));
        }
        news
    }

    /// The time until the next attempt, with jitter.
    pub fn next_wait(&mut self) -> Duration {
        let wait = jittered(self.wait);
        self.wait = (self.wait * 2).min(self.most);
        wait
    }
}

/// Between three quarters and five quarters of `wait`, so that many waiters spread out.
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + 0.5 * fastrand::f64())
}
