//! A relay that makes no progress is not ready and says why, while it stays alive: else whatever watches it
//! would restart it for what a restart does not mend.

use std::time::Instant;

use crate::support::fixture::{Fixture, execute, insert};
use crate::support::services;

/// Waits until the relay is not ready, for this reason; prints how long that took.
async fn gets_unready(fixture: &Fixture, reason: &str) {
    let started = Instant::now();
    fixture.answers("/readyz", 503, reason).await;
    let (_, said) = fixture.get("/readyz").await.expect("an answer");
    println!("readiness: after {:.1?}: {said}", started.elapsed());
    assert_eq!(fixture.get("/livez").await, Some((200, "ok\n".to_owned())));
}

async fn gets_ready(fixture: &Fixture) {
    fixture
        .answers("/readyz", 200, "default: ready, owned here\n")
        .await;
}

#[tokio::test]
async fn a_kafka_that_swallows_everything_makes_it_unready_whether_it_was_known_or_not() {
    let mut kafka = services::private_kafka(&[]).await;
    let database = services::postgres().await.create_database("ready").await;
    let mut fixture = Fixture::on("ready", &database.url, &kafka.bootstrap()).await;
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.next().await;
    gets_ready(&fixture).await;

    kafka.freeze();
    insert(&mut fixture.database, "k").await;
    gets_unready(
        &fixture,
        "1 messages wait for kafka, which acknowledged none",
    )
    .await;
    kafka.thaw();
    fixture.next().await;
    gets_ready(&fixture).await;

    fixture.settled().await;
    kafka.freeze();
    fixture.relay.kill().await;
    insert(&mut fixture.database, "k").await;
    fixture.relay.start();
    gets_unready(&fixture, "1 rows whose topic it was asked about").await;
    kafka.thaw();
    fixture.settled().await;
    gets_ready(&fixture).await;
}

#[tokio::test]
async fn a_locked_table_makes_it_unready_until_it_is_free() {
    let mut fixture = Fixture::new("ready_locked").await;
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;
    gets_ready(&fixture).await;

    let mut other = fixture.connect().await;
    execute(&mut other, "begin; lock table outbox_events").await;
    gets_unready(&fixture, "postgres was not read for").await;
    let (_, said) = fixture.get("/readyz").await.expect("an answer");
    assert!(said.contains("lock timeout"), "{said}");
    execute(&mut other, "rollback").await;
    gets_ready(&fixture).await;
}

#[tokio::test]
async fn marks_that_fail_make_it_unready_though_kafka_takes_everything() {
    let mut fixture = Fixture::new("ready_marks").await;
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;
    execute(
        &mut fixture.database,
        "create function refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'no mark today'; end $$; \
         create trigger refuse before update on outbox_events for each row execute function refuse()",
    )
    .await;
    let mut writer = fixture.connect().await;
    let writing = tokio::spawn(async move {
        for number in 0.. {
            insert(&mut writer, &number.to_string()).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    gets_unready(
        &fixture,
        "rows wait for their mark, postgres confirmed none",
    )
    .await;
    let (_, said) = fixture.get("/readyz").await.expect("an answer");
    assert!(said.contains("no mark today"), "{said}");
    writing.abort();
    execute(
        &mut fixture.database,
        "drop trigger refuse on outbox_events",
    )
    .await;
    gets_ready(&fixture).await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_kept_makes_it_unready_and_so_does_one_that_cannot_be_seen() {
    let mut fixture = Fixture::new("ready_lease").await;
    fixture.relay.set("relay.lease", "2s");
    fixture.relay.start();
    gets_ready(&fixture).await;

    let mut other = fixture.connect().await;
    execute(&mut other, "begin; lock table outboxd_leases").await;
    gets_unready(&fixture, "no owner is known").await;
    let (_, said) = fixture.get("/readyz").await.expect("an answer");
    assert!(said.contains("lease"), "{said}");
    execute(&mut other, "rollback").await;
    gets_ready(&fixture).await;

    let taken = "update outboxd_leases set owner = gen_random_uuid(), epoch = epoch + 1, \
                 expires_at = now() + interval '1 hour'";
    execute(&mut other, taken).await;
    fixture.answers("/readyz", 200, "standing by").await;
    execute(&mut other, "begin; lock table outboxd_leases").await;
    gets_unready(&fixture, "standing by, and the lease was not seen").await;
    execute(&mut other, "rollback").await;
    fixture.answers("/readyz", 200, "standing by").await;
}
