//! The messages that a consumer has read and not finished: what may be worked on now, in which order, and
//! up to where the offsets may be committed. A pure state machine: it is told what happened and answers
//! what to do, with time as a value.
//!
//! * Messages of one key (partition and Kafka key) are worked on in the order of their offsets, by one
//!   worker at a time. Messages without a key have no order among themselves.
//! * Keys that have work are served first come, first served. A batch is made of several keys, with as
//!   many messages of each as are there.
//! * A message that failed waits with its key, then goes alone, until it is done; other keys flow on.
//! * A partition that holds too much is paused, and so is one that holds more than its share when all
//!   together hold too much. A revoked one is forgotten, and what is still at work for it counts for
//!   nothing when it comes back.

mod job;
mod offsets;
mod pressure;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use offsets::Offsets;

pub use job::{Job, Order, Outcome, Partition};
pub use pressure::{Limits, Load};

/// How long a failing key waits: doubled with every failure.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(20);
        self.first.saturating_mul(factor).min(self.most)
    }
}

type KeyName = (Partition, Order);

#[derive(Debug)]
struct Message<T> {
    offset: i64,
    size: usize,
    item: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// The first so many messages are with a worker.
    AtWork(usize),
    Waiting(Instant),
}

#[derive(Debug)]
struct Key<T> {
    state: State,
    messages: VecDeque<Message<T>>,
    /// Of the first message.
    failures: u32,
    /// Failures and blocks of the first message in succession.
    waits: u32,
}

#[derive(Debug)]
struct Assigned {
    generation: u64,
    offsets: Offsets,
    messages: usize,
    bytes: usize,
    at_work: usize,
    paused: bool,
    /// It is about to go: nothing more is taken in or handed out.
    retired: bool,
}

impl Assigned {
    fn load(&self) -> Load {
        Load {
            messages: self.messages,
            bytes: self.bytes,
            span: self.offsets.span(),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Schedule<T> {
    limits: Limits,
    backoff: Backoff,
    generation: u64,
    partitions: HashMap<Partition, Assigned>,
    keys: HashMap<KeyName, Key<T>>,
    ready: VecDeque<KeyName>,
    waiting: BTreeSet<(Instant, KeyName)>,
}

impl<T: Clone> Schedule<T> {
    pub fn new(limits: Limits, backoff: Backoff) -> Schedule<T> {
        Schedule {
            limits,
            backoff,
            generation: 0,
            partitions: HashMap::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// The partition is ours from here on.
    pub fn assign(&mut self, partition: Partition) {
        self.revoke(partition);
        self.generation += 1;
        let assigned = Assigned {
            generation: self.generation,
            offsets: Offsets::default(),
            messages: 0,
            bytes: 0,
            at_work: 0,
            paused: false,
            retired: false,
        };
        self.partitions.insert(partition, assigned);
    }

    /// Nothing more of the partition is handed out. What is at work still counts.
    pub fn retire(&mut self, partition: Partition) {
        self.ready.retain(|(of, _)| *of != partition);
        self.waiting.retain(|(_, (of, _))| *of != partition);
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        assigned.retired = true;
        self.keys.retain(|(of, _), key| {
            let State::AtWork(count) = key.state else {
                return *of != partition;
            };
            if *of == partition {
                key.messages.truncate(count);
            }
            true
        });
    }

    /// The partition is not ours any more.
    pub fn revoke(&mut self, partition: Partition) {
        if self.partitions.remove(&partition).is_some() {
            self.keys.retain(|(of, _), _| *of != partition);
            self.ready.retain(|(of, _)| *of != partition);
            self.waiting.retain(|(_, (of, _))| *of != partition);
        }
    }

    /// Takes a message in, in the order of its partition. Those of partitions that are not ours are
    /// dropped, and those that are here already. One that was done and comes again is done again: the claim
    /// tells.
    pub fn admit(&mut self, partition: Partition, offset: i64, order: Order, size: usize, item: T) {
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if assigned.retired {
            return;
        }
        if !assigned.offsets.admit(offset) {
            return;
        }
        assigned.messages += 1;
        assigned.bytes += size;
        let message = Message { offset, size, item };
        match self.keys.entry((partition, order)) {
            Entry::Occupied(mut key) => key.get_mut().messages.push_back(message),
            Entry::Vacant(entry) => {
                self.ready.push_back(entry.key().clone());
                entry.insert(Key {
                    state: State::Ready,
                    messages: VecDeque::from([message]),
                    failures: 0,
                    waits: 0,
                });
            }
        }
    }

    /// Up to `most` messages for one worker; empty if there is nothing to do.
    pub fn next_batch(&mut self, most: usize) -> Vec<Job<T>> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(name) = self.ready.pop_front()
        {
            let (Some(key), Some(assigned)) =
                (self.keys.get_mut(&name), self.partitions.get_mut(&name.0))
            else {
                continue;
            };
            if key.state != State::Ready {
                continue;
            }
            let suspect = key.waits > 0;
            if suspect && !batch.is_empty() {
                // What failed goes alone, with the next worker.
                self.ready.push_front(name);
                break;
            }
            let count = match suspect {
                true => 1,
                false => key.messages.len().min(most - batch.len()),
            };
            key.state = State::AtWork(count);
            assigned.at_work += count;
            for (index, message) in key.messages.iter().take(count).enumerate() {
                batch.push(Job {
                    partition: name.0,
                    generation: assigned.generation,
                    order: name.1.clone(),
                    offset: message.offset,
                    failures: if index == 0 { key.failures } else { 0 },
                    suspect,
                    item: message.item.clone(),
                });
            }
            if suspect {
                break;
            }
        }
        batch
    }

    /// Takes back a whole batch. Jobs of a partition that was revoked meanwhile count for nothing.
    pub fn finish(
        &mut self,
        batch: impl IntoIterator<Item = (Job<T>, Outcome)>,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) {
        let mut jobs = batch.into_iter().peekable();
        while let Some((job, outcome)) = jobs.next() {
            let mut outcomes = vec![(job.offset, outcome)];
            while let Some((next, outcome)) = jobs.next_if(|(next, _)| next.is_of_same_key(&job)) {
                outcomes.push((next.offset, outcome));
            }
            self.finish_key(&job, &outcomes, now, &jitter);
        }
    }

    fn finish_key(
        &mut self,
        job: &Job<T>,
        outcomes: &[(i64, Outcome)],
        now: Instant,
        jitter: &impl Fn(Duration) -> Duration,
    ) {
        let name = (job.partition, job.order.clone());
        let Some(assigned) = self.partitions.get_mut(&job.partition) else {
            return;
        };
        let Some(key) = self.keys.get_mut(&name) else {
            return;
        };
        if assigned.generation != job.generation {
            return;
        }
        assigned.at_work -= outcomes.len();
        let head = outcomes.first().map(|(offset, _)| *offset);
        // The first that is not done decides for the key.
        let mut left = None;
        let mut index = 0;
        for &(offset, outcome) in outcomes {
            if outcome != Outcome::Done {
                left = left.or(Some((offset, outcome)));
                index += 1;
                continue;
            }
            if let Some(message) = key.messages.remove(index) {
                assigned.messages -= 1;
                assigned.bytes -= message.size;
                assigned.offsets.done(message.offset);
            }
        }
        if left.map(|(offset, _)| offset) != head {
            (key.failures, key.waits) = (0, 0);
        }
        let outcome = left.map(|(_, outcome)| outcome);
        if key.messages.is_empty() || assigned.retired {
            self.keys.remove(&name);
            return;
        }
        match outcome {
            Some(Outcome::Failed | Outcome::Blocked) => {
                key.failures += u32::from(outcome == Some(Outcome::Failed));
                key.waits += 1;
                let until = now + jitter(self.backoff.after(key.waits));
                key.state = State::Waiting(until);
                self.waiting.insert((until, name));
            }
            Some(Outcome::NotTried | Outcome::Done) | None => {
                key.state = State::Ready;
                self.ready.push_back(name);
            }
        }
    }

    /// The next instant at which [`Schedule::wake`] has something to do.
    pub fn next_wake(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Makes the keys ready whose wait is over.
    pub fn wake(&mut self, now: Instant) {
        while let Some((until, _)) = self.waiting.first()
            && *until <= now
            && let Some((_, name)) = self.waiting.pop_first()
        {
            if let Some(key) = self.keys.get_mut(&name) {
                key.state = State::Ready;
                self.ready.push_back(name);
            }
        }
    }

    /// The partitions that must be paused (true) or may go on (false) since the last call.
    pub fn take_pressure(&mut self) -> Vec<(Partition, bool)> {
        let all: Load = self.partitions.values().map(Assigned::load).sum();
        let count = self.partitions.len();
        let mut changes = Vec::new();
        for (partition, assigned) in &mut self.partitions {
            let load = assigned.load();
            let pause = self.limits.pause(assigned.paused, load, all, count);
            if pause != assigned.paused {
                assigned.paused = pause;
                changes.push((*partition, pause));
            }
        }
        changes
    }

    /// Positions to commit: everything before them is done. Each is handed out once.
    pub fn take_positions(&mut self) -> Vec<(Partition, i64)> {
        let positions = self
            .partitions
            .iter_mut()
            .filter_map(|(partition, assigned)| {
                Some((*partition, assigned.offsets.take_position()?))
            });
        positions.collect()
    }

    /// The first message of the partition that is here and not done.
    pub fn first_open(&self, partition: Partition) -> Option<i64> {
        self.partitions.get(&partition)?.offsets.first_open()
    }

    /// Whether something of the partition is with a worker.
    pub fn is_at_work(&self, partition: Partition) -> bool {
        self.partitions
            .get(&partition)
            .is_some_and(|assigned| assigned.at_work > 0)
    }

    /// The partitions that are ours.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.partitions.keys().copied()
    }
}
