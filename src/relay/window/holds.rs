//! What is held outside of the window: order keys and topics whose rows wait for longer than there is room
//! for them. Only the hold is kept, and where it begins; its rows are passed over, and read again in the
//! order of their ids when the hold ends.
//!
//! A hold that ended still holds until a *pass* of the reader has brought its rows: from the first of them
//! up to the reader's position, so that what comes next comes in order. Passes go one at a time, each for
//! all holds that had ended when it began.

use hashbrown::HashMap;

use super::Outgoing;

/// Why rows of a key or topic are not in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldState {
    /// The key or its topic cannot go on.
    Waiting,
    /// The key cannot, until somebody has decided about its parked row.
    Blocked,
    /// It can, and waits for the next pass.
    Ended,
    /// The pass under way brings its rows.
    Reread,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    state: HoldState,
    /// No row below it was passed over.
    from: i64,
    /// The last row that was passed over.
    last: i64,
    rows: u64,
    /// When the oldest of them was written, in microseconds since 1970.
    oldest_us: i64,
}

impl Hold {
    /// Holds nothing yet.
    fn before(id: i64) -> Hold {
        Hold {
            state: HoldState::Waiting,
            from: id,
            last: id,
            rows: 0,
            oldest_us: i64::MAX,
        }
    }

    /// Whether a row is to stay outside, when a pass has brought everything up to `reread_upto`.
    fn holds(&self, id: i64, reread_upto: i64) -> bool {
        self.state != HoldState::Reread || id > reread_upto
    }

    /// Holds one row more, or one that is held already and was read again. Says whether the pass under way does
    /// not bring it: it began further up, and since then reading has begun anew from the start.
    fn pass_over(&mut self, row: &Outgoing) -> bool {
        let id = row.event.id;
        let is_missed = self.state == HoldState::Reread && id < self.from;
        if is_missed {
            self.state = HoldState::Ended;
        }
        if id > self.last || id < self.from {
            self.rows += 1;
        }
        self.spans(row);
        is_missed
    }

    /// A row that was in the window leaves it. A pass that was to bring this hold's rows brings no more.
    fn evict(&mut self, row: &Outgoing) {
        if self.state != HoldState::Blocked {
            self.state = HoldState::Waiting;
        }
        self.rows += 1;
        self.spans(row);
    }

    fn spans(&mut self, row: &Outgoing) {
        self.from = self.from.min(row.event.id);
        self.last = self.last.max(row.event.id);
        self.oldest_us = self.oldest_us.min(row.created_at_us);
    }

    fn end(&mut self) -> bool {
        let waits = self.state == HoldState::Waiting;
        if waits {
            self.state = HoldState::Ended;
        }
        waits
    }
}

/// The holds of one topic.
#[derive(Debug, Default)]
pub(super) struct Holds {
    topic: Option<Hold>,
    keys: HashMap<Box<[u8]>, Hold>,
}

impl Holds {
    /// Whether a row has to stay outside.
    pub fn holds(&self, row: &Outgoing, reread_upto: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        let key = self.keys.get(row.message.key());
        let mut holds = self.topic.iter().chain(key);
        holds.any(|hold| hold.holds(row.event.id, reread_upto))
    }

    /// A row stays outside. What both its key and its topic hold is counted by both: each must know its
    /// first row. Says whether another pass must bring it.
    pub fn pass_over(&mut self, row: &Outgoing, reread_upto: i64) -> bool {
        let key = row.message.key();
        let mut is_missed = false;
        for hold in self.topic.iter_mut().chain(self.keys.get_mut(key)) {
            if hold.holds(row.event.id, reread_upto) {
                is_missed |= hold.pass_over(row);
            }
        }
        is_missed
    }

    /// A row goes in that a pass has brought.
    pub fn let_in(&mut self, key: &[u8]) {
        if self.is_empty() {
            return;
        }
        for hold in self.topic.iter_mut().chain(self.keys.get_mut(key)) {
            hold.rows = hold.rows.saturating_sub(1);
        }
    }

    /// A row leaves the window, because its topic cannot be used.
    pub fn evict_by_topic(&mut self, row: &Outgoing) {
        let before = || Hold::before(row.event.id);
        self.topic.get_or_insert_with(before).evict(row);
    }

    /// A row leaves the window, because its key cannot go on.
    pub fn evict_by_key(&mut self, row: &Outgoing) {
        let key = row.message.key();
        match self.keys.get_mut(key) {
            Some(hold) => hold.evict(row),
            None => {
                let mut hold = Hold::before(row.event.id);
                hold.evict(row);
                self.keys.insert(key.into(), hold);
            }
        }
    }

    /// The topic can be used: says whether it held something, which a pass must bring now.
    pub fn end_topic(&mut self) -> bool {
        self.topic.as_mut().is_some_and(Hold::end)
    }

    /// The key goes on: says whether it held something, which a pass must bring now.
    pub fn end_key(&mut self, key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.get_mut(key).is_some_and(Hold::end)
    }

    /// The rows of a key from `from` on wait for a decision.
    pub fn block_key(&mut self, key: &[u8], from: i64) {
        let before = || Hold::before(from);
        let hold = self.keys.entry(key.into()).or_insert_with(before);
        hold.state = HoldState::Blocked;
        hold.from = hold.from.min(from);
    }

    /// Somebody decided: says whether the key was blocked, so that a pass must bring what it held.
    pub fn unblock_key(&mut self, key: &[u8]) -> bool {
        let hold = self.keys.get_mut(key);
        let hold = hold.filter(|hold| hold.state == HoldState::Blocked);
        hold.map(|hold| hold.state = HoldState::Ended).is_some()
    }

    /// The first row of the holds that have ended, which from now on are read again.
    pub fn begin_pass(&mut self) -> Option<i64> {
        let ended = self.all_mut().filter(|hold| hold.state == HoldState::Ended);
        ended
            .map(|hold| {
                hold.state = HoldState::Reread;
                hold.from
            })
            .min()
    }

    /// The pass has brought everything.
    pub fn end_pass(&mut self) {
        let is_over = |hold: &Hold| hold.state == HoldState::Reread;
        if self.topic.as_ref().is_some_and(is_over) {
            self.topic = None;
        }
        self.keys.retain(|_, hold| !is_over(hold));
    }

    /// Rows that are held; those of a key within a held topic count once.
    pub fn rows(&self) -> u64 {
        match &self.topic {
            Some(topic) => topic.rows,
            None => self.keys.values().map(|hold| hold.rows).sum(),
        }
    }

    pub fn has_key(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// Rows of the key that are held.
    pub fn rows_of_key(&self, key: &[u8]) -> u64 {
        self.keys.get(key).map_or(0, |hold| hold.rows)
    }

    /// Keys whose rows wait for a decision.
    pub fn blocked_keys(&self) -> usize {
        let holds = self.keys.values();
        holds
            .filter(|hold| hold.state == HoldState::Blocked)
            .count()
    }

    /// When the oldest row that is held was written, in microseconds since 1970.
    pub fn oldest_us(&self) -> Option<i64> {
        let all = self.topic.iter().chain(self.keys.values());
        all.map(|hold| hold.oldest_us).min()
    }

    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    fn is_empty(&self) -> bool {
        self.topic.is_none() && self.keys.is_empty()
    }

    /// Whether rows are held that nobody has to decide about.
    pub fn waits(&self) -> bool {
        let mut all = self.topic.iter().chain(self.keys.values());
        all.any(|hold| hold.state != HoldState::Blocked)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Hold> {
        self.topic.iter_mut().chain(self.keys.values_mut())
    }
}
