//! A secret shows up nowhere: not in `Debug`, not in errors, not in what `check` prints.

use super::{load, load_all, valid};

const SECRET: &str = "hunter2";

/// The URL has it as its password too.
const EVERYWHERE: &[(&str, &str)] = &[
    (
        "OUTBOXD_POSTGRES__DIRECT_URL",
        "postgres://app:hunter2@db/shop?password=hunter2&p%61ssword=hunter2&dbname=b",
    ),
    ("OUTBOXD_ADMIN__TOKEN", "hunter2-of-the-admin-port"),
    ("OUTBOXD_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_ssl"),
    ("OUTBOXD_KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN"),
    ("OUTBOXD_KAFKA__PROPERTIES__SASL_USERNAME", "app"),
    ("OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ("OUTBOXD_KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "hunter2"),
    ("OUTBOXD_KAFKA__PROPERTIES__SSL_KEY_PEM", "hunter2"),
    (
        "OUTBOXD_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD",
        "hunter2",
    ),
    (
        "OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK",
        "https://a:hunter2@idp/token",
    ),
    (
        "OUTBOXD_KAFKA__PROPERTIES__SSL_CERTIFICATE_PEM",
        "-----BEGIN PRIVATE KEY-----hunter2",
    ),
];

#[test]
fn a_valid_configuration_hides_its_secrets() {
    let config = valid("", EVERYWHERE);
    for text in [
        format!("{config:?}"),
        format!("{config:#?}"),
        config.redacted_toml(),
    ] {
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("<redacted>"));
        assert!(
            text.contains("postgres://app:<redacted>@db:5432/shop"),
            "{text}"
        );
    }
    // They are there, only hidden.
    assert!(config.postgres.url.expose().contains(SECRET));
    assert_eq!(
        config
            .kafka
            .properties
            .expose()
            .filter(|(_, value)| value.contains(SECRET))
            .count(),
        6
    );
}

#[test]
fn errors_hide_secrets() {
    for toml in [
        "[postgres]\nurl = postgres://app:hunter2@db",
        "[postgres]\nurl = 'postgres://app:hunter2@db\n",
        "[kafka.properties]\nsasl.oauthbearer.client.secret = 'hunter2'",
        "[kafka.oauth]\nclient_secret = 'hunter2'\ntoken_url = 'https://a:hunter2@idp'",
        "[kafka.oauth]\nclient_secret = ['hunter2']",
        "[kafka.oauth]\ntoken_url = 'https://a:hunter2@idp'\n[kafka.properties]\nsecurity.protocol = 'sasl_ssl'\nsasl.mechanism = 'OAUTHBEARER'",
        "[kafka.properties]\nsasl.password = hunter2",
        "[kafka.properties]\nsasl.password = ['hunter2']",
        "[kafka.properties]\nsasl.password = \"\\u0000hunter2\"",
        "[kafka.properties]\n'plugin.library.paths' = 'x://a:hunter2@b'",
        "[postgres]\ndirect_url = 'http://app:hunter2@db'",
        "[postgres]\ndirect_url = ['hunter2']",
        "[postgres]\nulr = 'postgres://app:hunter2@db'",
        "[kafka]\nbootstrap_servers = 'kafka://a:hunter2@b'\npassword = 'hunter2'",
    ] {
        let environment: &[_] = if toml.contains("bootstrap") {
            &[super::URL]
        } else {
            &[super::URL, super::BROKERS]
        };
        let errors = load_all(toml, environment, &[]).expect_err(toml);
        for text in [errors.to_string(), format!("{errors:?}")] {
            assert!(!text.contains(SECRET), "{toml}\n{text}");
        }
    }
}

#[test]
fn the_printed_configuration_reads_back_as_itself() {
    let toml = "[outbox.a]\nsource = 'it\"s \\ ü'\nretention = '1d 2h'\nwindow_bytes = '1048577B'\n[kafka.properties]\n'client.id' = \"a\\tb\"\n";
    let config = valid(toml, &[]);
    let printed = config.redacted_toml();
    let again = load(&printed, &[]).expect("what is printed is valid");
    assert_eq!(again, config);
    assert_eq!(again.redacted_toml(), printed);
}
