//! `outboxd tail` at work.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use super::fixture::Fixture;

/// A tail that stands at the topic's end.
pub struct Tail {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Tail {
    pub fn start(fixture: &Fixture, arguments: &[&str]) -> Tail {
        let mut command = fixture.relay.command(&["tail"]);
        let command = command.args(arguments);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("starting a tail");
        let errors = BufReader::new(child.stderr.take().expect("its errors"));
        let mut tail = Tail { child, errors };
        let said = tail.says();
        assert!(said.starts_with("outboxd: following "), "{said}");
        tail
    }

    /// The next line on standard error.
    pub fn says(&mut self) -> String {
        let mut line = String::new();
        self.errors.read_line(&mut line).expect("a line");
        line
    }

    /// Lends it no ear any more.
    pub fn close(&mut self) {
        drop(self.child.stdout.take());
    }

    /// What it prints, line by line, as it prints it.
    pub fn lines(&mut self) -> mpsc::Receiver<String> {
        let (printed, lines) = mpsc::channel();
        let out = BufReader::new(self.child.stdout.take().expect("its output"));
        std::thread::spawn(move || {
            // Until it ends, or nobody listens.
            for line in out.lines().map_while(Result::ok) {
                if printed.send(line).is_err() {
                    return;
                }
            }
        });
        lines
    }

    /// Waits for its end, and returns what it printed.
    pub fn ends(mut self) -> String {
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut text).expect("UTF-8");
        }
        assert_eq!(self.child.wait().expect("its end").code(), Some(0));
        text
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
