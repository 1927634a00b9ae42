//! What has arrived in topics: complete, and each key in its order.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::fixture::{Fixture, Record};

/// The events of rows whose payload is a number that grows with each row of its key. Each counts once: a
/// producer that is made anew may repeat what was in flight.
#[derive(Default)]
pub struct Arrived {
    pub events: HashSet<Uuid>,
    last: HashMap<String, i64>,
}

impl Arrived {
    /// A first copy comes after those of all earlier rows of its key.
    pub fn take(&mut self, record: &Record) {
        if !self.events.insert(record.event_id()) {
            return;
        }
        let number = record.body()["data"].as_i64().unwrap_or(0);
        let key = record.key.clone().expect("a key");
        let before = self.last.insert(key.clone(), number);
        assert!(before < Some(number), "{key}: {number} after {before:?}");
    }

    /// Takes from the fixture's topic until so many events have arrived.
    pub async fn take_until(&mut self, fixture: &mut Fixture, events: usize) {
        while self.events.len() < events {
            self.take(&fixture.next().await);
        }
    }
}
