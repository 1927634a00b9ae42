//! What the lane asks of its source, beside going on.

use std::sync::Arc;

use tokio::sync::watch;

use super::Poll;
use crate::relay::horizon::Horizon;
use crate::relay::unread::Unread;

/// What the lane lets the source read; nothing at first.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// Rows above `cleared_upto` that polls may hand over in all.
    pub rows: u64,
    pub cleared_upto: i64,
    /// Rows that are not to be looked at.
    pub unread: Arc<Unread>,
}

/// What one poll may hand over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Rows above `cleared_upto`.
    pub rows: usize,
    pub cleared_upto: i64,
}

/// How the lane directs the source.
pub struct Directions {
    pub stop: watch::Receiver<bool>,
    /// From which row on held rows are to be read again.
    pub passes: watch::Receiver<Option<i64>>,
    pub allowance: watch::Receiver<Allowance>,
}

/// What is asked of a source, beside going on.
pub(super) struct Orders {
    /// With `until_empty`: the last id that is wanted.
    pub target: Option<i64>,
    /// Everything up to the target was handed over.
    pub is_done: bool,
    pub passes: watch::Receiver<Option<i64>>,
    /// How far the pass under way has come.
    pub pass_after: Option<i64>,
    pub allowance: watch::Receiver<Allowance>,
    /// Rows that polls have handed over.
    pub handed_over: u64,
    /// The lane was told that the last poll left nothing.
    pub has_said_all: bool,
}

impl Orders {
    pub(super) fn new(directions: Directions) -> Orders {
        Orders {
            target: None,
            is_done: false,
            passes: directions.passes,
            pass_after: None,
            allowance: directions.allowance,
            handed_over: 0,
            has_said_all: false,
        }
    }

    /// Waits until polls may hand over rows, and says which; nothing when the lane is gone.
    pub(super) async fn allowed(&mut self) -> Option<Allowed> {
        let handed_over = self.handed_over;
        let is_done = self.is_done;
        let allowance = self
            .allowance
            .wait_for(|allowance| is_done || allowance.rows > handed_over);
        let allowance = allowance.await.ok()?;
        let left = allowance.rows.saturating_sub(handed_over);
        Some(Allowed {
            rows: usize::try_from(left).unwrap_or(usize::MAX),
            cleared_upto: allowance.cleared_upto,
        })
    }

    pub(super) fn unread(&self) -> Arc<Unread> {
        Arc::clone(&self.allowance.borrow().unread)
    }

    /// A poll hands over so many rows; says whether it is news that there are no more.
    pub(super) fn hand_over(&mut self, rows: usize, is_all: bool) -> bool {
        self.handed_over = self.handed_over.saturating_add(rows as u64);
        is_all && !std::mem::replace(&mut self.has_said_all, is_all)
    }

    /// Takes an order for a pass, if there is a new one.
    pub(super) fn take_pass(&mut self) {
        if self.passes.has_changed().unwrap_or(false) {
            let from = *self.passes.borrow_and_update();
            self.pass_after = from.map(|from| from.saturating_sub(1));
        }
    }

    /// Whether everything up to the target has been read with this poll, for the first time.
    pub(super) fn is_reached_by(&mut self, poll: &Poll, horizon: &Horizon) -> bool {
        let is_reached = !self.is_done
            && self.target.is_some_and(|target| {
                !poll.full && (poll.batch.is_empty() || horizon.position() >= target)
            });
        self.is_done |= is_reached;
        is_reached
    }
}
