//! The loop that moves everything: messages in, batches to workers, positions to Kafka. What may happen is
//! decided by [`Schedule`]; here it happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::commits::Commits;
use super::feed::{Arrival, Control, Feed, Named};
use super::metrics::ConsumerMetrics;
use super::record::Record;
use super::schedule::{Backoff, Job, Limits, Order, Outcome, Partition, Schedule};
use super::worker::{Message, Worker};
use crate::outage::jittered;

/// How often positions are committed. What is read again after a crash is found done.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that are taken from the feed at a time.
const ARRIVALS: usize = 500;

/// What a dispatcher is made of.
pub struct Settings {
    pub workers: usize,
    /// Messages of one transaction.
    pub batch: usize,
    pub limits: Limits,
    pub backoff: Backoff,
    /// How long the end waits for what is at work.
    pub shutdown_deadline: Duration,
}

/// Why it ended without being asked to.
#[derive(Debug)]
pub enum Broken {
    Kafka(KafkaError),
    Feed,
    Worker(JoinError),
}

/// See the module's documentation.
pub struct Dispatcher {
    settings: Settings,
    worker: Arc<Worker>,
    metrics: ConsumerMetrics,
    control: Control,
    schedule: Schedule<Message>,
    at_work: JoinSet<Vec<(Job<Message>, Outcome)>>,
    topics: Vec<Arc<str>>,
    commits: Commits,
    hand_overs: Vec<HandOver>,
}

/// Partitions that a rebalance takes, with work in hand.
struct HandOver {
    partitions: Vec<Partition>,
    settled: std::sync::mpsc::SyncSender<Vec<(Named, i64)>>,
}

enum Next {
    Stop,
    GiveUp,
    Finished(Result<Vec<(Job<Message>, Outcome)>, JoinError>),
    Tick,
    Wake,
    Arrivals(usize),
}

impl Dispatcher {
    pub fn new(
        settings: Settings,
        worker: Worker,
        feed: Feed,
    ) -> (Dispatcher, mpsc::Receiver<Arrival>) {
        let (arrivals, control) = feed.split();
        let dispatcher = Dispatcher {
            metrics: worker.metrics.clone(),
            worker: Arc::new(worker),
            control,
            schedule: Schedule::new(settings.limits, settings.backoff),
            at_work: JoinSet::new(),
            topics: Vec::new(),
            commits: Commits::default(),
            hand_overs: Vec::new(),
            settings,
        };
        (dispatcher, arrivals)
    }

    /// Runs until `stop` ends; then waits for what is at work, commits, and leaves the group. Returns how
    /// many batches did not end in time: their events are free and come again.
    pub async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        stop: impl Future<Output = ()>,
    ) -> Result<usize, Broken> {
        let ended = self.work(&mut arrivals, stop).await;
        let unfinished = self.at_work.len();
        // Their transactions roll back.
        self.at_work.shutdown().await;
        // From here on nobody answers a rebalance, and none waits.
        drop(arrivals);
        self.hand_overs.clear();
        self.collect_positions();
        for partition in self.schedule.partitions() {
            let (topic, number) = self.named(partition);
            self.metrics.forget_lag(&topic, number);
        }
        let positions = self.commits.positions();
        let positions = positions
            .map(|(partition, position)| (self.named(partition), position))
            .collect();
        self.control.close(positions).await;
        ended.map(|()| unfinished)
    }

    async fn work(
        &mut self,
        arrivals: &mut mpsc::Receiver<Arrival>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Broken> {
        let mut stop = std::pin::pin!(stop);
        let mut stopping = false;
        let mut deadline = tokio::time::Instant::now();
        let mut tick = interval(jittered(COMMIT_INTERVAL));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = Vec::with_capacity(ARRIVALS);
        loop {
            if !stopping {
                self.dispatch();
            } else if self.at_work.is_empty() {
                return Ok(());
            }
            self.press();
            self.hand_over();
            let wake = self.schedule.next_wake();
            let wake_at =
                wake.map_or_else(tokio::time::Instant::now, tokio::time::Instant::from_std);
            // Nothing here keeps anything between calls: sets and channels lose nothing when their
            // receiving is given up, a sleep is made anew, and the stop is kept outside.
            let next = tokio::select! {
                biased;
                // 1. Asked to stop.
                () = &mut stop, if !stopping => Next::Stop,
                // 2. What is at work did not end in time.
                () = sleep_until(deadline), if stopping => Next::GiveUp,
                // 3. A batch came back.
                Some(done) = self.at_work.join_next(), if !self.at_work.is_empty() => {
                    Next::Finished(done)
                }
                // 4. By the clock.
                _ = tick.tick() => Next::Tick,
                // 5. A failed key may go on.
                () = sleep_until(wake_at), if wake.is_some() && !stopping => Next::Wake,
                // 6. Messages, and what becomes of partitions.
                count = arrivals.recv_many(&mut buffer, ARRIVALS) => Next::Arrivals(count),
            };
            match next {
                Next::Stop => {
                    stopping = true;
                    deadline = tokio::time::Instant::now() + self.settings.shutdown_deadline;
                }
                Next::GiveUp => return Ok(()),
                Next::Finished(Ok(batch)) => {
                    self.schedule.finish(batch, Instant::now(), jittered);
                }
                Next::Finished(Err(error)) => return Err(Broken::Worker(error)),
                Next::Tick => self.tick(),
                Next::Wake => self.schedule.wake(Instant::now()),
                Next::Arrivals(0) => return Err(Broken::Feed),
                Next::Arrivals(_) => {
                    for arrival in buffer.drain(..) {
                        self.take(arrival)?;
                    }
                }
            }
        }
    }

    /// Gives every idle worker a batch.
    fn dispatch(&mut self) {
        while self.at_work.len() < self.settings.workers {
            let batch = self.schedule.next_batch(self.settings.batch);
            if batch.is_empty() {
                return;
            }
            self.at_work.spawn(Arc::clone(&self.worker).run(batch));
        }
    }

    fn take(&mut self, arrival: Arrival) -> Result<(), Broken> {
        match arrival {
            Arrival::Record(record) => self.admit(record),
            Arrival::Assigned(partitions) => {
                for partition in &partitions {
                    let partition = self.numbered(partition);
                    for hand_over in &mut self.hand_overs {
                        hand_over.partitions.retain(|of| *of != partition);
                    }
                    self.forget(partition);
                    // A pause of the last assignment may still be under way.
                    self.control.set_paused(self.named(partition), false);
                    self.schedule.assign(partition);
                }
            }
            Arrival::Revoked {
                partitions,
                settled,
            } => {
                let numbers = partitions.iter().map(|partition| self.numbered(partition));
                let partitions: Vec<Partition> = numbers.collect();
                for partition in &partitions {
                    self.schedule.retire(*partition);
                }
                self.hand_overs.push(HandOver {
                    partitions,
                    settled,
                });
            }
            Arrival::Lost(partitions) => {
                let lost = match partitions {
                    Some(partitions) => {
                        let numbers = partitions.iter().map(|partition| self.numbered(partition));
                        numbers.collect()
                    }
                    None => self.schedule.partitions().collect::<Vec<_>>(),
                };
                for partition in lost {
                    self.schedule.revoke(partition);
                    self.forget(partition);
                }
            }
            Arrival::Failed(error) => return Err(Broken::Kafka(error)),
        }
        Ok(())
    }

    fn admit(&mut self, record: Record) {
        let partition = Partition {
            topic: self.topic(&record.topic),
            number: record.partition,
        };
        let order = match &record.key {
            Some(key) => Order::Key(Arc::from(&**key)),
            None => Order::None(record.offset),
        };
        let (offset, size) = (record.offset, record.size());
        self.schedule
            .admit(partition, offset, order, size, Arc::new(record));
    }

    /// Pauses partitions that hold too much, and lets others go on.
    fn press(&mut self) {
        for (partition, paused) in self.schedule.take_pressure() {
            let partition = self.named(partition);
            self.control.set_paused(partition, paused);
        }
    }

    /// Answers the rebalances whose partitions have nothing at work any more.
    fn hand_over(&mut self) {
        let mut index = 0;
        while let Some(hand_over) = self.hand_overs.get(index) {
            let busy = |partition: &Partition| self.schedule.is_at_work(*partition);
            if hand_over.partitions.iter().any(busy) {
                index += 1;
                continue;
            }
            let hand_over = self.hand_overs.swap_remove(index);
            self.collect_positions();
            let mut positions = Vec::new();
            for partition in hand_over.partitions {
                if let Some(position) = self.commits.position(partition) {
                    positions.push((self.named(partition), position));
                }
                self.schedule.revoke(partition);
                self.forget(partition);
            }
            // The rebalance may have stopped waiting.
            let _ = hand_over.settled.send(positions);
        }
    }

    fn tick(&mut self) {
        self.collect_positions();
        let answers = self.control.shared().take_commit_answers();
        for (partition, position) in answers.confirmed {
            let partition = self.numbered(&partition);
            self.commits.confirmed(partition, position);
        }
        if answers.has_failed {
            self.commits.failed();
        }
        let due = self.commits.take_due().into_iter();
        let due: Vec<(Named, i64)> = due
            .map(|(partition, position)| (self.named(partition), position))
            .collect();
        self.control.commit(&due);
        self.show_lag();
    }

    /// How far each partition's first message that is not done is from its end.
    fn show_lag(&self) {
        for partition in self.schedule.partitions() {
            let (topic, number) = self.named(partition);
            let Some(seen) = self.control.shared().seen(&topic, number) else {
                continue;
            };
            let open = self.schedule.first_open(partition);
            let position = open.or_else(|| self.commits.position(partition));
            let lag = seen.end - position.unwrap_or(seen.position);
            self.metrics.set_lag(&topic, number, lag.max(0));
        }
    }

    fn collect_positions(&mut self) {
        for (partition, position) in self.schedule.take_positions() {
            self.commits.reached(partition, position);
        }
    }

    /// The partition's position is not ours to commit any more.
    fn forget(&mut self, partition: Partition) {
        self.commits.forget(partition);
        let (topic, number) = self.named(partition);
        self.metrics.forget_lag(&topic, number);
    }

    fn topic(&mut self, name: &Arc<str>) -> u32 {
        let known = self.topics.iter().position(|topic| topic == name);
        let index = known.unwrap_or_else(|| {
            self.topics.push(Arc::clone(name));
            self.topics.len() - 1
        });
        // A consumer of 4 billion topics has other problems.
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn numbered(&mut self, (topic, number): &Named) -> Partition {
        Partition {
            topic: self.topic(topic),
            number: *number,
        }
    }

    fn named(&self, partition: Partition) -> Named {
        let name = self.topics.get(partition.topic as usize);
        (name.cloned().unwrap_or_default(), partition.number)
    }
}
