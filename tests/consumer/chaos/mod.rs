//! The big scenario: relay and consumers together, killed, frozen and rebalanced again and again, with
//! duplicates from every side; and then every balance is exact, and every key's effects are in order.
//!
//! The seed fixes what is written and the order of the disturbances, not how the machine interleaves
//! them. Sizes are those of CI unless `OUTBOXD_SOAK` is set (`.ci/soak consumers`);
//! `OUTBOXD_SCENARIO_SEED`, `OUTBOXD_SCENARIO_EVENTS` and `OUTBOXD_SCENARIO_ROUNDS` override single ones.

mod load;

use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;

use super::process::{Handler, Process, Settings};
use crate::scenario::{by_size, variable};
use crate::support::relay::Relay;
use crate::support::services::{self, TestDatabase};

const ACCOUNTS: i64 = 200;
const PARTITIONS: i32 = 6;
const MEMBERS: usize = 3;

/// Attempts of a handler that fail, in percent.
const FAILURES: u8 = 2;

/// Nothing moves for so long: then it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

struct Chaos {
    seed: u64,
    rng: Rng,
    events: i64,
    kills: u64,
    pool: PgPool,
    _database: TestDatabase,
    bootstrap: String,
    topic: String,
    relay: Relay,
    relay_runs: bool,
    members: Vec<Process>,
    /// Another group of the same consumer: it believes that every partition is its own, and reads from
    /// offset 0.
    twin: Process,
    twins: u64,
    done: Done,
}

/// What was done to them.
#[derive(Debug, Default)]
struct Done {
    relay_kills: u64,
    consumer_kills: u64,
    stops: u64,
    freezes: u64,
    twins: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_repeated_or_believed_every_effect_happens_once_and_in_order() {
    let _turn = crate::scenario::turn().await;
    let mut chaos = Chaos::new().await;
    let started = Instant::now();
    let (stop, stopping) = watch::channel(false);
    let injector = chaos.inject(stopping);
    let writing = chaos.write();

    chaos.start_all();
    while chaos.done.relay_kills + chaos.done.consumer_kills < chaos.kills {
        let disturbances = chaos.done.relay_kills + chaos.done.consumer_kills;
        // A part of the work lies between two kills.
        let share = chaos.events * (disturbances as i64 + 1) / (chaos.kills as i64 + 2);
        chaos.effects(share).await;
        chaos.disturb().await;
    }
    writing.await.expect("writing");
    chaos.effects(chaos.events).await;
    let _ = stop.send(true);
    let injected = injector.await.expect("injecting");
    // Whoever reads all of it once more, duplicates included, finds nothing to do.
    chaos.start_twin().await;
    chaos.read_to_the_end(&chaos.twin_group()).await;
    chaos.judge(injected, started.elapsed()).await;
}

impl Chaos {
    async fn new() -> Chaos {
        let seed = variable("OUTBOXD_SCENARIO_SEED").unwrap_or_else(|| fastrand::u64(..));
        let events = variable("OUTBOXD_SCENARIO_EVENTS");
        let events: u64 = events.unwrap_or_else(|| by_size(10_000, 100_000));
        let kills = variable("OUTBOXD_SCENARIO_ROUNDS").unwrap_or_else(|| by_size(8, 50));
        eprintln!("scenario consumers: OUTBOXD_SCENARIO_SEED={seed}");
        let database = services::postgres().await.create_database("chaos").await;
        let kafka = services::kafka().await;
        let topic = kafka.unique_topic("chaos");
        kafka.create_topic(&topic, PARTITIONS, &[]).await;
        let options = [
            ("postgres.url", database.url.clone()),
            ("kafka.bootstrap_servers", kafka.bootstrap().to_owned()),
            ("outbox.default.topic", topic.clone()),
            ("outbox.default.batch_rows", "200".to_owned()),
            ("outbox.default.window_rows", "1000".to_owned()),
            ("relay.lease", "1s".to_owned()),
            ("admin.listen", "off".to_owned()),
        ];
        let options = options.map(|(option, value)| (option.to_owned(), value));
        let mut relay = Relay::new("relay", options.to_vec());
        relay.migrate().await;
        relay.migrate_inbox().await;
        let pool = PgPoolOptions::new().max_connections(4);
        let pool = pool.connect(&database.url).await.expect("connecting");
        tables(&pool).await;
        let settings = Settings {
            url: database.url.clone(),
            bootstrap: kafka.bootstrap().to_owned(),
            topics: vec![topic.clone()],
            name: topic.clone(),
            group: topic.clone(),
            handler: Handler::Balance {
                failure_percent: FAILURES,
            },
        };
        Chaos {
            seed,
            rng: Rng::with_seed(seed),
            events: i64::try_from(events).expect("a number of events"),
            kills,
            pool,
            _database: database,
            bootstrap: kafka.bootstrap().to_owned(),
            relay,
            relay_runs: false,
            members: (0..MEMBERS)
                .map(|_| Process::new(settings.clone()))
                .collect(),
            twin: Process::new(settings),
            twins: 0,
            topic,
            done: Done::default(),
        }
    }

    fn start_all(&mut self) {
        self.relay.start();
        self.relay_runs = true;
        for member in &mut self.members {
            member.start();
        }
    }

    /// Waits until there are at least so many effects.
    async fn effects(&mut self, count: i64) {
        let mut most = -1;
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let query = "select count(*) from effects";
            let found: i64 = sqlx::query_scalar(query)
                .fetch_one(&self.pool)
                .await
                .expect("counting the effects");
            if found >= count {
                return;
            }
            if found > most {
                most = found;
                deadline = Instant::now() + PATIENCE;
            }
            assert!(
                Instant::now() < deadline,
                "{found} effects, waiting for {count}"
            );
            self.keep_running();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn keep_running(&mut self) {
        if self.relay_runs {
            self.relay.assert_running();
        }
        for member in self
            .members
            .iter_mut()
            .chain((self.twins > 0).then_some(&mut self.twin))
        {
            assert!(
                member.is_running(),
                "a consumer ended by itself:\n{}",
                member.log()
            );
        }
    }

    async fn disturb(&mut self) {
        let member = self.rng.usize(0..self.members.len());
        match self.rng.u8(0..10) {
            0..3 => {
                self.relay.kill().await;
                self.relay.start();
                self.done.relay_kills += 1;
            }
            3..6 => {
                self.members[member].kill().await;
                self.members[member].start();
                self.done.consumer_kills += 1;
            }
            6 => {
                self.members[member].stop().await;
                self.members[member].start();
                self.done.stops += 1;
            }
            // Longer than its session: it wakes up as somebody whose partitions are gone.
            7 => {
                self.members[member].freeze();
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                self.members[member].thaw();
                self.done.freezes += 1;
            }
            _ => self.start_twin().await,
        }
    }

    fn twin_group(&self) -> String {
        format!("{}-{}", self.topic, self.twins)
    }

    /// A new twin, in a group of its own that has committed nothing.
    async fn start_twin(&mut self) {
        if self.twins > 0 {
            self.twin.kill().await;
            self.done.consumer_kills += 1;
        }
        self.twins += 1;
        self.done.twins += 1;
        self.twin.set_group(self.twin_group());
        self.twin.start();
    }

    /// Waits until the group has committed all that is in the topic, also what came meanwhile.
    async fn read_to_the_end(&mut self, group: &str) {
        let client: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .create()
            .expect("a client");
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let behind = lag(&client, &self.topic);
            if behind.is_empty() {
                return;
            }
            self.keep_running();
            assert!(
                Instant::now() < deadline,
                "{group} does not come to the end; (partition, committed, end): {behind:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn judge(mut self, injected: u64, took: Duration) {
        self.read_to_the_end(&self.topic.clone()).await;
        for member in &mut self.members {
            member.stop().await;
        }
        self.twin.stop().await;
        self.relay.stop().await;
        let seed = self.seed;
        let number = async |query: &'static str| -> i64 {
            let answer = sqlx::query_scalar(query).fetch_one(&self.pool).await;
            answer.unwrap_or_else(|error| panic!("{query}: {error}"))
        };
        assert_eq!(
            number("select count(*) from effects").await,
            self.events,
            "seed {seed}"
        );
        let wrong = "select count(*) from accounts a where balance <> (\
             select coalesce(sum((payload ->> 'n')::bigint), 0) from outbox_events \
             where aggregate_id = a.key)";
        assert_eq!(number(wrong).await, 0, "wrong balances, seed {seed}");
        let inverted = "select count(*) from (\
             select n < lag(n) over (partition by key order by id) as inverted from effects) e \
             where inverted";
        assert_eq!(
            number(inverted).await,
            0,
            "effects out of order, seed {seed}"
        );
        assert_eq!(
            number("select count(*) from processed_events").await,
            self.events
        );
        let records = number_of_records(&self.bootstrap, &self.topic);
        println!(
            "scenario consumers: seed {seed}, {} transactions that each add to one of {ACCOUNTS} balances, \
             {} messages ({injected} injected duplicates), {} SIGKILLs of consumers and {} of the relay, {} \
             clean stops, {} freezes, {} twins from offset 0; every balance exact, every key in order; \
             {:.0} s",
            self.events,
            records,
            self.done.consumer_kills,
            self.done.relay_kills,
            self.done.stops,
            self.done.freezes,
            self.done.twins,
            took.as_secs_f64(),
        );
    }
}

/// The partitions that hold more than the group has committed, with what it has committed (if the coordinator says)
/// and their ends, asked for in this order.
fn lag(client: &StreamConsumer, topic: &str) -> Vec<(i32, Option<i64>, i64)> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, PARTITIONS - 1);
    // A coordinator that moves gives no answer for a moment.
    let committed = client.committed_offsets(list, PATIENCE).ok();
    let behind = (0..PARTITIONS).filter_map(|partition| {
        let ends = client.fetch_watermarks(topic, partition, PATIENCE);
        let (_, end) = ends.expect("the end of a partition");
        let committed = committed.as_ref().and_then(|committed| {
            let element = committed.find_partition(topic, partition)?;
            element.offset().to_raw()
        });
        let is_behind = end > 0 && committed.is_none_or(|committed| committed < end);
        is_behind.then_some((partition, committed, end))
    });
    behind.collect()
}

fn number_of_records(bootstrap: &str, topic: &str) -> i64 {
    let client: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", topic)
        .create()
        .expect("a client");
    let ends = (0..PARTITIONS).map(|partition| {
        let ends = client.fetch_watermarks(topic, partition, PATIENCE);
        ends.expect("the end of a partition").1
    });
    ends.sum()
}

async fn tables(pool: &PgPool) {
    let sql = format!(
        "create table effects (id bigint generated always as identity, key text, n bigint); \
         create table accounts (key text primary key, balance bigint not null default 0); \
         insert into accounts (key) select 'account-' || n from generate_series(0, {ACCOUNTS} - 1) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await
        .expect("creating tables");
}
