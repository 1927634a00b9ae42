//! Messages from Kafka: one thread that polls, so that a rebalance can wait there for the workers without
//! keeping a thread of the runtime from them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, Statistics, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::record::Record;
use crate::kafka::forward_log;
use crate::outage::{Outage, Retry};

/// How long one poll waits, and so how soon the thread notices that it is to end, or that a partition may
/// go on: soon beside the time that half a partition's buffer takes.
const POLL: Duration = Duration::from_millis(50);

/// Messages between the thread and the dispatcher, which takes them at once into its schedule: enough to
/// keep both busy, few beside what a partition may hold.
const CHANNEL: usize = 1_000;

/// A partition by its topic's name.
pub type Named = (Arc<str>, i32);

/// What the thread hands over, in the order in which it happened.
#[derive(Debug)]
pub enum Arrival {
    Record(Record),
    Assigned(Vec<Named>),
    /// The partitions go. The rebalance waits (bounded) for the positions to commit.
    Revoked {
        partitions: Vec<Named>,
        settled: std::sync::mpsc::SyncSender<Vec<(Named, i64)>>,
    },
    /// The group has given the partitions to others already; everything, if none is named.
    Lost(Option<Vec<Named>>),
    /// The client can do no more.
    Failed(KafkaError),
}

/// The thread and its client. Dropping it leaves the group.
pub struct Feed {
    pub arrivals: mpsc::Receiver<Arrival>,
    control: Control,
}

/// What may be asked of the client while the thread polls it.
///
/// Dropped in the order of the fields: the thread must be the last to hold the client, because closing it
/// runs the callbacks.
pub struct Control {
    client: Arc<BaseConsumer<Context>>,
    _end: End,
    ended: oneshot::Receiver<()>,
}

/// Tells the thread to end.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What librdkafka calls back.
pub struct Context {
    arrivals: mpsc::Sender<Arrival>,
    /// How long a rebalance waits for what is at work.
    patience: Duration,
    shared: Arc<Shared>,
}

/// What callbacks leave for the dispatcher to look at.
#[derive(Debug)]
pub struct Shared {
    seen: Mutex<HashMap<(String, i32), Seen>>,
    /// A commit was not taken: the positions are to be sent again.
    commit_failed: AtomicBool,
    /// Partitions to pause (true) or to let go on, by the thread between two polls.
    pressure: Mutex<Vec<(Named, bool)>>,
    kafka: Outage,
}

/// A partition when librdkafka last told.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// One more than the last message that a consumer may see: below the first open transaction.
    pub end: i64,
    /// What the group has committed; before that, where reading goes on.
    pub position: i64,
}

impl Shared {
    pub fn seen(&self, topic: &str, partition: i32) -> Option<Seen> {
        // A map of plain numbers: whole at any moment, whoever panicked.
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(topic.to_owned(), partition)).copied()
    }

    fn take_pressure(&self) -> Vec<(Named, bool)> {
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pressure)
    }

    /// Whether a commit failed since the last call.
    pub fn take_commit_failed(&self) -> bool {
        self.commit_failed.swap(false, Ordering::Relaxed)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.shared.kafka.note_down(reason),
            _ => {
                tracing::debug!(error.message = %error, error.reason = reason, "kafka client error")
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        let seen = &self.shared.seen;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, statistics) in statistics.topics {
            for (number, partition) in statistics.partitions {
                let positions = [partition.committed_offset, partition.next_offset];
                // What is not known is negative.
                let position = positions.into_iter().find(|position| *position >= 0);
                if let Some(position) = position
                    && partition.ls_offset >= 0
                {
                    let end = partition.ls_offset;
                    seen.insert((topic.clone(), number), Seen { end, position });
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, client: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            // A pause could outlive the assignment.
            press(client, self.shared.take_pressure());
            let resume = named(partitions)
                .into_iter()
                .map(|partition| (partition, false));
            press(client, resume.collect());
        }
        match rebalance {
            Rebalance::Assign(partitions) => {
                let partitions = named(partitions);
                tracing::info!(partitions = ?partitions, "partitions assigned");
                // Nobody listens only when the consumer ends.
                let _ = self.arrivals.blocking_send(Arrival::Assigned(partitions));
            }
            Rebalance::Revoke(partitions) if client.assignment_lost() => {
                let partitions = named(partitions);
                tracing::warn!(partitions = ?partitions, "partitions lost");
                let _ = self.arrivals.blocking_send(Arrival::Lost(Some(partitions)));
            }
            Rebalance::Revoke(partitions) => self.hand_over(client, named(partitions)),
            Rebalance::Error(error) => {
                tracing::warn!(error.message = %error, "rebalance failed");
                let _ = self.arrivals.blocking_send(Arrival::Lost(None));
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) => self.shared.kafka.note_up(),
            // Nothing to commit is no failure.
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::debug!(error.message = %error, "committing offsets failed");
                self.shared.commit_failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Context {
    /// Waits until what is at work for the partitions has ended, and commits.
    fn hand_over(&self, client: &BaseConsumer<Self>, partitions: Vec<Named>) {
        if partitions.is_empty() {
            return;
        }
        tracing::info!(partitions = ?partitions, "partitions revoked");
        let (settled, answer) = std::sync::mpsc::sync_channel(1);
        let revoked = Arrival::Revoked {
            partitions,
            settled,
        };
        if self.arrivals.blocking_send(revoked).is_err() {
            return;
        }
        let Ok(positions) = answer.recv_timeout(self.patience) else {
            tracing::warn!("gave partitions away with work in hand, which others will find done");
            return;
        };
        // What is not committed is read again by others, and found done.
        if let Some(list) = list(&positions)
            && let Err(error) = client.commit(&list, CommitMode::Sync)
        {
            tracing::debug!(error.message = %error, "committing revoked partitions failed");
        }
    }
}

impl Feed {
    /// Subscribes, in the background.
    ///
    /// # Errors
    /// When librdkafka refuses a property or a topic's name.
    pub fn start(
        config: &ClientConfig,
        topics: &[&str],
        patience: Duration,
    ) -> Result<Feed, KafkaError> {
        let (sender, arrivals) = mpsc::channel(CHANNEL);
        let context = Context {
            arrivals: sender.clone(),
            patience,
            shared: Arc::new(Shared {
                seen: Mutex::default(),
                commit_failed: AtomicBool::new(false),
                pressure: Mutex::default(),
                kafka: Outage::new("kafka"),
            }),
        };
        let client = Arc::new(BaseConsumer::from_config_and_context(config, context)?);
        client.subscribe(topics)?;
        let end = End(Arc::default());
        let (ended_tx, ended) = oneshot::channel();
        let mut poller = Poller {
            client: Arc::clone(&client),
            end: Arc::clone(&end.0),
            arrivals: sender,
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            errors: Retry::new(POLL),
        };
        std::thread::spawn(move || {
            let last = poller.arrivals.clone();
            if catch_unwind(AssertUnwindSafe(|| poller.run())).is_err() {
                let _ = last.blocking_send(Arrival::Failed(KafkaError::Canceled));
            }
            // Nobody waits if the consumer was dropped.
            let _ = ended_tx.send(());
        });
        Ok(Feed {
            arrivals,
            control: Control {
                client,
                _end: end,
                ended,
            },
        })
    }

    pub fn split(self) -> (mpsc::Receiver<Arrival>, Control) {
        (self.arrivals, self.control)
    }
}

impl Control {
    pub fn shared(&self) -> &Shared {
        &self.client.context().shared
    }

    /// Stops or starts fetching, after the next poll.
    ///
    /// Never here: librdkafka's call waits for each partition's own answer, which one that the other thread
    /// is unassigning at that moment seems not to give. A consumer that called it here stood still once.
    pub fn set_paused(&self, partition: Named, paused: bool) {
        let shared = self.shared();
        let mut pressure = shared
            .pressure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pressure.push((partition, paused));
    }

    /// Hands positions over to be committed, without waiting.
    pub fn commit(&self, positions: &[(Named, i64)]) {
        if let Some(list) = list(positions)
            && let Err(error) = self.client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(error.message = %error, "committing offsets failed");
            let shared = self.shared();
            shared.commit_failed.store(true, Ordering::Relaxed);
        }
    }

    /// Commits, leaves the group, and waits for both, each at most for the client's own time-outs.
    pub async fn close(self, positions: Vec<(Named, i64)>) {
        if let Some(list) = list(&positions) {
            let client = Arc::clone(&self.client);
            let commit = move || client.commit(&list, CommitMode::Sync);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(commit).await {
                tracing::warn!(error.message = %error, "committing the last offsets failed");
            }
        }
        let Control {
            client,
            _end: end,
            ended,
        } = self;
        drop(client);
        drop(end);
        // The thread says so, or has ended by itself.
        let _ = ended.await;
    }
}

/// The thread's own.
struct Poller {
    client: Arc<BaseConsumer<Context>>,
    end: Arc<AtomicBool>,
    arrivals: mpsc::Sender<Arrival>,
    topics: Vec<Arc<str>>,
    errors: Retry,
}

/// Pauses or resumes partitions that are assigned; a new assignment starts unpaused.
fn press(client: &BaseConsumer<Context>, changes: Vec<(Named, bool)>) {
    let Ok(assigned) = client.assignment() else {
        return;
    };
    for ((topic, partition), paused) in changes {
        if assigned.find_partition(&topic, partition).is_none() {
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, partition);
        let done = match paused {
            true => client.pause(&list),
            false => client.resume(&list),
        };
        if let Err(error) = done {
            tracing::debug!(error.message = %error, "pausing or resuming failed");
        }
    }
}

impl Poller {
    fn run(&mut self) {
        while !self.end.load(Ordering::Relaxed) {
            let client = Arc::clone(&self.client);
            let changes = client.context().shared.take_pressure();
            if !changes.is_empty() {
                press(&client, changes);
            }
            let arrival = match client.poll(POLL) {
                None => continue,
                Some(Ok(message)) => {
                    let topic = self.topic(message.topic());
                    Arrival::Record(Record::of(topic, &message))
                }
                Some(Err(error)) if client.client().fatal_error().is_some() => {
                    Arrival::Failed(error)
                }
                Some(Err(error)) => {
                    // A topic that does not exist yet or is not allowed, a broker that comes back.
                    if self.errors.is_news(&error.to_string(), Instant::now()) {
                        tracing::warn!(error.message = %error, "reading from kafka failed");
                    }
                    continue;
                }
            };
            if self.arrivals.blocking_send(arrival).is_err() {
                break;
            }
        }
        // Invariant: the client is closed here, since that runs the callbacks, which may wait.
        while !self.end.load(Ordering::Relaxed) {
            std::thread::sleep(POLL);
        }
    }

    fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some(topic) = self.topics.iter().find(|topic| ***topic == *name) {
            return Arc::clone(topic);
        }
        // Of a subscription by pattern.
        let topic = Arc::from(name);
        self.topics.push(Arc::clone(&topic));
        topic
    }
}

fn named(list: &TopicPartitionList) -> Vec<Named> {
    let elements = list.elements();
    let named = elements
        .iter()
        .map(|element| (element.topic().into(), element.partition()));
    named.collect()
}

/// Nothing if there is nothing to commit.
fn list(positions: &[(Named, i64)]) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in positions {
        // Only an offset that means something else is refused; ours are those of messages.
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
    }
    (list.count() > 0).then_some(list)
}
