//! The loop that moves a lane: rows in, messages out, reports back, marks on. What may happen is decided
//! by [`Window`]; here it happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

mod admitting;
mod deciding;
mod failing;
mod producing;
mod shown;
mod trial;

use super::Ended;
use super::breaker::Breaker;
use super::caution::Caution;
use super::lease::Validity;
use super::mark::{Marked, Marker};
use super::outbound::Outbound;
use super::park::{Order, Parker, Parks, Wishes};
use super::router::{Batch, Origin};
use super::source::{Allowance, Directions, Source};
use super::status::{Moved, Progress};
use super::topics::{TopicAnswer, TopicDesk};
use super::window::{Backoff, Limits, Outgoing, TopicId, Window};
use crate::admin::metrics::OutboxMetrics;
use crate::config::{OnPoison, RelayConfig};
use crate::db::lease::Deaths;
use crate::event::EventRef;
use crate::kafka::{KafkaClient, KafkaSetupError, Report, Topics};
use crate::otlp::Spans;
use crate::outage::jittered;

/// How long a failing key waits: long enough not to burden anyone, short enough that a mended broker
/// setting is noticed soon.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    most: Duration::from_secs(30),
};

/// What the lane looks after by the clock: the lease, a stall, the age of its oldest row.
const TICK: Duration = Duration::from_millis(200);

/// How a lane ended.
#[derive(Debug)]
pub enum LaneEnd {
    /// As asked.
    Stopped(Ended),
    /// The lease ran out or went to another relay.
    LeaseLost,
    /// A part of it ended that must not.
    Broken(String),
}

/// What a lane is made of.
pub struct LaneParts {
    pub name: String,
    pub source: Source,
    pub marker: Marker,
    pub parker: Parker,
    pub poison: Poison,
    pub deaths: Deaths,
    pub kafka: KafkaClient,
    pub topics: Topics,
    pub validity: Arc<Validity>,
    pub progress: Arc<Progress>,
    pub metrics: OutboxMetrics,
    pub spans: Option<Spans>,
    pub limits: Limits,
    pub settings: RelayConfig,
    pub stop: watch::Receiver<bool>,
}

/// What is done about rows that cannot be published.
#[derive(Debug, Clone, Copy)]
pub struct Poison {
    pub on_poison: OnPoison,
    pub max_attempts: u32,
    pub breaker_errors: u32,
}

/// See the module's documentation.
pub struct Lane {
    parts: LaneCore,
    source: Source,
    marker: Marker,
    parker: Parker,
    work: Work,
}

/// What the marker and the parker are given to do.
struct Work {
    to_mark: mpsc::UnboundedReceiver<Vec<EventRef>>,
    orders: mpsc::UnboundedReceiver<Order>,
}

/// The lane without the parts that become tasks.
struct LaneCore {
    name: String,
    topics: TopicDesk,
    validity: Arc<Validity>,
    progress: Arc<Progress>,
    metrics: OutboxMetrics,
    spans: Option<Spans>,
    settings: RelayConfig,
    stop: watch::Receiver<bool>,
    window: Window,
    breaker: Breaker,
    poison: Poison,
    outbound: Outbound,
    /// Rows that were handed over and find no room yet.
    inbox: VecDeque<Outgoing>,
    inbox_origin: Origin,
    /// Tells the source where to begin a pass for held rows.
    passes: watch::Sender<Option<i64>>,
    acknowledged: mpsc::UnboundedSender<Vec<EventRef>>,
    orders: mpsc::UnboundedSender<Order>,
    /// How owners before this one ended, and what is done about it.
    deaths: Deaths,
    caution: Caution,
    allowance: watch::Sender<Allowance>,
    /// What was parked before is known; until then no row is taken.
    is_loaded: bool,
    /// Every decision was acted upon when somebody last looked.
    all_is_decided: bool,
    /// What people want of the outbox and its topics.
    wishes: Wishes,
    /// Keys that such rows block, by topics that are not numbered yet.
    blocked: HashMap<Box<str>, Vec<BlockedKey>>,
    reports: Vec<Report>,
    /// Since progress was last shown.
    moved: Moved,
    /// When what is held was last listed.
    listed_at: Instant,
    stopping: bool,
    source_done: bool,
    probed_at: Instant,
    /// Producers that were made anew since Kafka last took a row, or one was parked.
    vain_rebuilds: u32,
    /// Nothing goes out before.
    sending_from: Instant,
}

/// A key that a parked row blocks.
struct BlockedKey {
    key: Box<[u8]>,
    /// The row's id.
    from: i64,
    /// Nothing blocks it any more: its rows come with a pass.
    is_decided: bool,
}

/// What happened next.
enum Next {
    Stop,
    GiveUp,
    Tick,
    /// Nothing: the marker has ended.
    Marked(Option<Marked>),
    Reports,
    Topic(TopicAnswer),
    /// Nothing: the parker has ended.
    Parks(Option<Parks>),
    Wake,
    /// Nothing: the source has ended.
    Rows(Option<Batch>),
}

impl Lane {
    /// # Errors
    /// When Kafka's client refuses a property.
    pub fn new(parts: LaneParts) -> Result<Lane, KafkaSetupError> {
        let (acknowledged, to_mark) = mpsc::unbounded_channel();
        let (orders_tx, orders) = mpsc::unbounded_channel();
        let client_rules = parts.kafka.rules();
        let outbound = Outbound::new(parts.kafka, parts.limits)?;
        let core = LaneCore {
            name: parts.name.clone(),
            topics: TopicDesk::new(parts.name, client_rules, parts.topics),
            validity: parts.validity,
            progress: parts.progress,
            metrics: parts.metrics,
            spans: parts.spans,
            settings: parts.settings,
            stop: parts.stop,
            window: Window::new(parts.limits, BACKOFF),
            breaker: Breaker::new(parts.poison.breaker_errors, BACKOFF),
            poison: parts.poison,
            outbound,
            inbox: VecDeque::new(),
            inbox_origin: Origin::Poll,
            passes: watch::Sender::new(None),
            acknowledged,
            orders: orders_tx,
            deaths: parts.deaths,
            caution: Caution::Off,
            allowance: watch::Sender::new(Allowance::default()),
            is_loaded: false,
            all_is_decided: false,
            wishes: Wishes::default(),
            blocked: HashMap::new(),
            reports: Vec::new(),
            moved: Moved::default(),
            listed_at: Instant::now(),
            stopping: false,
            source_done: false,
            probed_at: Instant::now(),
            vain_rebuilds: 0,
            sending_from: Instant::now(),
        };
        Ok(Lane {
            parts: core,
            source: parts.source,
            marker: parts.marker,
            parker: parts.parker,
            work: Work { to_mark, orders },
        })
    }

    /// Runs until asked to stop, or the lease is lost.
    pub async fn run(self) -> LaneEnd {
        let Lane {
            parts: mut core,
            source,
            marker,
            parker,
            work: Work { to_mark, orders },
        } = self;
        // One batch waits while another is worked on.
        let (rows_tx, rows) = mpsc::channel(1);
        let (marked_tx, marked) = mpsc::unbounded_channel();
        let (parks_tx, parks) = mpsc::unbounded_channel();
        let (stop_reading, reading) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let directions = Directions {
            stop: reading,
            passes: core.passes.subscribe(),
            allowance: core.allowance.subscribe(),
        };
        tasks.spawn(source.run(rows_tx, directions));
        tasks.spawn(marker.run(to_mark, marked_tx));
        tasks.spawn(parker.run(orders, parks_tx));
        let news = News {
            rows,
            marked,
            parks,
        };
        let end = core.work(news, &stop_reading).await;
        tasks.shutdown().await;
        core.outbound.close().await;
        end
    }
}

/// What the lane's tasks tell it.
struct News {
    rows: mpsc::Receiver<Batch>,
    marked: mpsc::UnboundedReceiver<Marked>,
    parks: mpsc::UnboundedReceiver<Parks>,
}

impl LaneCore {
    async fn work(&mut self, news: News, stop_reading: &watch::Sender<bool>) -> LaneEnd {
        let News {
            mut rows,
            mut marked,
            mut parks,
        } = news;
        let mut tick = interval(jittered(TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = tokio::time::Instant::now();
        loop {
            self.send();
            if let Some(reason) = self.outbound.needs_rebuild() {
                self.rebuild(reason).await;
                continue;
            }
            if self.outbound.is_to_refit() && self.window.fill().in_flight == 0 {
                self.outbound.refit().await;
                // Nothing was, but the new producer is unknown to the brokers.
                self.window.producer_lost([], Instant::now());
                continue;
            }
            self.show_progress();
            self.watch_trial();
            if self.is_finished() {
                return LaneEnd::Stopped(Ended {
                    undecided: self.window.undecided(),
                    ..Ended::default()
                });
            }
            let wake = self.window.next_wake();
            let wake_at =
                wake.map_or_else(tokio::time::Instant::now, tokio::time::Instant::from_std);
            let takes_rows = self.is_loaded && self.inbox.is_empty() && !self.stopping;
            // Nothing here keeps anything between calls: channels and sets lose nothing when their
            // receiving is given up, a sleep is made anew, and waiting for reports takes none.
            let next = tokio::select! {
                biased;
                // 1. Asked to stop.
                _ = self.stop.wait_for(|stop| *stop), if !self.stopping => Next::Stop,
                // 2. The window did not settle in time.
                () = sleep_until(deadline), if self.stopping => Next::GiveUp,
                // 3. By the clock.
                _ = tick.tick() => Next::Tick,
                // 4. Marks are confirmed.
                confirmed = marked.recv() => Next::Marked(confirmed),
                // 5. Messages came back.
                () = self.outbound.reported() => Next::Reports,
                // 6. A topic's state is known.
                answer = self.topics.answered() => Next::Topic(answer),
                // 7. Rows are parked, or were decided about.
                news = parks.recv() => Next::Parks(news),
                // 8. A failed key may go on.
                () = sleep_until(wake_at), if wake.is_some() => Next::Wake,
                // 9. Rows, when the last ones are in.
                batch = rows.recv(), if takes_rows => Next::Rows(batch),
            };
            match next {
                Next::Stop => {
                    self.stopping = true;
                    deadline = tokio::time::Instant::now() + self.settings.shutdown_deadline;
                    // Nobody listens when the source has ended by itself.
                    let _ = stop_reading.send(true);
                    self.inbox.clear();
                }
                Next::GiveUp => return self.give_up().await,
                Next::Tick => {
                    if let Some(end) = self.tick().await {
                        return end;
                    }
                }
                Next::Marked(Some(Marked::Done(count))) => self.take_marks(count),
                Next::Marked(Some(Marked::Fenced)) => return LaneEnd::LeaseLost,
                Next::Marked(None) => return LaneEnd::Broken("the marker ended".to_owned()),
                Next::Reports => self.take_reports(),
                Next::Topic(answer) => self.take_topic(answer),
                Next::Parks(Some(parks)) => {
                    if !self.take_parks(parks) {
                        return LaneEnd::LeaseLost;
                    }
                }
                Next::Parks(None) => return LaneEnd::Broken("the parker ended".to_owned()),
                Next::Wake => self.window.wake(Instant::now()),
                Next::Rows(Some(batch)) => self.take_rows(batch),
                Next::Rows(None) => return LaneEnd::Broken("the source ended".to_owned()),
            }
            self.admit_and_show();
        }
    }

    fn take_marks(&mut self, count: usize) {
        self.window.marked(count);
        self.moved.marked = true;
        self.make_progress();
        self.metrics.marked.inc_by(count as u64);
    }

    fn is_finished(&self) -> bool {
        if self.stopping {
            return self.window.is_settled();
        }
        let is_read = self.source_done && self.inbox.is_empty();
        is_read && self.all_is_decided && self.window.waits_for_people()
    }

    fn hand_to_marker(&self, events: Vec<EventRef>) {
        // A marker that has ended is noticed by the main loop.
        let _ = self.acknowledged.send(events);
    }

    fn show_progress(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        self.progress.filled(self.window.fill(), moved);
    }

    async fn tick(&mut self) -> Option<LaneEnd> {
        if !self.validity.is_valid() {
            return Some(LaneEnd::LeaseLost);
        }
        self.show();
        self.try_suspect_topics();
        self.begin_trial().await;
        self.outbound.tidy(self.window.fill().held_keys == 0);
        let stalled = self.window.fill().in_flight > 0
            && self
                .progress
                .unacknowledged_for()
                .is_some_and(|waiting| waiting >= self.settings.stall_timeout)
            && self.probed_at.elapsed() >= self.settings.stall_timeout;
        if stalled && !self.stopping {
            self.probed_at = Instant::now();
            if self.topics.cluster_answers().await {
                self.rebuild("a producer stalled although kafka answers")
                    .await;
            }
        }
        None
    }
}
