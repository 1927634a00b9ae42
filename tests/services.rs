//! The servers themselves: what the other tests take for granted of them.

use std::time::{Duration, Instant};

use outboxd::local::{LocalPostgresOptions, PostgresRelease, StopMode};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

#[tokio::test]
async fn the_shared_postgres_gives_every_test_a_database_of_its_own() {
    let server = services::postgres().await;
    let one = server.create_database("services").await;
    let other = server.create_database("services").await;
    assert_ne!(one.name, other.name);

    let mut connection = one.connect().await;
    execute(&mut connection, "create table mine (id int)").await;

    let mut connection = other.connect().await;
    execute(&mut connection, "create table mine (id int)").await;
}

#[tokio::test]
async fn the_oldest_supported_postgres_can_be_had_as_well() {
    let database = services::postgres_13().await.create_database("old").await;
    let mut connection = database.connect().await;
    assert!(version(&mut connection).await.starts_with("PostgreSQL 13."));
}

#[tokio::test]
async fn postgres_18_recovers_its_rows_on_its_port_after_an_immediate_stop() {
    recovers_after_an_immediate_stop(PostgresRelease::V18).await;
}

#[tokio::test]
async fn postgres_13_recovers_its_rows_on_its_port_after_an_immediate_stop() {
    recovers_after_an_immediate_stop(PostgresRelease::V13).await;
}

async fn recovers_after_an_immediate_stop(release: PostgresRelease) {
    let options = services::postgres_options(release);
    let mut server = services::private_postgres(options).await;
    let (url, port, pid) = (server.url("postgres"), server.port(), server.pid());
    let mut connection = PgConnection::connect(&url).await.expect("connecting");
    let said = format!("PostgreSQL {}.", release.major());
    assert!(version(&mut connection).await.starts_with(&said));
    execute(&mut connection, "create table kept (id int)").await;
    execute(&mut connection, "insert into kept values (1)").await;
    execute(
        &mut connection,
        "begin; insert into kept values (2); prepare transaction 'two'",
    )
    .await;

    server.stop(StopMode::Immediate).await.expect("stopping");
    assert_eq!(server.pid(), None);
    PgConnection::connect(&url).await.expect_err("it is down");
    server.start_again().await.expect("starting again");

    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    let mut connection = PgConnection::connect(&url).await.expect("reconnecting");
    execute(&mut connection, "commit prepared 'two'").await;
    let kept: Vec<i32> = sqlx::query_scalar("select id from kept order by id")
        .fetch_all(&mut connection)
        .await
        .expect("reading what was kept");
    assert_eq!(kept, [1, 2]);
    drop(connection);
    server.restart(StopMode::Fast).await.expect("restarting");
    assert!(server.log().contains("database system is ready"));
}

#[tokio::test]
async fn durability_is_on_unless_a_test_says_otherwise() {
    let options = services::postgres_options(PostgresRelease::NEWEST)
        .setting("fsync", "off")
        .setting("application_name", "it's quoted");
    let server = services::private_postgres(options).await;
    let shared = services::postgres().await.create_database("fsync").await;

    let mut private = PgConnection::connect(&server.url("postgres"))
        .await
        .expect("connecting");
    assert_eq!(show(&mut shared.connect().await, "show fsync").await, "on");
    assert_eq!(show(&mut private, "show fsync").await, "off");
    let reset = "select reset_val from pg_settings where name = 'application_name'";
    assert_eq!(show(&mut private, reset).await, "it's quoted");
}

#[tokio::test]
async fn a_demo_gets_a_server_whether_or_not_one_is_installed() {
    let options = LocalPostgresOptions::default().prefer_installed();
    let server = services::private_postgres(options).await;
    let mut connection = PgConnection::connect(&server.url("postgres"))
        .await
        .expect("connecting");
    assert!(version(&mut connection).await.starts_with("PostgreSQL "));
}

#[tokio::test]
async fn the_shared_kafka_takes_a_record_and_gives_it_back() {
    let server = services::kafka().await;
    let topic = server.unique_topic("services");
    let configs = [("max.message.bytes", "2000")];
    server.create_topic(&topic, 3, &configs).await;

    produce(server.bootstrap(), &topic, "hello").await;

    assert_eq!(consume_one(server.bootstrap(), &topic).await, "hello");
    let large = "x".repeat(3000);
    let refused = send(server.bootstrap(), &topic, &large).await;
    refused.expect_err("larger than the topic's max.message.bytes");
}

#[tokio::test]
async fn a_killed_kafka_still_has_its_records_when_it_is_started_again() {
    let mut broker = services::private_kafka(&[("num.io.threads", "2")]).await;
    let bootstrap = broker.bootstrap();
    services::create_topic(&bootstrap, "kept", 1, &[]).await;
    produce(&bootstrap, "kept", "before the kill").await;

    broker.kill().await.expect("killing");
    broker.start_again().await.expect("starting again");

    assert_eq!(broker.bootstrap(), bootstrap);
    assert_eq!(consume_one(&bootstrap, "kept").await, "before the kill");
    broker.stop().await.expect("stopping");
    assert!(!broker.log().is_empty());
}

#[tokio::test]
async fn pgbouncer_in_transaction_mode_answers_many_clients_with_the_documented_settings() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let bouncer = PgBouncer::start(server.port()).await;
    let options: PgConnectOptions = bouncer.url("postgres").parse().expect("a url");

    // Its refusal of sqlx's defaults shows that it is PgBouncer which answers.
    let refusal = options.connect().await.expect_err("extra_float_digits");
    assert!(refusal.to_string().contains("extra_float_digits"));
    let pool = PgPoolOptions::new()
        .min_connections(6)
        .max_connections(6)
        .connect_with(options.extra_float_digits(None).statement_cache_capacity(0))
        .await
        .expect("connecting through PgBouncer");
    let asking = (0..100).map(|n: i32| {
        let pool = pool.clone();
        tokio::spawn(async move {
            // A transaction, because preparing and executing are two round trips, which
            // PgBouncer may give to two servers otherwise.
            let mut transaction = pool.begin().await?;
            let query = sqlx::query_as("select $1::int4, pg_backend_pid()").bind(n);
            let answer = query.persistent(false).fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(answer)
        })
    });
    let mut backends = std::collections::BTreeSet::new();
    for (n, asking) in (0..).zip(asking.collect::<Vec<_>>()) {
        let answer: (i32, i32) = asking.await.expect("asking").expect("an answer");
        assert_eq!(answer.0, n);
        backends.insert(answer.1);
    }

    assert!(backends.len() <= 2, "6 clients share 2 server connections");
}

async fn execute(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement)
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn version(connection: &mut PgConnection) -> String {
    show(connection, "select version()").await
}

async fn show(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
}

async fn produce(bootstrap: &str, topic: &str, payload: &str) {
    send(bootstrap, topic, payload).await.expect("producing");
}

async fn send(
    bootstrap: &str,
    topic: &str,
    payload: &str,
) -> Result<(), rdkafka::error::KafkaError> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("message.timeout.ms", "30000")
        .create()
        .expect("a producer");
    let record: FutureRecord<'_, str, str> = FutureRecord::to(topic).payload(payload).partition(0);
    let sent = producer.send(record, Duration::ZERO).await;
    sent.map(|_| ()).map_err(|(error, _)| error)
}

/// The first record of the topic's first partition.
async fn consume_one(bootstrap: &str, topic: &str) -> String {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "services")
        .create()
        .expect("a consumer");
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&start).expect("assigning the partition");
    let deadline = Instant::now() + Duration::from_secs(30);
    tokio::task::spawn_blocking(move || {
        while Instant::now() < deadline {
            // Errors of a broker that is still coming up are not the end of the matter.
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let payload = message.payload().expect("a payload");
                return String::from_utf8_lossy(payload).into_owned();
            }
        }
        panic!("no record before the deadline");
    })
    .await
    .expect("consuming")
}
