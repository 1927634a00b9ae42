//! What the group is to know: how far each partition of ours is done, and whether that was taken.
//!
//! Invariant: a position goes to the group again and again until it is confirmed for its very partition. A commit
//! that meets a rebalance can be lost without a word (seen twice in some thirty runs under load), and then nothing
//! else would come to commit the end of a quiet partition.

use std::collections::HashMap;

use super::schedule::Partition;

/// A position that nobody confirmed is due again after so many others could have gone.
const TURNS_UNTIL_REPEAT: u32 = 10;

/// The positions of the partitions that are ours.
#[derive(Debug, Default)]
pub struct Commits(HashMap<Partition, Place>);

#[derive(Debug)]
struct Place {
    /// Everything before this offset is done.
    position: i64,
    /// Turns until the group is told (again); nothing when it knows.
    due_in: Option<u32>,
}

impl Commits {
    /// The partition is done up to here.
    pub fn reached(&mut self, partition: Partition, position: i64) {
        let place = Place {
            position,
            due_in: Some(0),
        };
        self.0.insert(partition, place);
    }

    /// The group has taken this position.
    pub fn confirmed(&mut self, partition: Partition, position: i64) {
        if let Some(place) = self.0.get_mut(&partition)
            && place.position == position
        {
            place.due_in = None;
        }
    }

    /// A commit was refused: whatever is not confirmed is due with the next turn.
    pub fn failed(&mut self) {
        for due_in in self
            .0
            .values_mut()
            .filter_map(|place| place.due_in.as_mut())
        {
            *due_in = 0;
        }
    }

    /// A turn: what is to be committed now.
    pub fn take_due(&mut self) -> Vec<(Partition, i64)> {
        let mut due = Vec::new();
        for (partition, place) in &mut self.0 {
            match &mut place.due_in {
                None => {}
                Some(turns @ 0) => {
                    *turns = TURNS_UNTIL_REPEAT;
                    due.push((*partition, place.position));
                }
                Some(turns) => *turns -= 1,
            }
        }
        due
    }

    pub fn position(&self, partition: Partition) -> Option<i64> {
        self.0.get(&partition).map(|place| place.position)
    }

    pub fn positions(&self) -> impl Iterator<Item = (Partition, i64)> {
        let places = self.0.iter();
        places.map(|(partition, place)| (*partition, place.position))
    }

    /// The partition's position is not ours to commit any more.
    pub fn forget(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Partition = Partition {
        topic: 0,
        number: 1,
    };
    const TWO: Partition = Partition {
        topic: 0,
        number: 2,
    };

    /// The turns, of so many, in which something of the partition is due.
    fn due_turns(commits: &mut Commits, partition: Partition, turns: u32) -> Vec<u32> {
        let mut due = Vec::new();
        for turn in 0..turns {
            let of_it = |(of, _): &(Partition, i64)| *of == partition;
            due.extend(commits.take_due().iter().any(of_it).then_some(turn));
        }
        due
    }

    #[test]
    fn a_commit_that_is_lost_without_a_word_goes_again_until_it_is_confirmed() {
        let mut commits = Commits::default();
        commits.reached(ONE, 7);
        let again = TURNS_UNTIL_REPEAT + 1;
        assert_eq!(
            due_turns(&mut commits, ONE, 3 * again),
            [0, again, 2 * again]
        );
        commits.confirmed(ONE, 7);
        assert!(due_turns(&mut commits, ONE, 3 * again).is_empty());
        assert_eq!(commits.position(ONE), Some(7));
    }

    #[test]
    fn only_the_very_position_of_the_very_partition_is_confirmed() {
        let mut commits = Commits::default();
        commits.reached(ONE, 7);
        commits.reached(TWO, 7);
        commits.take_due();
        commits.confirmed(TWO, 7);
        commits.reached(ONE, 8);
        // The answer to an earlier commit.
        commits.confirmed(ONE, 7);
        assert_eq!(commits.take_due(), [(ONE, 8)]);
    }

    #[test]
    fn what_was_refused_goes_with_the_next_turn_without_what_was_taken() {
        let mut commits = Commits::default();
        commits.reached(ONE, 7);
        commits.reached(TWO, 9);
        commits.take_due();
        commits.confirmed(TWO, 9);
        commits.failed();
        assert_eq!(commits.take_due(), [(ONE, 7)]);
        commits.forget(ONE);
        commits.failed();
        assert!(commits.take_due().is_empty());
    }
}
