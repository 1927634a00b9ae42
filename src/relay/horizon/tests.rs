//! The horizon against a model of Postgres: transactions that draw ids, take their time, commit, roll
//! back; and a reader that looks at them statement by statement, as `source` does.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use proptest::prelude::*;

use super::{Holder, Horizon};

/// One open transaction.
struct Transaction {
    number: u32,
    /// Keys it has locked, with the ids it drew for them and whether the row was inserted.
    rows: Vec<(i64, u32, bool)>,
    /// Given with the first insert.
    xid: Option<u32>,
    /// Stays open until the end of the test.
    lingers: bool,
}

#[derive(Default)]
struct Server {
    last_id: i64,
    last_xid: u32,
    last_number: u32,
    open: Vec<Transaction>,
    locked: BTreeSet<u32>,
    /// Committed and not sent: id to key.
    unsent: BTreeMap<i64, u32>,
    committed: BTreeSet<i64>,
}

const KEYS: u32 = 6;

/// Rows of one answer.
const LIMIT: usize = 3;

impl Server {
    fn holders(&self) -> Vec<Holder> {
        self.open
            .iter()
            .filter(|transaction| !transaction.rows.is_empty())
            .map(|transaction| Holder {
                virtual_transaction: format!("1/{}", transaction.number).into(),
                xid: transaction.xid,
            })
            .collect()
    }

    fn in_progress(&self) -> BTreeSet<u32> {
        self.open
            .iter()
            .filter_map(|transaction| transaction.xid)
            .collect()
    }

    /// Something happens on the server.
    fn act(&mut self, rng: &mut Rng) {
        match rng.u8(0..10) {
            0..3 if self.open.len() < 5 => self.begin(rng),
            3..7 if !self.open.is_empty() => self.draw(rng),
            7..10 if !self.open.is_empty() => {
                let index = rng.usize(0..self.open.len());
                if !self.open[index].lingers {
                    self.end(index, rng.u8(0..5) > 0);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, rng: &mut Rng) {
        self.last_number += 1;
        self.open.push(Transaction {
            number: self.last_number,
            rows: Vec::new(),
            xid: None,
            lingers: rng.u8(0..20) == 0,
        });
    }

    /// Takes a key's lock, draws an id, and inserts now or later.
    fn draw(&mut self, rng: &mut Rng) {
        let index = rng.usize(0..self.open.len());
        let key = rng.u32(0..KEYS);
        let mine = self.open[index]
            .rows
            .iter()
            .any(|(_, other, _)| *other == key);
        if !mine && !self.locked.insert(key) {
            return;
        }
        self.last_id += 1;
        let inserted = rng.u8(0..4) > 0;
        self.open[index].rows.push((self.last_id, key, inserted));
        if inserted || rng.bool() {
            self.insert(index);
        }
    }

    fn insert(&mut self, index: usize) {
        let transaction = &mut self.open[index];
        for row in &mut transaction.rows {
            row.2 = true;
        }
        if transaction.xid.is_none() {
            self.last_xid += 1;
            transaction.xid = Some(self.last_xid);
        }
    }

    fn end(&mut self, index: usize, commit: bool) {
        if commit {
            self.insert(index);
        }
        let transaction = self.open.swap_remove(index);
        for (id, key, _) in transaction.rows {
            self.locked.remove(&key);
            if commit {
                self.unsent.insert(id, key);
                self.committed.insert(id);
            }
        }
    }
}

/// What the reader has handed over, by key in order.
#[derive(Default)]
struct Reader {
    horizon: Horizon,
    handed: BTreeMap<u32, Vec<i64>>,
    seen: BTreeSet<i64>,
    waiting: Vec<(i64, u32)>,
}

impl Reader {
    fn hand_over(&mut self, server: &mut Server, rows: &[(i64, u32)]) {
        for &(id, key) in rows {
            // The window knows rows that a joined range brings again.
            if self.seen.insert(id) {
                self.handed.entry(key).or_default().push(id);
            }
            server.unsent.remove(&id);
        }
    }

    /// One poll of `source`, with the server acting between any two statements.
    fn poll(&mut self, server: &mut Server, rng: &mut Rng, act: bool) {
        let mut pause = |server: &mut Server| {
            if act {
                for _ in 0..rng.u8(0..4) {
                    server.act(rng);
                }
            }
        };
        pause(server);
        if self.horizon.is_unproven() {
            self.observe(server, &mut pause);
        }
        pause(server);
        let mut forward = std::mem::take(&mut self.waiting);
        if forward.is_empty() {
            let position = self.horizon.position();
            let unsent = server.unsent.range(position.saturating_add(1)..);
            forward = unsent.take(LIMIT).map(|(id, key)| (*id, *key)).collect();
            self.horizon.read_forward(forward.iter().map(|row| row.0));
        }
        let mut rows = forward;
        let mut ended = BTreeSet::new();
        loop {
            pause(server);
            let gaps = self
                .horizon
                .gaps_to_ask(|owner| owner.xid.is_some_and(|xid| ended.contains(&xid)));
            let late: Vec<(i64, u32)> = server
                .unsent
                .iter()
                .filter(|(id, _)| gaps.iter().any(|gap| gap.contains(id)))
                .take(LIMIT)
                .map(|(id, key)| (*id, *key))
                .collect();
            for (id, _) in &late {
                self.horizon.found(*id);
            }
            let complete_upto = late.last().filter(|_| late.len() == LIMIT).map(|row| row.0);
            rows.extend(late);
            rows.sort_unstable();
            if complete_upto.is_none() {
                self.horizon.asked();
            }
            pause(server);
            let more = self.horizon.has_gaps()
                && if self.horizon.has_owner_without_xid() {
                    self.observe(server, &mut pause)
                } else {
                    let in_progress = server.in_progress();
                    let before = ended.len();
                    let owners = self.horizon.owners().filter_map(|owner| owner.xid);
                    ended.extend(owners.filter(|xid| !in_progress.contains(xid)));
                    ended.len() > before
                };
            if more {
                continue;
            }
            if let Some(last) = complete_upto {
                self.waiting = rows.split_off(rows.partition_point(|row| row.0 <= last));
            }
            break;
        }
        self.hand_over(server, &rows);
    }

    fn observe(&mut self, server: &mut Server, pause: &mut impl FnMut(&mut Server)) -> bool {
        let bound = server.last_id;
        pause(server);
        let holders = server.holders();
        self.horizon
            .observe(bound, holders)
            .expect("the model's sequence never falls back")
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_committed_row_is_handed_over_once_and_in_the_order_of_its_key(seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut server = Server::default();
        let mut reader = Reader::default();
        for _ in 0..300 {
            reader.poll(&mut server, &mut rng, true);
        }
        while !server.open.is_empty() {
            let commit = rng.bool();
            server.end(0, commit);
            reader.poll(&mut server, &mut rng, false);
        }
        // Each poll takes three rows at most; the rest is a matter of time.
        for _ in 0..server.unsent.len() + 2 {
            reader.poll(&mut server, &mut rng, false);
        }
        prop_assert_eq!(&reader.seen, &server.committed);
        for (key, ids) in &reader.handed {
            prop_assert!(ids.is_sorted(), "key {}: {:?}", key, ids);
        }
        prop_assert!(!reader.horizon.has_gaps(), "nobody is left to fill a gap");
    }
}

fn holder(number: u32, xid: Option<u32>) -> Holder {
    Holder {
        virtual_transaction: format!("1/{number}").into(),
        xid,
    }
}

#[test]
fn a_long_transaction_does_not_grow_the_question() {
    let mut horizon = Horizon::default();
    horizon.observe(0, Vec::new()).unwrap();
    let long = holder(1, Some(10));
    // Id 1 is the long one's; of every ten ids after it one is rolled back.
    for poll in 0..1_000_i64 {
        let ids: Vec<i64> = (poll * 10 + 2..poll * 10 + 11).collect();
        horizon.read_forward(ids.iter().copied());
        horizon.observe(poll * 10 + 11, vec![long.clone()]).unwrap();
        let asked = horizon.gaps_to_ask(|_| false);
        assert!(asked.len() <= 3, "poll {poll} asks {asked:?}");
        horizon.asked();
    }
    assert_eq!(horizon.gap_count(), 1_000);
    let all = horizon.gaps_to_ask(|owner| owner.xid == Some(10));
    assert_eq!(
        all.len(),
        1_000,
        "once it has ended, everything of its time is asked for"
    );
    horizon.observe(10_001, Vec::new()).unwrap();
    horizon.asked();
    assert!(!horizon.has_gaps());
    assert_eq!(horizon.floor(), 10_001);
}

#[test]
fn a_million_ids_that_are_missing_are_one_range() {
    let mut horizon = Horizon::default();
    horizon.read_forward([1, 1_000_002]);
    assert_eq!(
        horizon.gaps_to_ask(|_| false),
        [i64::MIN + 1..=0, 2..=1_000_001]
    );
}

#[test]
fn a_sequence_that_falls_back_is_noticed() {
    let mut horizon = Horizon::default();
    horizon.observe(10, Vec::new()).unwrap();
    assert!(horizon.observe(9, Vec::new()).is_err());
    let mut horizon = Horizon::default();
    horizon.read_forward([20]);
    assert!(horizon.observe(19, Vec::new()).is_err());
    assert!(horizon.observe(20, Vec::new()).is_ok());
}

#[test]
fn too_many_ranges_are_joined_and_lose_no_id() {
    let mut horizon = Horizon::default();
    let ids = (0..70_000_i64).map(|index| index * 2);
    horizon.read_forward(ids);
    assert!(horizon.gap_count() <= 65_536, "{}", horizon.gap_count());
    let asked = horizon.gaps_to_ask(|_| false);
    for id in (0..69_999).map(|index| index * 2 + 1) {
        let range = asked.partition_point(|gap| *gap.end() < id);
        assert!(asked[range].contains(&id), "{id}");
    }
}

#[test]
fn a_row_that_was_not_seen_is_expected_until_a_proof_says_otherwise() {
    let mut horizon = Horizon::default();
    horizon.observe(0, Vec::new()).unwrap();
    horizon.read_forward([1, 4]);
    let expected = |horizon: &Horizon| [1, 2, 3, 4, 5].map(|id| horizon.is_in_gap(id));
    assert_eq!(expected(&horizon), [false, true, true, false, false]);
    horizon.found(3);
    assert_eq!(expected(&horizon), [false, true, false, false, false]);

    horizon.observe(4, Vec::new()).unwrap();
    horizon.asked();
    assert_eq!(expected(&horizon), [false; 5]);
}
