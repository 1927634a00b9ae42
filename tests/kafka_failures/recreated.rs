//! Topics that come late, or go and come again, while rows are written for them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::support::arrived::Arrived;
use crate::support::fixture::{Fixture, PATIENCE, Record, connect, execute, number, read_all};
use crate::support::services::{create_topic, delete_topic, kafka};

const KEYS: usize = 50;

/// Rows that are written for a topic until somebody says stop.
struct Load {
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl Load {
    fn start(fixture: &Fixture, topic: &str) -> Load {
        let (stop, stopped) = watch::channel(false);
        let (url, topic) = (fixture.url.clone(), topic.to_owned());
        let writer = tokio::spawn(async move {
            let mut database = connect(&url).await;
            // 500 rows a second and no more, for as long as the test takes: what waits while a topic is gone
            // must be worked off in time by an unoptimised relay on a busy machine.
            let mut pace = tokio::time::interval(Duration::from_millis(40));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for from in (0..).step_by(20) {
                pace.tick().await;
                if *stopped.borrow() {
                    return;
                }
                let sql = format!(
                    "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, topic) \
                     select 'x', 'k' || n % {KEYS}, 't', n::text::json, '{topic}' \
                     from generate_series({from}, {from} + 19) as n"
                );
                execute(&mut database, &sql).await;
            }
        });
        Load { stop, writer }
    }

    async fn end(self) {
        let _ = self.stop.send(true);
        self.writer.await.expect("writing rows");
    }
}

/// Waits until a row is sent that is not written yet.
async fn flows_on(fixture: &mut Fixture) {
    let last = "select coalesce(max(id), 0) from outbox_events";
    let last = number(&mut fixture.database, last).await;
    let goes_on = format!(
        "select exists (select from outbox_events where id > {last} and sent_at is not null)"
    );
    fixture.until(&goes_on).await;
}

/// Reads what the topic has while the relay is frozen, again until nothing comes any more: the broker may be at
/// requests that were sent before.
fn read_to_the_end(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let again = read_all(bootstrap, topic);
        if again.len() == records.len() {
            return again;
        }
        records = again;
    }
}

/// Deletes a topic and waits until the broker does not know it any more.
async fn delete(bootstrap: &str, topic: &str) {
    delete_topic(bootstrap, topic).await;
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("a client");
    let deadline = Instant::now() + PATIENCE;
    let exists = || {
        let metadata = client.fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.expect("the topic's metadata");
        metadata
            .topics()
            .iter()
            .any(|topic| topic.error().is_none())
    };
    while exists() {
        assert!(Instant::now() < deadline, "{topic} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long a topic is gone.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// Until the relay has noticed.
    ForAWhile,
    /// The relay finds another where it left one.
    Unnoticed,
}

/// Before the topic goes the relay is frozen and everything is read: so each row is in what was read, or must come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_late_or_again_gets_every_row_in_order() {
    let mut fixture = Fixture::new("recreated").await;
    let bootstrap = fixture.bootstrap().to_owned();
    let topic = kafka().await.unique_topic("recreated-again");
    fixture.relay.start();
    let load = Load::start(&fixture, &topic);
    let mut arrived = Arrived::default();
    for (gone, partitions) in [
        (Gone::ForAWhile, 3),
        (Gone::Unnoticed, 3),
        (Gone::ForAWhile, 1),
        (Gone::Unnoticed, 4),
        (Gone::ForAWhile, 2),
    ] {
        match gone {
            Gone::ForAWhile => {
                fixture.relay.thaw();
                fixture
                    .metric_is("held_topics", |topics| topics == 1.0)
                    .await;
                create_topic(&bootstrap, &topic, partitions, &[]).await;
            }
            Gone::Unnoticed => {
                create_topic(&bootstrap, &topic, partitions, &[]).await;
                fixture.relay.thaw();
            }
        }
        flows_on(&mut fixture).await;
        fixture.relay.freeze();
        for record in read_to_the_end(&bootstrap, &topic) {
            arrived.take(&record);
        }
        delete(&bootstrap, &topic).await;
    }
    fixture.relay.thaw();
    load.end().await;
    create_topic(&bootstrap, &topic, 1, &[]).await;
    fixture.settled().await;
    for record in read_all(&bootstrap, &topic) {
        arrived.take(&record);
    }
    let written = "select count(*) from outbox_events";
    let written = number(&mut fixture.database, written).await;
    assert_eq!(arrived.events.len() as i64, written);
    fixture.relay.stop().await;
}

/// Whether a row was in the old topic or must be in the new one, nobody can tell here. So this says no more than
/// that the relay goes on, and that of each key the new topic has some last rows without a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_gone_for_a_moment_only_flows_on() {
    let mut fixture = Fixture::new("recreated_at_once").await;
    let bootstrap = fixture.bootstrap().to_owned();
    let topic = kafka().await.unique_topic("recreated-at-once");
    create_topic(&bootstrap, &topic, 3, &[]).await;
    fixture.relay.start();
    let load = Load::start(&fixture, &topic);
    for _ in 0..10 {
        flows_on(&mut fixture).await;
        delete_topic(&bootstrap, &topic).await;
        create_topic(&bootstrap, &topic, 3, &[]).await;
    }
    load.end().await;
    fixture.settled().await;
    fixture.relay.stop().await;

    let mut seen: HashMap<String, BTreeSet<i64>> = HashMap::new();
    for record in read_all(&bootstrap, &topic) {
        let number = record.body()["data"].as_i64().expect("a number");
        seen.entry(record.key.expect("a key"))
            .or_default()
            .insert(number);
    }
    assert!(!seen.is_empty());
    for (key, numbers) in seen {
        let (first, last) = (numbers.first().expect("one"), numbers.last().expect("one"));
        let expected = (last - first) / KEYS as i64 + 1;
        assert_eq!(
            numbers.len() as i64,
            expected,
            "{key} from {first} to {last}"
        );
    }
}
