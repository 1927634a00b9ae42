//! What a lane knows about the ids of its outbox: how far it has read, which ids it has not seen, and
//! who may still bring them. A pure state machine; `source` feeds it.
//!
//! Ids are drawn before their transactions commit, so a cursor alone loses rows. Three facts mend that:
//!
//! * **Position**: the highest id read forward. Rows beyond it come with the next forward batch.
//! * **Gaps**: ranges below the position whose ids were not seen. A row can still commit there.
//! * **Floor**: a proven bound. Every id up to it is visible to a new snapshot or never will be.
//!
//! The proof: `nextval` holds a lock on the *sequence* until its transaction ends. Read the sequence,
//! then list the holders of that lock: whoever drew an id up to the value read has ended or is on the
//! list. Once exactly these have ended, a snapshot taken afterwards shows all there will ever be.
//!
//! One step further keeps a long transaction from growing the work of every poll: the unseen ids of a
//! *segment* (the ids between two observations of the sequence) can only belong to the segment's
//! remaining owners. As long as a snapshot says that none of them has ended, there is nothing to ask.
//!
//! Invariant: all of this holds within one server session, on one server life. When the connection
//! that proved it is lost, or the sequence falls below it, it must be forgotten ([`Horizon::default`]).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

/// Segments are merged beyond this number: each is compared with the holders at every observation, and
/// merging only makes a segment wait for a few owners more.
const MAX_SEGMENTS: usize = 64;

/// Ranges are joined beyond this number (2 MiB of them): a joined range asks for some rows again that
/// were seen already, which the window recognises.
const MAX_GAPS: usize = 65_536;

/// A transaction that holds the sequence's lock: it has drawn ids and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `pg_locks.virtualtransaction`: kept by a transaction that is prepared, until the server restarts.
    pub virtual_transaction: Box<str>,
    /// The low 32 bits of its transaction id; none as long as it has not written anything.
    pub xid: Option<u32>,
}

/// The ids between the previous observation's bound and this one's.
#[derive(Debug)]
struct Segment {
    upto: i64,
    owners: Vec<Holder>,
    /// An owner has ended, or the segment is new, since its gaps were last asked for.
    stale: bool,
}

/// The sequence stands below what was read or proven: the server lost ids in a crash, or somebody reset
/// the sequence. Everything known must be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sequence stands at {bound}, below {known}, which was seen before")]
pub struct SequenceFellBack {
    pub bound: i64,
    pub known: i64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Horizon {
    position: i64,
    floor: i64,
    segments: VecDeque<Segment>,
    /// First id to last id of each range, all above the floor and below the position.
    gaps: BTreeMap<i64, i64>,
}

impl Default for Horizon {
    /// Knows nothing: the next forward batch starts with the first unsent row.
    fn default() -> Self {
        Horizon {
            position: i64::MIN,
            floor: i64::MIN,
            segments: VecDeque::new(),
            gaps: BTreeMap::new(),
        }
    }
}

impl Horizon {
    /// The highest id that was read; forward batches start above it.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Every id up to here is visible to a new snapshot, or never will be.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Whether a row with this id may still turn up: the next poll asks for it if it has to.
    pub fn is_in_gap(&self, id: i64) -> bool {
        let range = self.gaps.range(..=id).next_back();
        range.is_some_and(|(_, &last)| id <= last)
    }

    /// Number of ranges that may still hold rows.
    pub fn gap_count(&self) -> usize {
        self.gaps.len()
    }

    /// Whether observing the sequence could still prove anything that is of use.
    pub fn is_unproven(&self) -> bool {
        self.has_gaps() || self.floor < self.position || self.floor == i64::MIN
    }

    /// Whether some owner has no transaction id yet, so that a snapshot cannot tell whether it ended.
    pub fn has_owner_without_xid(&self) -> bool {
        self.owners().any(|owner| owner.xid.is_none())
    }

    /// The transactions that may still bring rows below the last observation's bound.
    pub fn owners(&self) -> impl Iterator<Item = &Holder> {
        // The owners of a segment are among those of every later one, so the last has them all.
        self.segments.back().into_iter().flat_map(|s| &s.owners)
    }

    /// Notes one observation: `bound`, the last id drawn from the sequence, and `holders`, who held its
    /// lock *after* `bound` was read. Says whether an owner of earlier ids has ended since.
    ///
    /// # Errors
    /// When the sequence fell back; the caller starts again with [`Horizon::default`].
    pub fn observe(&mut self, bound: i64, holders: Vec<Holder>) -> Result<bool, SequenceFellBack> {
        let last = self.segments.back().map_or(self.floor, |s| s.upto);
        let known = last.max(self.position);
        if bound < known {
            return Err(SequenceFellBack { bound, known });
        }
        let mut has_ended = false;
        for segment in &mut self.segments {
            let before = segment.owners.len();
            segment.owners.retain_mut(|owner| {
                let holder = holders
                    .iter()
                    .find(|h| h.virtual_transaction == owner.virtual_transaction);
                owner.xid = holder.and_then(|h| h.xid);
                holder.is_some()
            });
            let shrunk = segment.owners.len() < before;
            segment.stale |= shrunk;
            has_ended |= shrunk;
        }
        if bound > last {
            self.segments.push_back(Segment {
                upto: bound,
                owners: holders,
                stale: true,
            });
        }
        // With nothing unseen below, the proof needs no further question.
        if !self.has_gaps() {
            self.asked();
        }
        Ok(has_ended)
    }

    /// Joins neighbours with the same owners, and the oldest ones when there are too many. Done when no
    /// segment is stale, so that a new one does not have the old one's gaps asked for again.
    fn merge_segments(&mut self) {
        let mut merged: VecDeque<Segment> = VecDeque::with_capacity(self.segments.len());
        let mut surplus = self.segments.len().saturating_sub(MAX_SEGMENTS);
        for segment in self.segments.drain(..) {
            if let Some(previous) = merged.back()
                && (surplus > 0 || previous.owners.len() == segment.owners.len())
            {
                // The later segment's owners include the earlier one's.
                surplus = surplus.saturating_sub(1);
                merged.pop_back();
            }
            merged.push_back(segment);
        }
        self.segments = merged;
    }

    /// The ranges whose ids must be asked for before a forward batch that was read already may go on:
    /// those above the last observation, those of a segment that changed, and those with an owner of
    /// which `ended` says that the snapshot at hand no longer shows it in progress.
    pub fn gaps_to_ask(&self, ended: impl Fn(&Holder) -> bool) -> Vec<RangeInclusive<i64>> {
        let mut ask: Vec<RangeInclusive<i64>> = Vec::new();
        let mut segments = self
            .segments
            .iter()
            .map(|s| (s.upto, s.stale || s.owners.iter().any(&ended)))
            .chain([(i64::MAX, true)])
            .peekable();
        for (&first, &last) in &self.gaps {
            let mut from = first;
            while from <= last {
                while segments.next_if(|&(upto, _)| upto < from).is_some() {}
                // The chain's end is i64::MAX, so there always is one.
                let Some(&(upto, wanted)) = segments.peek() else {
                    break;
                };
                let to = last.min(upto);
                if wanted {
                    match ask.last_mut() {
                        Some(range) if *range.end() == from - 1 => *range = *range.start()..=to,
                        _ => ask.push(from..=to),
                    }
                }
                let Some(next) = to.checked_add(1) else { break };
                from = next;
            }
        }
        ask
    }

    /// All of the last [`gaps_to_ask`](Self::gaps_to_ask) were asked for, in a snapshot taken after the
    /// last observation, and their rows given to [`found`](Self::found): what has no owner left is
    /// settled for ever.
    pub fn asked(&mut self) {
        while let Some(segment) = self.segments.front()
            && segment.owners.is_empty()
        {
            self.floor = self.floor.max(segment.upto);
            self.segments.pop_front();
        }
        for segment in &mut self.segments {
            segment.stale = false;
        }
        self.merge_segments();
        let floor = self.floor;
        let settled: Vec<(i64, i64)> = self
            .gaps
            .range(..=floor)
            .map(|(&first, &last)| (first, last))
            .collect();
        for (first, last) in settled {
            self.gaps.remove(&first);
            if last > floor {
                self.gaps.insert(floor + 1, last);
            }
        }
    }

    /// A row of a gap was seen.
    pub fn found(&mut self, id: i64) {
        let Some((&first, &last)) = self.gaps.range(..=id).next_back() else {
            return;
        };
        if last < id {
            return;
        }
        self.gaps.remove(&first);
        if first < id {
            self.gaps.insert(first, id - 1);
        }
        if id < last {
            self.gaps.insert(id + 1, last);
        }
    }

    /// Rows of a forward batch were seen, `ids` ascending and above the position: the position moves to
    /// the last of them, and what lies between becomes a gap as far as the floor does not cover it.
    pub fn read_forward(&mut self, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            debug_assert!(id > self.position, "a forward batch ascends");
            let first = self.position.max(self.floor).saturating_add(1);
            if first < id {
                self.gaps.insert(first, id - 1);
            }
            self.position = id;
        }
        if self.gaps.len() > MAX_GAPS {
            self.join_gaps();
        }
    }

    /// Joins the ranges two by two.
    fn join_gaps(&mut self) {
        let gaps = std::mem::take(&mut self.gaps);
        let mut pair = None;
        for (first, last) in gaps {
            match pair.take() {
                None => pair = Some((first, last)),
                Some((start, _)) => {
                    self.gaps.insert(start, last);
                }
            }
        }
        if let Some((first, last)) = pair {
            self.gaps.insert(first, last);
        }
    }
}
