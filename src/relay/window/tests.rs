//! The window against a model of Kafka: any interleaving of reads, sends, reports (late, repeated, out
//! of order), refusals, lost producers, lost marks and closed topics keeps the order of every key, loses
//! nothing and marks only what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::envelope::Message;
use crate::event::EventRef;

const LIMITS: Limits = Limits {
    rows: 24,
    bytes: 1 << 20,
};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(10),
    most: Duration::from_millis(100),
};

const KEYS: u64 = 5;
const TOPICS: u32 = 2;
const PARTITIONS: usize = 2;

fn event(id: i64) -> EventRef {
    EventRef {
        id,
        event_id: Uuid::from_u128(id as u128),
    }
}

fn outgoing(id: i64, topic: u32, key: u64, now: Instant) -> Outgoing {
    Outgoing {
        event: event(id),
        event_type: None,
        topic: TopicId(topic),
        message: Message::of_key(&key.to_be_bytes()),
        unsendable: None,
        is_unreadable: false,
        timestamp_ms: None,
        created_at_us: 0,
        first_seen: now,
        trace: None,
    }
}

/// Where the rows of a key go: the partition of their topic.
fn partition((topic, key): (u32, u64)) -> (u32, u64) {
    (topic, key % PARTITIONS as u64)
}

fn admit(window: &mut Window, row: Outgoing) -> Admission {
    window.admit(row).expect("there is room")
}

/// A message under way.
#[derive(Clone, Copy)]
struct Sent {
    ticket: Ticket,
    id: i64,
    key: (u32, u64),
    route: Route,
}

struct Model {
    rng: Rng,
    now: Instant,
    window: Window,
    /// How far the rows of the table were read.
    position: i64,
    /// Rows on their way into the window.
    inbox: VecDeque<i64>,
    /// They are of a pass, which has brought everything up to here, and may be over.
    pass: Option<(i64, bool)>,
    /// How far the pass under way has come.
    pass_after: Option<i64>,
    /// The key of every row.
    rows: BTreeMap<i64, (u32, u64)>,
    under_way: VecDeque<Sent>,
    /// The gapless producer died: nothing of it is written any more,
    dead: bool,
    /// but to partitions whose very first message set was refused: there the broker does not notice.
    unguarded: BTreeSet<(u32, u64)>,
    /// Partitions that have taken a message set of this producer.
    introduced: BTreeSet<(u32, u64)>,
    /// What Kafka has, by key, first copies in the order of arrival.
    log: BTreeMap<(u32, u64), Vec<i64>>,
    written: BTreeSet<i64>,
    /// Acknowledged to the window and not marked.
    to_mark: Vec<i64>,
    marked: BTreeSet<i64>,
    /// A parked row's key waits for the decision.
    blocks: bool,
    /// Handed to the parker and not noted yet.
    to_park: Vec<(Ticket, i64)>,
    /// Noted in the database.
    parked: BTreeSet<i64>,
    /// Let go by a person while its key went on: it may come after later rows.
    sent_back: BTreeSet<i64>,
    old_tickets: Vec<Ticket>,
}

impl Model {
    fn new(seed: u64) -> Model {
        Model {
            rng: Rng::with_seed(seed),
            now: Instant::now(),
            window: Window::new(LIMITS, BACKOFF),
            position: 0,
            inbox: VecDeque::new(),
            pass: None,
            pass_after: None,
            rows: BTreeMap::new(),
            under_way: VecDeque::new(),
            dead: false,
            unguarded: BTreeSet::new(),
            introduced: BTreeSet::new(),
            log: BTreeMap::new(),
            written: BTreeSet::new(),
            to_mark: Vec::new(),
            marked: BTreeSet::new(),
            blocks: seed.is_multiple_of(2),
            to_park: Vec::new(),
            parked: BTreeSet::new(),
            sent_back: BTreeSet::new(),
            old_tickets: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.admit();
        match self.rng.u8(0..20) {
            0..5 if self.pass_after.is_some() && self.rng.bool() => self.reread(),
            0..5 => self.read(),
            5..10 => self.send(),
            10..14 => self.report(),
            14 => self.mark(),
            15 => self.read_again(),
            16 => {
                self.now += Duration::from_millis(self.rng.u64(1..60));
                self.window.wake(self.now);
            }
            17 if self.rng.u8(0..4) == 0 => self.lose_producer(),
            18 => {
                let topic = TopicId(self.rng.u32(0..TOPICS));
                match self.rng.u8(0..7) {
                    6 => self.window.pause_topic(topic, self.rng.bool()),
                    0 => self.window.close_topic(topic),
                    1 => self.window.shut_topic(topic),
                    _ => {
                        self.window.partitions(topic, PARTITIONS);
                        self.window.open_topic(topic);
                    }
                }
            }
            19 => match self.rng.u8(0..4) {
                0 => self.stale_report(),
                1 => self.note_parked(),
                2 => self.decide(),
                _ if self.rng.u8(0..10) == 0 => self.restart(),
                _ => {}
            },
            _ => {}
        }
    }

    /// The next rows of the table, written now if there are none.
    fn read(&mut self) {
        if !self.inbox.is_empty() {
            return;
        }
        for _ in 0..self.rng.u8(1..8) {
            self.position += 1;
            let key = (self.rng.u32(0..TOPICS), self.rng.u64(0..KEYS));
            self.rows.entry(self.position).or_insert(key);
            if !self.marked.contains(&self.position) {
                self.inbox.push_back(self.position);
            }
        }
    }

    /// A step of the pass under way.
    fn reread(&mut self) {
        let Some(after) = self.pass_after.filter(|_| self.inbox.is_empty()) else {
            return;
        };
        let unsent = (after + 1..=self.position).filter(|id| !self.marked.contains(id));
        let most = self.rng.usize(1..12);
        self.inbox = unsent.take(most).collect();
        let is_over = self.inbox.len() < most;
        let last = self.inbox.back().copied();
        let upto = last.filter(|_| !is_over).unwrap_or(self.position);
        self.pass_after = (!is_over).then_some(upto);
        self.window.reread(upto);
        self.pass = Some((upto, is_over));
    }

    /// Hands rows to the window as far as it takes them, as the lane does.
    fn admit(&mut self) {
        while let Some(id) = self.inbox.pop_front() {
            let (topic, key) = self.rows[&id];
            match self.window.admit(outgoing(id, topic, key, self.now)) {
                Ok(Admission::Known) => assert!(!self.to_mark.contains(&id)),
                Ok(Admission::Acknowledged) => self.to_mark.push(id),
                Ok(Admission::New) => {
                    assert!(!self.written.contains(&id) || !self.marked.contains(&id))
                }
                Ok(Admission::Held) => {}
                Ok(Admission::Parked) => assert!(self.parked.contains(&id)),
                Err(row) => {
                    self.inbox.push_front(row.event.id);
                    return;
                }
            }
        }
        if let Some((_, true)) = self.pass.take() {
            self.window.end_pass();
        }
        if let Some(from) = self.window.begin_pass() {
            self.pass_after = Some(from - 1);
        }
    }

    /// The connection was lost: unsent rows are read from the start.
    fn read_again(&mut self) {
        if self.inbox.is_empty() {
            self.position = 0;
        }
    }

    fn send(&mut self) {
        for _ in 0..self.rng.u8(1..6) {
            let Some((ticket, route)) = self.window.next_to_send() else {
                return;
            };
            if self.rng.u8(0..10) == 0 {
                self.window.not_sent(ticket);
                return;
            }
            let row = self
                .window
                .outgoing(ticket)
                .expect("it was just handed out");
            let id = row.event.id;
            let key = self.rows[&id];
            let unsettled = self.under_way.iter().filter(|sent| sent.key == key).count();
            assert!(
                route == Route::Batched || unsettled == 0,
                "a suspect goes alone"
            );
            self.under_way.push_back(Sent {
                ticket,
                id,
                key,
                route,
            });
        }
    }

    /// The oldest message of some producer comes to its end.
    fn report(&mut self) {
        let route = if self.rng.bool() {
            Route::Batched
        } else {
            Route::Alone
        };
        let Some(index) = self.under_way.iter().position(|sent| sent.route == route) else {
            return;
        };
        let Some(sent) = self.under_way.remove(index) else {
            return;
        };
        self.old_tickets.push(sent.ticket);
        let roll = self.rng.u8(0..12);
        if sent.route == Route::Batched && self.unguarded.contains(&partition(sent.key)) {
            self.write(sent);
            self.acknowledge(sent);
        } else if sent.route == Route::Batched && self.dead {
            // Written before the producer died or not: it comes back as purged.
            self.fail(sent.ticket, Failure::Collateral);
        } else if roll == 0 {
            // With the gapless guarantee nothing of the producer is written after this.
            self.refuse(sent);
            self.fail(sent.ticket, Failure::Refused);
            if sent.route == Route::Alone && self.rng.bool() && self.window.park(sent.ticket) {
                self.to_park.push((sent.ticket, sent.id));
            }
        } else if roll == 1 {
            self.lose_topic(sent);
        } else {
            self.write(sent);
            if roll == 2 {
                // The acknowledgement is lost with the producer.
                self.dead |= sent.route == Route::Batched;
                self.fail(sent.ticket, Failure::Collateral);
            } else {
                self.acknowledge(sent);
            }
        }
    }

    /// Its topic is gone, with all that is under way to it. When it is there again, the broker knows nobody.
    fn lose_topic(&mut self, sent: Sent) {
        let topic = sent.key.0;
        self.window.close_topic(TopicId(topic));
        self.introduced
            .retain(|(introduced, _)| *introduced != topic);
        self.fail(sent.ticket, Failure::TopicMissing);
        while let Some(index) = self.under_way.iter().position(|sent| sent.key.0 == topic)
            && let Some(sent) = self.under_way.remove(index)
        {
            self.old_tickets.push(sent.ticket);
            self.fail(sent.ticket, Failure::TopicMissing);
        }
    }

    fn refuse(&mut self, sent: Sent) {
        if sent.route == Route::Batched {
            self.dead = true;
            if !self.introduced.contains(&partition(sent.key)) {
                self.unguarded.insert(partition(sent.key));
            }
        }
    }

    fn write(&mut self, sent: Sent) {
        if sent.route == Route::Batched {
            self.introduced.insert(partition(sent.key));
        }
        if self.written.insert(sent.id) {
            self.log.entry(sent.key).or_default().push(sent.id);
        }
    }

    fn acknowledge(&mut self, sent: Sent) {
        let row = self
            .window
            .acknowledged(sent.ticket, partition(sent.key).1 as i32, self.now)
            .expect("in the window until then");
        assert_eq!(row.event.id, sent.id);
        assert!(self.written.contains(&sent.id));
        self.to_mark.push(sent.id);
    }

    fn fail(&mut self, ticket: Ticket, failure: Failure) {
        assert!(
            self.window
                .failed(ticket, failure, self.now, |wait| wait)
                .is_some()
        );
    }

    /// A report of a message that was settled or given up long ago.
    fn stale_report(&mut self) {
        let Some(ticket) = self.rng.choice(self.old_tickets.clone()) else {
            return;
        };
        if self.window.outgoing(ticket).is_none() {
            assert!(self.window.acknowledged(ticket, 0, self.now).is_none());
        }
        if !self.under_way.iter().any(|sent| sent.ticket == ticket) {
            assert_eq!(
                self.window
                    .failed(ticket, Failure::Refused, self.now, |wait| wait),
                None
            );
        }
    }

    fn note_parked(&mut self) {
        if self.to_park.is_empty() {
            return;
        }
        let (ticket, id) = self
            .to_park
            .swap_remove(self.rng.usize(0..self.to_park.len()));
        let row = self.window.parked(ticket, self.blocks, self.now);
        assert_eq!(row.expect("in the window until then").event.id, id);
        self.parked.insert(id);
    }

    /// A person lets a parked row go out.
    fn decide(&mut self) {
        let Some(id) = self
            .rng
            .choice(self.parked.iter().copied().collect::<Vec<_>>())
        else {
            return;
        };
        self.parked.remove(&id);
        if !self.blocks {
            self.sent_back.insert(id);
        }
        self.window.retry(event(id));
        let key = self.rows[&id];
        if self.blocks && !self.parked.iter().any(|other| self.rows[other] == key) {
            self.window.unblock(TopicId(key.0), &key.1.to_be_bytes());
        }
    }

    /// The relay dies, and another begins with what is in the database.
    fn restart(&mut self) {
        let written = self.rng.usize(0..=self.under_way.len());
        for sent in std::mem::take(&mut self.under_way).iter().take(written) {
            if sent.route == Route::Alone || !self.dead {
                self.write(*sent);
            }
        }
        self.dead = false;
        self.unguarded.clear();
        self.introduced.clear();
        self.window = Window::new(LIMITS, BACKOFF);
        for &id in &self.parked {
            self.window.pass_over_parked(event(id));
            if self.blocks {
                let (topic, key) = self.rows[&id];
                self.window.block(TopicId(topic), &key.to_be_bytes(), id);
            }
        }
        self.position = 0;
        self.inbox.clear();
        self.pass = None;
        self.pass_after = None;
        self.to_mark.clear();
        self.to_park.clear();
        self.old_tickets.clear();
    }

    fn mark(&mut self) {
        let count = self.rng.usize(0..=self.to_mark.len());
        for id in self.to_mark.drain(..count) {
            assert!(
                self.written.contains(&id),
                "row {id} is marked and kafka does not have it"
            );
            self.marked.insert(id);
        }
        self.window.marked(count);
    }

    fn lose_producer(&mut self) {
        let lost = self.window.in_flight();
        assert_eq!(lost.len(), self.under_way.len());
        // Some of it had been written; what was written before a gap, in order.
        let under_way = std::mem::take(&mut self.under_way);
        let written = self.rng.usize(0..=under_way.len());
        for sent in under_way.iter().take(written) {
            if sent.route == Route::Alone || !self.dead {
                self.write(*sent);
            }
        }
        self.old_tickets.extend(lost.iter().copied());
        assert_eq!(self.window.producer_lost(lost, self.now), under_way.len());
        self.dead = false;
        self.unguarded.clear();
        self.introduced.clear();
    }

    fn check(&self) {
        for (key, ids) in &self.log {
            let in_order = ids.iter().filter(|id| !self.sent_back.contains(id));
            assert!(in_order.is_sorted(), "key {key:?}: {ids:?}");
        }
        let fill = self.window.fill();
        assert_eq!(fill.in_flight, self.under_way.len());
        assert_eq!(fill.unmarked, self.to_mark.len());
        assert!(fill.rows <= LIMITS.rows);
        let held = u64::try_from(self.rows.len()).expect("few rows");
        assert!(self.window.held().rows <= 2 * held);
        assert_eq!(
            self.window.is_settled(),
            self.under_way.is_empty() && self.to_mark.is_empty()
        );
    }

    /// From here on everything works: all rows come through.
    fn finish(&mut self) {
        let last = self.rows.keys().next_back().copied().unwrap_or(0);
        for _ in 0..self.rows.len() * 20 + 100 {
            self.now += Duration::from_secs(1);
            self.window.wake(self.now);
            for topic in (0..TOPICS).map(TopicId) {
                self.window.open_topic(topic);
                self.window.pause_topic(topic, false);
            }
            if self.dead {
                self.lose_producer();
            }
            while let Some((ticket, route)) = self.window.next_to_send() {
                let id = self
                    .window
                    .outgoing(ticket)
                    .expect("it was just handed out")
                    .event
                    .id;
                self.under_way.push_back(Sent {
                    ticket,
                    id,
                    key: self.rows[&id],
                    route,
                });
            }
            while let Some(sent) = self.under_way.pop_front() {
                self.write(sent);
                self.acknowledge(sent);
            }
            while !self.to_park.is_empty() {
                self.note_parked();
            }
            self.decide();
            self.check();
            self.window.marked(self.to_mark.len());
            self.marked.extend(self.to_mark.drain(..));
            self.admit();
            if self.position < last && self.inbox.is_empty() {
                self.position += 1;
                self.inbox
                    .extend(Some(self.position).filter(|id| !self.marked.contains(id)));
            }
            self.reread();
            let is_through = self.position == last && self.inbox.is_empty();
            if is_through && self.parked.is_empty() && self.window.waits_for_people() {
                break;
            }
        }
        let ids: BTreeSet<i64> = self.rows.keys().copied().collect();
        assert_eq!(self.written, ids);
        assert!(self.window.waits_for_people());
        assert_eq!(self.window.fill(), Fill::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_schedule_keeps_order_loses_nothing_and_marks_only_what_kafka_has(seed: u64) {
        let mut model = Model::new(seed);
        for _ in 0..1_000 {
            model.step();
            model.check();
        }
        model.finish();
    }
}

#[test]
fn a_failed_row_stops_its_own_key_alone() {
    let now = Instant::now();
    let mut window = Window::new(LIMITS, BACKOFF);
    window.open_topic(TopicId(0));
    for (id, key) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        admit(&mut window, outgoing(id, 0, key, now));
    }
    let (first, _) = window.next_to_send().unwrap();
    window.failed(first, Failure::Refused, now, |wait| wait);
    let mut sent = Vec::new();
    while let Some((ticket, route)) = window.next_to_send() {
        sent.push((window.outgoing(ticket).unwrap().event.id, route));
        window.acknowledged(ticket, 0, now);
    }
    assert_eq!(sent, [(2, Route::Batched), (4, Route::Batched)]);
    window.wake(now + BACKOFF.first);
    let (again, route) = window.next_to_send().unwrap();
    assert_eq!(
        (window.outgoing(again).unwrap().event.id, route),
        (1, Route::Alone)
    );
    assert_eq!(window.next_to_send(), None, "row 3 waits for row 1");
    window.acknowledged(again, 0, now);
    let (last, route) = window.next_to_send().unwrap();
    assert_eq!(
        (window.outgoing(last).unwrap().event.id, route),
        (3, Route::Batched)
    );
}

#[test]
fn a_key_is_introduced_by_one_row_and_the_others_follow_it_in_one_go() {
    let now = Instant::now();
    let mut window = Window::new(LIMITS, BACKOFF);
    window.open_topic(TopicId(0));
    for id in 1..=4 {
        admit(&mut window, outgoing(id, 0, 1, now));
    }
    let (first, _) = window.next_to_send().unwrap();
    assert_eq!(window.next_to_send(), None);
    window.acknowledged(first, 0, now);
    let ids: Vec<i64> = std::iter::from_fn(|| window.next_to_send())
        .map(|(ticket, _)| ticket)
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|ticket| Some(window.outgoing(ticket)?.event.id))
        .collect();
    assert_eq!(ids, [2, 3, 4]);
    window.producer_lost(window.in_flight(), now);
    assert!(window.next_to_send().is_some());
    assert_eq!(window.next_to_send(), None, "another producer");
}

#[test]
fn where_every_partition_knows_the_producer_no_key_is_introduced() {
    let now = Instant::now();
    let mut window = Window::new(LIMITS, BACKOFF);
    window.partitions(TopicId(0), 2);
    window.open_topic(TopicId(0));
    for (id, key) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2)] {
        admit(&mut window, outgoing(id, 0, key, now));
    }
    let first = [0; 2].map(|_| window.next_to_send().unwrap().0);
    for (ticket, partition) in first.into_iter().zip(0..) {
        window.acknowledged(ticket, partition, now);
    }
    for id in 3..=5 {
        let (ticket, _) = window.next_to_send().expect("company");
        assert_eq!(window.outgoing(ticket).unwrap().event.id, id);
    }
    window.producer_lost(window.in_flight(), now);
    assert!(window.next_to_send().is_some());
    assert_eq!(window.next_to_send(), None, "another producer");
}

#[test]
fn a_window_is_bounded_and_takes_one_large_row_alone() {
    let now = Instant::now();
    let limits = Limits {
        rows: 2,
        bytes: 100,
    };
    let mut window = Window::new(limits, BACKOFF);
    assert!(window.has_room(1_000), "an empty window takes any row");
    admit(&mut window, outgoing(1, 0, 1, now));
    assert!(!window.has_room(1_000));
    assert!(window.has_room(50));
    window.open_topic(TopicId(0));
    let (ticket, _) = window.next_to_send().unwrap();
    window.acknowledged(ticket, 0, now);
    admit(&mut window, outgoing(2, 0, 1, now));
    assert!(!window.has_room(10), "an unmarked row still counts");
    window.marked(1);
    assert!(window.has_room(10));
}

#[test]
fn an_id_that_is_drawn_again_is_another_event() {
    let now = Instant::now();
    let mut window = Window::new(LIMITS, BACKOFF);
    window.open_topic(TopicId(0));
    admit(&mut window, outgoing(1, 0, 1, now));
    let (ticket, _) = window.next_to_send().unwrap();
    window.acknowledged(ticket, 0, now);
    assert_eq!(
        admit(&mut window, outgoing(1, 0, 1, now)),
        Admission::Acknowledged
    );
    let mut other = outgoing(1, 0, 1, now);
    other.event.event_id = Uuid::from_u128(99);
    assert_eq!(admit(&mut window, other), Admission::New);
}

#[test]
fn the_wait_of_a_failing_key_doubles_up_to_a_limit() {
    let waits: Vec<u128> = (1..7)
        .map(|failures| BACKOFF.after(failures).as_millis())
        .collect();
    assert_eq!(waits, [10, 20, 40, 80, 100, 100]);
    assert_eq!(BACKOFF.after(u32::MAX), BACKOFF.most);
}
