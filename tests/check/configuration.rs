//! `outboxd check` alone prints what is configured, and connects to nothing.

use serde_json::{Value, json};

use crate::support::command::{command, fails, outboxd, succeeds};

const CHECK: [&str; 5] = [
    "check",
    "--postgres-url",
    "postgres://relay:hunter2@db.invalid/shop",
    "--kafka",
    "kafka.invalid:9092",
];

#[test]
fn the_effective_configuration_is_printed_with_origins_and_without_secrets() {
    let mut check = command(&CHECK);
    check.env("OUTBOXD_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl");
    check.env(
        "OUTBOXD_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD",
        "hunter2",
    );
    check.env("OUTBOXD_OUTBOX__ORDERS__POLL_INTERVAL", "50ms");
    let text = succeeds(&check.output().expect("running outboxd"));
    assert!(!text.contains("hunter2"), "{text}");
    for (start, end) in [
        (
            "url = \"postgres://relay:<redacted>@db.invalid/shop\"",
            "# the command line",
        ),
        (
            "\"ssl.keystore.password\" = \"<redacted>\"",
            "# OUTBOXD_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD",
        ),
        (
            "poll_interval = \"50ms\"",
            "# OUTBOXD_OUTBOX__ORDERS__POLL_INTERVAL",
        ),
        ("window_rows = 6000", "# the defaults"),
    ] {
        let mut lines = text.lines();
        assert!(
            lines.any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start} … {end}\n{text}"
        );
    }

    let json: Value = serde_json::from_str(&succeeds(
        &check.arg("--json").output().expect("running outboxd"),
    ))
    .expect("JSON");
    assert!(!json.to_string().contains("hunter2"), "{json}");
    let settings = json["settings"].as_array().expect("settings");
    let setting = |option: &str| {
        let mut found = settings
            .iter()
            .filter(|setting| setting["option"] == option);
        found.next().unwrap_or_else(|| panic!("no {option}"))
    };
    assert_eq!(
        *setting("outbox.orders.poll_interval"),
        json!({
            "option": "outbox.orders.poll_interval",
            "value": "50ms",
            "origin": {"kind": "variable", "name": "OUTBOXD_OUTBOX__ORDERS__POLL_INTERVAL"},
        })
    );
    assert_eq!(setting("outbox.orders.window_rows")["value"], 6000);
    assert_eq!(setting("outbox.orders.notify")["value"], false);
    assert_eq!(
        setting("postgres.url")["origin"],
        json!({"kind": "command_line"})
    );
}

#[test]
fn a_broken_configuration_is_named_rule_by_rule() {
    let broken = [
        "--set",
        "relay.lease=1h",
        "--set",
        "outbox.default.batch_rows=0",
    ];
    let said = fails(&outboxd(&[&CHECK[..], &broken].concat()), 78);
    assert!(said.contains("relay.lease: must be between"), "{said}");
    assert!(
        said.contains("outbox.default.batch_rows: must be between"),
        "{said}"
    );
}

#[test]
fn acls_are_printed_for_the_relay_and_each_consumer() {
    let acls = [
        "--print-acls",
        "--consumer=billing",
        "--relay-principal=User:CN=relay",
        "--set=outbox.default.topic=orders",
    ];
    let text = succeeds(&outboxd(&[&CHECK[..], &acls].concat()));
    let command = "kafka-acls.sh --add --allow-principal";
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            format!(
                "{command} 'User:CN=relay' --operation DescribeConfigs --operation Write --topic 'orders'"
            ),
            format!(
                "{command} 'User:billing' --operation Create --operation Write --topic 'billing-dead-letters'"
            ),
            format!("{command} 'User:billing' --operation Read --topic 'orders'"),
            format!("{command} 'User:billing' --operation Read --group 'billing'"),
            format!(
                "{command} 'User:outboxd-maintenance' --operation Read --topic 'billing-dead-letters'"
            ),
            format!(
                "{command} 'User:outboxd-maintenance' --operation DescribeConfigs --operation Write --topic 'orders'"
            ),
        ]
    );
    let json = succeeds(&outboxd(&[&CHECK[..], &acls, &["--json"]].concat()));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["acls"][3],
        json!({
            "principal": "User:billing",
            "resource": "group",
            "name": "billing",
            "pattern": "literal",
            "operations": ["Read"],
        })
    );
}
