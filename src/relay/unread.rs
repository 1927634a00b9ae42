//! Rows that are not to be looked at: those that were parked before our time, and what Postgres cannot read.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};

use uuid::Uuid;

use crate::event::EventRef;

/// A set of such rows, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub struct Unread(BTreeSet<EventRef>);

impl FromIterator<EventRef> for Unread {
    fn from_iter<T: IntoIterator<Item = EventRef>>(rows: T) -> Unread {
        Unread(rows.into_iter().collect())
    }
}

impl Unread {
    pub fn contains(&self, event: EventRef) -> bool {
        let is_within = self.0.last().is_some_and(|last| event.id <= last.id);
        is_within && self.0.contains(&event)
    }

    /// The first id above this one.
    pub fn next(&self, after: i64) -> Option<i64> {
        let mut above = self.0.range((Excluded(last_of(after)), Unbounded));
        above.next().map(|event| event.id)
    }

    /// How many there are above `after`, up to `upto`.
    pub fn count(&self, after: i64, upto: i64) -> usize {
        let span = (Excluded(last_of(after)), Included(last_of(upto)));
        self.0.range(span).count()
    }

    pub fn insert(&mut self, event: EventRef) {
        self.0.insert(event);
    }

    pub fn remove(&mut self, event: EventRef) {
        self.0.remove(&event);
    }
}

/// No event has this place, and none of the same row is above it.
fn last_of(id: i64) -> EventRef {
    EventRef {
        id,
        event_id: Uuid::max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_ids() {
        let event = |id| EventRef {
            id,
            event_id: Uuid::from_u128(7),
        };
        let mut unread = Unread::from_iter([event(5), event(9), event(10)]);
        assert_eq!(
            [4, 5, 9, 10].map(|after| unread.next(after)),
            [Some(5), Some(9), Some(10), None]
        );
        assert_eq!(
            (unread.count(4, 9), unread.count(5, 9), unread.count(10, 20)),
            (2, 1, 0)
        );
        let other = EventRef {
            event_id: Uuid::from_u128(8),
            ..event(5)
        };
        assert!(unread.contains(event(5)) && !unread.contains(other));
        unread.remove(event(5));
        unread.insert(other);
        assert!(!unread.contains(event(5)) && unread.contains(other));
    }
}
