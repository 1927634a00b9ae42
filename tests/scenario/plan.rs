//! What the writers do: every transaction follows from the seed and its number alone.

use std::time::Duration;

use fastrand::Rng;

/// Keys that get a fifth of all events: enough to hold several rows of one key in every batch, few
/// enough that writers meet at their locks.
const HOT_KEYS: u32 = 10;

const HOT_SHARE: f64 = 0.2;

/// The longest pause before the end of a transaction, and of a prepared one after its preparation.
const LONGEST_PAUSE_MS: u64 = 200;

/// Shares of all transactions. With the rolled-back half of the prepared ones, a tenth is rolled back.
const ROLLED_BACK_SHARE: f64 = 0.09;
const PREPARED_SHARE: f64 = 0.02;
const SAVEPOINT_SHARE: f64 = 0.1;
const PAUSED_SHARE: f64 = 0.02;

/// Topics differ by this part of the key's number.
pub const AGGREGATE_TYPES: [&str; 3] = ["order", "payment", "shipment"];

/// One transaction of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// In the order of the keys' numbers, which is the order of their locks.
    pub events: Vec<Key>,
    pub savepoint: Option<Savepoint>,
    /// Before the end, with all locks held.
    pub pause: Duration,
    pub end: End,
}

/// A part of the events between a savepoint and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    /// The first event after it.
    pub first: usize,
    /// The first event after its end.
    pub end: usize,
    pub fate: SavepointFate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavepointFate {
    Released,
    RolledBack,
    /// A statement fails first, as a check constraint or a unique key would make it.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
    /// In two phases; somebody else ends it, after a pause.
    Prepare {
        commit: bool,
        pause: Duration,
    },
}

/// An order key of the application, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl Key {
    /// Half of the keys have a row to lock, the others leave locking to `outbox_append`.
    pub fn is_locked_by_append(self) -> bool {
        self.0 % 2 == 1
    }

    pub fn aggregate_type(self) -> &'static str {
        AGGREGATE_TYPES[self.0 as usize % AGGREGATE_TYPES.len()]
    }

    pub fn aggregate_id(self) -> String {
        format!("key-{}", self.0)
    }
}

/// The transaction of this number.
pub fn transaction(seed: u64, keys: u32, number: u64) -> Transaction {
    let mut rng = Rng::with_seed(mixed(seed, number));
    let mut events: Vec<Key> = (0..rng.usize(1..=5)).map(|_| key(&mut rng, keys)).collect();
    events.sort_unstable();
    let savepoint = (rng.f64() < SAVEPOINT_SHARE).then(|| savepoint(&mut rng, events.len()));
    let wait = match rng.f64() < PAUSED_SHARE {
        true => pause(&mut rng),
        false => Duration::ZERO,
    };
    let choice = rng.f64();
    let end = if choice < ROLLED_BACK_SHARE {
        End::Rollback
    } else if choice < ROLLED_BACK_SHARE + PREPARED_SHARE {
        End::Prepare {
            commit: rng.bool(),
            pause: pause(&mut rng),
        }
    } else {
        End::Commit
    };
    Transaction {
        events,
        savepoint,
        pause: wait,
        end,
    }
}

/// The payload of an event: valid JSON of 60 to 600 bytes in a form that no serializer would write.
pub fn payload(seed: u64, number: u64, event: usize) -> String {
    let mut rng = Rng::with_seed(mixed(seed, number) ^ (event as u64 + 1));
    let filler: String = (0..rng.usize(0..540)).map(|_| rng.alphanumeric()).collect();
    format!(
        r#"{{ "transaction" :{number},"event":{event}, "amount":1.50, "none":null,"tags":[ ],"f":"{filler}"}}"#
    )
}

fn key(rng: &mut Rng, keys: u32) -> Key {
    let range = match rng.f64() < HOT_SHARE {
        true => 0..HOT_KEYS.min(keys),
        false => 0..keys,
    };
    Key(rng.u32(range))
}

fn savepoint(rng: &mut Rng, events: usize) -> Savepoint {
    let first = rng.usize(0..events);
    let end = rng.usize(first + 1..=events);
    let fate = match rng.u32(0..3) {
        0 => SavepointFate::Released,
        1 => SavepointFate::RolledBack,
        _ => SavepointFate::Failed,
    };
    Savepoint { first, end, fate }
}

fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(0..=LONGEST_PAUSE_MS))
}

/// One number of two, in a way that neighbors have nothing in common.
fn mixed(seed: u64, number: u64) -> u64 {
    Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}

#[test]
fn a_plan_has_the_shares_that_it_says() {
    let seed = fastrand::u64(..);
    let all: Vec<Transaction> = (0..20_000).map(|n| transaction(seed, 500, n)).collect();
    let share = |of: &dyn Fn(&Transaction) -> bool| {
        all.iter().filter(|&planned| of(planned)).count() as f64 / all.len() as f64
    };
    let rolled_back = share(&|planned| {
        matches!(
            planned.end,
            End::Rollback | End::Prepare { commit: false, .. }
        )
    });
    let prepared = share(&|planned| matches!(planned.end, End::Prepare { .. }));
    let paused = share(&|planned| !planned.pause.is_zero());
    assert!((0.09..0.11).contains(&rolled_back), "{seed}: {rolled_back}");
    assert!((0.015..0.025).contains(&prepared), "{seed}: {prepared}");
    assert!((0.015..0.025).contains(&paused), "{seed}: {paused}");
    assert!(all.iter().all(|planned| planned.events.is_sorted()));
    assert_eq!(all[7], transaction(seed, 500, 7));
}
