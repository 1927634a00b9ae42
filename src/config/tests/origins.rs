//! Every value says where it comes from, and none says a secret.

use super::{BROKERS, TempFile, URL, valid};
use crate::config::{Loaded, Origin, Preset, SecretFile, Shown, Sources};

fn load(toml: &TempFile, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Loaded {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    };
    Loaded::load(Sources {
        file: Some(toml.path().to_owned()),
        environment: owned(environment).into_iter(),
        overrides: owned(flags),
    })
    .expect("a valid configuration")
}

fn origin(loaded: &Loaded, option: &str) -> Origin {
    let settings = loaded.settings();
    let mut found = settings.iter().filter(|setting| setting.option() == option);
    let setting = found.next().unwrap_or_else(|| panic!("no {option}"));
    assert!(found.next().is_none(), "{option} is there twice");
    setting.origin.clone()
}

#[test]
fn each_value_names_the_layer_it_is_from() {
    let secret = TempFile::new("hunter2");
    let file = TempFile::new(
        "[relay]\nlease = '11s'\n[kafka.properties]\nlinger.ms = 5\n'client.id' = 'x'\n\
         'security.protocol' = 'ssl'\n\
         [outbox.o]\npreset = 'debezium'\nsource = 'shop'\ntable = 'events'\n\
         [outbox.o.topics]\n'order.placed' = 'orders'",
    );
    let environment = [
        URL,
        BROKERS,
        ("OUTBOXD_KAFKA__PROPERTIES__LINGER_MS", "7"),
        (
            "OUTBOXD_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD_FILE",
            &secret.name(),
        ),
        ("OUTBOXD_OUTBOX__O__BATCH_ROWS", "100"),
    ];
    let loaded = load(&file, &environment, &[("outbox.o.source", "x")]);
    let variable = |name: &str| Origin::Variable(name.to_owned());
    let in_file = Origin::File(file.name());
    for (option, expected) in [
        ("relay.lease", in_file.clone()),
        ("relay.stall_timeout", Origin::Default),
        ("postgres.url", variable(URL.0)),
        (
            "kafka.properties.linger.ms",
            variable("OUTBOXD_KAFKA__PROPERTIES__LINGER_MS"),
        ),
        ("kafka.properties.client.id", in_file.clone()),
        (
            "kafka.properties.ssl.keystore.password",
            Origin::VariableFile(SecretFile {
                variable: "OUTBOXD_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD_FILE".to_owned(),
                path: secret.name().into(),
            }),
        ),
        ("outbox.o.preset", in_file.clone()),
        ("outbox.o.source", Origin::CommandLine),
        ("outbox.o.table", in_file.clone()),
        ("outbox.o.topic", Origin::Preset(Preset::Debezium)),
        (
            "outbox.o.columns.aggregate_id",
            Origin::Preset(Preset::Debezium),
        ),
        ("outbox.o.topics.order.placed", in_file),
        (
            "outbox.o.batch_rows",
            variable("OUTBOXD_OUTBOX__O__BATCH_ROWS"),
        ),
        ("outbox.o.window_rows", Origin::Default),
        ("outbox.o.headers.id", Origin::Preset(Preset::Debezium)),
    ] {
        assert_eq!(origin(&loaded, option), expected, "{option}");
    }
    for text in [loaded.annotated_toml(), format!("{:?}", loaded.settings())] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("<redacted>"), "{text}");
    }
}

#[test]
fn the_annotated_configuration_is_one_that_reads_back_as_itself() {
    let file = TempFile::new("[kafka.properties]\nlinger.ms = 5\n[outbox.a]\nkey = '{b}'");
    let loaded = load(&file, &[URL, BROKERS], &[("relay.lease", "12s")]);
    let annotated = loaded.annotated_toml();
    let again = valid(&annotated, &[]);
    assert_eq!(again, loaded.config, "{annotated}");
    assert_eq!(again.redacted_toml(), loaded.config.redacted_toml());
    let lease = annotated.lines().find(|line| line.starts_with("lease "));
    let lease = lease.expect("the option");
    assert!(
        lease.starts_with("lease = \"12s\" ") && lease.ends_with("  # the command line"),
        "{lease}"
    );
}

#[test]
fn numbers_and_truth_values_are_told_from_text() {
    let file = TempFile::new("");
    let loaded = load(&file, &[URL, BROKERS], &[]);
    let value = |option: &str| {
        let settings = loaded.settings().into_iter();
        settings
            .filter(|setting| setting.option() == option)
            .map(|setting| setting.value)
            .next()
    };
    assert_eq!(
        value("outbox.default.notify"),
        Some(Shown::Plain("false".to_owned()))
    );
    assert_eq!(
        value("outbox.default.source"),
        Some(Shown::Text("outboxd".to_owned()))
    );
}
