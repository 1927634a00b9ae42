//! How much may be in memory, and which partitions wait when it is too much.

/// An amount of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Those that are not done.
    pub messages: usize,
    pub bytes: usize,
    /// Done or not, since the first of the partition that is not done.
    pub span: usize,
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// By one partition.
    pub partition: Load,
    /// By all together.
    pub all: Load,
}

impl Limits {
    /// Whether a partition that holds `load` is to be paused. It goes on when it holds half of what it was
    /// paused for.
    ///
    /// Once all together hold half of their limit, each may have its share of the other half, and no more:
    /// so the limit holds, and a partition whose messages are stuck takes no other's share.
    pub(super) fn pause(&self, paused: bool, load: Load, all: Load, partitions: usize) -> bool {
        let part = if paused { 2 } else { 1 };
        let share = |limit: usize| (limit / 2 / partitions.max(1) / part).max(1);
        let too_much = |load: usize, limit: usize, all: usize, limit_of_all: usize| {
            let full = load >= (limit / part).max(1);
            let crowded = all >= limit_of_all / 2 / part && load >= share(limit_of_all);
            full || crowded
        };
        let (one, whole) = (&self.partition, &self.all);
        too_much(load.messages, one.messages, all.messages, whole.messages)
            || too_much(load.bytes, one.bytes, all.bytes, whole.bytes)
            || too_much(load.span, one.span, all.span, whole.span)
    }
}

impl std::iter::Sum for Load {
    fn sum<I: Iterator<Item = Load>>(loads: I) -> Load {
        loads.fold(Load::default(), |sum, load| Load {
            messages: sum.messages + load.messages,
            bytes: sum.bytes + load.bytes,
            span: sum.span + load.span,
        })
    }
}
