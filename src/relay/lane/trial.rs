//! Reading with caution, after other relays died at the same outbox. What is read when is decided by
//! [`Caution`]; here the source is told, and the lease.

use std::sync::Arc;

use super::LaneCore;
use crate::db::lease::Deaths;
use crate::event::EventRef;
use crate::relay::caution::{Caution, Note, Plan};
use crate::relay::park::{Loaded, Order};
use crate::relay::unread::Unread;

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
        let unread = Arc::new(loaded.parked.events.iter().copied().collect());
        self.allowance.send_modify(|allowance| {
            allowance.unread = unread;
            allowance.cleared_upto = cleared_upto;
        });
        self.allow();
    }

    /// Somebody has decided about these rows: they may be looked at.
    pub(super) fn let_read(&mut self, events: impl Iterator<Item = EventRef>) {
        let unread = Arc::clone(&self.allowance.borrow().unread);
        let events: Vec<_> = events.filter(|event| unread.contains(*event)).collect();
        drop(unread);
        self.change_unread(&events, Unread::remove);
    }

    /// These rows are parked, and Postgres cannot read them.
    pub(super) fn leave_unread(&mut self, events: &[EventRef]) {
        self.change_unread(events, Unread::insert);
    }

    /// The set is copied for it, while the source looks at the old one.
    fn change_unread(&self, events: &[EventRef], change: impl Fn(&mut Unread, EventRef)) {
        if !events.is_empty() {
            self.allowance.send_modify(|allowance| {
                let unread = Arc::make_mut(&mut allowance.unread);
                events.iter().for_each(|event| change(unread, *event));
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
