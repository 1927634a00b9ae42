//! Tables of cases: what is set, and exactly what is said about it.

mod mapping;
mod outboxes;
mod sections;
mod security;
mod shape;
mod templates;

use super::{load, load_all, messages};

/// A file, variables, and the messages in their order; none: it is valid.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

#[test]
fn every_broken_rule_has_its_message() {
    let cases = [
        shape::CASES,
        sections::CASES,
        security::CASES,
        outboxes::CASES,
        mapping::CASES,
        templates::CASES,
    ]
    .concat();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    for (toml, environment, expected) in cases {
        let found = messages(load(toml, environment));
        assert_eq!(found, expected, "\n{toml}\n{environment:?}");
    }
}

#[test]
fn all_broken_rules_are_reported_together() {
    let toml =
        "top = 1\n[relay]\nlease = '1h'\n[outbox.a]\nbatch_rows = 0\n[outbox.b]\nwindow_rows = 5";
    let found = messages(load_all(
        toml,
        &[("OUTBOXD_LOG__FORMAT", "xml")],
        &[("admin.listen", "x")],
    ));
    let expected = [
        "postgres.url: must be set (OUTBOXD_POSTGRES__URL or [postgres] url)",
        "kafka.bootstrap_servers: must be set (OUTBOXD_KAFKA__BOOTSTRAP_SERVERS or [kafka] bootstrap_servers)",
        "admin.listen: must be address:port, such as \"127.0.0.1:9464\", or \"off\", is \"x\", from the command line",
        "relay.lease: must be between 1s and 5m, is 1h",
        "log.format: must be \"auto\" or \"human\" or \"json\", is \"xml\", from OUTBOXD_LOG__FORMAT",
        "top: is not an option, from FILE",
        "outbox.a.batch_rows: must be between 1 and 100000, is 0",
        "outbox.b.table: must differ from the table of outbox.a, is public.outbox_events",
        "outbox.b.window_rows: must be at least batch_rows (2000), is 5",
    ];
    assert_eq!(found, expected);
}
