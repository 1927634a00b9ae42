//! Nobody reads any more what a command says: no panic, and no word about it.

use std::io::{Read, pipe};
use std::process::Command;

use crate::support::fixture::{Fixture, execute, insert};

/// Its exit status and what it says on stderr when stdout is closed; then the status when both are.
fn with_closed_pipes(mut command: impl FnMut() -> Command) -> (Option<i32>, String, Option<i32>) {
    let closed = || pipe().expect("a pipe").1;
    let (mut read, write) = pipe().expect("a pipe");
    let mut child = {
        let mut command = command();
        let command = command.stdout(closed()).stderr(write);
        command.spawn().expect("starting outboxd")
    };
    let mut said = String::new();
    read.read_to_string(&mut said).expect("its words");
    let status = child.wait().expect("its end").code();
    let mut command = command();
    let both = command.stdout(closed()).stderr(closed()).status();
    (status, said, both.expect("running outboxd").code())
}

#[tokio::test]
async fn no_command_minds_a_reader_that_has_gone() {
    let mut fixture = Fixture::new("closed_pipes").await;
    fixture.relay.migrate_inbox().await;
    insert(&mut fixture.database, "k").await;
    fixture.relay.start();
    fixture.settled().await;
    fixture.relay.stop().await;
    // It cannot be published, and is parked.
    let sql = "insert into outbox_events (aggregate_type, aggregate_id, event_type, created_at) \
               values ('a', 'b', 'c', now() + interval '2 hours')";
    execute(&mut fixture.database, sql).await;
    let consumer = "--consumer=billing";
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["dead", "retry", "--help"], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&["man", "dead", "retry"], 0),
        (&["run", "--until-empty"], 75),
        (&["migrate"], 0),
        (&["migrate", "--json"], 0),
        (&["migrate", "--print"], 0),
        (&["check"], 0),
        (&["check", "--json"], 0),
        (&["check", "--connect"], 3),
        (&["check", "--print-acls"], 0),
        (&["dead", "list"], 0),
        (&["dead", "list", "--json"], 0),
        (&["dead", "show", "2"], 0),
        (&["dead", "retry", "--all", "--dry-run"], 0),
        (&["dead", "discard", "--all", "--dry-run", "--json"], 0),
        (&["dead", "park", "--topic", "t", "--yes"], 0),
        (&["dead", "park", "--topic", "t", "--stop"], 0),
        (&["pause", "--topic", "t"], 0),
        (&["resume", "--topic", "t"], 0),
        (&["status"], 75),
        (&["status", "--json"], 75),
        (&["status", "--watch"], 0),
        (&["probe"], 1),
        (&["trace", "none"], 1),
        (&["replay", "--all"], 0),
        (&["inbox", "status"], 0),
        (&["inbox", "prune"], 0),
        (&["inbox", "dlq", "list", consumer], 0),
        (&["inbox", "dlq", "discard", consumer, "--all"], 0),
        (&["inbox", "dlq", "redrive", consumer, "--all", "--json"], 0),
        (&["bench", "envelope", "--runs", "1"], 0),
        (&["frobnicate"], 2),
    ] {
        let command = || {
            // Only what relays, asks or decides takes a configuration.
            let needs_none = ["completions", "man", "frobnicate", "--help", "--version"];
            let is_bare = arguments.iter().any(|word| needs_none.contains(word))
                || arguments.contains(&"envelope");
            match is_bare {
                true => crate::support::command::command(arguments),
                false => fixture.relay.command(arguments),
            }
        };
        let (found, said, blind) = with_closed_pipes(command);
        assert_eq!(found, Some(status), "{arguments:?}: {said}");
        assert_eq!(blind, Some(status), "{arguments:?} with nobody to tell");
        for word in ["panicked", "Broken pipe", "os error 32"] {
            assert!(!said.contains(word), "{arguments:?}: {said}");
        }
    }
}
