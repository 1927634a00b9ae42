//! `outboxd demo`: the relay at work, with both ends in view.
//!
//! ```text
//! shop ──INSERT──▶ Postgres ──▶ the relay (App, as `run` has it) ──▶ Kafka ──▶ reader
//!   └───────────────────────────────▶ books ◀────────────────────────────────────┘
//!                                       └──▶ screen, or plain lines
//! ```
//!
//! Nothing is configured and nothing stays: Postgres is a throwaway one, Kafka runs in this process,
//! and both end with it, however it ends. What was inserted and what arrived is booked by event id, so
//! the end can say whether every committed row arrived and no rolled back one did.

mod books;
mod display;
mod envelope_text;
mod figures;
mod hints;
mod log;
mod reader;
mod services;
mod shop;
mod stop;
mod view;
#[cfg(test)]
mod view_tests;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::{App, AppError, Outcome, Until};
use crate::terminal::Wish;
use books::{Books, ByHand};
use display::Display;
use log::DemoLog;
use reader::{Positions, Reader};
use services::{Services, Site};
use shop::Shop;
use stop::Stop;

/// How long what is on its way may take to arrive after the last insert.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(15);

/// How long the reader may take to get to the end of the topics once the relay has stopped.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// How long the runtime waits for questions to Kafka that nobody listens to any more; each ends by
/// itself within 5 s.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(6);

/// How often waiting is checked.
const POLL: Duration = Duration::from_millis(20);

/// How often the rows of the user's own are counted.
const COUNT_BY_HAND: Duration = Duration::from_millis(300);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Instead of a throwaway one.
    pub postgres_url: Option<String>,
    /// Instead of the one in this process.
    pub kafka: Option<String>,
    /// Properties of librdkafka.
    pub properties: Vec<(String, String)>,
    /// How long to insert; until stopped if nothing is said.
    pub duration: Option<Duration>,
    /// Rows per second.
    pub rate: u32,
}

/// What the demo is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Nothing more is inserted; what is on its way arrives.
    Draining,
}

/// The books, as all parts of the demo hold them.
#[derive(Debug, Clone)]
pub struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    fn new() -> SharedBooks {
        SharedBooks(Arc::new(Mutex::new(Books::new(Instant::now()))))
    }

    /// Held for a few instructions only, never across a wait. After a panic the counts are what they
    /// are: the demo ends then anyway.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the demo until it is stopped or its time is over. True if every committed row arrived and no
/// rolled back one did.
///
/// # Errors
/// When a service does not start, or something on the way breaks. What was started is ended first, also
/// after a panic.
pub fn run(options: Options) -> anyhow::Result<bool> {
    let log = DemoLog::init();
    let mut services = Services::default();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?;
        let ran = runtime.block_on(start_and_show(&options, &mut services, &log));
        // All clients go before their services.
        runtime.shutdown_timeout(RUNTIME_PATIENCE);
        ran
    }));
    let ended = services.end();
    match ran {
        Err(panic) => resume_unwind(panic),
        Ok(Err(error)) => Err(error),
        Ok(Ok(complete)) => ended.map(|()| complete),
    }
}

async fn start_and_show(
    options: &Options,
    services: &mut Services,
    log: &DemoLog,
) -> anyhow::Result<bool> {
    let stop = Stop::on_signal().context("installing signal handlers")?;
    let mut display = Display::new(log.clone());
    let start = async {
        let site = services
            .start(options, &mut |line| display.say(line))
            .await?;
        reader::topics_ready(&site.config.kafka, &site.topics).await?;
        anyhow::Ok(site)
    };
    let site = tokio::select! {
        biased;
        // Stopped before it began: what was started is in `services`.
        () = stop.asked() => return Ok(true),
        site = start => site?,
    };
    for line in site.hints.lines() {
        display.say(&line);
    }
    let books = SharedBooks::new();
    let (phase, phases) = watch::channel(Phase::Running);
    let parts = Parts::start(&site, options.rate, &books).await?;
    let show = Show {
        books,
        started: Instant::now(),
    };
    display
        .open(&site.hints)
        .context("preparing the terminal")?;
    let scenario = parts.play(options.duration, stop.clone(), phase);
    tokio::pin!(scenario);
    let played = loop {
        tokio::select! {
            biased;
            // 1. It is over. The scenario is pinned and loses nothing.
            played = &mut scenario => break played,
            // 2. Time to draw. `tick` waits for a timer alone.
            () = display.tick() => {
                let snapshot = show.snapshot(*phases.borrow());
                if display.show(&snapshot) == Wish::Stop {
                    stop.ask();
                }
            }
        }
    };
    display.close();
    let settled = match played {
        Ok(settled) => settled,
        Err(error) => {
            log.take().iter().for_each(|line| eprintln!("{line}"));
            return Err(error);
        }
    };
    let mut faults = show.books.lock().faults();
    if !settled {
        faults.push("the relay stopped before everything was settled".to_owned());
    }
    display.sum_up(&show.snapshot(Phase::Draining), &faults);
    if !faults.is_empty() {
        log.take().iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(faults.is_empty())
}

/// Takes what is shown from the books.
struct Show {
    books: SharedBooks,
    started: Instant,
}

impl Show {
    fn snapshot(&self, phase: Phase) -> view::Snapshot {
        let now = Instant::now();
        let mut books = self.books.lock();
        view::Snapshot {
            phase,
            elapsed: now.saturating_duration_since(self.started),
            totals: books.totals().clone(),
            on_the_way: books.on_the_way(),
            rows_in: view::graph(books.rows_in(now)),
            events_out: view::graph(books.events_out(now)),
            recent: books.recent_latency(),
            overall: books.overall_latency(),
            shown: books.shown().cloned(),
        }
    }
}

/// Everything that runs, each with its own way to stop.
struct Parts {
    books: SharedBooks,
    shop: JoinHandle<anyhow::Result<()>>,
    stop_shop: watch::Sender<bool>,
    relay: JoinHandle<Result<Outcome, AppError>>,
    stop_relay: watch::Sender<bool>,
    reader: JoinHandle<()>,
    positions: Positions,
    by_hand: JoinHandle<anyhow::Result<()>>,
    counter: PgConnection,
}

impl Parts {
    async fn start(site: &Site, rate: u32, books: &SharedBooks) -> anyhow::Result<Parts> {
        let url = site.config.postgres.url.expose();
        let run = Uuid::now_v7();
        let reader = Reader::new(&site.config.kafka, &site.topics, run, books.clone()).await?;
        let positions = reader.positions();
        let (stop_relay, relay_stops) = watch::channel(false);
        let (stop_shop, shop_stops) = watch::channel(false);
        let app = App::build(site.config.clone())?.without_topic_rules();
        let shop = Shop {
            connection: services::connect(&url, site.schema).await?,
            books: books.clone(),
            rate,
            run,
        };
        let watched = services::connect(&url, site.schema).await?;
        Ok(Parts {
            books: books.clone(),
            reader: tokio::spawn(reader.run()),
            relay: tokio::spawn(app.run(relay_stops, Until::Stopped)),
            shop: tokio::spawn(shop.run(shop_stops)),
            by_hand: tokio::spawn(count_by_hand(watched, books.clone())),
            counter: services::connect(&url, site.schema).await?,
            stop_shop,
            stop_relay,
            positions,
        })
    }

    /// Inserts until the time is over or `stop` says so, then lets everything arrive. True if the relay
    /// settled all it had.
    async fn play(
        mut self,
        duration: Option<Duration>,
        stop: Stop,
        phase: watch::Sender<Phase>,
    ) -> anyhow::Result<bool> {
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // None of these keeps anything: handles are joined once, the rest are a flag and a timer.
            ended = &mut self.relay => return Err(early("the relay", flat(ended))),
            ended = &mut self.shop => return Err(early("the shop", flat(ended))),
            ended = &mut self.by_hand => return Err(early("the count of your rows", flat(ended))),
            ended = &mut self.reader => return Err(early("the reader", ended.context("it broke"))),
            () = stop.asked() => {}
            () = over => {}
        }
        phase.send_replace(Phase::Draining);
        self.stop_shop.send_replace(true);
        flat(self.shop.await)?;
        let deadline = Instant::now() + ARRIVAL_PATIENCE;
        loop {
            let by_hand = unsent_by_hand(&mut self.counter).await?;
            self.books.lock().count_by_hand(by_hand, Instant::now());
            let arrived = self.books.lock().on_the_way() == 0 && by_hand.unsent == 0;
            if arrived || Instant::now() > deadline {
                break;
            }
            if self.relay.is_finished() {
                return Err(early("the relay", flat(self.relay.await)));
            }
            tokio::time::sleep(POLL).await;
        }
        self.by_hand.abort();
        // Once the relay has stopped, whatever it ever sent is in the topics: a rolled back row that
        // slipped through would be as well.
        self.stop_relay.send_replace(true);
        let outcome = flat(self.relay.await).context("the relay failed")?;
        self.positions
            .reach_the_end(Instant::now() + READER_PATIENCE)
            .await?;
        self.reader.abort();
        Ok(outcome.ended.is_settled())
    }
}

fn flat<T, E: Into<anyhow::Error>>(
    ended: Result<Result<T, E>, tokio::task::JoinError>,
) -> anyhow::Result<T> {
    ended.context("it broke")?.map_err(Into::into)
}

fn early<T>(part: &str, ended: anyhow::Result<T>) -> anyhow::Error {
    match ended {
        Ok(_) => anyhow::anyhow!("{part} ended early"),
        Err(error) => error.context(format!("{part} failed")),
    }
}

/// Keeps the count of the user's own rows up to date.
async fn count_by_hand(mut connection: PgConnection, books: SharedBooks) -> anyhow::Result<()> {
    loop {
        let by_hand = unsent_by_hand(&mut connection).await?;
        books.lock().count_by_hand(by_hand, Instant::now());
        tokio::time::sleep(COUNT_BY_HAND).await;
    }
}

async fn unsent_by_hand(connection: &mut PgConnection) -> anyhow::Result<ByHand> {
    let (rows, unsent): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where sent_at is null) from outbox_events \
         where (headers->>'demo-run') is null",
    )
    .fetch_one(connection)
    .await
    .context("counting the rows inserted by hand")?;
    Ok(ByHand {
        rows: rows.unsigned_abs(),
        unsent: unsent.unsigned_abs(),
    })
}
