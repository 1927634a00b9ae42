//! The big scenario: an application with many writers, a relay that is disturbed, a verdict on every event.
//!
//! [`plan`] says what each transaction does, by the seed; [`application`] writes it to a real Postgres;
//! `support::relay` runs outboxd as a process, to be killed and stopped; [`topics`] watches a real Kafka;
//! [`oracle`] compares what was committed with what has arrived. A [`Stage`] has them all, and the test
//! files here are what happens on it.
//!
//! Sizes are those of CI unless `OUTBOXD_SOAK` is set (`.ci/soak`). These override single ones:
//! `OUTBOXD_SCENARIO_SEED`, `OUTBOXD_SCENARIO_TRANSACTIONS`, `OUTBOXD_SCENARIO_ROUNDS` (kills, stops or
//! outages) and `OUTBOXD_SCENARIO_OUTAGE_SECONDS`. The seed fixes what is written, not how the machine
//! interleaves it.

mod application;
mod handover;
mod kafka_outages;
mod oracle;
mod plan;
mod pooler;
mod postgres_stops;
mod refusals;
mod restarts;
mod topics;
mod undisturbed;

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::support::fixture::drain;
use crate::support::relay::Relay;
use application::{Application, Writing};
use oracle::Counts;
use topics::{Ends, Topics};

const WRITERS: usize = 16;
const KEYS: u32 = 500;

/// Transactions of a full run.
const FULL_TRANSACTIONS: u64 = 200_000;

/// Nothing moves for so long: then it hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition in Postgres is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How many scenarios run at a time: each loads two cores by itself, but some mostly wait for an outage.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A scenario, before it has services.
#[derive(Debug)]
struct Scenario {
    name: &'static str,
    seed: u64,
    transactions: u64,
    /// How often it is disturbed.
    rounds: u64,
    /// Whether the writers lose their server meanwhile.
    postgres_stops: bool,
    _turn: SemaphorePermit<'static>,
}

/// How large a scenario is.
#[derive(Debug, Clone, Copy)]
struct Size {
    transactions: u64,
    rounds: u64,
    full_rounds: u64,
}

impl Scenario {
    /// Waits for its turn.
    async fn new(name: &'static str, size: Size) -> Scenario {
        let turn = turn().await;
        let scenario = Scenario {
            name,
            seed: variable("OUTBOXD_SCENARIO_SEED").unwrap_or_else(|| fastrand::u64(..)),
            transactions: variable("OUTBOXD_SCENARIO_TRANSACTIONS")
                .unwrap_or_else(|| by_size(size.transactions, FULL_TRANSACTIONS)),
            rounds: variable("OUTBOXD_SCENARIO_ROUNDS")
                .unwrap_or_else(|| by_size(size.rounds, size.full_rounds)),
            postgres_stops: false,
            _turn: turn,
        };
        eprintln!("scenario {name}: OUTBOXD_SCENARIO_SEED={}", scenario.seed);
        scenario
    }

    /// Makes tables and topics, and the relay with its settings; starts the writers, who wait to be
    /// allowed. `url` is an empty database.
    async fn on(self, url: &str, bootstrap: &str) -> Stage {
        let prefix = format!("{}-{:012x}", self.name, fastrand::u64(..1 << 48));
        let settings = [
            ("postgres.url", url.to_owned()),
            ("kafka.bootstrap_servers", bootstrap.to_owned()),
            ("admin.listen", "off".to_owned()),
            // Often enough to meet every state of the scan; what it finds is a failure.
            ("outbox.default.sweep_interval", "1s".to_owned()),
            (
                "outbox.default.topic",
                format!("{prefix}-{{aggregate_type}}"),
            ),
        ];
        let settings = settings.map(|(option, value)| (option.to_owned(), value));
        let mut relay = Relay::new("relay", settings.to_vec());
        relay.migrate().await;
        let application = Application {
            url: url.to_owned(),
            seed: self.seed,
            keys: KEYS,
            writers: WRITERS,
            transactions: self.transactions,
            outages: self.postgres_stops,
        };
        application.create_tables().await;
        Stage {
            relay,
            topics: Topics::create(bootstrap, &prefix).await,
            url: url.to_owned(),
            settings: settings.to_vec(),
            writing: application.start(),
            rng: Rng::with_seed(self.seed),
            periods: Vec::new(),
            published: 0,
            started: Instant::now(),
            scenario: self,
        }
    }
}

/// A scenario on its services.
struct Stage {
    scenario: Scenario,
    relay: Relay,
    topics: Topics,
    url: String,
    settings: Vec<(String, String)>,
    writing: Writing,
    rng: Rng,
    /// The ends of the partitions whenever a disturbance was over.
    periods: Vec<Ends>,
    /// Records at the last disturbance.
    published: i64,
    started: Instant,
}

impl Stage {
    /// A second relay for the same outbox.
    fn another_relay(&self, name: &'static str) -> Relay {
        Relay::new(name, self.settings.clone())
    }

    /// Lets the writers go on, up to the share of the transactions that belongs to round `round`,
    /// counted from 0. The last share is left for the time after the last round.
    fn write_for_round(&mut self, round: u64) {
        self.writing.allow(round + 1, self.scenario.rounds + 1);
    }

    /// Waits until something was published since the last disturbance: the first record, or some number
    /// of them that the round's writes exceed.
    async fn publishes(&mut self) {
        // Each transaction brings more than two committed events on average.
        let share = self.scenario.transactions / (self.scenario.rounds + 1);
        let most = i64::try_from(share)
            .expect("a number of transactions")
            .max(1);
        let enough = match self.rng.bool() {
            true => 1,
            false => self.rng.i64(1..=most),
        };
        let mut seen = self.published;
        let mut deadline = Instant::now() + PATIENCE;
        while seen < self.published + enough {
            self.relay.assert_running();
            let now = self.topics.published().await;
            if now > seen {
                deadline = Instant::now() + PATIENCE;
            }
            seen = now;
            assert!(
                Instant::now() < deadline,
                "nothing is published any more: {seen} records, {} before the disturbance",
                self.published
            );
        }
    }

    /// A disturbance is over: what is repeated from here on is its doing.
    async fn end_period(&mut self) {
        let ends = self.topics.ends().await;
        self.published = ends.values().sum();
        self.periods.push(ends);
    }

    /// Waits until everything that is committed now is marked: whatever a new owner repeats is on the topic
    /// then.
    async fn settles(&mut self) {
        let mut connection = self.connect().await;
        let last: i64 = sqlx::query_scalar("select coalesce(max(id), 0) from outbox_events")
            .fetch_one(&mut connection)
            .await
            .expect("reading the last row");
        let unsent = "select count(*) from outbox_events where sent_at is null and id <= $1";
        let started = Instant::now();
        loop {
            let left: i64 = sqlx::query_scalar(unsent)
                .bind(last)
                .fetch_one(&mut connection)
                .await
                .expect("counting unsent rows");
            if left == 0 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{left} rows stay unsent");
            tokio::time::sleep(POLL).await;
        }
        self.published = self.topics.ends().await.values().sum();
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("connecting")
    }

    /// How often the lane has changed hands, renewals by the same process included.
    async fn epoch(&self) -> i64 {
        sqlx::query_scalar("select coalesce(max(epoch), 0) from outboxd_leases")
            .fetch_one(&mut self.connect().await)
            .await
            .expect("reading the epoch")
    }

    /// Writes and relays all that is left, stops the relay, and judges.
    async fn finish(self, disturbances: impl Display) -> Counts {
        let mut stage = self;
        let fates = stage.writing.finish().await;
        let written = stage.started.elapsed();
        let mut connection = PgConnection::connect(&stage.url).await.expect("connecting");
        drain(&mut connection, &mut stage.relay).await;
        stage.relay.stop().await;
        let swept = stage.relay.logged("the sweep found an unsent row");
        let relayed = stage.started.elapsed();
        let version: String = sqlx::query_scalar("show server_version")
            .fetch_one(&mut connection)
            .await
            .expect("asking for the version");
        let scenario = &stage.scenario;
        let counts = oracle::judge(
            &stage.url,
            scenario.seed,
            &fates,
            &stage.topics,
            stage.periods,
        )
        .await;
        assert_eq!(
            swept, 0,
            "rows that the scan passed, seed {}",
            scenario.seed
        );
        println!(
            "scenario {}: seed {}, {} transactions of {WRITERS} writers, {} events over {KEYS} keys, \
             {disturbances}, {} repeats (at most {} after one disturbance); written in {:.0} s, relayed in \
             {:.0} s; PostgreSQL {version}",
            scenario.name,
            scenario.seed,
            scenario.transactions,
            counts.events,
            counts.repeats,
            counts.repeats_by_period.iter().max().unwrap_or(&0),
            written.as_secs_f64(),
            relayed.as_secs_f64(),
        );
        counts
    }
}

/// Waits for a turn.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("it is never closed")
}

pub fn by_size(usual: u64, full: u64) -> u64 {
    match std::env::var_os("OUTBOXD_SOAK") {
        Some(_) => full,
        None => usual,
    }
}

/// How long an outage lasts.
fn outage() -> Duration {
    let seconds = variable("OUTBOXD_SCENARIO_OUTAGE_SECONDS");
    Duration::from_secs(seconds.unwrap_or_else(|| by_size(8, 30)))
}

pub fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("{name}={value}: {error}"),
    }
}
