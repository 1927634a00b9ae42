//! The relay's log while the screen is in use: a few lines in memory instead of standard error.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Warnings, and one line when PostgreSQL is fetched: that takes a while, and the network.
const FILTER: &str = "warn,outboxd::local=info";

/// Lines that are kept.
const LINES: usize = 50;

/// Where log lines go: standard error, or here.
#[derive(Debug, Clone, Default)]
pub struct DemoLog(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    keeps: bool,
    lines: VecDeque<String>,
}

impl DemoLog {
    /// Sets the process's log up, to standard error at first.
    pub fn init() -> DemoLog {
        let log = DemoLog::default();
        // A log that is set up already, in a test, stays.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .try_init();
        log
    }

    /// From now on lines are kept in memory (the last ones), or written to standard error.
    pub fn keep(&self, keeps: bool) {
        self.with(|state| state.keeps = keeps);
    }

    /// The last line that was kept.
    pub fn last(&self) -> Option<String> {
        self.with(|state| state.lines.back().cloned())
    }

    /// All lines that were kept, and forgets them.
    pub fn take(&self) -> Vec<String> {
        self.with(|state| state.lines.drain(..).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for DemoLog {
    /// The subscriber writes one whole event at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|state| {
            if !state.keeps {
                return io::stderr().write(bytes);
            }
            for line in String::from_utf8_lossy(bytes).lines() {
                state.lines.push_back(line.trim().to_owned());
            }
            let surplus = state.lines.len().saturating_sub(LINES);
            state.lines.drain(..surplus);
            Ok(bytes.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for DemoLog {
    type Writer = DemoLog;

    fn make_writer(&'a self) -> DemoLog {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let mut log = DemoLog::default();
        log.keep(true);
        for number in 0..LINES + 5 {
            let event = format!(" WARN line {number}\n");
            log.write_all(event.as_bytes()).expect("writing to memory");
        }
        assert_eq!(log.last().expect("a line"), "WARN line 54");
        assert_eq!(log.take().len(), LINES);
        assert_eq!(log.last(), None);
    }
}
