//! The schedule against a model: any interleaving of reads, batches, failures, waits and rebalances keeps
//! the order of every key, loses no message and commits no offset that is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    partition: Load {
        messages: 20,
        bytes: 2_000,
        span: 40,
    },
    all: Load {
        messages: 30,
        bytes: 3_000,
        span: 80,
    },
};

/// A read brings at most so many messages, and is followed by a look at the pressure.
const READ: u8 = 7;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(10),
    most: Duration::from_millis(100),
};

const PARTITIONS: i32 = 3;
const KEYS: u8 = 4;

fn partition(number: i32) -> Partition {
    Partition { topic: 0, number }
}

/// What Kafka has of one partition, and what has come of it.
#[derive(Default)]
struct Topic {
    /// The key of each offset that exists.
    log: BTreeMap<i64, Order>,
    next: i64,
    /// Where the next read begins.
    read: i64,
    committed: i64,
    /// Effects by offset: the claim makes them happen once.
    effects: BTreeSet<i64>,
    ours: bool,
    paused: bool,
    /// Read in this assignment and not done.
    open: BTreeSet<i64>,
}

struct Model {
    rng: Rng,
    now: Instant,
    schedule: Schedule<i64>,
    topics: Vec<Topic>,
    /// Batches with workers, and whether each was taken before a rebalance of its partition.
    at_work: Vec<Vec<Job<i64>>>,
    failures: BTreeMap<(i32, i64), u32>,
}

impl Model {
    fn new(seed: u64) -> Model {
        Model {
            rng: Rng::with_seed(seed),
            now: Instant::now(),
            schedule: Schedule::new(LIMITS, BACKOFF),
            topics: (0..PARTITIONS).map(|_| Topic::default()).collect(),
            at_work: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u8(0..22) {
            0..4 => self.produce(),
            4..9 => self.read(),
            9..13 => self.take(),
            13..17 => self.finish(),
            17 => {
                self.now += Duration::from_millis(self.rng.u64(1..60));
                self.schedule.wake(self.now);
            }
            18 => self.commit(),
            19 if self.rng.u8(0..4) == 0 => self.rebalance(),
            20 if self.rng.u8(0..6) == 0 => self.hand_over(),
            _ => self.press(),
        }
    }

    fn produce(&mut self) {
        let number = self.rng.usize(0..self.topics.len());
        let topic = &mut self.topics[number];
        // Gaps, as compaction leaves them.
        topic.next += self.rng.i64(1..3);
        let order = match self.rng.u8(0..KEYS + 1) {
            KEYS => Order::None(topic.next),
            key => Order::Key([key].as_slice().into()),
        };
        topic.log.insert(topic.next, order);
    }

    fn read(&mut self) {
        let number = self.rng.usize(0..self.topics.len());
        let topic = &mut self.topics[number];
        if !topic.ours || topic.paused {
            return;
        }
        for _ in 0..self.rng.u8(1..=READ) {
            let Some((&offset, order)) = topic.log.range(topic.read..).next() else {
                break;
            };
            topic.read = offset + 1;
            topic.open.insert(offset);
            let partition = partition(number as i32);
            self.schedule
                .admit(partition, offset, order.clone(), 50, offset);
        }
        self.press();
    }

    fn take(&mut self) {
        let most = self.rng.usize(1..10);
        let batch = self.schedule.next_batch(most);
        assert!(batch.len() <= most);
        if batch.is_empty() {
            return;
        }
        for (index, job) in batch.iter().enumerate() {
            let topic = &self.topics[job.partition.number as usize];
            assert!(topic.ours, "of a partition that is not ours");
            let with_others = self
                .at_work
                .iter()
                .flatten()
                .any(|other| other.is_of_same_key(job) && other.generation == job.generation);
            assert!(!with_others, "one worker at a time has a key");
            let before = batch[..index]
                .iter()
                .filter(|other| other.is_of_same_key(job));
            let before: Vec<i64> = before.map(|other| other.offset).collect();
            let mut earlier = topic.open.range(..job.offset);
            let skipped =
                earlier.find(|offset| topic.log[offset] == job.order && !before.contains(offset));
            assert_eq!(skipped, None, "an earlier message of the key is open");
            let failed = self.failures.get(&(job.partition.number, job.offset));
            assert_eq!(job.failures, failed.copied().unwrap_or(0));
            assert!(
                job.suspect || job.failures == 0,
                "it is known to have failed"
            );
            assert!(!job.suspect || batch.len() == 1, "it goes alone");
        }
        self.at_work.push(batch);
    }

    /// A worker brings a batch back.
    fn finish(&mut self) {
        if self.at_work.is_empty() {
            return;
        }
        let batch = self
            .at_work
            .swap_remove(self.rng.usize(0..self.at_work.len()));
        let mut results: Vec<(Job<i64>, Outcome)> = Vec::new();
        for job in batch {
            let stopped = results
                .iter()
                .any(|(other, outcome)| other.is_of_same_key(&job) && *outcome != Outcome::Done);
            let outcome = match self.rng.u8(0..8) {
                _ if stopped => Outcome::NotTried,
                0 => Outcome::Failed,
                1 => Outcome::Blocked,
                2 => Outcome::NotTried,
                _ => Outcome::Done,
            };
            results.push((job, outcome));
        }
        for (job, outcome) in &results {
            let number = job.partition.number;
            let topic = &mut self.topics[number as usize];
            let current = self.schedule.partitions.get(&job.partition);
            let current = current.is_some_and(|now| now.generation == job.generation);
            match outcome {
                Outcome::Done => {
                    topic.effects.insert(job.offset);
                    if current {
                        topic.open.remove(&job.offset);
                        self.failures.remove(&(number, job.offset));
                    }
                }
                Outcome::Failed if current => {
                    *self.failures.entry((number, job.offset)).or_default() += 1;
                }
                _ => {}
            }
        }
        let jitter = |wait| wait;
        self.schedule.finish(results, self.now, jitter);
    }

    fn commit(&mut self) {
        for (partition, position) in self.schedule.take_positions() {
            let topic = &mut self.topics[partition.number as usize];
            assert!(position > topic.committed, "commits go forward");
            topic.committed = position;
            let undone = topic.log.range(..position).map(|(offset, _)| offset);
            let undone: Vec<_> = undone
                .filter(|offset| !topic.effects.contains(offset))
                .collect();
            assert!(undone.is_empty(), "committed {position}, open {undone:?}");
        }
    }

    /// The partition goes, or comes (back): it is read again from the last commit.
    fn rebalance(&mut self) {
        let number = self.rng.usize(0..self.topics.len());
        let topic = &mut self.topics[number];
        topic.ours = !topic.ours;
        topic.open.clear();
        topic.paused = false;
        self.failures.retain(|(of, _), _| *of != number as i32);
        if topic.ours {
            topic.read = topic.committed;
            self.schedule.assign(partition(number as i32));
        } else {
            self.schedule.revoke(partition(number as i32));
        }
    }

    /// The partition goes in good order: what is at work is waited for and committed.
    fn hand_over(&mut self) {
        let number = self.rng.i32(0..PARTITIONS);
        if !self.topics[number as usize].ours {
            return;
        }
        self.schedule.retire(partition(number));
        while self.schedule.is_at_work(partition(number)) {
            self.finish();
        }
        self.commit();
        self.rebalance_to(number, false);
    }

    fn rebalance_to(&mut self, number: i32, ours: bool) {
        let topic = &mut self.topics[number as usize];
        topic.ours = ours;
        topic.open.clear();
        topic.paused = false;
        self.failures.retain(|(of, _), _| *of != number);
        self.schedule.revoke(partition(number));
    }

    fn press(&mut self) {
        for (partition, pause) in self.schedule.take_pressure() {
            self.topics[partition.number as usize].paused = pause;
        }
        for (number, topic) in self.topics.iter().enumerate() {
            let full = topic.open.len() >= LIMITS.partition.messages;
            assert!(
                !topic.ours || !full || topic.paused,
                "partition {number} is full"
            );
            let empty = topic.open.is_empty();
            assert!(
                !topic.ours || !empty || !topic.paused,
                "{number} never goes on"
            );
        }
        let held: usize = self.topics.iter().map(|topic| topic.open.len()).sum();
        // Each partition, and the one that reached the half, can be one read above.
        let above = (self.topics.len() + 1) * usize::from(READ);
        assert!(held <= LIMITS.all.messages + above, "{held} are held");
    }

    /// Everything that was produced takes effect, and is committed, without any more failures.
    fn settle(mut self) {
        for number in 0..PARTITIONS {
            if !self.topics[number as usize].ours {
                let topic = &mut self.topics[number as usize];
                topic.ours = true;
                topic.read = topic.committed;
                self.schedule.assign(partition(number));
            }
        }
        for _ in 0..10_000 {
            self.press();
            self.read();
            self.now += BACKOFF.most;
            self.schedule.wake(self.now);
            self.take();
            while let Some(batch) = self.at_work.pop() {
                for job in &batch {
                    let topic = &mut self.topics[job.partition.number as usize];
                    topic.effects.insert(job.offset);
                    let current = self.schedule.partitions.get(&job.partition);
                    if current.is_some_and(|now| now.generation == job.generation) {
                        topic.open.remove(&job.offset);
                        self.failures.remove(&(job.partition.number, job.offset));
                    }
                }
                let results = batch.into_iter().map(|job| (job, Outcome::Done));
                self.schedule.finish(results, self.now, |wait| wait);
            }
            self.commit();
        }
        for topic in &self.topics {
            let last = topic.log.keys().next_back();
            assert_eq!(topic.effects.len(), topic.log.len(), "something is stuck");
            assert!(last.is_none_or(|last| topic.committed == last + 1));
        }
        assert!(self.schedule.keys.is_empty() && self.schedule.waiting.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_interleaving_reorders_a_key_or_loses_a_message(seed: u64) {
        let mut model = Model::new(seed);
        for _ in 0..600 {
            model.step();
        }
        model.settle();
    }
}

fn key(name: &[u8]) -> Order {
    Order::Key(name.into())
}

fn schedule() -> Schedule<i64> {
    let mut schedule = Schedule::new(LIMITS, BACKOFF);
    schedule.assign(partition(0));
    schedule
}

fn offsets(batch: &[Job<i64>]) -> Vec<i64> {
    batch.iter().map(|job| job.offset).collect()
}

#[test]
fn a_failed_message_holds_its_key_and_no_other() {
    let mut schedule = schedule();
    let now = Instant::now();
    for (offset, name) in [(0, b"a"), (1, b"b"), (2, b"a")] {
        schedule.admit(partition(0), offset, key(name), 1, offset);
    }
    let batch = schedule.next_batch(10);
    assert_eq!(offsets(&batch), [0, 2, 1], "keys first come, first served");

    let outcomes = [Outcome::Failed, Outcome::NotTried, Outcome::Done];
    let results: Vec<_> = batch.into_iter().zip(outcomes).collect();
    schedule.finish(results, now, |wait| wait);
    schedule.admit(partition(0), 3, key(b"b"), 1, 3);

    assert_eq!(offsets(&schedule.next_batch(10)), [3], "b flows on");
    assert_eq!(schedule.next_wake(), Some(now + BACKOFF.first));
    schedule.wake(now + BACKOFF.first);
    let alone = schedule.next_batch(10);
    assert_eq!((offsets(&alone), alone[0].failures), (vec![0], 1));
    assert!(schedule.take_positions().is_empty(), "offset 0 is open");
}

#[test]
fn a_message_that_comes_again_is_taken_once_and_loses_no_other() {
    let mut schedule = schedule();
    for offset in [10, 11, 12, 11] {
        schedule.admit(partition(0), offset, key(b"a"), 1, offset);
    }
    let batch = schedule.next_batch(10);
    assert_eq!(offsets(&batch), [10, 11, 12]);
    let results: Vec<_> = batch.into_iter().map(|job| (job, Outcome::Done)).collect();
    schedule.finish(results, Instant::now(), |wait| wait);
    assert_eq!(schedule.take_positions(), [(partition(0), 13)]);

    // A topic that was made anew starts from below.
    schedule.admit(partition(0), 3, key(b"a"), 1, 3);
    assert_eq!(offsets(&schedule.next_batch(10)), [3]);
}

#[test]
fn many_partitions_hold_no_more_together_and_a_stuck_one_takes_no_other_s_share() {
    const MANY: i32 = 50;
    let limits = Limits {
        partition: Load {
            messages: 1_000,
            bytes: usize::MAX,
            span: usize::MAX,
        },
        all: Load {
            messages: 2_000,
            bytes: usize::MAX,
            span: usize::MAX,
        },
    };
    let mut schedule = Schedule::new(limits, BACKOFF);
    (0..MANY).for_each(|number| schedule.assign(partition(number)));
    let mut paused = BTreeSet::new();
    let mut held = [0; MANY as usize];
    // The first takes all it gets, then the others; nothing is ever done.
    for number in 0..MANY {
        for offset in 0..2_000 {
            for (partition, pause) in schedule.take_pressure() {
                match pause {
                    true => paused.insert(partition),
                    false => paused.remove(&partition),
                };
            }
            if paused.contains(&partition(number)) {
                break;
            }
            schedule.admit(partition(number), offset, key(b"stuck"), 1, offset);
            held[number as usize] += 1;
        }
    }
    assert_eq!(held[0], 1_000, "alone it may fill its own buffer");
    assert_eq!(held[1..], [20; MANY as usize - 1], "everybody has a share");
    assert!(held.iter().sum::<usize>() <= limits.all.messages);
}
