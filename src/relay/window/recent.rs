//! A bounded memory of acknowledged events.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::event::EventRef;

/// Remembers the last events that were acknowledged.
#[derive(Debug)]
pub(super) struct Recent {
    capacity: usize,
    order: VecDeque<EventRef>,
    /// How often each stands in `order`: an event can be acknowledged twice.
    counts: HashMap<EventRef, u32>,
}

impl Recent {
    pub fn new(capacity: usize) -> Recent {
        Recent {
            capacity,
            order: VecDeque::new(),
            counts: HashMap::new(),
        }
    }

    pub fn contains(&self, event: &EventRef) -> bool {
        self.counts.contains_key(event)
    }

    pub fn push(&mut self, event: EventRef) {
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.order.push_back(event);
        *self.counts.entry(event).or_insert(0) += 1;
    }
}
