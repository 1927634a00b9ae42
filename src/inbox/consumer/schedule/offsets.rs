//! Which offsets of a partition are done, and up to where the group may commit.

use std::collections::VecDeque;

/// The offsets of one partition between the first that is not done and the last that was admitted.
///
/// They come in ascending order with gaps (compaction and transactions leave some out); those that come
/// again, or from the start of a topic that was made anew, are taken into their place.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    open: VecDeque<(i64, bool)>,
    /// One more than the last offset of the part that is done without a gap; what was not yet taken.
    position: Option<i64>,
}

impl Offsets {
    /// False if the offset is here already and not done.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        match self
            .open
            .binary_search_by_key(&offset, |(offset, _)| *offset)
        {
            Ok(index) => std::mem::replace(&mut self.open[index].1, false),
            Err(index) => {
                self.open.insert(index, (offset, false));
                true
            }
        }
    }

    pub(super) fn done(&mut self, offset: i64) {
        if let Ok(index) = self
            .open
            .binary_search_by_key(&offset, |(offset, _)| *offset)
        {
            self.open[index].1 = true;
        }
        while let Some((offset, true)) = self.open.front() {
            self.position = Some(offset + 1);
            self.open.pop_front();
        }
    }

    pub(super) fn first_open(&self) -> Option<i64> {
        // What is done at the front is taken away at once.
        self.open.front().map(|(offset, _)| *offset)
    }

    /// How many offsets lie between the first open one and the last.
    pub(super) fn span(&self) -> usize {
        self.open.len()
    }

    /// The position to commit, once.
    pub(super) fn take_position(&mut self) -> Option<i64> {
        self.position.take()
    }
}
