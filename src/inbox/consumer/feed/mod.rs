//! Messages from Kafka: one thread that polls, so that a rebalance can wait there for the workers without
//! keeping a thread of the runtime from them.

mod callbacks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message as _};
use tokio::sync::{mpsc, oneshot};

use super::record::Record;
use crate::kafka::{Causes, Login};
use crate::outage::Retry;
use callbacks::{Context, Shared, list, press};

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

impl Feed {
    /// Subscribes, in the background.
    ///
    /// # Errors
    /// When librdkafka refuses a property or a topic's name.
    pub fn start(
        config: &ClientConfig,
        login: &Login,
        topics: &[&str],
        patience: Duration,
    ) -> Result<Feed, KafkaError> {
        let (sender, arrivals) = mpsc::channel(CHANNEL);
        let causes = Causes::new(config);
        let context = Context::new(sender.clone(), patience, causes, login.clone());
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
        self.client.context().shared()
    }

    /// Stops or starts fetching, after the next poll.
    ///
    /// Never here: librdkafka's call waits for each partition's own answer, which one that the other thread
    /// is unassigning at that moment seems not to give. A consumer that called it here stood still once.
    pub fn set_paused(&self, partition: Named, paused: bool) {
        self.shared().press_later(partition, paused);
    }

    /// Hands positions over to be committed, without waiting.
    pub fn commit(&self, positions: &[(Named, i64)]) {
        if let Some(list) = list(positions)
            && let Err(error) = self.client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(error.message = %error, "committing offsets failed");
            self.shared().note_commit_failed();
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

impl Poller {
    fn run(&mut self) {
        while !self.end.load(Ordering::Relaxed) {
            let client = Arc::clone(&self.client);
            let changes = client.context().shared().take_pressure();
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
