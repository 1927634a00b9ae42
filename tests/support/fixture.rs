//! One outbox on a database, one topic, one relay: what most tests begin with.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::relay::Relay;
use super::services;

/// Bounds a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// No row is marked for so long: then it hangs.
const DRAIN_PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A migrated database, a topic of one partition, and a relay that is not started yet.
pub struct Fixture {
    pub relay: Relay,
    pub database: PgConnection,
    pub url: String,
    pub topic: String,
    bootstrap: String,
    admin: u16,
    consumer: BaseConsumer,
}

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn event_id(&self) -> Uuid {
        let id = self
            .header("event-id")
            .expect("every record has its event's id");
        id.parse().expect("a UUID")
    }

    /// The body of the native envelope.
    pub fn body(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().expect("a body")).expect("valid JSON")
    }
}

impl Fixture {
    /// On the shared Postgres and Kafka.
    pub async fn new(name: &'static str) -> Fixture {
        let database = services::postgres().await.create_database(name).await;
        Fixture::on(name, &database.url, services::kafka().await.bootstrap()).await
    }

    /// On these servers; the database is empty.
    pub async fn on(name: &'static str, url: &str, bootstrap: &str) -> Fixture {
        let mut fixture = Fixture::bare(name, url, bootstrap).await;
        fixture.relay.migrate().await;
        fixture
    }

    /// As [`on`](Self::on), and not migrated: for tables that are not outboxd's.
    pub async fn bare(name: &'static str, url: &str, bootstrap: &str) -> Fixture {
        let topic = super::unique(name, '-');
        services::create_topic(bootstrap, &topic, 1, &[]).await;
        Fixture::on_topic(name, url, bootstrap, topic).await
    }

    /// As [`bare`](Self::bare), with a topic that is there.
    pub async fn on_topic(
        name: &'static str,
        url: &str,
        bootstrap: &str,
        topic: String,
    ) -> Fixture {
        let admin = outboxd::local::free_port().expect("a free port");
        let settings = [
            ("postgres.url", url),
            ("kafka.bootstrap_servers", bootstrap),
            ("outbox.default.topic", &topic),
            ("admin.listen", &format!("127.0.0.1:{admin}")),
            ("log.format", "json"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let relay = Relay::new(name, settings.to_vec());
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", &topic)
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .create()
            .expect("a consumer");
        let mut start = TopicPartitionList::new();
        start
            .add_partition_offset(&topic, 0, Offset::Beginning)
            .expect("an offset");
        consumer.assign(&start).expect("assigning the partition");
        Fixture {
            relay,
            database: connect(url).await,
            url: url.to_owned(),
            topic,
            bootstrap: bootstrap.to_owned(),
            admin,
            consumer,
        }
    }

    /// Another connection to the database.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Reads on until there is a record, in the order of the topic's only partition.
    pub async fn next(&mut self) -> Record {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Errors of a broker that comes back are not the end of the matter.
            if let Some(Ok(message)) = self.consumer.poll(Duration::ZERO) {
                return record(&message);
            }
            self.relay.assert_running();
            assert!(Instant::now() < deadline, "no record came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The next `count` records.
    pub async fn take(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(self.next().await);
        }
        records
    }

    /// Reads from the start again.
    pub fn rewind(&self) {
        self.consumer
            .seek(&self.topic, 0, Offset::Beginning, PATIENCE)
            .expect("going back to the start of the topic");
    }

    /// How many records the topic has.
    pub fn published(&self) -> i64 {
        let (_, end) = self
            .consumer
            .fetch_watermarks(&self.topic, 0, PATIENCE)
            .expect("the end of the topic");
        end
    }

    /// Waits until no row is unsent.
    pub async fn settled(&mut self) {
        drain(&mut self.database, &mut self.relay).await;
    }

    /// Waits until the query answers true.
    pub async fn until(&mut self, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !boolean(&mut self.database, query).await {
            assert!(Instant::now() < deadline, "never true: {query}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Status and text of the admin port's answer; none if nobody listens.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.get_with(path, "").await
    }

    /// The same, asked with these lines of a header.
    pub async fn get_with(&self, path: &str, header: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\n{header}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Waits until the admin port answers with this status and a text that contains `text`.
    pub async fn answers(&self, path: &str, status: u16, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if answer
                .as_ref()
                .is_some_and(|(s, t)| *s == status && t.contains(text))
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{path} answers {answer:?}, not {status} {text}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a metric of the outbox has such a value.
    pub async fn metric_is(&mut self, name: &str, is_right: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Nobody answers before the relay has started.
            let metrics = self.get("/metrics").await.unwrap_or_default().1;
            if value(&metrics, name).is_some_and(&is_right) {
                return;
            }
            self.relay.assert_running();
            assert!(Instant::now() < deadline, "{name} in:\n{metrics}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The value of a metric of the outbox.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await.expect("the relay's metrics");
        value(&metrics, name).unwrap_or_else(|| panic!("no metric {name} in:\n{metrics}"))
    }
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    let name = format!("outboxd_{name}");
    let line = metrics
        .lines()
        .find(|line| line.split_once('{').is_some_and(|(start, _)| start == name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// All that is in a topic now, partition by partition; nothing if it does not exist.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE);
    let metadata = metadata.expect("the topic's metadata");
    let mut records = Vec::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), PATIENCE)
            .expect("the partition's ends");
        let mut start = TopicPartitionList::new();
        start
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("an offset");
        consumer.assign(&start).expect("assigning the partition");
        let deadline = Instant::now() + PATIENCE;
        let mut left = high - low;
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} records did not come");
            if let Some(Ok(message)) = consumer.poll(POLL) {
                records.push(record(&message));
                left -= 1;
            }
        }
    }
    records
}

pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .expect("connecting to the test's database")
}

/// Runs statements of a test.
pub async fn execute(connection: &mut PgConnection, sql: &str) {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Inserts an event for the key and returns its id.
pub async fn insert(connection: &mut PgConnection, key: &str) -> i64 {
    let sql = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
               values ('order', $1, 'order.placed', '{}') returning id";
    let row = sqlx::query(sql).bind(key).fetch_one(connection).await;
    row.expect("inserting an event").get(0)
}

/// Waits until no row is unsent, for as long as some are marked now and then.
pub async fn drain(connection: &mut PgConnection, relay: &mut Relay) {
    let mut least = i64::MAX;
    let mut deadline = Instant::now() + DRAIN_PATIENCE;
    loop {
        let unsent = number(
            connection,
            "select count(*) from outbox_events where sent_at is null",
        )
        .await;
        if unsent == 0 {
            return;
        }
        if unsent < least {
            least = unsent;
            deadline = Instant::now() + DRAIN_PATIENCE;
        }
        relay.assert_running();
        assert!(Instant::now() < deadline, "{unsent} rows stay unmarked");
        tokio::time::sleep(POLL).await;
    }
}

pub async fn boolean(connection: &mut PgConnection, query: &str) -> bool {
    number(connection, &format!("select ({query})::int::bigint")).await == 1
}

/// The one number that a query answers.
pub async fn number(connection: &mut PgConnection, query: &str) -> i64 {
    sqlx::query(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
        .get(0)
}

fn record(message: &impl Message) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Record {
        partition: message.partition(),
        key: message.key().map(text),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message
            .headers()
            .iter()
            .flat_map(|headers| headers.iter())
            .map(|header| {
                (
                    header.key.to_owned(),
                    text(header.value.unwrap_or_default()),
                )
            })
            .collect(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}
