//! What went in at one end and came out at the other. No I/O: the writer and the reader report here,
//! the display and the verdict read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::figures::{Latencies, LatencyFigures, Series};

/// Rolled back rows that are remembered. One that leaked would arrive within moments, so the last
/// few minutes are plenty.
const REMEMBERED: usize = 10_000;

/// Rows inserted by hand that are told apart when one arrives twice.
const REMEMBERED_BY_HAND: usize = 100_000;

/// How long an event is shown before the next one takes its place: long enough to read a line of it.
const SHOW: Duration = Duration::from_millis(1500);

/// The same for an event of the user's own.
const SHOW_BY_HAND: Duration = Duration::from_secs(8);

/// A record as the consumer received it.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// From the header `event-id`.
    pub event_id: Option<Uuid>,
    /// Whether the row was inserted by this run of the demo.
    pub is_sample: bool,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: String,
}

/// The event on display.
#[derive(Debug, Clone)]
pub struct Shown {
    pub event: Received,
    pub by_hand: bool,
    since: Instant,
}

/// What the user's own rows came to, as the database tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByHand {
    pub rows: u64,
    /// Not marked sent yet.
    pub unsent: u64,
}

/// A sample row that was inserted and has not arrived.
#[derive(Debug)]
struct Row {
    inserted: Instant,
    committed: bool,
    /// It can arrive before the writer has heard of its own commit.
    arrived: Option<Instant>,
}

/// Counts of both ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sample rows whose transaction committed.
    pub committed: u64,
    /// Of these, the ones whose event arrived.
    pub arrived: u64,
    /// Events that arrived again: at least once allows it.
    pub repeated: u64,
    /// Sample rows that were rolled back.
    pub rolled_back: u64,
    /// Of these, the ones whose event arrived: there must be none.
    pub leaked: u64,
    pub by_hand: ByHand,
    pub by_hand_arrived: u64,
}

/// The books of one run.
#[derive(Debug)]
pub struct Books {
    totals: Totals,
    on_the_way: HashMap<Uuid, Row>,
    rolled_back: HashSet<Uuid>,
    rolled_back_order: VecDeque<Uuid>,
    by_hand: HashSet<Uuid>,
    leaked: Option<Uuid>,
    latencies: Latencies,
    rows_in: Series,
    events_out: Series,
    shown: Option<Shown>,
}

impl Books {
    pub fn new(now: Instant) -> Books {
        Books {
            totals: Totals::default(),
            on_the_way: HashMap::new(),
            rolled_back: HashSet::new(),
            rolled_back_order: VecDeque::new(),
            by_hand: HashSet::new(),
            leaked: None,
            latencies: Latencies::default(),
            rows_in: Series::new(now),
            events_out: Series::new(now),
            shown: None,
        }
    }

    /// A sample row was inserted; its transaction is open.
    pub fn inserted(&mut self, id: Uuid, now: Instant) {
        let row = Row {
            inserted: now,
            committed: false,
            arrived: None,
        };
        self.on_the_way.insert(id, row);
    }

    pub fn committed(&mut self, id: Uuid, now: Instant) {
        self.totals.committed += 1;
        self.rows_in.add(now);
        let Some(row) = self.on_the_way.get_mut(&id) else {
            return;
        };
        row.committed = true;
        if let Some(arrived) = row.arrived {
            self.settle(id, arrived);
        }
    }

    pub fn rolled_back(&mut self, id: Uuid) {
        self.totals.rolled_back += 1;
        if let Some(Row {
            arrived: Some(_), ..
        }) = self.on_the_way.remove(&id)
        {
            self.leak(id);
        }
        self.rolled_back.insert(id);
        self.rolled_back_order.push_back(id);
        if self.rolled_back_order.len() > REMEMBERED
            && let Some(oldest) = self.rolled_back_order.pop_front()
        {
            self.rolled_back.remove(&oldest);
        }
    }

    pub fn received(&mut self, event: Received, now: Instant) {
        let mut by_hand = false;
        self.events_out.add(now);
        match event.event_id {
            Some(id) if self.on_the_way.contains_key(&id) => self.arrived(id, now),
            Some(id) if self.rolled_back.contains(&id) => self.leak(id),
            Some(_) if event.is_sample => self.totals.repeated += 1,
            id => {
                by_hand = true;
                self.arrived_by_hand(id);
            }
        }
        self.show(event, by_hand, now);
    }

    pub fn count_by_hand(&mut self, by_hand: ByHand, now: Instant) {
        for _ in self.totals.by_hand.rows..by_hand.rows {
            self.rows_in.add(now);
        }
        self.totals.by_hand = by_hand;
    }

    fn arrived(&mut self, id: Uuid, now: Instant) {
        let Some(row) = self.on_the_way.get_mut(&id) else {
            return;
        };
        if row.arrived.replace(now).is_some() {
            self.totals.repeated += 1;
        } else if row.committed {
            self.settle(id, now);
        }
    }

    fn arrived_by_hand(&mut self, id: Option<Uuid>) {
        let is_new = match id {
            Some(id) if self.by_hand.len() < REMEMBERED_BY_HAND => self.by_hand.insert(id),
            Some(id) => !self.by_hand.contains(&id),
            None => true,
        };
        match is_new {
            true => self.totals.by_hand_arrived += 1,
            false => self.totals.repeated += 1,
        }
    }

    /// A committed row's event is there.
    fn settle(&mut self, id: Uuid, arrived: Instant) {
        if let Some(row) = self.on_the_way.remove(&id) {
            self.totals.arrived += 1;
            self.latencies
                .add(arrived.saturating_duration_since(row.inserted));
        }
    }

    fn leak(&mut self, id: Uuid) {
        self.totals.leaked += 1;
        self.leaked.get_or_insert(id);
    }

    /// Twenty events a second cannot be read: one stays for a while, the user's own for longer.
    fn show(&mut self, event: Received, by_hand: bool, now: Instant) {
        let is_due = self.shown.as_ref().is_none_or(|shown| {
            let time = if shown.by_hand { SHOW_BY_HAND } else { SHOW };
            now.saturating_duration_since(shown.since) >= time
        });
        if by_hand || is_due {
            self.shown = Some(Shown {
                event,
                by_hand,
                since: now,
            });
        }
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Inserted rows whose event has not arrived, or whose transaction is open.
    pub fn on_the_way(&self) -> usize {
        self.on_the_way.len()
    }

    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    pub fn rows_in(&mut self, now: Instant) -> &Series {
        self.rows_in.advance(now);
        &self.rows_in
    }

    pub fn events_out(&mut self, now: Instant) -> &Series {
        self.events_out.advance(now);
        &self.events_out
    }

    /// Of the last events.
    pub fn recent_latency(&self) -> Option<LatencyFigures> {
        self.latencies.recent()
    }

    /// Of all events.
    pub fn overall_latency(&self) -> Option<LatencyFigures> {
        self.latencies.overall()
    }

    /// What is missing, or was published against the promise; empty if nothing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let totals = &self.totals;
        let missing = totals.committed - totals.arrived;
        if missing > 0 {
            let first = self.on_the_way.iter().filter(|(_, row)| row.committed);
            let first = first.min_by_key(|(_, row)| row.inserted);
            let first = first.map(|(id, _)| id.to_string()).unwrap_or_default();
            faults.push(format!(
                "{missing} of {} committed rows did not arrive, the first of them {first}",
                totals.committed
            ));
        }
        if let Some(first) = self.leaked {
            faults.push(format!(
                "{} of {} rolled back rows arrived, the first of them {first}",
                totals.leaked, totals.rolled_back
            ));
        }
        if totals.by_hand.unsent > 0 {
            faults.push(format!(
                "{} of {} rows inserted by hand were not published",
                totals.by_hand.unsent, totals.by_hand.rows
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: Uuid) -> Received {
        Received {
            event_id: Some(id),
            is_sample: true,
            ..Received::default()
        }
    }

    fn books() -> (Books, Instant, Uuid) {
        let now = Instant::now();
        (Books::new(now), now, Uuid::now_v7())
    }

    #[test]
    fn a_row_that_arrives_before_its_writer_hears_of_the_commit_is_counted_once() {
        let (mut books, start, id) = books();
        books.inserted(id, start);
        books.received(sample(id), start + Duration::from_millis(3));
        assert_eq!(books.totals().arrived, 0);

        books.committed(id, start + Duration::from_millis(9));

        assert_eq!((books.totals().arrived, books.on_the_way()), (1, 0));
        let latency = books.overall_latency().expect("one latency");
        assert_eq!(latency.p50.as_millis(), 3);
        assert!(books.faults().is_empty());
    }

    #[test]
    fn a_committed_row_that_does_not_arrive_is_named() {
        let (mut books, now, id) = books();
        books.inserted(id, now);
        books.committed(id, now);

        let faults = books.faults();

        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("1 of 1 committed rows did not arrive"));
        assert!(faults[0].ends_with(&id.to_string()));
    }

    #[test]
    fn a_rolled_back_row_that_arrives_is_a_fault_before_and_after_the_rollback() {
        for arrives_first in [true, false] {
            let (mut books, now, id) = books();
            books.inserted(id, now);
            if arrives_first {
                books.received(sample(id), now);
            }
            books.rolled_back(id);
            if !arrives_first {
                books.received(sample(id), now);
            }
            assert_eq!(books.totals().leaked, 1);
            assert_eq!(books.faults().len(), 1);
        }
    }

    #[test]
    fn an_event_that_arrives_again_is_a_repetition_and_no_fault() {
        let (mut books, now, id) = books();
        books.inserted(id, now);
        books.committed(id, now);
        books.received(sample(id), now);
        books.received(sample(id), now);
        assert_eq!((books.totals().arrived, books.totals().repeated), (1, 1));
        assert!(books.faults().is_empty());
    }

    #[test]
    fn an_event_of_the_users_own_is_counted_apart_and_shown_at_once() {
        let (mut books, now, id) = books();
        books.inserted(id, now);
        books.committed(id, now);
        books.received(sample(id), now);
        let own = Received {
            is_sample: false,
            ..sample(Uuid::now_v7())
        };

        books.received(own.clone(), now);
        books.received(own, now);

        assert_eq!(books.totals().by_hand_arrived, 1);
        assert!(books.shown().expect("an event").by_hand);
    }

    #[test]
    fn a_row_of_the_users_own_that_is_not_published_is_a_fault() {
        let (mut books, now, _) = books();
        books.count_by_hand(ByHand { rows: 2, unsent: 1 }, now);
        assert_eq!(
            books.faults(),
            ["1 of 2 rows inserted by hand were not published"]
        );
    }
}
