//! Rows that are not to be looked at: those that were parked before our time, and what Postgres cannot read.

use hashbrown::HashSet;

use crate::event::EventRef;

/// A set of such rows.
#[derive(Debug, Clone)]
pub struct Unread {
    rows: HashSet<EventRef>,
    /// No row of the set is above.
    upto: i64,
}

impl Default for Unread {
    fn default() -> Self {
        Unread::from_iter([])
    }
}

impl FromIterator<EventRef> for Unread {
    fn from_iter<T: IntoIterator<Item = EventRef>>(rows: T) -> Unread {
        let rows = HashSet::from_iter(rows);
        let upto = rows.iter().map(|row: &EventRef| row.id).max();
        Unread {
            upto: upto.unwrap_or(i64::MIN),
            rows,
        }
    }
}

impl Unread {
    pub fn contains(&self, event: EventRef) -> bool {
        event.id <= self.upto && self.rows.contains(&event)
    }

    /// Whether there may be some with ids above this one.
    pub fn is_above(&self, after: i64) -> bool {
        after < self.upto
    }

    pub fn insert(&mut self, event: EventRef) {
        self.rows.insert(event);
        self.upto = self.upto.max(event.id);
    }

    pub fn remove(&mut self, event: EventRef) {
        self.rows.remove(&event);
        if self.rows.is_empty() {
            self.upto = i64::MIN;
        }
    }
}
