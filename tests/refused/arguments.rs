//! Wrong command lines: the argument, and what would be right.

use super::refused;
use crate::support::command::command;

/// A command line, and something of what is said.
type Case = (&'static [&'static str], &'static str);

const CASES: &[Case] = &[
    // Commands and flags.
    (
        &["runn"],
        "unrecognized subcommand 'runn'\n\n  tip: a similar subcommand exists: 'run'",
    ),
    (&["help", "nope"], "unrecognized subcommand 'nope'"),
    (
        &["inbox", "dlq", "lst"],
        "a similar subcommand exists: 'list'",
    ),
    (&["run", "now"], "unexpected argument 'now' found"),
    (&["run", "-x"], "unexpected argument '-x' found"),
    (
        &["run", "--until-emty"],
        "a similar argument exists: '--until-empty'",
    ),
    (
        &["check", "--json=yes"],
        "unexpected value 'yes' for '--json' found",
    ),
    (
        &["run", "--config"],
        "a value is required for '--config <FILE>' but none was supplied",
    ),
    (
        &["run", "--config", "a", "--config", "b"],
        "the argument '--config <FILE>' cannot be used multiple times",
    ),
    (
        &["run", "--timeout", "5s"],
        "required arguments were not provided:\n  --until-empty",
    ),
    (
        &["check", "--connect", "--print-acls"],
        "'--connect' cannot be used with '--print-acls'",
    ),
    (
        &["migrate", "--inbox", "--trace-index"],
        "cannot be used with",
    ),
    (
        &["migrate", "--print", "--json"],
        "'--print' cannot be used with '--json'",
    ),
    (
        &["tail", "--outbox", "default", "--topic", "t"],
        "cannot be used with",
    ),
    (
        &["pause", "--list", "--topic", "t"],
        "'--list' cannot be used with",
    ),
    // What is missing.
    (
        &["dead", "show"],
        "required arguments were not provided:\n  <ID>",
    ),
    (
        &["dead", "retry"],
        "required arguments were not provided:\n  <IDS|--all>",
    ),
    (
        &["dead", "park"],
        "required arguments were not provided:\n  --topic <TOPIC>",
    ),
    (
        &["replay"],
        "required arguments were not provided:\n  <--id <ID>|",
    ),
    (
        &["trace"],
        "required arguments were not provided:\n  <CORRELATION_ID>",
    ),
    (
        &["inbox", "dlq", "list"],
        "required arguments were not provided:\n  --consumer <NAME>",
    ),
    // Options.
    (
        &["run", "--set", "relay.lease"],
        "'relay.lease' for '--set <OPTION=VALUE>': must be OPTION=VALUE",
    ),
    (
        &["run", "--set", "=10s"],
        "'=10s' for '--set <OPTION=VALUE>': must be OPTION=VALUE",
    ),
    (
        &["dead", "list", "--outbox", "nine"],
        "--outbox: must name one of the configured outboxes (default), is nine",
    ),
    (
        &[
            "pause",
            "--set",
            "outbox.a.table=a",
            "--set",
            "outbox.b.table=b",
        ],
        "--outbox: must name one of the configured outboxes (a, b), is not given",
    ),
    // Ids and numbers.
    (
        &["dead", "show", "abc"],
        "'abc' for '<ID>': must be a row's id, a whole number",
    ),
    (
        &["dead", "show", "99999999999999999999"],
        "for '<ID>': must be a row's id, a whole number",
    ),
    (
        &["dead", "retry", "1", "two"],
        "'two' for '[IDS]...': must be a row's id, a whole number",
    ),
    (
        &["replay", "--id", "1.5"],
        "'1.5' for '--id <ID>': must be a row's id, a whole number",
    ),
    (
        &["replay", "--all", "--after", "x"],
        "'x' for '--after <ID>': must be a row's id",
    ),
    (
        &["replay", "--all", "--rate", "0"],
        "'0' for '--rate <N>': must be a whole number from 1 to 4294967295",
    ),
    (
        &["dead", "list", "--limit", "many"],
        "'many' for '--limit <N>': must be a whole number from 1 to 1000000",
    ),
    (
        &["dead", "list", "--class", "odd"],
        "'odd' for '--class <CLASS>'\n  [possible values: row, crash, unreadable, unknown]",
    ),
    (
        &["tail", "--count", "0"],
        "'0' for '--count <N>': must be a whole number from 1 to",
    ),
    (
        &["trace", "c", "--scan", "-1"],
        "unexpected argument '-1' found",
    ),
    (
        &["bench", "drain", "--rows", "1e6"],
        "'1e6' for '--rows <ROWS>': must be a whole number from 1 to 1000000000",
    ),
    // Times and durations.
    (
        &["replay", "--from", "yesterday"],
        "'yesterday' for '--from <TIME>': must be RFC 3339, such as 2026-01-02T03:04:05Z",
    ),
    (
        &["replay", "--to", "2026-02-30T00:00:00Z"],
        "for '--to <TIME>': must be RFC 3339",
    ),
    (
        &[
            "replay",
            "--from",
            "2026-01-02T00:00:00Z",
            "--to",
            "2026-01-01T00:00:00Z",
        ],
        "--to: must be after --from (2026-01-02T00:00:00Z), is 2026-01-01T00:00:00Z",
    ),
    (
        &["run", "--until-empty", "--timeout", "5"],
        "'5' for '--timeout <DURATION>': must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\"",
    ),
    // This one overflowed the clock.
    (
        &["run", "--until-empty", "--timeout", "18446744073709551615s"],
        "'--timeout <DURATION>': must be a duration",
    ),
    (
        &["dead", "list", "--older-than", "101y"],
        "'101y' for '--older-than <DURATION>': must be at most 100y",
    ),
    (
        &["check", "--connect", "--long-transaction", "-1s"],
        "'-1' found",
    ),
    (
        &["inbox", "prune", "--wait", "long"],
        "'long' for '--wait <DURATION>': must be a duration",
    ),
    // Names.
    (
        &["tail", "--topic", "no such"],
        "'no such' for '--topic <TOPIC>': must be 1 to 249 of a-z A-Z 0-9 . _ -",
    ),
    (
        &["pause", "--topic", ""],
        "'' for '--topic <TOPIC>': must be 1 to 249",
    ),
    (
        &["trace", ""],
        "'' for '<CORRELATION_ID>': must not be empty",
    ),
    (
        &["tail", "--correlation-id="],
        "for '--correlation-id <ID>'",
    ),
    (
        &["inbox", "prune", "--consumer", "a\tb"],
        "for '--consumer <NAME>': must have 1 to 200 bytes, without control characters",
    ),
    (
        &["check", "--print-acls", "--consumer="],
        "for '--consumer <NAME>'",
    ),
    (&["migrate", "--relay-role="], "for '--relay-role <ROLE>'"),
    (
        &["status", "--relay", "9464"],
        "'9464' for '--relay <HOST:PORT>': must be host:port, such as 127.0.0.1:9464",
    ),
    (
        &["status", "--relay", "relay:99999"],
        "for '--relay <HOST:PORT>': must be host:port",
    ),
    (
        &["trace", "c", "--database", "mysql://app:hunter2@db/shop"],
        "--database: must start with postgres:// or postgresql://",
    ),
];

#[test]
fn every_wrong_command_line_is_named_with_what_would_be_right() {
    assert!(CASES.len() >= 40, "{} cases", CASES.len());
    for (arguments, expected) in CASES {
        let mut command = command(arguments);
        command.env("OUTBOXD_POSTGRES__URL", "postgres://localhost/shop");
        command.env("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092");
        let said = refused(&command.output().expect("running outboxd"), 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
