//! The benchmark's consumer: reads whole topics of its own, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::BenchError;
use crate::envelope::header;
use crate::event::EventRef;
use crate::kafka::{KafkaClient, Login};

/// How long one call waits for a message, and thus how soon the thread notices that it is to end.
const POLL: Duration = Duration::from_millis(100);

/// How long the topic may bring nothing while something must still be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a question about offsets may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A message that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Nothing: it has no event id.
    pub event_id: Option<Uuid>,
    pub at: Instant,
}

/// Reads until it is dropped.
pub struct Consumer {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    _end: End,
}

/// Ends a thread, when it is dropped, with the thread's next message or [`POLL`].
#[derive(Default)]
struct End(Arc<AtomicBool>);

impl End {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Consumer {
    /// Reads the topic from its beginning as messages come.
    ///
    /// # Errors
    /// When Kafka's client refuses a property.
    pub fn start(
        kafka: &KafkaClient,
        topic: &str,
        partitions: i32,
    ) -> Result<Consumer, BenchError> {
        let consumer = open(kafka, topic, partitions)?;
        let end = End::default();
        let ended = end.flag();
        // Unbounded, so that the time of arrival is never that of somebody's reading; bounded by the
        // load, whose every event is kept anyway.
        let (arrived, arrivals) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || {
            while !ended.load(Ordering::Relaxed) {
                let polled = consumer.poll(POLL);
                let at = Instant::now();
                // Errors of single connections pass; what is lost for good shows as missing.
                let Some(Ok(message)) = polled else { continue };
                let event_id = event_id(&message);
                if arrived.send(Arrival { event_id, at }).is_err() {
                    return;
                }
            }
        });
        Ok(Consumer {
            arrivals,
            _end: end,
        })
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// When none comes for long.
    pub async fn arrival(&mut self) -> Result<Arrival, BenchError> {
        let arrival = tokio::time::timeout(PATIENCE, self.arrivals.recv()).await;
        arrival.ok().flatten().ok_or_else(|| BenchError::Stalled {
            awaited: "an event to arrive at the consumer".to_owned(),
            seconds: PATIENCE.as_secs(),
        })
    }
}

/// What arrived of a backlog, compared with the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Different events of the backlog that arrived.
    pub arrived: usize,
    /// Rows whose event did not.
    pub missing: usize,
    /// Copies beyond the first.
    pub duplicates: usize,
    /// Messages that are no event of the backlog.
    pub unknown: usize,
    /// First copies that came after a later one of their key.
    pub out_of_order: usize,
}

/// Reads all that is in the topic and compares it with the rows it must hold.
///
/// # Errors
/// When the topic cannot be read.
pub async fn verify(
    kafka: &KafkaClient,
    topic: &str,
    partitions: i32,
    rows: Vec<EventRef>,
) -> Result<Verdict, BenchError> {
    let consumer = open(kafka, topic, partitions)?;
    let (topic, login) = (topic.to_owned(), kafka.login().clone());
    // Dropped with this future: then nobody waits for the verdict.
    let end = End::default();
    let ended = end.flag();
    let read = move || {
        let mut check = Check::new(rows.into_iter().map(|row| (row.event_id, row.id)));
        let mut messages = 0;
        login.prepare(consumer.client())?;
        for partition in 0..partitions {
            let (low, high) = consumer
                .fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)
                .map_err(BenchError::kafka(format!(
                    "asking for the offsets of partition {partition} of \"{topic}\""
                )))?;
            messages += high - low;
        }
        let mut moved_at = Instant::now();
        while messages > 0 && !ended.load(Ordering::Relaxed) {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    check.message(message.key().unwrap_or_default(), event_id(&message));
                    messages -= 1;
                    moved_at = Instant::now();
                }
                Some(Err(_)) | None if moved_at.elapsed() > PATIENCE => {
                    return Err(BenchError::Stalled {
                        awaited: format!("{messages} messages of topic \"{topic}\""),
                        seconds: PATIENCE.as_secs(),
                    });
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(check.verdict())
    };
    tokio::task::spawn_blocking(read).await?
}

/// Compares messages, in the order of their partitions, with the rows they come from.
pub struct Check {
    /// The rows by event id.
    rows: HashMap<Uuid, i64>,
    seen: HashSet<Uuid>,
    /// The last row of each key.
    last: HashMap<Box<[u8]>, i64>,
    verdict: Verdict,
}

impl Check {
    /// The events with numbers that ascend within each key.
    pub fn new(events: impl Iterator<Item = (Uuid, i64)>) -> Check {
        let rows: HashMap<Uuid, i64> = events.collect();
        Check {
            seen: HashSet::with_capacity(rows.len()),
            rows,
            last: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    pub fn message(&mut self, key: &[u8], event_id: Option<Uuid>) {
        let row = event_id.and_then(|event_id| self.rows.get_key_value(&event_id));
        let Some((event_id, row)) = row else {
            self.verdict.unknown += 1;
            return;
        };
        if !self.seen.insert(*event_id) {
            self.verdict.duplicates += 1;
            return;
        }
        match self.last.get_mut(key) {
            Some(last) if *last > *row => self.verdict.out_of_order += 1,
            Some(last) => *last = *row,
            None => {
                self.last.insert(key.into(), *row);
            }
        }
    }

    pub fn verdict(&self) -> Verdict {
        Verdict {
            arrived: self.seen.len(),
            missing: self.rows.len() - self.seen.len(),
            ..self.verdict
        }
    }
}

fn open(
    kafka: &KafkaClient,
    topic: &str,
    partitions: i32,
) -> Result<BaseConsumer<Login>, BenchError> {
    let action = || BenchError::kafka(format!("consuming topic \"{topic}\""));
    let consumer: BaseConsumer<Login> = kafka
        .base(&[])
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        // Whatever is there is sent at once; the broker answers a waiting fetch when something comes.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100")
        // Else a full local queue pauses the partition for a second.
        .set("fetch.queue.backoff.ms", "1")
        .create_with_context(kafka.login().clone())
        .map_err(action())?;
    let mut start = TopicPartitionList::new();
    for partition in 0..partitions {
        start
            .add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(action())?;
    }
    consumer.assign(&start).map_err(action())?;
    Ok(consumer)
}

/// The id of an event in any envelope: where each has it, cheapest first.
fn event_id(message: &BorrowedMessage<'_>) -> Option<Uuid> {
    let headers = message.headers()?;
    let names = [header::EVENT_ID, "ce_id", "id"];
    let in_header = headers.iter().find(|header| names.contains(&header.key));
    match in_header {
        Some(header) => Uuid::try_parse_ascii(header.value?).ok(),
        None => {
            #[derive(Deserialize)]
            struct Structured<'m> {
                id: &'m str,
            }
            let event: Structured<'_> = serde_json::from_slice(message.payload()?).ok()?;
            Uuid::try_parse(event.id).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ids: &[u128], messages: &[(&str, u128)]) -> Verdict {
        let events = ids.iter().map(|id| (Uuid::from_u128(*id), *id as i64));
        let mut check = Check::new(events);
        for (key, id) in messages {
            check.message(key.as_bytes(), Some(Uuid::from_u128(*id)));
        }
        check.verdict()
    }

    #[test]
    fn a_complete_topic_in_the_order_of_its_keys_has_no_faults() {
        let found = verdict(&[1, 2, 3], &[("b", 2), ("a", 1), ("a", 3)]);
        let expected = Verdict {
            arrived: 3,
            ..Verdict::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn losses_copies_strangers_and_inversions_are_told_apart() {
        let messages = [("a", 2), ("a", 1), ("a", 2), ("b", 9), ("a", 3)];
        let expected = Verdict {
            arrived: 3,
            missing: 1,
            duplicates: 1,
            unknown: 1,
            out_of_order: 1,
        };
        assert_eq!(verdict(&[1, 2, 3, 4], &messages), expected);
    }

    #[test]
    fn a_second_copy_is_no_inversion() {
        let found = verdict(&[1, 2], &[("a", 1), ("a", 2), ("a", 1)]);
        assert_eq!((found.out_of_order, found.duplicates), (0, 1));
    }
}
