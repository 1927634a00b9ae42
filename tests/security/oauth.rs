//! Tokens from an endpoint of the test's own, and a broker that verifies what it has signed.

use std::time::{Duration, Instant};

use crate::support::fixture::{Fixture, PATIENCE, insert};
use crate::support::secured::{HOST, Listener, SecuredKafka};
use crate::support::services;
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

#[tokio::test]
async fn rows_flow_on_while_tokens_end_and_are_renewed() {
    let kafka = services::secured_kafka().await;
    let endpoint = endpoint(kafka, "endpoint", &kafka.issuer, Duration::from_secs(5));
    let (mut fixture, file) = stage("oauth", kafka, &endpoint, &format!("{SECRET}\n")).await;
    fixture.relay.start();
    insert(&mut fixture.database, "first").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("first"));

    // A new one comes after at least 1.9 s. So with the sixth the first is over, which was valid for 8 s.
    let deadline = Instant::now() + PATIENCE;
    while endpoint.given() < 6 {
        assert!(Instant::now() < deadline, "{} tokens", endpoint.given());
        fixture.relay.assert_running();
        insert(&mut fixture.database, "meanwhile").await;
        fixture.next().await;
    }
    insert(&mut fixture.database, "last").await;
    while fixture.next().await.key.as_deref() != Some("last") {}

    // Others that log in.
    let mut check = fixture.relay.command(&["check", "--connect"]);
    check.env("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET_FILE", &file);
    let checked = check.output().expect("running outboxd");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(!said.contains("kafka-unreachable"), "{said}");

    fixture.relay.stop().await;
    assert_eq!(fixture.relay.logged("unreachable"), 0);
    for secret in [SECRET, SECRET_ENCODED, &endpoint.last()] {
        assert_eq!(fixture.relay.logged(secret), 0);
    }
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
