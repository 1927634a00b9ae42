//! Which layer wins, and that values arrive as they were written.

use std::time::Duration;

use super::{BROKERS, TempFile, URL, load_all, messages, valid};
use crate::config::{Config, KafkaProperties, OnSent, Pooler, Retention, Sources};

/// Where somebody logs in, up to the name and the password.
const LOGIN: &str =
    "[kafka.properties]\n'security.protocol' = 'SASL_SSL'\n'sasl.mechanism' = 'PLAIN'\n";

fn lease(config: &Config) -> u64 {
    config.relay.lease.as_secs()
}

#[test]
fn two_variables_are_enough() {
    let config = valid("", &[]);
    let outbox = &config.outboxes["default"];
    assert_eq!(config.outboxes.len(), 1);
    assert_eq!(outbox.name, "default");
    assert_eq!(outbox.table.to_string(), "public.outbox_events");
    assert_eq!(
        outbox.templates.topic.to_string(),
        "{aggregate_type}-events"
    );
    assert_eq!(
        outbox.retention,
        Retention::For(Duration::from_secs(7 * 24 * 60 * 60))
    );
    assert_eq!(
        (outbox.batch_rows.get(), outbox.window_rows.get()),
        (2_000, 6_000)
    );
    assert_eq!(outbox.window_bytes.as_u64(), 16 << 20);
    assert_eq!(
        config.admin.listen.map(|address| address.port()),
        Some(9464)
    );
    assert_eq!(config.kafka.properties, KafkaProperties::default());
}

#[test]
fn each_layer_is_stronger_than_the_one_before() {
    let file = "[relay]\nlease = '11s'";
    let variable = ("OUTBOXD_RELAY__LEASE", "12s");
    let flag = ("relay.lease", "13s");
    assert_eq!(lease(&valid("", &[])), 10);
    assert_eq!(lease(&valid(file, &[])), 11);
    assert_eq!(lease(&valid(file, &[variable])), 12);
    let config = load_all(file, &[URL, BROKERS, variable], &[flag]).expect("valid");
    assert_eq!(lease(&config), 13);
}

#[test]
fn a_layer_leaves_what_it_does_not_name() {
    let config = valid(
        "[relay]\nlease = '11s'\n[kafka.properties]\nlinger.ms = 5\n'client.id' = 'file'",
        &[
            ("OUTBOXD_RELAY__STALL_TIMEOUT", "5s"),
            ("OUTBOXD_KAFKA__PROPERTIES__LINGER_MS", "7"),
        ],
    );
    assert_eq!(lease(&config), 11);
    assert_eq!(config.relay.stall_timeout, Duration::from_secs(5));
    let properties: Vec<_> = config.kafka.properties.expose().collect();
    assert_eq!(properties, [("client.id", "file"), ("linger.ms", "7")]);
}

#[test]
fn the_file_is_named_by_the_argument_or_else_by_the_variable() {
    let named = TempFile::new("[relay]\nlease = '11s'");
    let other = TempFile::new("[relay]\nlease = '12s'");
    let environment = [URL, BROKERS, ("OUTBOXD_CONFIG", &other.name())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let load = |file| {
        let sources = Sources {
            file,
            environment: environment.clone().into_iter(),
            overrides: vec![],
        };
        Config::load(sources).expect("valid")
    };
    assert_eq!(lease(&load(Some(named.path().to_owned()))), 11);
    assert_eq!(lease(&load(None)), 12);
}

#[test]
fn a_named_file_must_exist() {
    let sources = Sources {
        file: Some("/nowhere/x.toml".into()),
        environment: std::iter::empty(),
        overrides: vec![],
    };
    let expected =
        "/nowhere/x.toml: reading the configuration: No such file or directory (os error 2)";
    assert_eq!(messages(Config::load(sources)), [expected]);
}

#[test]
fn text_stays_as_it_was_written() {
    let config = valid(
        &format!(
            "{LOGIN}'sasl.username' = 123456\n'ssl.key.password' = 2026-01-31\n'client.id' = 1.0"
        ),
        &[
            ("OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD", "0123"),
            ("OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK", "[1, 2]"),
            ("OUTBOXD_OUTBOX__DEFAULT__SOURCE", "007"),
        ],
    );
    let property = |name| config.kafka.properties.get(name);
    assert_eq!(property("sasl.username"), Some("123456"));
    assert_eq!(property("ssl.key.password"), Some("2026-01-31"));
    assert_eq!(property("client.id"), Some("1.0"));
    assert_eq!(property("sasl.password"), Some("0123"));
    assert_eq!(property("client.rack"), Some("[1, 2]"));
    assert_eq!(config.outboxes["default"].source, "007");
}

#[test]
fn text_fields_take_numbers_and_bools_of_toml() {
    assert_eq!(
        valid("[outbox.a]\nsource = 42", &[]).outboxes["a"].source,
        "42"
    );
    assert_eq!(
        valid("[outbox.a]\nsource = true", &[]).outboxes["a"].source,
        "true"
    );
}

#[test]
fn other_fields_take_text() {
    let config = valid(
        "[outbox.default]\nbatch_rows = '100'",
        &[
            ("OUTBOXD_OUTBOX__DEFAULT__NOTIFY", "true"),
            ("OUTBOXD_OUTBOX__DEFAULT__WINDOW_ROWS", "0200"),
            ("OUTBOXD_OUTBOX__DEFAULT__WINDOW_BYTES", "2097152"),
            ("OUTBOXD_OUTBOX__DEFAULT__POLL_INTERVAL", "1m"),
            ("OUTBOXD_OUTBOX__DEFAULT__ON_SENT", "delete"),
            ("OUTBOXD_OUTBOX__DEFAULT__RETENTION", "forever"),
            ("OUTBOXD_ADMIN__LISTEN", "off"),
            ("OUTBOXD_POSTGRES__POOLER", "transaction"),
            ("OUTBOXD_POSTGRES__DIRECT_URL", "postgresql://db/shop"),
        ],
    );
    let outbox = &config.outboxes["default"];
    assert!(outbox.notify);
    assert_eq!(
        (outbox.batch_rows.get(), outbox.window_rows.get()),
        (100, 200)
    );
    assert_eq!(outbox.window_bytes.as_u64(), 2 << 20);
    assert_eq!(outbox.poll_interval, Duration::from_secs(60));
    assert_eq!(
        (outbox.on_sent, outbox.retention),
        (OnSent::Delete, Retention::Forever)
    );
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.postgres.pooler, Pooler::Transaction);
    assert_eq!(
        config.postgres.session_url(),
        config.postgres.direct_url.as_ref()
    );
    assert_eq!(valid("[admin]\nlisten = ''", &[]).admin.listen, None);
}

#[test]
fn a_secret_can_come_from_a_file() {
    for (content, expected) in [("p\n", "p"), ("p\r\n", "p"), ("p\n\n", "p\n"), ("p ", "p ")] {
        let file = TempFile::new(content);
        let name = file.name();
        let config = valid(
            "",
            &[("OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK_FILE", &name)],
        );
        assert_eq!(
            config.kafka.properties.get("client.rack"),
            Some(expected),
            "{content:?}"
        );
    }
    let file = TempFile::new("postgres://app:s3cret@db/shop\n");
    let name = file.name();
    let config =
        load_all("", &[("OUTBOXD_POSTGRES__URL_FILE", &name), BROKERS], &[]).expect("valid");
    assert_eq!(
        config.postgres.url.expose(),
        "postgres://app:s3cret@db/shop"
    );
}

#[test]
fn a_secret_that_is_no_text_is_an_error() {
    for (content, problem) in [
        (&[0xff, 0xfe][..], "it must be UTF-8"),
        (b"", "it is empty"),
        (b"\r\n", "it is empty"),
    ] {
        let file = TempFile::new(content);
        let name = file.name();
        let variables = [("OUTBOXD_POSTGRES__URL_FILE", &*name), BROKERS];
        let found = messages(load_all("", &variables, &[]));
        let expected = format!("OUTBOXD_POSTGRES__URL_FILE: reading {name:?}: {problem}");
        assert_eq!(found, [expected]);
    }
    let found = messages(super::load(
        "",
        &[("OUTBOXD_POSTGRES__DIRECT_URL_FILE", "/dev/zero")],
    ));
    let expected =
        "OUTBOXD_POSTGRES__DIRECT_URL_FILE: reading \"/dev/zero\": it is longer than 1 MiB";
    assert_eq!(found, [expected]);
}

#[test]
fn a_property_of_a_flag_keeps_its_dots() {
    let config =
        load_all("", &[URL, BROKERS], &[("kafka.properties.linger.ms", "3")]).expect("valid");
    assert_eq!(config.kafka.properties.get("linger.ms"), Some("3"));
}

#[test]
fn outboxes_take_the_built_in_defaults_and_not_each_others() {
    let config = valid(
        "[outbox.orders]\ntable = 'a'\nbatch_rows = 5\n[outbox.bills]\ntable = 'b'",
        &[],
    );
    assert_eq!(
        config.outboxes.keys().collect::<Vec<_>>(),
        ["bills", "orders"]
    );
    assert_eq!(config.outboxes["bills"].batch_rows.get(), 2_000);

    let config = valid(
        "[outbox.default]\nbatch_rows = 5\n[outbox.bills]\ntable = 'b'",
        &[],
    );
    assert_eq!(
        config.outboxes.keys().collect::<Vec<_>>(),
        ["bills", "default"]
    );
    assert_eq!(config.outboxes["bills"].batch_rows.get(), 2_000);
}

#[test]
fn a_variable_can_name_an_outbox() {
    let config = valid("", &[("OUTBOXD_OUTBOX__ORDERS__TOPIC", "orders")]);
    assert_eq!(config.outboxes.keys().collect::<Vec<_>>(), ["orders"]);
}

#[test]
fn a_table_without_a_schema_is_in_the_configured_one() {
    let config = valid(
        "[postgres]\nschema = 'sales'\n[outbox.a]\n[outbox.b]\ntable = 'x.y'",
        &[],
    );
    assert_eq!(
        config.outboxes["a"].table.to_string(),
        "sales.outbox_events"
    );
    assert_eq!(config.outboxes["b"].table.to_string(), "x.y");
}

#[test]
fn a_list_of_hosts_becomes_one_url_each() {
    let url = "postgres://u:p%40@h1:5432,[::1]:5433,h3/db?sslmode=require";
    let config = valid("", &[("OUTBOXD_POSTGRES__URL", url)]);
    let hosts: Vec<_> = config
        .postgres
        .url
        .hosts()
        .iter()
        .map(|url| url.expose())
        .collect();
    assert_eq!(
        hosts,
        [
            "postgres://u:p%40@h1:5432/db?sslmode=require",
            "postgres://u:p%40@[::1]:5433/db?sslmode=require",
            "postgres://u:p%40@h3/db?sslmode=require",
        ]
    );
    assert_eq!(config.postgres.url.expose(), url);
    let socket = "postgres:///db?host=/run/postgresql";
    assert_eq!(
        valid("", &[("OUTBOXD_POSTGRES__URL", socket)])
            .postgres
            .url
            .expose(),
        socket
    );
}

#[test]
fn parameters_that_ask_for_what_is_so_anyway_never_come_to_sqlx() {
    let parsed = |query: &str| {
        let url = format!("postgres://u:p@h1,h2/db{query}");
        valid("", &[("OUTBOXD_POSTGRES__URL", &url)]).postgres.url
    };
    for (query, exposed) in [
        ("?channel_binding=prefer", ""),
        ("?target_session_attrs=any&channel%5Fbinding=disable", ""),
        (
            "?sslmode=require&target_session_attrs=read-write&application_name=a",
            "?sslmode=require&application_name=a",
        ),
        ("?target_session_attrs=primary&host=db", "?host=db"),
    ] {
        let second = parsed(query).hosts()[1].expose();
        assert_eq!(second, format!("postgres://u:p@h2/db{exposed}"), "{query}");
    }
    let shown = parsed("?channel_binding=prefer").to_string();
    assert!(shown.ends_with("/db?channel_binding=prefer"), "{shown}");
}

#[test]
fn a_mapped_table_keeps_its_rows_and_has_no_timestamps_it_does_not_name() {
    use crate::config::{EventTimestamp, Retention};
    let columns = "[outbox.a.columns]\nid = 'Seq'\nevent_id = 'Id'\naggregate_id = 'k'\n";
    let outbox = "[outbox.a]\nenvelope = 'raw'\ntopic = 't'\n";
    let sent = "[outbox.a.sent]\ncolumn = 'Status'\nunsent = ' \\new'\nsent = 'S'\nat = 'At'\n";
    let config = valid(&format!("{outbox}{columns}{sent}"), &[]);
    let plain = &config.outboxes["a"];
    assert_eq!(plain.retention, Retention::Forever);
    assert_eq!(plain.timestamp, EventTimestamp::None);
    let chosen = format!("{outbox}retention = '1d'\n{columns}created_at = 'Born'\n{sent}");
    let chosen = &valid(&chosen, &[]).outboxes["a"];
    assert_eq!(
        chosen.retention,
        Retention::For(std::time::Duration::from_secs(86_400))
    );
    assert_eq!(chosen.timestamp, EventTimestamp::CreatedAt);
    // What is printed reads back as itself.
    let printed = config.redacted_toml().replace("<redacted>", "hunter2");
    assert_eq!(valid(&printed, &[]).outboxes, config.outboxes);
}
