//! What the examples work on: a database with outbox and inbox, a topic, a relay between them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outboxd::local::Sandbox;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::Signal;
use sqlx::PgConnection;

use super::language::Language;
use crate::support::fixture::{Fixture, PATIENCE, Record, boolean, execute, number};

pub const SCHEMA: &str = include_str!("../../examples/schema.sql");
const LOG: &str = "example.log";

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

pub struct Shop {
    fixture: Fixture,
    insert: Vec<String>,
    consume: Vec<String>,
}

impl Shop {
    /// A new one for the examples of this language. The relay does not run yet.
    pub async fn open(language: Language) -> Shop {
        Shop {
            fixture: fixture(language.name()).await,
            insert: language.command_line("insert").await,
            consume: language.command_line("consume").await,
        }
    }

    pub fn database(&mut self) -> &mut PgConnection {
        &mut self.fixture.database
    }

    /// Another connection to the database.
    pub async fn connect(&self) -> PgConnection {
        self.fixture.connect().await
    }

    pub fn start_insert(&self, count: usize) -> Example {
        start(&self.fixture, &self.insert, "", count)
    }

    pub fn start_consumer(&self, group: &str, count: usize) -> Example {
        start(&self.fixture, &self.consume, group, count)
    }

    /// Consumes so many messages, all that the group has left.
    pub async fn consume(&self, group: &str, count: usize) -> Outcomes {
        let outcomes = self.start_consumer(group, count).succeeds().await;
        assert_eq!(outcomes.lines().len(), count, "{outcomes:?}");
        outcomes
    }

    /// Runs the relay until events of this many inserts are on the topic and marked, and stops it.
    pub async fn publish(&mut self, count: usize) -> Vec<Record> {
        self.fixture.relay.start();
        self.start_insert(count).succeeds().await;
        let events = self.fixture.take(count).await;
        self.fixture.settled().await;
        self.fixture.relay.stop().await;
        events
    }

    /// Claims the event in a transaction that stays open.
    pub async fn claim(&self, event: &str) -> PgConnection {
        let mut connection = self.connect().await;
        let claim = format!("begin; select inbox_claim('billing', '{event}')");
        execute(&mut connection, &claim).await;
        connection
    }

    pub async fn commit(&self, mut rival: PgConnection) {
        execute(&mut rival, "commit").await;
    }

    /// Makes this effect (the first, second, …) wait for as long as the connection is there.
    pub async fn hold_effect(&mut self, number: usize) -> PgConnection {
        let mut holder = self.connect().await;
        execute(&mut holder, "select pg_advisory_lock(1)").await;
        let wait = "perform pg_advisory_xact_lock(1)";
        self.disturb_effect(number, wait).await;
        holder
    }

    /// Makes this effect fail, and its second try succeed.
    pub async fn fail_effect(&mut self, number: usize) {
        let fail = "raise exception 'no invoice today'";
        self.disturb_effect(number, fail).await;
    }

    /// A sequence counts the effects, since it does not roll back.
    async fn disturb_effect(&mut self, number: usize, statement: &str) {
        let disturb = format!(
            "create sequence effects; \
             create function disturb() returns trigger language plpgsql as $$ begin \
                 if nextval('effects') = {number} then {statement}; end if; \
                 return new; \
             end $$; \
             create trigger disturb before insert on invoices \
                 for each row execute function disturb()"
        );
        execute(self.database(), &disturb).await;
    }

    /// Waits until a session of the database waits for another's lock.
    pub async fn somebody_waits(&mut self) {
        let waits = "select exists (select from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock')";
        self.fixture.until(waits).await;
    }

    /// What new transactions of the database begin with, unless they say otherwise.
    pub async fn default_to_isolation(&mut self, level: &str) {
        let set = format!(
            "do $$ begin execute format( \
                 'alter database %I set default_transaction_isolation = ''{level}''', \
                 current_database()); \
             end $$"
        );
        execute(self.database(), &set).await;
    }

    /// How many events are remembered.
    pub async fn processed(&mut self) -> usize {
        let processed = "select count(*) from processed_events where consumer = 'billing'";
        let count = number(self.database(), processed).await;
        count.try_into().expect("a count")
    }

    /// Every order's invoice comes to the order's own total, and there is something to pay.
    pub async fn assert_invoices_match_orders(&mut self) {
        let exact = "select sum(o.total_cents) > 0 \
                        and count(*) filter (where o.total_cents is distinct from i.total_cents) = 0 \
                     from orders o full join invoices i on i.order_id = o.id";
        assert!(boolean(self.database(), exact).await, "invoices are wrong");
    }

    /// The offset from which a consumer of this group would go on.
    pub async fn committed_offset(&self, group: &str) -> usize {
        let (bootstrap, topic) = (
            self.fixture.bootstrap().to_owned(),
            self.fixture.topic.clone(),
        );
        let group = group_id(&topic, group);
        let ask = move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", group)
                .create()
                .expect("a consumer");
            let mut partition = TopicPartitionList::new();
            partition.add_partition(&topic, 0);
            let committed = consumer.committed_offsets(partition, PATIENCE);
            let committed = committed.expect("asking for the group's offset");
            match committed.elements()[0].offset() {
                Offset::Offset(offset) => offset.try_into().expect("an offset"),
                _ => 0,
            }
        };
        tokio::task::spawn_blocking(ask)
            .await
            .expect("asking does not panic")
    }
}

/// Starts an example on the fixture's database and topic.
pub fn start(fixture: &Fixture, command_line: &[String], group: &str, count: usize) -> Example {
    let Fixture { url, topic, .. } = fixture;
    let sandbox = Sandbox::create("example", None, Signal::KILL);
    let mut sandbox = sandbox.expect("a directory for the example");
    let mut command = sandbox.command(Path::new(&command_line[0]));
    command
        .args(&command_line[1..])
        .args(["--count", &count.to_string()])
        .env("POSTGRES_URL", url)
        .env("JDBC_URL", jdbc_url(url))
        .env("KAFKA_BOOTSTRAP_SERVERS", fixture.bootstrap())
        .env("KAFKA_TOPIC", topic)
        .env("KAFKA_GROUP", group_id(topic, group));
    sandbox.run(command, LOG).expect("starting the example");
    Example { sandbox }
}

/// A database with outbox, inbox and the tables of the examples, and a topic.
pub async fn fixture(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name).await;
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    migrate.env_clear();
    migrate.args(["migrate", "--inbox", "--postgres-url", &fixture.url]);
    let output = migrate.output().expect("running outboxd");
    assert!(
        output.status.success(),
        "outboxd migrate --inbox: {output:?}"
    );
    execute(&mut fixture.database, SCHEMA).await;
    fixture
}

/// An example that runs. Its log is printed if the test fails.
pub struct Example {
    sandbox: Sandbox,
}

impl Example {
    /// Waits for its end with exit status 0.
    pub async fn succeeds(mut self) -> Outcomes {
        let status = self.ends().await;
        assert_eq!(status, Some(0), "the example failed");
        Outcomes(self.log())
    }

    /// Waits for its end with another exit status.
    pub async fn fails(mut self) {
        let status = self.ends().await;
        assert!(status.is_some_and(|status| status != 0), "it did not fail");
    }

    /// SIGKILL: a crash.
    pub async fn kill(mut self) {
        assert_eq!(self.sandbox.exit_status(), None, "the example has ended");
        let killed = self.sandbox.end(Signal::KILL, PATIENCE).await;
        killed.expect("killing the example");
    }

    /// Waits for its end; its exit status, none if a signal ended it.
    pub async fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.sandbox.exit_status() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the example does not end");
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.sandbox.directory().join(LOG));
        log.unwrap_or_default()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the example printed:\n{}", self.log());
        }
    }
}

/// What a consumer printed: for each message what came of it.
#[derive(Debug)]
pub struct Outcomes(String);

impl Outcomes {
    pub fn lines(&self) -> Vec<&str> {
        let answers = ["new ", "duplicate ", "expired "];
        let lines = self.0.lines();
        lines
            .filter(|line| answers.iter().any(|answer| line.starts_with(answer)))
            .collect()
    }

    pub fn count(&self, answer: &str) -> usize {
        let lines = self.lines();
        lines.iter().filter(|line| line.starts_with(answer)).count()
    }
}

fn group_id(topic: &str, group: &str) -> String {
    format!("{topic}-{group}")
}

/// The address as JDBC wants it: user and password among the parameters.
fn jdbc_url(url: &str) -> String {
    let (_, address) = url.split_once("://").expect("a URL");
    let (account, address) = address.split_once('@').unwrap_or(("", address));
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("jdbc:postgresql://{address}{separator}user={user}&password={password}")
}
