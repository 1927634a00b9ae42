//! One line in the log when a service goes away and one when it is back, however many tasks notice.

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether a service answers, as all parts of the process see it together.
#[derive(Debug)]
pub struct Outage {
    service: &'static str,
    down: AtomicBool,
}

impl Outage {
    pub const fn new(service: &'static str) -> Outage {
        Outage {
            service,
            down: AtomicBool::new(false),
        }
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub fn note_down(&self, reason: &str) {
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                service = self.service,
                error = reason,
                "service is unreachable, waiting for it"
            );
        }
    }

    pub fn note_up(&self) {
        // A plain read first: this can run once a message.
        if self.is_down() && self.down.swap(false, Ordering::Relaxed) {
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
