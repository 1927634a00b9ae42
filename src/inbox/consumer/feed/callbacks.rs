//! What librdkafka calls back, on the thread that polls or closes the client.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::sync::mpsc;

use super::{Arrival, Named};
use crate::kafka::{Causes, Login, News, forward_log};
use crate::outage::Outage;

/// What librdkafka calls back.
pub struct Context {
    arrivals: mpsc::Sender<Arrival>,
    /// How long a rebalance waits for what is at work.
    patience: Duration,
    causes: Causes,
    login: Login,
    shared: Shared,
}

/// What callbacks leave for the dispatcher to look at.
#[derive(Debug)]
pub struct Shared {
    seen: Mutex<HashMap<(String, i32), Seen>>,
    answers: Mutex<CommitAnswers>,
    /// Partitions to pause (true) or to let go on, by the thread between two polls.
    pressure: Mutex<Vec<(Named, bool)>>,
    /// Partitions that librdkafka was told to pause, and not to let go on.
    paused: Mutex<HashSet<Named>>,
    kafka: Outage,
}

/// What became of commits.
#[derive(Debug, Default)]
pub struct CommitAnswers {
    /// Positions that the group has taken.
    pub confirmed: Vec<(Named, i64)>,
    /// Others were not taken.
    pub has_failed: bool,
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

    /// Pauses the partition or lets it go on, after the next poll.
    pub fn press_later(&self, partition: Named, paused: bool) {
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        pressure.push((partition, paused));
    }

    pub fn take_pressure(&self) -> Vec<(Named, bool)> {
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pressure)
    }

    /// What became of commits since the last call.
    pub fn take_commit_answers(&self) -> CommitAnswers {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *answers)
    }

    pub fn note_commit_failed(&self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.has_failed = true;
    }

    fn note_committed(&self, partitions: &TopicPartitionList) {
        let elements = partitions.elements();
        let taken = elements.iter().filter_map(|element| {
            // A commit that was taken on the whole may have been refused for a partition.
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => Some((named_one(element), offset)),
                _ => None,
            }
        });
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.confirmed.extend(taken);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match self.causes.take_in(&error, reason) {
            News::Down(cause) => self.shared.kafka.note_down(&cause),
            News::Refused(cause) => self.shared.kafka.note_cause(&cause),
            News::Passing => {}
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
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

    fn commit_callback(&self, result: KafkaResult<()>, partitions: &TopicPartitionList) {
        match result {
            Ok(()) => {
                self.shared.note_committed(partitions);
                self.shared.kafka.note_up();
            }
            // Nothing to commit is no failure.
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::debug!(error.message = %error, "committing offsets failed");
                self.shared.note_commit_failed();
            }
        }
    }
}

impl Context {
    pub fn new(
        arrivals: mpsc::Sender<Arrival>,
        patience: Duration,
        causes: Causes,
        login: Login,
    ) -> Context {
        Context {
            arrivals,
            patience,
            causes,
            login,
            shared: Shared {
                seen: Mutex::default(),
                answers: Mutex::default(),
                pressure: Mutex::default(),
                paused: Mutex::default(),
                kafka: Outage::new("kafka"),
            },
        }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

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

/// Pauses or resumes partitions that are assigned; a new assignment starts unpaused.
///
/// What was not paused is not resumed: by resuming, too, an application can outrun what librdkafka itself pauses and
/// resumes in a rebalance, and then that is dropped (confluentinc/librdkafka#5591).
pub fn press(client: &BaseConsumer<Context>, changes: Vec<(Named, bool)>) {
    let Ok(assigned) = client.assignment() else {
        return;
    };
    let paused = &client.context().shared.paused;
    let mut paused = paused.lock().unwrap_or_else(PoisonError::into_inner);
    for (partition, is_to_pause) in changes {
        let (topic, number) = &partition;
        let is_ours = assigned.find_partition(topic, *number).is_some();
        if !is_ours || paused.contains(&partition) == is_to_pause {
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, *number);
        let done = match is_to_pause {
            true => client.pause(&list),
            false => client.resume(&list),
        };
        match done {
            Ok(()) if is_to_pause => drop(paused.insert(partition)),
            Ok(()) => drop(paused.remove(&partition)),
            Err(error) => {
                tracing::debug!(error.message = %error, "pausing or resuming failed");
            }
        }
    }
}

fn named(list: &TopicPartitionList) -> Vec<Named> {
    list.elements().iter().map(named_one).collect()
}

fn named_one(element: &TopicPartitionListElem<'_>) -> Named {
    (element.topic().into(), element.partition())
}

/// Nothing if there is nothing to commit.
pub fn list(positions: &[(Named, i64)]) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in positions {
        // Only an offset that means something else is refused; ours are those of messages.
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
    }
    (list.count() > 0).then_some(list)
}
