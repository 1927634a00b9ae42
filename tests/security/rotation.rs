//! A client's certificate that is replaced while the relay runs.

use std::time::Instant;

use sqlx::Row as _;
use uuid::Uuid;

use crate::support::fixture::{Fixture, PATIENCE, Record, insert};
use crate::support::secured::{Listener, SecuredKafka};
use crate::support::services;

/// What a relay says when it makes its producer anew.
const REPLACED: &str = "kafka's certificates were replaced";

/// A relay that shows this certificate of the authority.
async fn stage(kafka: &SecuredKafka, certificate: &str) -> Fixture {
    let database = services::postgres().await.create_database("rotation").await;
    let plain = kafka.broker.bootstrap();
    let mut fixture = Fixture::on("rotation", &database.url, &plain).await;
    let files = kafka.authority.files(certificate);
    for (option, value) in [
        ("bootstrap_servers", kafka.address(Listener::MutualTls)),
        ("properties.security.protocol", "ssl".to_owned()),
        ("properties.ssl.ca.location", kafka.authority.ca()),
        ("properties.ssl.certificate.location", files.certificate),
        ("properties.ssl.key.location", files.key),
    ] {
        fixture.relay.set(&format!("kafka.{option}"), &value);
    }
    fixture
}

/// The events of a key, in the order of their rows.
async fn events(fixture: &mut Fixture, key: &str) -> Vec<Uuid> {
    let query = "select event_id from outbox_events where aggregate_id = $1 order by id";
    let rows = sqlx::query(query)
        .bind(key)
        .fetch_all(&mut fixture.database);
    let rows = rows.await.expect("the rows");
    rows.iter().map(|row| row.get(0)).collect()
}

fn of_key(records: &[Record], key: &str) -> Vec<Uuid> {
    let records = records.iter();
    let records = records.filter(|record| record.key.as_deref() == Some(key));
    records.map(Record::event_id).collect()
}

#[tokio::test]
async fn a_certificate_that_is_replaced_needs_no_restart() {
    let kafka = services::secured_kafka().await;
    let authority = &kafka.authority;
    authority.certify("rotated", &[]);
    let mut fixture = stage(kafka, "rotated").await;
    fixture.relay.start();
    insert(&mut fixture.database, "a").await;
    let mut records = fixture.take(1).await;

    // One whose time is over, with rows in hand.
    let refused = "the broker does not trust the client's certificate";
    authority.certify_long_ago("rotated", &[]);
    fixture.relay.logs_more(REPLACED, 0).await;
    for key in ["a", "b"].repeat(10) {
        insert(&mut fixture.database, key).await;
    }
    fixture.metric_is("window_rows", |rows| rows >= 20.0).await;
    // Of each key one, of which this producer is to prove that it is taken.
    fixture
        .metric_is("in_flight_messages", |rows| rows >= 2.0)
        .await;
    fixture.answers("/status", 200, refused).await;
    authority.certify("rotated", &[]);
    records.extend(fixture.take(20).await);
    fixture.settled().await;
    for key in ["a", "b"] {
        assert_eq!(of_key(&records, key), events(&mut fixture, key).await);
    }
    assert_eq!(fixture.published(), 21);

    // While all is well.
    let replaced = fixture.relay.logged(REPLACED);
    authority.certify("rotated", &[]);
    let mut rows = 21;
    let deadline = Instant::now() + PATIENCE;
    while fixture.relay.logged(REPLACED) == replaced {
        assert!(Instant::now() < deadline, "it shows the old one");
        insert(&mut fixture.database, "c").await;
        fixture.next().await;
        rows += 1;
    }
    fixture.relay.stop().await;
    assert_eq!(fixture.published(), rows);

    // From the start, before any topic could be asked for.
    authority.certify_long_ago("rotated", &[]);
    fixture.relay.start();
    insert(&mut fixture.database, "d").await;
    fixture.answers("/status", 200, refused).await;
    authority.certify("rotated", &[]);
    fixture.settled().await;
    assert_eq!(fixture.published(), rows + 1);
    assert_eq!(fixture.relay.logged("service is unreachable"), 2);
}
