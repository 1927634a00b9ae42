//! Colours are for terminals that have some, and for whoever wants them.

use std::process::{Command, Output};

use crate::support::command::command;
use crate::support::fixture::Fixture;

/// What begins every change of colour.
const ESCAPE: &str = "\u{1b}[";

/// The same with a terminal for its input, output and errors: all that is drawn on it is the output.
fn at_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.display()));
    // Of util-linux, and so everywhere.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command"]);
    script.arg(words.collect::<Vec<_>>().join(" "));
    script.arg("/dev/null").env_clear();
    script.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    script
}

fn said(mut command: Command) -> String {
    let Output { stdout, stderr, .. } = command.output().expect("running outboxd");
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

#[tokio::test]
async fn help_and_log_have_colours_at_a_terminal_that_has_some_unless_they_are_not_wanted() {
    let mut fixture = Fixture::new("colours").await;
    fixture.relay.set("log.format", "human");
    let help = || command(&["dead", "retry", "--help"]);
    let log = || fixture.relay.command(&["run", "--until-empty"]);
    for (command, part) in [(&help as &dyn Fn() -> Command, "Usage:"), (&log, "INFO")] {
        for (mut command, term, no_color, has_colours) in [
            (at_a_terminal(&command()), "xterm-256color", "", true),
            (at_a_terminal(&command()), "xterm-256color", "1", false),
            (at_a_terminal(&command()), "dumb", "", false),
            (command(), "xterm-256color", "", false),
        ] {
            command.env("TERM", term).env("NO_COLOR", no_color);
            let said = said(command);
            let case = format!("{part} with TERM={term} and NO_COLOR={no_color}: {said}");
            assert!(said.contains(part), "{case}");
            assert_eq!(said.contains(ESCAPE), has_colours, "{case}");
        }
    }
}
