//! Which offsets of a partition are done, and up to where the group may commit.

use std::collections::VecDeque;

/// The offsets of one partition between the first that is not done and the last that was admitted.
///
/// They come in ascending order with gaps: compaction and transactions leave some out.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    open: VecDeque<(i64, bool)>,
    last: Option<i64>,
    /// One more than the last offset of the part that is done without a gap; what was not yet taken.
    position: Option<i64>,
}

impl Offsets {
    /// False if an offset does not follow those before it: the partition starts anew elsewhere.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        if self.last.is_some_and(|last| offset <= last) {
            return false;
        }
        self.last = Some(offset);
        self.open.push_back((offset, false));
        true
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

    /// How many offsets lie between the first open one and the last.
    pub(super) fn span(&self) -> usize {
        self.open.len()
    }

    /// The position to commit, once.
    pub(super) fn take_position(&mut self) -> Option<i64> {
        self.position.take()
    }
}
