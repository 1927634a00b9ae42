//! Tokens from an endpoint of the test's own, and a broker that verifies what it has signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outboxd::inbox::consumer::{Consumer, Event, HandlerError, Raw, Tx};
use outboxd::oauth::{ClientCredentials, TokenUrl};
use outboxd::secret::Secret;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;

use crate::consumer::stage::Running;
use crate::support::command::succeeds;
use crate::support::fixture::{Fixture, PATIENCE, execute, insert};
use crate::support::secured::{HOST, Listener, SecuredKafka};
use crate::support::services;
use crate::support::tail::Tail;
use crate::support::tokens::{CLIENT, TokenEndpoint, TokenIssuer};

const SECRET: &str = "planted secret/+&";

/// As a form has it.
const SECRET_ENCODED: &str = "planted+secret%2F%2B%26";

/// A relay that logs in with tokens; the client's secret is in the file that is returned.
async fn stage(
    name: &'static str,
    kafka: &SecuredKafka,
    endpoint: &TokenEndpoint,
    secret: &str,
) -> (Fixture, String) {
    let database = services::postgres().await.create_database(name).await;
    let mut fixture = Fixture::on(name, &database.url, &kafka.broker.bootstrap()).await;
    let file = kafka.authority.write(&format!("{name}.secret"), secret);
    let (ca, url, address) = (
        kafka.authority.ca(),
        endpoint.url(),
        kafka.address(Listener::Token),
    );
    for (option, value) in [
        ("kafka.bootstrap_servers", &*address),
        ("kafka.properties.security.protocol", "sasl_ssl"),
        ("kafka.properties.ssl.ca.location", &ca),
        ("kafka.properties.sasl.mechanism", "OAUTHBEARER"),
        ("kafka.oauth.token_url", &url),
        ("kafka.oauth.client_id", CLIENT),
        ("kafka.oauth.ca_location", &ca),
        ("kafka.oauth.scope", "kafka"),
    ] {
        fixture.relay.set(option, value);
    }
    fixture
        .relay
        .set_variable("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET_FILE", &file);
    (fixture, file)
}

fn endpoint(
    kafka: &SecuredKafka,
    name: &str,
    issuer: &TokenIssuer,
    lifetime: Duration,
) -> TokenEndpoint {
    let certified = kafka.authority.certify(name, &[HOST]);
    TokenEndpoint::start(issuer, &certified, lifetime, SECRET_ENCODED)
}

/// A consumer that logs in with tokens, and notes the keys of what it has handled; but a key that is not welcome is
/// rejected as long as it is not.
async fn consumer(
    fixture: &mut Fixture,
    kafka: &SecuredKafka,
    endpoint: &TokenEndpoint,
    secret: &str,
    welcomes_all: &Arc<AtomicBool>,
) -> Consumer {
    fixture.relay.migrate_inbox().await;
    let effects = "create table effects (id bigint generated always as identity, key text)";
    execute(&mut fixture.database, effects).await;
    let url = TokenUrl::parse(&endpoint.url()).expect("an address");
    let mut credentials = ClientCredentials::new(url, CLIENT, Secret::in_file(secret));
    credentials.ca_location = Some(kafka.authority.ca());
    let welcomes_all = Arc::clone(welcomes_all);
    let handle = move |mut tx: Tx, event: Event<Raw>| {
        let is_welcome = event.key() != "unwelcome" || welcomes_all.load(Ordering::SeqCst);
        async move {
            if !is_welcome {
                return Err(HandlerError::reject("not welcome"));
            }
            let note = "insert into effects (key) values ($1)";
            let noted = sqlx::query(note).bind(event.key()).execute(&mut *tx).await;
            noted.map(|_| ()).map_err(HandlerError::retry)
        }
    };
    let pool = PgPoolOptions::new().connect(&fixture.url).await;
    Consumer::new(&fixture.topic, pool.expect("connections"))
        .kafka([
            ("bootstrap.servers", kafka.address(Listener::Token)),
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", kafka.authority.ca()),
            ("sasl.mechanism", "OAUTHBEARER".to_owned()),
        ])
        .oauth(credentials)
        .topics([&fixture.topic])
        .on("order.placed", handle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_consumer_and_tail_go_on_while_tokens_end_and_are_renewed() {
    let kafka = services::secured_kafka().await;
    let endpoint = endpoint(kafka, "endpoint", &kafka.issuer, Duration::from_secs(5));
    let (mut fixture, file) = stage("oauth", kafka, &endpoint, &format!("{SECRET}\n")).await;
    let consumer = consumer(&mut fixture, kafka, &endpoint, &file, &Arc::default()).await;
    fixture.relay.start();
    let consumer = Running::start(consumer);
    let mut tail = Tail::start(&fixture, &["--json"]);
    let lines = tail.lines();
    let mut keys = vec!["first"];
    insert(&mut fixture.database, "first").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("first"));

    // Each of the three fetches another after 1.8 s or more. So with so many the first are over, which were valid for
    // 8 s.
    let enough = endpoint.given() + 18;
    let deadline = Instant::now() + PATIENCE;
    while endpoint.given() < enough {
        assert!(Instant::now() < deadline, "{} tokens", endpoint.given());
        fixture.relay.assert_running();
        insert(&mut fixture.database, "meanwhile").await;
        keys.push("meanwhile");
        fixture.next().await;
    }
    insert(&mut fixture.database, "last").await;
    keys.push("last");
    assert_eq!(fixture.next().await.key.as_deref(), Some("last"));
    for key in &keys {
        let line = lines.recv_timeout(PATIENCE).expect("a line of the tail");
        assert!(line.contains(&format!("\"key\":\"{key}\"")), "{line}");
    }
    let handled = format!("(select count(*) from effects) = {}", keys.len());
    fixture.until(&handled).await;

    // Others that log in.
    let checked = fixture.relay.command(&["check", "--connect"]).output();
    let checked = checked.expect("running outboxd");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(!said.contains("kafka-unreachable"), "{said}");

    consumer.stop().await;
    fixture.relay.stop().await;
    assert_eq!(fixture.relay.logged("unreachable"), 0);
    for secret in [SECRET, SECRET_ENCODED, &endpoint.last()] {
        assert_eq!(fixture.relay.logged(secret), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_benchmarks_are_reached_with_tokens() {
    let kafka = services::secured_kafka().await;
    let endpoint = endpoint(kafka, "letters", &kafka.issuer, Duration::from_secs(600));
    let (mut fixture, file) = stage("oauth_letters", kafka, &endpoint, SECRET).await;
    let welcomes_all = Arc::new(AtomicBool::new(false));
    let consumer = consumer(&mut fixture, kafka, &endpoint, &file, &welcomes_all).await;
    let consumer = Running::start(consumer);
    let dlq = |fixture: &Fixture, verb: &[&str]| {
        let which = ["--consumer", &*fixture.topic];
        let arguments = [&["inbox", "dlq"][..], verb, &which].concat();
        let output = fixture.relay.command(&arguments).output();
        succeeds(&output.expect("running outboxd"))
    };
    fixture.relay.start();
    insert(&mut fixture.database, "unwelcome").await;
    fixture
        .until("exists (select from processed_events where outcome = 'dead_lettered')")
        .await;
    let listed = dlq(&fixture, &["list"]);
    assert!(listed.contains("not welcome"), "{listed}");
    welcomes_all.store(true, Ordering::SeqCst);
    let redriven = dlq(&fixture, &["redrive", "--all"]);
    assert!(redriven.starts_with("redriven"), "{redriven}");
    fixture.until("exists (select from effects)").await;
    consumer.stop().await;
    fixture.relay.stop().await;

    fixture.relay.set("admin.token", "token-of-the-admin-port");
    let drain = ["bench", "drain", "--rows", "100", "--json"];
    let mut bench = fixture.relay.command(&drain);
    let report = succeeds(&bench.output().expect("running outboxd"));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["runs"][0]["relay"]["arrived"], 100, "{report}");
}

#[tokio::test]
async fn a_secret_that_is_refused_is_an_outage_until_its_file_has_the_right_one() {
    let kafka = services::secured_kafka().await;
    let endpoint = endpoint(kafka, "refusing", &kafka.issuer, Duration::from_secs(600));
    let (mut fixture, file) = stage("oauth_refused", kafka, &endpoint, "wrong-secret").await;
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    let reason = format!(
        "no token from {}: status 401 Unauthorized, invalid_client",
        endpoint.url()
    );
    fixture.answers("/status", 200, &reason).await;
    fixture.relay.logs_more(&reason, 0).await;

    std::fs::write(&file, SECRET).expect("writing the right secret");
    fixture.next().await;
    fixture
        .relay
        .logs_more("service is reachable again", 0)
        .await;
    assert_eq!(fixture.relay.logged("service is unreachable"), 1);
    assert_eq!(fixture.relay.logged("is not known here"), 0);
    assert_eq!(fixture.relay.logged("wrong-secret"), 0);
}

#[tokio::test]
async fn tokens_that_nobody_trusts_are_refused_on_both_sides() {
    let kafka = services::secured_kafka().await;
    let stranger = TokenIssuer::new();
    let endpoint = endpoint(kafka, "stranger", &stranger, Duration::from_secs(600));
    let (fixture, file) = stage("oauth_stranger", kafka, &endpoint, SECRET).await;
    let check = |more: &[&str]| {
        let mut check = fixture.relay.command(&["check", "--connect"]);
        check.args(more);
        check.env("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET_FILE", &file);
        check.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        let output = check.output().expect("running outboxd");
        assert_eq!(
            output.status.code(),
            Some(78),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = check(&[]);
    assert!(said.contains("SASL authentication error"), "{said}");
    let said = check(&["--set=kafka.oauth.ca_location="]);
    assert!(
        said.contains(&format!("no token from {}", endpoint.url())),
        "{said}"
    );
    assert!(said.contains("UnknownIssuer"), "{said}");
}
