//! What was planted is searched for wherever the relay and its commands say something.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::Secured;
use crate::otlp::{Collector, Received};
use crate::support::fixture::{Fixture, PATIENCE, execute, number};
use crate::support::secured::{HOST, Listener, PASSWORD as SASL_PASSWORD, SecuredKafka, USER};
use crate::support::services;
use crate::support::tokens::{CLIENT, TokenEndpoint};

const PASSWORD: &str = "planted-password";
const WRONG_PASSWORD: &str = "planted-wrong-password";
const TOKEN: &str = "planted-admin-token";
const KEY_PASSWORD: &str = "planted-pass-phrase";
const CLIENT_SECRET: &str = "planted-client-secret";
const WRONG_CLIENT_SECRET: &str = "planted-wrong-client-secret";
const COLLECTOR_TOKEN: &str = "planted-collector-token";
const PRIVATE_KEY: &str = "PRIVATE KEY";
const PAYLOAD: &str = "planted-payload";
const HEADER: &str = "planted-header";
const KEY: &str = "planted-key";

/// What not even those see who are shown a row.
const CREDENTIALS: [&str; 9] = [
    PASSWORD,
    WRONG_PASSWORD,
    TOKEN,
    SASL_PASSWORD,
    KEY_PASSWORD,
    CLIENT_SECRET,
    WRONG_CLIENT_SECRET,
    COLLECTOR_TOKEN,
    PRIVATE_KEY,
];

/// What not even those see who are shown a key.
const SECRET: [&[&str]; 2] = [&CREDENTIALS, &[PAYLOAD, HEADER]];

/// What nobody may see who asks for nothing.
const HIDDEN: [&[&str]; 3] = [&CREDENTIALS, &[PAYLOAD, HEADER], &[KEY]];

fn clean(what: &str, text: &str, planted: &[&[&str]]) {
    for marker in planted.iter().copied().flatten() {
        if let Some(line) = text.lines().find(|line| line.contains(marker)) {
            panic!("{marker} in {what}:\n{line}");
        }
    }
}

fn all(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    out.into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A table that lets a row hold anything.
const DDL: &str = "create table planted ( \
        id bigint generated always as identity primary key, event_id uuid not null default gen_random_uuid(), \
        kind text default 'order.placed', thing text, body text, extra text, place text, \
        correlation text default 'c', at timestamptz default clock_timestamp(), sent_at timestamptz)";

const OPTIONS: &[(&str, &str)] = &[
    ("table", "planted"),
    ("payload_encoding", "json"),
    ("columns.id", "id"),
    ("columns.event_id", "event_id"),
    ("columns.aggregate_type", "kind"),
    ("columns.aggregate_id", "thing"),
    ("columns.event_type", "kind"),
    ("columns.payload", "body"),
    ("columns.headers", "extra"),
    ("columns.topic", "place"),
    ("columns.correlation_id", "correlation"),
    ("columns.created_at", "at"),
    ("sent.column", "sent_at"),
];

/// What is planted in a row's key, payload, headers and topic, and whether it is published.
const ROWS: &[(&str, &str, &str, &str, bool)] = &[
    ("good", "'\"planted-payload\"'", GOOD, "null", true),
    (
        "too-large",
        "'\"' || repeat('planted-payload', 100000) || '\"'",
        GOOD,
        "null",
        false,
    ),
    ("no-json", "'{\"a\": planted-payload'", GOOD, "null", false),
    ("topic", "'\"planted-payload\"'", GOOD, "'no such'", false),
    (
        "headers-no-json",
        "'\"planted-payload\"'",
        "'{\"who\": planted-header'",
        "null",
        false,
    ),
    (
        "headers-not-flat",
        "'\"planted-payload\"'",
        "'{\"who\": [\"planted-header\"]}'",
        "null",
        false,
    ),
];

const GOOD: &str = "'{\"who\": \"planted-header\"}'";

/// Inserts it and returns its id.
async fn plant(fixture: &mut Fixture, row: &(&str, &str, &str, &str, bool)) -> i64 {
    let (key, body, extra, place, _) = row;
    let sql = format!(
        "insert into planted (thing, body, extra, place) values ('{KEY}-{key}', {body}, {extra}, {place}) returning id"
    );
    number(&mut fixture.database, &sql).await
}

/// What a command says, on both ways.
fn says(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = fixture.relay.command(arguments);
    command.output().expect("running outboxd")
}

/// A relay that logs everything, beside rows that go out and rows that do not.
async fn stage(secured: &Secured, kafka: &SecuredKafka, collector: &Collector) -> Fixture {
    let url = secured.server.url("postgres");
    let mut fixture = Fixture::on("planted", &url, &kafka.broker.bootstrap()).await;
    let role = format!("create role relay login password '{PASSWORD}'; {DDL}");
    execute(&mut fixture.database, &role).await;
    let grants =
        "grant select, update on planted to relay; grant select on planted_id_seq to relay";
    execute(&mut fixture.database, grants).await;
    fixture.relay.migrate_for("relay").await;
    for (option, value) in OPTIONS {
        let option = format!("outbox.default.{option}");
        fixture.relay.set(&option, value);
    }
    let url = secured.verified(&format!("relay:{PASSWORD}"));
    let loud = "trace,sqlx=trace,rustls=trace,librdkafka=trace";
    for (option, value) in [
        ("postgres.url", &*url),
        ("postgres.direct_url", &url),
        ("admin.token", TOKEN),
        ("log.level", loud),
        ("otlp.endpoint", &collector.endpoint()),
        ("otlp.interval", "1s"),
        ("kafka.bootstrap_servers", &kafka.address(Listener::Sasl)),
        ("kafka.properties.debug", "all"),
        ("kafka.properties.security.protocol", "sasl_ssl"),
        ("kafka.properties.ssl.ca.location", &kafka.authority.ca()),
        (
            "kafka.properties.ssl.certificate.location",
            &kafka.client.certificate,
        ),
        (
            "kafka.properties.ssl.key.location",
            &kafka
                .authority
                .encrypt_key("planted", &kafka.client, KEY_PASSWORD),
        ),
        ("kafka.properties.ssl.key.password", KEY_PASSWORD),
        ("kafka.properties.sasl.mechanism", "SCRAM-SHA-256"),
    ] {
        fixture.relay.set(option, value);
    }
    fixture.relay.set("kafka.properties.sasl.username", USER);
    fixture
        .relay
        .set("kafka.properties.sasl.password", SASL_PASSWORD);
    fixture.relay.set_variable("RUST_BACKTRACE", "1");
    let shown = format!("authorization=Bearer {COLLECTOR_TOKEN}");
    fixture
        .relay
        .set_variable("OTEL_EXPORTER_OTLP_HEADERS", &shown);
    fixture
}

/// Whoever follows the topic sees the key, and no more.
async fn published(fixture: &mut Fixture) {
    let mut tail = fixture.relay.command(&["tail", "--count", "1"]);
    let tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tail = tail.spawn().expect("starting a tail");
    let mut line = String::new();
    let mut errors = BufReader::new(tail.stderr.take().expect("its errors"));
    errors.read_line(&mut line).expect("a line");
    assert!(line.contains("following"), "{line}");
    for row in ROWS {
        plant(fixture, row).await;
    }
    let published = ROWS.iter().filter(|row| row.4).count();
    let parked = ROWS.len() - published;
    let fates = format!(
        "(select count(*) from outboxd_parked) = {parked} \
         and (select count(*) from planted where sent_at is not null) = {published}"
    );
    fixture.until(&fates).await;
    let shown = all(&tail.wait_with_output().expect("its end"));
    assert!(shown.contains(KEY), "{shown}");
    clean("tail", &shown, &SECRET);
}

/// What the admin port and the commands say of it.
async fn looked_at(fixture: &mut Fixture) {
    let authorization = format!("authorization: Bearer {TOKEN}\r\n");
    for (path, planted) in [
        ("/livez", &HIDDEN[..]),
        ("/readyz", &HIDDEN),
        ("/metrics", &HIDDEN),
        ("/status", &SECRET),
    ] {
        let answer = fixture.get_with(path, &authorization).await;
        clean(path, &answer.expect("an answer").1, planted);
    }
    let id = number(&mut fixture.database, "select min(id) from outboxd_parked").await;
    let id = id.to_string();
    for (arguments, planted) in [
        (&["check"][..], &HIDDEN[..]),
        (&["check", "--json"], &HIDDEN),
        (&["check", "--connect"], &HIDDEN),
        (&["check", "--print-acls"], &HIDDEN),
        (&["trace", "c"], &HIDDEN),
        (&["trace", "c", "--json"], &HIDDEN),
        (&["replay", "--all", "--dry-run"], &HIDDEN),
        (&["migrate"], &HIDDEN),
        (&["migrate", "--print"], &HIDDEN),
        (&["pause", "--list"], &HIDDEN),
        (&["probe", "--ready"], &HIDDEN),
        (&["status"], &SECRET),
        (&["status", "--json"], &SECRET),
        (&["dead", "list"], &SECRET),
        (&["dead", "list", "--json"], &SECRET),
        // The row itself is what is asked for here.
        (&["dead", "show", &id], &[&CREDENTIALS]),
    ] {
        let said = all(&says(fixture, arguments));
        clean(&arguments.join(" "), &said, planted);
    }
}

/// Postgres ends the relay's connections, and takes its password no more.
async fn refused(fixture: &mut Fixture) {
    let wrong = format!("alter role relay password '{WRONG_PASSWORD}'");
    execute(&mut fixture.database, &wrong).await;
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay'";
    execute(&mut fixture.database, ended).await;
    let refused = "password authentication failed";
    fixture.relay.logs_more(refused, 0).await;
    let stranger = ["--set", "admin.listen=off"];
    for arguments in [
        &["status"][..],
        &["check", "--connect"],
        &["dead", "list"],
        &["trace", "c"],
    ] {
        let output = says(fixture, &[arguments, &stranger].concat());
        let said = all(&output);
        assert!(!output.status.success(), "{said}");
        clean(&arguments.join(" "), &said, &HIDDEN);
    }
    let right = format!("alter role relay password '{PASSWORD}'");
    execute(&mut fixture.database, &right).await;
    fixture.relay.stop().await;
}

/// A defect of ours at a row, and a Kafka that is away.
async fn broken(fixture: &mut Fixture) {
    let row = plant(fixture, &ROWS[0]).await;
    fixture.relay.set_fault(Some(format!("panic:{row}")));
    fixture.relay.start();
    fixture
        .until("exists (select from outboxd_parked where class = 'crash')")
        .await;
    fixture.relay.stop().await;
    assert!(fixture.relay.logged("OUTBOXD_FAULT asks for it") > 0);
    fixture.relay.set_fault(None);
    fixture.relay.set("kafka.bootstrap_servers", "127.0.0.1:1");
    fixture.relay.set("otlp.endpoint", "http://127.0.0.1:1");
    // Nothing will come of what is in flight.
    fixture.relay.set("relay.shutdown_deadline", "0s");
    let unreachable = fixture.relay.logged("service is unreachable");
    fixture.relay.start();
    fixture
        .relay
        .logs_more("service is unreachable", unreachable)
        .await;
    fixture.relay.terminate();
    fixture.relay.wait(PATIENCE).await;
}

/// Tokens, from an endpoint that at first does not know the client's secret.
async fn with_tokens(fixture: &mut Fixture, kafka: &SecuredKafka) {
    let certified = kafka.authority.certify("planted-endpoint", &[HOST]);
    let lifetime = Duration::from_secs(600);
    let endpoint = TokenEndpoint::start(&kafka.issuer, &certified, lifetime, CLIENT_SECRET);
    let file = kafka.authority.write("planted.secret", WRONG_CLIENT_SECRET);
    let relay = &mut fixture.relay;
    for option in ["sasl.username", "sasl.password"] {
        relay.unset(&format!("kafka.properties.{option}"));
    }
    relay.set_variable("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET_FILE", &file);
    for (option, value) in [
        ("bootstrap_servers", &*kafka.address(Listener::Token)),
        ("properties.sasl.mechanism", "OAUTHBEARER"),
        ("oauth.token_url", &endpoint.url()),
        ("oauth.client_id", CLIENT),
        ("oauth.ca_location", &kafka.authority.ca()),
    ] {
        relay.set(&format!("kafka.{option}"), value);
    }
    let id = plant(fixture, &ROWS[0]).await;
    fixture.relay.start();
    fixture.relay.logs_more("invalid_client", 0).await;
    std::fs::write(&file, CLIENT_SECRET).expect("writing the right secret");
    let sent = format!("exists (select from planted where id = {id} and sent_at is not null)");
    fixture.until(&sent).await;
    fixture.relay.terminate();
    fixture.relay.wait(PATIENCE).await;
    let log = fixture.relay.log().join("\n");
    let as_sent = |secret| STANDARD.encode(format!("{CLIENT}:{secret}"));
    let sent = [CLIENT_SECRET, WRONG_CLIENT_SECRET].map(as_sent);
    for sent in &sent {
        clean("the log", &log, &[&[sent]]);
    }
    clean("the log", &log, &[&[&endpoint.last()]]);
}

/// The fields of a line of the log.
struct Fields;

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(line: D) -> Result<Fields, D::Error> {
        line.deserialize_map(Fields)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object that has each field once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((field, IgnoredAny)) = map.next_entry::<String, _>()? {
            if !seen.insert(field.clone()) {
                let twice = format!("{field} is there twice");
                return Err(serde::de::Error::custom(twice));
            }
        }
        Ok(Fields)
    }
}

#[tokio::test]
async fn what_is_planted_shows_nowhere_but_where_it_is_asked_for() {
    let secured = Secured::start().await;
    let kafka = services::secured_kafka().await;
    let collector = Collector::start("127.0.0.1:0", Received::default());
    let mut fixture = stage(&secured, kafka, &collector).await;
    fixture.relay.start();
    published(&mut fixture).await;
    let shown = collector.authorization().await;
    assert_eq!(shown, format!("Bearer {COLLECTOR_TOKEN}"));
    looked_at(&mut fixture).await;
    refused(&mut fixture).await;
    broken(&mut fixture).await;
    with_tokens(&mut fixture, kafka).await;
    // They had their say; of sqlx there is nothing, because its log of statements is off.
    for loud in ["librdkafka", "rustls"] {
        assert!(fixture.relay.logged(loud) > 0, "nothing of {loud}");
    }
    let log = fixture.relay.log();
    clean("the log", &log.join("\n"), &HIDDEN);
    let of_librdkafka = |line: &&String| line.contains("\"target\":\"librdkafka\"");
    for line in log.iter().filter(of_librdkafka).take(1000) {
        serde_json::from_str::<Fields>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
