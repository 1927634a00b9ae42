//! What a relay does with less at a time after others died at the same outbox: a row that ends every relay
//! that reads it must not stop the rows around it for ever.
//!
//! The lease counts deaths in succession without progress. From [`DEATHS`] on, a start is a *trial*: it reads
//! half of the rows at which the last one died, and once these are through the other half. The row is among
//! them, so when both are through the trial is over; a trial that dies is followed by one with half as many,
//! above what was through. When a relay died of one row, that row is parked unread. Normal running pays
//! nothing for it.

use crate::db::lease::{Deaths, Suspects};

/// So many deaths may be anybody's fault.
const DEATHS: u32 = 3;

/// Parts of the rows under suspicion that are read one after the other.
const HELPINGS: u32 = 2;

/// What a start is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Read as always.
    Normal,
    /// Read so many rows at a time.
    Trial(Suspects),
    /// Park the first row above this one unread.
    ParkFirst { after: i64 },
}

/// What to do after these deaths, with so many rows pending above those that are not under suspicion.
pub fn plan(deaths: Deaths, pending: u32) -> Plan {
    if pending == 0 || deaths.count < DEATHS {
        return Plan::Normal;
    }
    let half = |rows: u32| rows.div_ceil(HELPINGS);
    match deaths.suspects {
        Some(Suspects { after, rows: 1 }) => Plan::ParkFirst { after },
        Some(Suspects { after, rows }) => Plan::Trial(Suspects {
            after,
            rows: half(rows.min(pending)),
        }),
        None => Plan::Trial(Suspects {
            after: i64::MIN,
            rows: half(pending),
        }),
    }
}

/// Counts what a lane may read and has settled, until it is clear that this relay does not die.
#[derive(Debug)]
pub enum Caution {
    /// Nobody died, or that is over.
    Off,
    /// Relays died, but too few to be careful: any progress ends it.
    Wary {
        /// Everything was read that was there.
        has_read_all: bool,
    },
    Trial(Trial),
}

/// A trial under way.
#[derive(Debug)]
pub struct Trial {
    suspects: Suspects,
    state: State,
    /// Helpings that may be read.
    helpings: u32,
    /// Suspects that were read.
    taken: u64,
    /// The last of them.
    last: i64,
    has_read_all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was done yet.
    New,
    /// The lease is told which rows come next.
    Noting,
    Reading,
    /// The lease is told that it is over.
    Ending,
}

/// What is to be noted in the lease now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// These rows come next: whoever dies, dies of them.
    Suspects(Suspects),
    /// The deaths are forgotten.
    Nothing,
}

impl Caution {
    pub fn new(deaths: Deaths, plan: Plan) -> Caution {
        match plan {
            Plan::Trial(suspects) => Caution::Trial(Trial {
                suspects,
                state: State::New,
                helpings: 0,
                taken: 0,
                last: suspects.after,
                has_read_all: false,
            }),
            Plan::Normal if deaths != Deaths::default() => Caution::Wary {
                has_read_all: false,
            },
            Plan::Normal | Plan::ParkFirst { .. } => Caution::Off,
        }
    }

    /// How many suspects may be read in all.
    pub fn allowance(&self) -> u64 {
        match self {
            Caution::Off | Caution::Wary { .. } => u64::MAX,
            Caution::Trial(trial) => trial.allowance(),
        }
    }

    /// A trial that is to [begin](Self::begin).
    pub fn is_new_trial(&self) -> bool {
        matches!(self, Caution::Trial(trial) if trial.state == State::New)
    }

    pub fn begin(&mut self) -> Option<Note> {
        match self {
            Caution::Trial(trial) if trial.state == State::New => {
                trial.state = State::Noting;
                Some(Note::Suspects(trial.suspects))
            }
            _ => None,
        }
    }

    /// The lease has what was to be noted.
    pub fn noted(&mut self) {
        match self {
            Caution::Trial(trial) if trial.state == State::Noting => {
                trial.state = State::Reading;
                trial.helpings += 1;
            }
            _ => *self = Caution::Off,
        }
    }

    /// So many suspects were read, up to `last`; `is_all` if there were no more.
    pub fn take(&mut self, suspects: usize, last: Option<i64>, is_all: bool) {
        match self {
            Caution::Off => {}
            Caution::Wary { has_read_all } => *has_read_all = is_all,
            Caution::Trial(trial) => {
                trial.taken += suspects as u64;
                trial.last = last.map_or(trial.last, |last| last.max(trial.last));
                trial.has_read_all = is_all;
            }
        }
    }

    /// Rows were marked or parked. That ends no trial, because the rows that are left are under suspicion.
    pub fn progress(&mut self) -> Option<Note> {
        if !matches!(self, Caution::Wary { .. }) {
            return None;
        }
        *self = Caution::Off;
        Some(Note::Nothing)
    }

    /// Nothing of what was read goes on any more.
    pub fn settle(&mut self) -> Option<Note> {
        match self {
            Caution::Wary { has_read_all: true } => {
                *self = Caution::Off;
                Some(Note::Nothing)
            }
            Caution::Trial(trial) => trial.settle(),
            Caution::Off | Caution::Wary { .. } => None,
        }
    }
}

impl Trial {
    fn allowance(&self) -> u64 {
        u64::from(self.suspects.rows) * u64::from(self.helpings)
    }

    fn settle(&mut self) -> Option<Note> {
        let is_through = self.has_read_all || self.taken >= self.allowance();
        if self.state != State::Reading || !is_through {
            return None;
        }
        if self.has_read_all || self.helpings == HELPINGS {
            self.state = State::Ending;
            return Some(Note::Nothing);
        }
        self.state = State::Noting;
        self.suspects.after = self.last;
        Some(Note::Suspects(self.suspects))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 10;

    fn deaths(count: u32, suspects: Option<Suspects>) -> Deaths {
        Deaths { count, suspects }
    }

    fn suspects(after: i64, rows: u32) -> Suspects {
        Suspects { after, rows }
    }

    #[test]
    fn three_deaths_make_a_trial_of_half_of_what_is_there() {
        let all = |rows| Plan::Trial(suspects(i64::MIN, rows));
        assert_eq!(plan(deaths(2, None), MANY), Plan::Normal);
        assert_eq!(plan(deaths(3, None), MANY), all(5));
        assert_eq!(plan(deaths(3, None), 1), all(1));
        assert_eq!(plan(deaths(3, None), 0), Plan::Normal);
    }

    #[test]
    fn a_trial_that_died_is_halved_until_its_row_is_parked() {
        let next = |rows, pending| plan(deaths(4, Some(suspects(7, rows))), pending);
        assert_eq!(next(5, MANY), Plan::Trial(suspects(7, 3)));
        assert_eq!(next(3, MANY), Plan::Trial(suspects(7, 2)));
        assert_eq!(next(2, MANY), Plan::Trial(suspects(7, 1)));
        assert_eq!(next(1, MANY), Plan::ParkFirst { after: 7 });
        assert_eq!(next(1, 0), Plan::Normal, "nothing to park");
        assert_eq!(next(8, 3), Plan::Trial(suspects(7, 2)), "there are no more");
    }

    /// Whichever row is deadly among however many, it is the one that is parked, after few deaths, whether the
    /// others leave or stay.
    #[test]
    fn the_deadly_row_is_found_by_halving() {
        for leave in [true, false] {
            for pending in [1, 2, 3, 10, 1_000, 10_000] {
                for deadly in [1, 2, pending / 3, pending / 2, pending] {
                    let deadly = deadly.clamp(1, pending);
                    let (starts, parked) = search(pending, deadly, leave);
                    assert_eq!(parked, deadly, "of {pending}");
                    assert!(
                        starts <= DEATHS + pending.ilog2() + 3,
                        "{starts} starts for row {deadly} of {pending}"
                    );
                }
            }
        }
    }

    /// Starts relays until one parks a row; they die when they read `deadly`. Other rows leave when they are
    /// through, or stay where they are, held by something. Returns the starts and the row.
    fn search(rows: u32, deadly: u32, leave: bool) -> (u32, u32) {
        let mut known = Deaths::default();
        // Rows 1 to this have left.
        let mut gone = 0;
        for start in 1.. {
            let clear = known
                .suspects
                .map_or(0, |s| u32::try_from(s.after).unwrap_or(0));
            let plan = plan(known, rows - clear.max(gone));
            if let Plan::ParkFirst { .. } = plan {
                return (start, clear.max(gone) + 1);
            }
            let mut caution = Caution::new(known, plan);
            let mut position = clear.max(gone);
            let mut due = caution.begin();
            let begin = position;
            loop {
                match due.take() {
                    Some(Note::Suspects(suspects)) => {
                        known.suspects = Some(suspects);
                        caution.noted();
                    }
                    Some(Note::Nothing) => panic!("row {deadly} was not read"),
                    None => {}
                }
                let allowed = u64::from(begin).saturating_add(caution.allowance());
                let upto = u32::try_from(allowed.min(rows.into())).expect("no more than there are");
                if upto >= deadly {
                    break;
                }
                caution.take((upto - position) as usize, Some(upto.into()), upto == rows);
                position = upto;
                if leave {
                    gone = upto;
                }
                due = caution.settle();
                assert!(due.is_some(), "nothing goes on at row {position}");
            }
            known.count += 1;
        }
        unreachable!("relays are started until one parks");
    }

    #[test]
    fn a_trial_reads_twice_and_ends() {
        let mut caution = Caution::new(deaths(3, None), Plan::Trial(suspects(7, 4)));
        assert!(caution.is_new_trial());
        assert_eq!((caution.allowance(), caution.settle()), (0, None));
        assert_eq!(caution.begin(), Some(Note::Suspects(suspects(7, 4))));
        assert_eq!((caution.allowance(), caution.begin()), (0, None));
        caution.noted();
        assert_eq!(caution.allowance(), 4);
        caution.take(3, Some(10), false);
        assert_eq!(caution.settle(), None, "a row more may come");
        assert_eq!(caution.progress(), None, "marks end no trial");
        caution.take(1, Some(11), false);
        assert_eq!(caution.settle(), Some(Note::Suspects(suspects(11, 4))));
        assert_eq!(
            (caution.allowance(), caution.settle()),
            (4, None),
            "not yet noted"
        );
        caution.noted();
        assert_eq!(caution.allowance(), 8);
        caution.take(4, Some(15), false);
        assert_eq!(caution.settle(), Some(Note::Nothing));
        assert_eq!(
            (caution.allowance(), caution.settle()),
            (8, None),
            "not yet noted"
        );
        caution.noted();
        assert_eq!(caution.allowance(), u64::MAX);
    }

    #[test]
    fn a_trial_ends_with_the_last_row_there_is() {
        let mut caution = Caution::new(deaths(3, None), Plan::Trial(suspects(7, 4)));
        caution.begin();
        caution.noted();
        caution.take(2, Some(9), true);
        assert_eq!(caution.settle(), Some(Note::Nothing));
    }

    #[test]
    fn before_a_trial_any_progress_ends_the_count() {
        let wary = || Caution::new(deaths(1, None), Plan::Normal);
        let mut caution = wary();
        assert_eq!((caution.allowance(), caution.settle()), (u64::MAX, None));
        assert_eq!(caution.progress(), Some(Note::Nothing));
        assert_eq!(caution.progress(), None, "once");
        let mut caution = wary();
        caution.take(0, None, true);
        assert_eq!(
            caution.settle(),
            Some(Note::Nothing),
            "there is nothing to die of"
        );
        assert_eq!(caution.settle(), None, "once");
        let mut caution = Caution::new(Deaths::default(), Plan::Normal);
        assert_eq!(caution.progress(), None);
    }
}
