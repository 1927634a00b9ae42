//! Commands of the program that run to their end.

use std::process::{Command, Output, Stdio};

/// Runs `outboxd` with nothing in its environment and nobody at a terminal.
pub fn outboxd(arguments: &[&str]) -> Output {
    command(arguments).output().expect("running outboxd")
}

/// The same, to be started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// What it printed, if it succeeded.
pub fn succeeds(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{text}", errors(output));
    text
}

/// What it printed to stderr.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it said, if it ended with this status.
pub fn fails(output: &Output, status: i32) -> String {
    let text = errors(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}
