//! Every way to connect to Kafka and to log in there, against a real broker with certificates made here; and what is
//! said where one of the two is refused.

use crate::support::certificates::Authority;
use crate::support::command::{command, errors};
use crate::support::fixture::{Fixture, insert};
use crate::support::secured::{Listener, PASSWORD, SecuredKafka, USER};
use crate::support::services;

/// Properties of librdkafka.
type Properties = Vec<(&'static str, String)>;

fn tls(kafka: &SecuredKafka) -> Properties {
    vec![
        ("security.protocol", "ssl".to_owned()),
        ("ssl.ca.location", kafka.authority.ca()),
    ]
}

fn mutual_tls(kafka: &SecuredKafka) -> Properties {
    let mut properties = tls(kafka);
    properties.extend([
        ("ssl.certificate.location", kafka.client.certificate.clone()),
        ("ssl.key.location", kafka.client.key.clone()),
    ]);
    properties
}

/// The same with an encrypted key, and a password for it if one is given.
fn locked_key(kafka: &SecuredKafka, encrypted: &str, given: Option<&str>) -> Properties {
    let mut properties = but(mutual_tls(kafka), "ssl.key.location", encrypted);
    properties.extend(given.map(|given| ("ssl.key.password", given.to_owned())));
    properties
}

fn login(kafka: &SecuredKafka, mechanism: &str) -> Properties {
    vec![
        ("security.protocol", "sasl_ssl".to_owned()),
        ("ssl.ca.location", kafka.authority.ca()),
        ("sasl.mechanism", mechanism.to_owned()),
        ("sasl.username", USER.to_owned()),
        ("sasl.password", PASSWORD.to_owned()),
    ]
}

/// The same with another value for one of them.
fn but(mut properties: Properties, name: &'static str, value: &str) -> Properties {
    properties.retain(|(other, _)| *other != name);
    properties.push((name, value.to_owned()));
    properties
}

/// Points the relay to a listener.
fn connect(fixture: &mut Fixture, kafka: &SecuredKafka, listener: Listener, how: &Properties) {
    let relay = &mut fixture.relay;
    relay.set("kafka.bootstrap_servers", &kafka.address(listener));
    for (name, value) in how {
        relay.set(&format!("kafka.properties.{name}"), value);
    }
}

async fn fixture(name: &'static str, kafka: &SecuredKafka) -> Fixture {
    let database = services::postgres().await.create_database(name).await;
    Fixture::on(name, &database.url, &kafka.broker.bootstrap()).await
}

#[tokio::test]
async fn each_way_of_connecting_and_logging_in_relays_a_row() {
    let kafka = services::secured_kafka().await;
    let mut fixture = fixture("secured", kafka).await;
    let system = || vec![("security.protocol", "ssl".to_owned())];
    let encrypted = kafka
        .authority
        .encrypt_key("locked", &kafka.client, PASSWORD);
    for (listener, how) in [
        (Listener::Tls, tls(kafka)),
        (Listener::Tls, system()),
        (Listener::MutualTls, mutual_tls(kafka)),
        (
            Listener::MutualTls,
            locked_key(kafka, &encrypted, Some(PASSWORD)),
        ),
        (Listener::Sasl, login(kafka, "PLAIN")),
        (Listener::Sasl, login(kafka, "SCRAM-SHA-256")),
        (Listener::Sasl, login(kafka, "SCRAM-SHA-512")),
    ] {
        let id = insert(&mut fixture.database, "k").await;
        let mut arguments = vec![
            "run".to_owned(),
            "--until-empty".to_owned(),
            "--set=admin.listen=off".to_owned(),
            format!("--postgres-url={}", fixture.url),
            format!("--kafka={}", kafka.address(listener)),
            format!("--set=outbox.default.topic={}", fixture.topic),
        ];
        let set = |(name, value): &(_, _)| format!("--set=kafka.properties.{name}={value}");
        arguments.extend(how.iter().map(set));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut run = command(&arguments);
        if how == system() {
            // What the system trusts.
            run.env("SSL_CERT_FILE", kafka.authority.ca());
        }
        let output = run.output().expect("running outboxd");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{how:?}: {}",
            errors(&output)
        );
        assert!(!errors(&output).contains(PASSWORD), "{}", errors(&output));
        assert_eq!(fixture.published(), id, "{how:?}");
    }
}

/// What `check --connect` says, which is why no broker answers.
fn check(url: &str, address: &str, how: &Properties) -> String {
    let mut check = command(&["check", "--connect"]);
    check.arg(format!("--postgres-url={url}"));
    check.arg(format!("--kafka={address}"));
    check.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    for (name, value) in how {
        check.arg(format!("--set=kafka.properties.{name}={value}"));
    }
    let output = check.output().expect("running outboxd");
    assert_eq!(output.status.code(), Some(78), "{}", errors(&output));
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors(&output)
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let kafka = services::secured_kafka().await;
    let database = services::postgres().await.create_database("refused").await;
    let stranger = Authority::new("another-authority");
    let strange_client = stranger.certify("stranger", &[]);
    let strange = but(
        but(
            mutual_tls(kafka),
            "ssl.certificate.location",
            &strange_client.certificate,
        ),
        "ssl.key.location",
        &strange_client.key,
    );
    let encrypted = kafka
        .authority
        .encrypt_key("refused", &kafka.client, PASSWORD);
    let cases = [
        (
            Listener::Expired,
            tls(kafka),
            "the broker's certificate has expired",
        ),
        (
            Listener::Misnamed,
            tls(kafka),
            "the broker's certificate is for another host",
        ),
        (
            Listener::Tls,
            but(tls(kafka), "ssl.ca.location", &stranger.ca()),
            "the broker's certificate is from an authority that is not trusted",
        ),
        (
            Listener::MutualTls,
            tls(kafka),
            "the broker asks for a client's certificate",
        ),
        (
            Listener::MutualTls,
            strange,
            "the broker does not trust the client's certificate",
        ),
        (
            Listener::Tls,
            vec![("security.protocol", "ssl".to_owned())],
            "the broker's certificate is from an authority that is not trusted",
        ),
        (
            Listener::Tls,
            vec![("security.protocol", "plaintext".to_owned())],
            "the broker speaks TLS on this port",
        ),
        (
            Listener::Sasl,
            but(login(kafka, "PLAIN"), "sasl.password", "wrong-password"),
            "Invalid username or password",
        ),
        (
            Listener::Sasl,
            but(
                login(kafka, "SCRAM-SHA-512"),
                "sasl.password",
                "wrong-password",
            ),
            "invalid credentials",
        ),
        (
            Listener::Scram,
            login(kafka, "PLAIN"),
            "supported mechanisms: SCRAM-SHA-512",
        ),
        (
            Listener::Tls,
            but(tls(kafka), "ssl.ca.location", "/nowhere/ca.pem"),
            "kafka.properties.ssl.ca.location: must be a file that can be read, is \"/nowhere/ca.pem\"",
        ),
        (
            Listener::MutualTls,
            but(mutual_tls(kafka), "ssl.key.location", &strange_client.key),
            "ssl.key.location failed: x509 certificate routines: key values mismatch",
        ),
        (
            Listener::MutualTls,
            locked_key(kafka, &encrypted, Some("wrong-password")),
            "kafka.properties.ssl.key.password: must be that of ssl.key.location, is <redacted>",
        ),
        (
            Listener::MutualTls,
            locked_key(kafka, &encrypted, None),
            "kafka.properties.ssl.key.password: must be set, since ssl.key.location is encrypted",
        ),
    ];
    // Side by side: each waits some seconds for an answer.
    std::thread::scope(|scope| {
        let checks = cases.map(|(listener, how, expected)| {
            let url = &database.url;
            scope.spawn(move || {
                let said = check(url, &kafka.address(listener), &how);
                (said, expected)
            })
        });
        for check in checks {
            let (said, expected) = check.join().expect("a check");
            assert!(said.contains(expected), "{expected}\n{said}");
            assert!(
                !said.contains(PASSWORD) && !said.contains("wrong-password"),
                "{said}"
            );
        }
    });
}

#[tokio::test]
async fn what_takes_the_protection_away_is_warned_of() {
    let kafka = services::secured_kafka().await;
    let database = services::postgres().await.create_database("warned").await;
    let tls = tls(kafka);
    let plain = |mechanism| {
        let open = ("security.protocol", "sasl_plaintext".to_owned());
        let login = login(kafka, mechanism).into_iter();
        let login = login.filter(|(name, _)| name.starts_with("sasl."));
        login.chain([open]).collect()
    };
    let nobody = outboxd::local::free_port().expect("a free port");
    let of_tls = kafka.address(Listener::Tls);
    let cases: [(String, Properties, Option<&str>); 5] = [
        (
            of_tls.clone(),
            but(tls.clone(), "enable.ssl.certificate.verification", "false"),
            Some("enable.ssl.certificate.verification is false: anybody could be the broker"),
        ),
        (
            kafka.address(Listener::Misnamed),
            but(tls.clone(), "ssl.endpoint.identification.algorithm", "none"),
            Some("ssl.endpoint.identification.algorithm is none: anybody could be the broker"),
        ),
        (
            "kafka.invalid:9092".to_owned(),
            plain("PLAIN"),
            Some(
                "security.protocol is sasl_plaintext: whoever listens on the network sees what the client logs in with",
            ),
        ),
        (format!("127.0.0.1:{nobody}"), plain("PLAIN"), None),
        (of_tls, tls, None),
    ];
    // Side by side: some wait for an answer.
    std::thread::scope(|scope| {
        let checks = cases.map(|(address, how, expected)| {
            let url = &database.url;
            scope.spawn(move || (check(url, &address, &how), expected))
        });
        for check in checks {
            let (said, expected) = check.join().expect("a check");
            let warnings = said.matches("warning [kafka-security] kafka: ").count();
            assert_eq!(warnings, usize::from(expected.is_some()), "{said}");
            assert!(said.contains(expected.unwrap_or_default()), "{said}");
            assert!(!said.contains(PASSWORD), "{said}");
        }
    });
}

#[tokio::test]
async fn a_refused_password_is_one_outage_until_its_file_has_the_right_one() {
    let kafka = services::secured_kafka().await;
    let mut fixture = fixture("outage", kafka).await;
    let mut how = login(kafka, "SCRAM-SHA-256");
    how.retain(|(name, _)| *name != "sasl.password");
    connect(&mut fixture, kafka, Listener::Sasl, &how);
    let file = kafka.authority.write("password", "wrong-password\n");
    let variable = "OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD_FILE";
    fixture.relay.set_variable(variable, &file);
    insert(&mut fixture.database, "k").await;
    fixture.relay.start();

    let reason = "invalid credentials with SASL mechanism SCRAM-SHA-256";
    fixture.answers("/status", 200, reason).await;
    let log = fixture.relay.log();
    let mut outages = log
        .iter()
        .filter(|line| line.contains("service is unreachable"));
    let outage = outages.next().expect("an outage is logged");
    assert!(outage.contains(reason), "{outage}");

    // Whoever rotates passwords puts another file in its place.
    let new = kafka.authority.write("password.new", PASSWORD);
    std::fs::rename(new, &file).expect("replacing the password");
    fixture.next().await;
    let back = "service is reachable again";
    fixture.relay.logs_more(back, 0).await;
    fixture.settled().await;
    assert_eq!(fixture.relay.logged("service is unreachable"), 1);
    assert_eq!(fixture.relay.logged(reason), 1);
    for secret in ["wrong-password", PASSWORD] {
        assert_eq!(fixture.relay.logged(secret), 0);
    }
}
