//! A database with inbox, outbox and a table of effects; a topic; a consumer on both.

use std::future::Future;
use std::time::{Duration, Instant};

use outboxd::inbox::consumer::{Consumer, ConsumerError, Ended, Event, HandlerResult, Metrics, Tx};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::fixture::{PATIENCE, Record, read_all};
use crate::support::relay::Relay;
use crate::support::services::{self, PostgresServer, TestDatabase};

/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(10);

/// Quick enough for tests, slow enough to be seen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// What handlers of the tests take.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub key: String,
    pub n: i64,
}

pub struct Stage {
    pub pool: PgPool,
    /// Of the database.
    pub url: String,
    /// What drops it, if its server outlives the test.
    _database: Option<TestDatabase>,
    pub bootstrap: &'static str,
    pub topic: String,
    /// The consumer's name, and its group.
    pub name: String,
    pub metrics: Metrics,
    producer: FutureProducer,
}

impl Stage {
    /// On the shared PostgreSQL of the newest release.
    pub async fn new(name: &'static str, partitions: i32) -> Stage {
        Stage::on_server(services::postgres().await, name, partitions).await
    }

    pub async fn on_server(server: &PostgresServer, name: &'static str, partitions: i32) -> Stage {
        let database = server.create_database(name).await;
        let mut stage = Stage::on(&database.url, name, partitions).await;
        stage._database = Some(database);
        stage
    }

    /// On an empty database.
    pub async fn on(url: &str, name: &'static str, partitions: i32) -> Stage {
        let bootstrap = services::kafka().await.bootstrap();
        let topic = services::kafka().await.unique_topic(name);
        services::create_topic(bootstrap, &topic, partitions, &[]).await;
        let settings = [
            ("postgres.url", url.to_owned()),
            ("kafka.bootstrap_servers", bootstrap.to_owned()),
        ];
        let settings = settings.map(|(option, value)| (option.to_owned(), value));
        let mut migrating = Relay::new("migrate", settings.to_vec());
        migrating.migrate().await;
        migrating.migrate_inbox().await;
        let pool = PgPoolOptions::new().max_connections(8);
        let pool = pool.connect(url).await.expect("connecting");
        let effects =
            "create table effects (id bigint generated always as identity, key text, n bigint)";
        pool.execute(effects).await.expect("creating a table");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        Stage {
            name: topic.clone(),
            pool,
            url: url.to_owned(),
            _database: None,
            bootstrap,
            topic,
            metrics: Metrics::default(),
            producer,
        }
    }

    /// A consumer of the topic without handlers.
    pub fn consumer(&self) -> Consumer {
        self.consumer_on(self.pool.clone())
    }

    /// The same with these connections.
    pub fn consumer_on(&self, pool: PgPool) -> Consumer {
        Consumer::new(&self.name, pool)
            .kafka([
                ("bootstrap.servers", self.bootstrap),
                ("session.timeout.ms", "6000"),
                ("fetch.wait.max.ms", "20"),
            ])
            .topics([&self.topic])
            .metrics(&self.metrics)
            .backoff(BACKOFF.0, BACKOFF.1)
    }

    /// Produces events of type "step" in this order, each with an id of its own, which are returned.
    pub async fn produce(&self, steps: &[(&str, i64)]) -> Vec<Uuid> {
        let ids: Vec<Uuid> = steps.iter().map(|_| Uuid::now_v7()).collect();
        let mut sent = Vec::new();
        for (id, (key, n)) in ids.iter().zip(steps) {
            let body = step(*id, key, *n);
            sent.push(self.send(key, Some(body.into_bytes()), &[]));
        }
        futures_util::future::join_all(sent).await;
        ids
    }

    /// Produces the same event once more.
    pub async fn produce_again(&self, id: Uuid, key: &str, n: i64) {
        self.send(key, Some(step(id, key, n).into_bytes()), &[])
            .await;
    }

    /// Produces one event of type "step" with these headers.
    pub async fn produce_with_headers(&self, key: &str, n: i64, headers: &[(&str, &[u8])]) -> Uuid {
        let id = Uuid::now_v7();
        let body = step(id, key, n).into_bytes();
        self.send_bytes(key, Some(body), headers).await;
        id
    }

    pub async fn send(&self, key: &str, value: Option<Vec<u8>>, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(key, value)| (*key, value.as_bytes()));
        let headers: Vec<(&str, &[u8])> = headers.collect();
        self.send_bytes(key, value, &headers).await;
    }

    async fn send_bytes(&self, key: &str, value: Option<Vec<u8>>, headers: &[(&str, &[u8])]) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            let value = Some(*value);
            all = all.insert(Header { key, value });
        }
        let mut record = FutureRecord::<str, [u8]>::to(&self.topic)
            .key(key)
            .headers(all);
        record.payload = value.as_deref();
        let sent = self.producer.send(record, PATIENCE).await;
        sent.expect("producing");
    }

    /// Deletes the topic and makes it again: its offsets begin anew.
    pub async fn make_topic_anew(&self, partitions: i32) {
        services::delete_topic(self.bootstrap, &self.topic).await;
        services::create_topic(self.bootstrap, &self.topic, partitions, &[]).await;
    }

    pub async fn number(&self, query: &str) -> i64 {
        let query = format!("select ({query})::bigint");
        sqlx::query_scalar(AssertSqlSafe(query.clone()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    pub async fn execute(&self, sql: &str) {
        self.pool
            .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Waits until the query answers this number.
    pub async fn until(&self, query: &str, expected: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.number(query).await;
            if found == expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{query}: {found}, not {expected}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until there are so many effects.
    pub async fn effects(&self, count: i64) {
        self.until("select count(*) from effects", count).await;
    }

    /// The effects of a key in their order.
    pub async fn effects_of(&self, key: &str) -> Vec<i64> {
        sqlx::query_scalar("select n from effects where key = $1 order by id")
            .bind(key)
            .fetch_all(&self.pool)
            .await
            .expect("reading the effects")
    }

    pub async fn outcome(&self, id: &str) -> Option<String> {
        let query = "select outcome from processed_events where consumer = $1 and event_id = $2";
        sqlx::query_scalar(query)
            .bind(&self.name)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .expect("reading an outcome")
    }

    /// Everything on the dead-letter topic.
    pub fn dead_letters(&self) -> Vec<Record> {
        read_all(self.bootstrap, &format!("{}-dead-letters", self.name))
    }

    /// Waits until the group has committed this sum of offsets.
    pub async fn committed(&self, partitions: i32, expected: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.ask_committed(partitions);
            if found == Ok(expected) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "committed {found:?}, not {expected}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn committed_now(&self, partitions: i32) -> i64 {
        self.ask_committed(partitions).expect("offsets")
    }

    /// Fails for a moment when the group is the broker's first: its coordinator is still on its way.
    fn ask_committed(&self, partitions: i32) -> Result<i64, KafkaError> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap)
            .set("group.id", &self.name)
            .create()
            .expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic, 0, partitions - 1);
        let committed = client.committed_offsets(list, PATIENCE)?;
        let offsets = committed
            .elements()
            .into_iter()
            .map(|element| element.offset());
        let sum = offsets.map(|offset| match offset {
            Offset::Offset(offset) => offset,
            _ => 0,
        });
        Ok(sum.sum())
    }

    /// The value of a counter of the consumer.
    pub fn counted(&self, name: &str) -> u64 {
        let counter = self.metric(&format!("{name}_total"));
        let value = counter.unwrap_or_else(|| panic!("no metric {name}"));
        value.parse().expect("a number")
    }

    /// The lag of the topic's only partition, if one is shown.
    pub fn lag(&self) -> Option<i64> {
        let lag = self.metric("lag_messages")?;
        Some(lag.parse().expect("a number"))
    }

    /// As it would be scraped.
    fn metric(&self, name: &str) -> Option<String> {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("encoding");
        let start = format!("outboxd_inbox_{name}{{");
        let line = text.lines().find(|line| line.starts_with(&start))?;
        line.rsplit(' ').next().map(str::to_owned)
    }
}

fn step(id: Uuid, key: &str, n: i64) -> String {
    format!(
        r#"{{"envelopeVersion":1,"eventId":"{id}","eventType":"step","eventVersion":"1","timestamp":"{}","source":"test","correlationId":"c-{n}","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","aggregateType":"thing","aggregateId":"{key}","data":{{"key":"{key}","n":{n}}}}}"#,
        jiff::Timestamp::now()
    )
}

/// Notes the effect.
pub async fn note(tx: &mut Tx, step: &Step) -> Result<(), sqlx::Error> {
    sqlx::query("insert into effects (key, n) values ($1, $2)")
        .bind(&step.key)
        .bind(step.n)
        .execute(&mut **tx)
        .await
        .map(|_| ())
}

/// The handler that does nothing else.
pub async fn noting(mut tx: Tx, event: Event<Step>) -> HandlerResult {
    note(&mut tx, &event.data).await?;
    Ok(())
}

/// A consumer at work.
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Ended, ConsumerError>>,
}

impl Running {
    pub fn start(consumer: Consumer) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // A test that ends without stopping it stops it too.
            let _ = stopped.await;
        };
        Running {
            stop,
            task: tokio::spawn(consumer.run_until(stopped)),
        }
    }

    /// Stops it, and expects that it settled.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let ended = self.task.await.expect("the consumer's task");
        let ended = ended.expect("the consumer");
        assert_eq!(ended.unfinished_batches, 0);
    }
}

/// Waits for something, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come"))
}
