//! Reading with caution, after other relays died at the same outbox. What is read when is decided by
//! [`Caution`]; here the source is told, and the lease.

use std::sync::Arc;

use super::LaneCore;
use crate::db::lease::Deaths;
use crate::event::EventRef;
use crate::relay::caution::{Caution, Note, Plan};
use crate::relay::park::{Loaded, Order};

impl LaneCore {
    /// What was parked before is known: the source may begin.
    pub(super) fn begin_reading(&mut self, loaded: &Loaded) {
        self.caution = Caution::new(self.deaths, loaded.plan);
        let mut cleared_upto = i64::MIN;
        if let Plan::Trial(suspects) = loaded.plan {
            cleared_upto = suspects.after;
            tracing::warn!(
                outbox = self.name,
                deaths = self.deaths.count,
                rows = suspects.rows,
                "relays died in succession without progress, reading fewer rows at a time"
            );
        }
        // In a trial parked rows are not to be counted among those under suspicion.
        let is_trial = self.caution.is_new_trial();
        let parked = loaded.parked.iter();
        let unread = parked
            .filter(|parked| is_trial || parked.is_deadly)
            .map(|parked| parked.event);
        let unread = Arc::new(unread.collect());
        self.allowance.send_modify(|allowance| {
            allowance.unread = unread;
            allowance.cleared_upto = cleared_upto;
        });
        self.allow();
    }

    /// Somebody has decided about a row that may be one which nobody is to look at.
    pub(super) fn let_read(&mut self, event: EventRef) {
        if self.allowance.borrow().unread.contains(&event) {
            self.allowance.send_modify(|allowance| {
                Arc::make_mut(&mut allowance.unread).remove(&event);
            });
        }
    }

    /// Lets the first rows of a trial be read. It begins when Kafka answers: a relay that is ended while it
    /// waits for Kafka does not die of a row.
    pub(super) async fn begin_trial(&mut self) {
        if self.caution.is_new_trial() && self.topics.cluster_answers().await {
            let due = self.caution.begin();
            self.note(due);
        }
    }

    /// Goes on with the trial when its rows are through.
    pub(super) fn watch_trial(&mut self) {
        if !matches!(self.caution, Caution::Off) && self.inbox.is_empty() && self.window.is_quiet()
        {
            let due = self.caution.settle();
            self.note(due);
        }
    }

    /// Rows are settled.
    pub(super) fn make_progress(&mut self) {
        let due = self.caution.progress();
        self.note(due);
    }

    fn note(&mut self, due: Option<Note>) {
        match due {
            None => return,
            Some(Note::Suspects(suspects)) => self.deaths.suspects = Some(suspects),
            Some(Note::Nothing) => self.deaths = Deaths::default(),
        }
        // A parker that has ended is noticed by the main loop.
        let _ = self.orders.send(Order::Note(self.deaths));
    }

    /// The lease knows what it was told.
    pub(super) fn noted(&mut self) {
        let was_trial = matches!(self.caution, Caution::Trial(_));
        self.caution.noted();
        if was_trial && matches!(self.caution, Caution::Off) {
            tracing::info!(
                outbox = self.name,
                "the rows at which relays died are through, reading as always"
            );
        }
        self.allow();
    }

    fn allow(&self) {
        self.allowance
            .send_modify(|allowance| allowance.rows = self.caution.allowance());
    }
}
