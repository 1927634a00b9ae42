//! Whatever is put in: an answer, never a panic, and one line for each error.

use proptest::prelude::*;

use super::load_all;

const KEYS: &[&str] = &[
    "postgres",
    "kafka",
    "relay",
    "admin",
    "otlp",
    "log",
    "outbox",
    "properties",
    "create_topics",
    "default",
    "orders",
    "url",
    "direct_url",
    "bootstrap_servers",
    "lease",
    "topic",
    "table",
    "batch_rows",
    "window_rows",
    "window_bytes",
    "retention",
    "level",
    "listen",
    "linger.ms",
    "acks",
    "file",
];

const VALUES: &[&str] = &[
    "",
    "5",
    "-1",
    "0123",
    "true",
    "10s",
    "18446744073709551615s 1000ms",
    "16MiB",
    "99999999999999999999EiB",
    "postgres://",
    "postgres://u:p@[::1",
    "postgres://@,",
    "{",
    "}{",
    "{é}",
    "[a=b",
    "é",
    "\u{0}",
    "h:1,",
    "off",
    "forever",
    "ns",
    "µs",
    "1.µ",
    "a=b=c,",
    "/dev/null",
];

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(words).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => "[a-z_.]{0,200}",
    ]
}

fn path(separator: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(word(KEYS), 1..5).prop_map(move |parts| parts.join(separator))
}

/// Something of the shape of a TOML file, its keys and values quoted as TOML wants them.
fn toml() -> impl Strategy<Value = String> {
    let line = (
        prop::collection::vec(word(KEYS), 1..5),
        word(VALUES),
        any::<bool>(),
    )
        .prop_map(|(keys, value, bare)| {
            let key = keys
                .iter()
                .map(|key| format!("{key:?}"))
                .collect::<Vec<_>>()
                .join(".");
            if bare {
                format!("{key} = {value}")
            } else {
                format!("{key} = {value:?}")
            }
        });
    prop_oneof![
        4 => prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n")),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_panics(
        toml in toml(),
        variables in prop::collection::vec((path("__"), word(VALUES)), 0..6),
        flags in prop::collection::vec((path("."), word(VALUES)), 0..4),
    ) {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (format!("OUTBOXD_{}", name.to_uppercase()), value)).collect();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let flags: Vec<_> = flags.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        match load_all(&toml, &variables, &flags) {
            Ok(config) => {
                config.redacted_toml();
            }
            Err(errors) => {
                prop_assert!(errors.iter().count() > 0);
                for error in errors.iter() {
                    let line = error.to_string();
                    prop_assert!(line.contains(": ") && !line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn no_value_of_an_option_panics(
        field in prop::sample::select(&[
            "postgres.url", "postgres.schema", "postgres.lock_timeout", "kafka.bootstrap_servers",
            "admin.listen", "otlp.endpoint", "log.level", "outbox.a.topic", "outbox.a.table", "outbox.a.retention",
            "outbox.a.window_bytes", "outbox.a.batch_rows", "outbox.a.source",
        ][..]),
        value in prop_oneof![word(VALUES), "[0-9]{0,25}[a-zµ]{0,3}( ?[0-9.]{0,12}[a-zµ]{0,3}){0,4}"],
    ) {
        let _ = load_all("", &[super::URL, super::BROKERS], &[(field, &value)]);
    }
}
