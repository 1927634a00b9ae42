//! Rows in: from the source into the window, as far as there is room.

use super::LaneCore;
use crate::relay::router::{Batch, Origin};
use crate::relay::window::Admission;

impl LaneCore {
    /// Rows have come from the source.
    pub(super) fn take_rows(&mut self, batch: Batch) {
        for (id, name) in batch.new_topics {
            self.block_keys_of(id, &name);
            self.obey_wishes(id, &name);
            if !self.topics.add(id, name) {
                // Its rows say so themselves.
                self.window.open_topic(id);
            }
        }
        self.source_done |= batch.last;
        if batch.origin == Origin::Poll {
            let last = batch.rows.last().map(|row| row.event.id);
            self.caution.take(batch.suspects, last, batch.is_all);
        }
        self.inbox_origin = batch.origin;
        self.inbox.extend(batch.rows);
        if let Origin::Pass { upto, .. } = batch.origin {
            self.window.reread(upto);
        }
    }

    /// Moves rows into the window as far as there is room.
    pub(super) fn admit(&mut self) {
        while let Some(row) = self.inbox.pop_front() {
            let event = row.event;
            let admission = match self.window.admit(row) {
                Ok(admission) => admission,
                Err(row) => {
                    self.inbox.push_front(row);
                    return;
                }
            };
            match admission {
                Admission::New if self.inbox_origin == Origin::Sweep => {
                    self.metrics.swept_rows.inc();
                    tracing::warn!(
                        outbox = self.name,
                        event.row = event.id,
                        event.id = %event.event_id,
                        "the sweep found an unsent row that the scan had passed"
                    );
                }
                Admission::New | Admission::Known | Admission::Held | Admission::Parked => {}
                Admission::Acknowledged => self.hand_to_marker(vec![event]),
            }
        }
        if let Origin::Pass { is_over: true, .. } = std::mem::take(&mut self.inbox_origin) {
            self.window.end_pass();
        }
        if let Some(from) = self.window.begin_pass() {
            // Whoever ended with the source is noticed by the main loop.
            let _ = self.passes.send(Some(from));
        }
    }
}
