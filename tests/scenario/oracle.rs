//! The verdict: what the database says was committed against what is on Kafka.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::application::{Fate, Fates};
use super::plan::{self, AGGREGATE_TYPES, Key};
use super::topics::{Ends, Place, Record, Topics};

/// How many offenses a failure describes.
const SHOWN: usize = 5;

/// A committed event, as the application's own table tells it.
#[derive(Debug, Clone, Copy)]
struct Truth {
    key: Key,
    /// Its number in the order of the key, from 1.
    sequence: i64,
    transaction: u64,
    event: usize,
}

/// What was counted, when nothing was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    pub events: usize,
    /// Second and further copies of an event.
    pub repeats: usize,
    /// The same by period: before the first of the given ends, between it and the next, and so on.
    pub repeats_by_period: Vec<usize>,
}

/// Compares everything, and panics with the seed and the first offenses if something is wrong.
/// `periods` are the ends of the partitions at the moments that part the repeats.
pub async fn judge(
    url: &str,
    seed: u64,
    fates: &Fates,
    topics: &Topics,
    periods: Vec<Ends>,
) -> Counts {
    let mut connection = PgConnection::connect(url).await.expect("connecting");
    let truth = truth(&mut connection).await;
    let mut offenses = Offenses::default();
    compare_with_fates(&truth, fates, &mut offenses);
    compare_with_outbox(&mut connection, &truth, &mut offenses).await;

    let reading = Arc::new(Mutex::new(Reading {
        seed,
        truth,
        periods,
        offenses,
        first: HashMap::new(),
        by_key: BTreeMap::new(),
        repeats: Vec::new(),
    }));
    let reader = Arc::clone(&reading);
    let each = move |record| reader.lock().expect("no reader panicked").take(record);
    topics.read(each).await;
    let mut reading = reading.lock().expect("no reader panicked");
    reading.finish(topics, fates);
    reading.offenses.assert_none(seed);
    Counts {
        events: reading.first.len(),
        repeats: reading.repeats.iter().sum(),
        repeats_by_period: reading.repeats.clone(),
    }
}

async fn truth(connection: &mut PgConnection) -> HashMap<Uuid, Truth> {
    let rows =
        sqlx::query("select event_id, key, sequence, transaction, number from scenario_events")
            .fetch_all(connection)
            .await
            .expect("reading what was committed");
    rows.iter()
        .map(|row| {
            let truth = Truth {
                key: Key(row.get::<i32, _>(1).cast_unsigned()),
                sequence: row.get(2),
                transaction: row.get::<i64, _>(3).cast_unsigned(),
                event: row.get::<i32, _>(4) as usize,
            };
            (row.get(0), truth)
        })
        .collect()
}

/// The database kept what it confirmed, and nothing else. Otherwise the scenario proves nothing.
fn compare_with_fates(truth: &HashMap<Uuid, Truth>, fates: &Fates, offenses: &mut Offenses) {
    for (event_id, fate) in fates {
        match (fate, truth.contains_key(event_id)) {
            (Fate::Committed, false) => {
                offenses.add("the database lost a committed event", event_id)
            }
            (Fate::RolledBack, true) => {
                offenses.add("the database kept a rolled-back event", event_id)
            }
            _ => {}
        }
    }
    for event_id in truth.keys().filter(|id| !fates.contains_key(*id)) {
        // The insert's own answer was lost, so no commit can have followed.
        offenses.add("the database has an event that nobody wrote", event_id);
    }
}

async fn compare_with_outbox(
    connection: &mut PgConnection,
    truth: &HashMap<Uuid, Truth>,
    offenses: &mut Offenses,
) {
    let rows = sqlx::query("select event_id, id, sent_at is null from outbox_events order by id")
        .fetch_all(&mut *connection)
        .await
        .expect("reading the outbox");
    let mut last: HashMap<Key, i64> = HashMap::new();
    for row in &rows {
        let (event_id, id): (Uuid, i64) = (row.get(0), row.get(1));
        if row.get(2) {
            offenses.add(
                "a row is not marked",
                &format!("row {id}, event {event_id}"),
            );
        }
        let Some(event) = truth.get(&event_id) else {
            offenses.add("the outbox has a row that nobody committed", &event_id);
            continue;
        };
        // The promise of order leans on this, so it is the application that would be wrong.
        let before = last.insert(event.key, event.sequence).unwrap_or(0);
        if before > event.sequence {
            offenses.add(
                "ids were not drawn under the key's lock",
                &format!("row {id}, {event:?}"),
            );
        }
    }
    if rows.len() != truth.len() {
        let counts = format!("{} rows for {} events", rows.len(), truth.len());
        offenses.add("the outbox lost rows", &counts);
    }
}

/// What was read of the topics so far.
struct Reading {
    seed: u64,
    truth: HashMap<Uuid, Truth>,
    periods: Vec<Ends>,
    offenses: Offenses,
    /// The first copies.
    first: HashMap<Uuid, (Place, u64)>,
    /// The first copies of each key in the order of their offsets.
    by_key: BTreeMap<u32, Vec<(Place, i64, Uuid)>>,
    repeats: Vec<usize>,
}

impl Reading {
    fn take(&mut self, record: Record) {
        let Some(event_id) = record.event_id else {
            self.offenses
                .add("a record without an event id", &record.place);
            return;
        };
        if let Some((first, digest)) = self.first.get(&event_id) {
            if *digest != record.digest {
                let places = format!("event {event_id}: {first:?} and {:?}", record.place);
                self.offenses.add("copies of an event differ", &places);
            }
            self.repeated(record.place);
            return;
        }
        self.first.insert(event_id, (record.place, record.digest));
        let Some(truth) = self.truth.get(&event_id).copied() else {
            // Told apart at the end, with its fate.
            return;
        };
        self.by_key
            .entry(truth.key.0)
            .or_default()
            .push((record.place, truth.sequence, event_id));
        let topic = AGGREGATE_TYPES[record.place.topic];
        if (record.key.as_str(), topic) != (&truth.key.aggregate_id(), truth.key.aggregate_type()) {
            let found = format!(
                "event {event_id}: key {} in topic {topic}, {truth:?}",
                record.key
            );
            self.offenses
                .add("an event has the wrong key or topic", &found);
        }
        let payload = plan::payload(self.seed, truth.transaction, truth.event);
        let tail = format!(r#","data":{payload}}}"#);
        if !record.value.ends_with(tail.as_bytes()) {
            let value = String::from_utf8_lossy(&record.value).into_owned();
            self.offenses.add(
                "the payload was changed",
                &format!("event {event_id}: {value}"),
            );
        }
    }

    fn repeated(&mut self, place: Place) {
        let before = |ends: &&Ends| {
            let end = ends.get(&(place.topic, place.partition));
            end.is_some_and(|end| place.offset >= *end)
        };
        let period = self.periods.iter().take_while(before).count();
        if self.repeats.len() <= period {
            self.repeats.resize(period + 1, 0);
        }
        self.repeats[period] += 1;
    }

    fn finish(&mut self, topics: &Topics, fates: &Fates) {
        for (event_id, (place, _)) in &self.first {
            if !self.truth.contains_key(event_id) {
                let found = format!("event {event_id} ({:?}) at {place:?}", fates.get(event_id));
                self.offenses
                    .add("an event that was not committed is on Kafka", &found);
            }
        }
        let mut keys: BTreeMap<u32, i64> = BTreeMap::new();
        for (event_id, truth) in &self.truth {
            *keys.entry(truth.key.0).or_default() += 1;
            if !self.first.contains_key(event_id) {
                self.offenses.add(
                    "a committed event is not on Kafka",
                    &format!("event {event_id}, {truth:?}"),
                );
            }
        }
        for (key, count) in keys {
            let copies = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
            let in_order = copies.iter().map(|copy| copy.1).eq(1..=count);
            let one_partition = copies
                .windows(2)
                .all(|two| two[0].0.partition == two[1].0.partition);
            if !in_order || !one_partition {
                let history = history(topics, key, copies);
                self.offenses.add("a key is out of order", &history);
            }
        }
    }
}

/// A key's records around the first that is out of order.
fn history(topics: &Topics, key: u32, copies: &[(Place, i64, Uuid)]) -> String {
    let wrong = copies
        .iter()
        .zip(1..)
        .position(|(copy, expected)| copy.1 != expected);
    let wrong = wrong.unwrap_or(copies.len());
    let mut text = format!(
        "key {key}, {} events on Kafka, the {}th is wrong:",
        copies.len(),
        wrong + 1
    );
    for (place, sequence, event_id) in copies.iter().skip(wrong.saturating_sub(3)).take(8) {
        let topic = topics.name(place.topic);
        let _ = write!(
            text,
            "\n      number {sequence}, event {event_id}, {topic} {}:{}",
            place.partition, place.offset
        );
    }
    text
}

/// What is wrong: how often, and the first cases.
#[derive(Debug, Default)]
struct Offenses(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Offenses {
    fn add(&mut self, what: &'static str, which: &impl std::fmt::Debug) {
        let (count, shown) = self.0.entry(what).or_default();
        *count += 1;
        if shown.len() < SHOWN {
            // The Debug of a String would escape its line breaks.
            shown.push(format!("{which:?}").replace("\\n", "\n").replace('\\', ""));
        }
    }

    fn assert_none(&self, seed: u64) {
        if self.0.is_empty() {
            return;
        }
        let mut text = format!("OUTBOXD_SCENARIO_SEED={seed} went wrong:");
        for (what, (count, shown)) in &self.0 {
            let _ = write!(text, "\n  {what}: {count} times");
            for which in shown {
                let _ = write!(text, "\n    {which}");
            }
        }
        panic!("{text}");
    }
}
