//! Who is shown which certificate, and what is said if it is refused.

use std::process::Output;

use super::Secured;
use crate::support::certificates::Authority;
use crate::support::command::{command, errors, fails, succeeds};
use crate::support::fixture::insert;

/// `outboxd status` of Postgres alone.
fn status(url: &str, variables: &[(&str, &str)]) -> Output {
    let arguments = ["status", "--postgres-url", url, "--set", "admin.listen=off"];
    let mut command = command(&arguments);
    command.envs(variables.iter().copied());
    command.output().expect("running outboxd")
}

/// Connections that are not encrypted, or whose client showed no certificate of its own.
const STRANGERS: &str = "\
    select count(*) from pg_stat_activity join pg_stat_ssl using (pid) \
    where application_name like 'outboxd%' and (not ssl or client_dn is distinct from '/CN=certified')";

const LISTENING: &str =
    "(select count(*) from pg_stat_activity where application_name = 'outboxd listener') = 1";

#[tokio::test]
async fn a_relay_with_a_certificate_shows_it_on_every_way_to_postgres() {
    let secured = Secured::start().await;
    let mut fixture = secured.fixture("certified").await;
    let url = secured.certified(&secured.authority.certify("certified", &[]));
    fixture.relay.set("postgres.url", &url);
    fixture.relay.set("postgres.direct_url", &url);
    fixture.relay.set("outbox.default.notify", "true");
    // The trigger that wakes it.
    fixture.relay.migrate().await;

    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;
    fixture.until(LISTENING).await;

    let strangers = crate::support::fixture::number(&mut fixture.database, STRANGERS).await;
    assert_eq!(strangers, 0);
    let findings = fixture.relay.command(&["check", "--connect"]).output();
    let findings = String::from_utf8_lossy(&findings.expect("running outboxd").stdout).into_owned();
    assert!(findings.contains("[superuser]"), "{findings}");
    succeeds(&status(&url, &[]));
    fixture.relay.stop().await;
}

#[tokio::test]
async fn a_refused_certificate_is_named_with_what_is_wrong_with_it() {
    let mut secured = Secured::start().await;
    let mut fixture = secured.fixture("refused").await;
    let stranger = Authority::new("stranger");
    let verified = secured.verified("certified");
    let with = |certified: &crate::support::certificates::Certified| secured.certified(certified);
    let unsigned = secured.url("certified", "localhost", "sslmode=verify-full");
    for (url, expected) in [
        (
            unsigned.clone(),
            "the certificate of localhost is from an authority that is not trusted (sslrootcert names one that is)",
        ),
        (
            format!("{unsigned}&sslrootcert={}", stranger.ca()),
            "the certificate of localhost is from an authority that is not trusted",
        ),
        (
            verified.replace("@localhost", "@127.0.0.1"),
            "the certificate of 127.0.0.1 is for another host: for localhost, not for 127.0.0.1",
        ),
        (
            format!("{unsigned}&sslrootcert=/nowhere/ca.pem"),
            "sslrootcert: reading \"/nowhere/ca.pem\": No such file or directory",
        ),
        (
            verified.clone(),
            "connection requires a valid client certificate",
        ),
        (
            with(&stranger.certify("certified", &[])),
            "localhost refuses the client's certificate (sslcert): it does not trust the authority",
        ),
        (
            with(&secured.authority.certify_long_ago("certified", &[])),
            "localhost refuses the client's certificate (sslcert): it has expired",
        ),
        (
            with(&secured.authority.certify("somebody", &[])),
            "certificate authentication failed for user \"certified\"",
        ),
    ] {
        let said = fails(&status(&url, &[]), 1);
        assert!(
            said.starts_with("outboxd: connecting to postgres: "),
            "{said}"
        );
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let said = fails(
        &command(&["migrate", "--postgres-url", &unsigned])
            .output()
            .expect("running outboxd"),
        1,
    );
    assert!(said.contains("an authority that is not trusted"), "{said}");
    let check = command(&[
        "check",
        "--connect",
        "--kafka=127.0.0.1:1",
        "--postgres-url",
        &unsigned,
    ])
    .output()
    .expect("running outboxd");
    let found = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        found.contains(
            "error [postgres-certificate] postgres: connecting to postgres: the certificate of"
        ),
        "{found}{}",
        errors(&check)
    );

    // The system's store, which this variable names, is as good as a file of one's own.
    let client = secured.authority.certify("certified", &[]);
    let by_system = secured
        .certified(&client)
        .replace(&format!("&sslrootcert={}", secured.authority.ca()), "");
    assert!(!by_system.contains("sslrootcert"), "{by_system}");
    fails(&status(&by_system, &[]), 1);
    // Nobody owns the outbox, but that is what Postgres says.
    let store = [("SSL_CERT_FILE", &*secured.authority.ca())];
    fails(&status(&by_system, &store), 75);

    // While it runs.
    fixture
        .relay
        .set("postgres.url", &secured.certified(&client));
    fixture.relay.start();
    fixture.answers("/readyz", 200, "").await;
    let expired = secured
        .authority
        .certify_long_ago("expired", &["localhost"]);
    secured.show(&expired).await;
    let said = "the certificate of localhost has expired, it was valid until 2021-01-01T00:00:00Z";
    fixture.relay.logs_more(said, 0).await;
    let valid = secured.authority.certify("valid", &["localhost"]);
    secured.show(&valid).await;
    fixture.database = secured.owner().await;
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;
    fixture.relay.stop().await;
}
