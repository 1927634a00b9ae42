//! Rows that were handed over and not acknowledged: where a replay that is cut off has to go on.

use std::collections::VecDeque;

/// In the order in which they were handed over, which is that of their ids.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// The ticket of the first.
    first: u64,
    rows: VecDeque<Row>,
    settled: Option<i64>,
}

#[derive(Debug)]
struct Row {
    id: i64,
    is_acknowledged: bool,
}

impl Unsettled {
    /// What the next row that is pushed is reported by.
    pub fn next_ticket(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    pub fn push(&mut self, id: i64) {
        let is_acknowledged = false;
        self.rows.push_back(Row {
            id,
            is_acknowledged,
        });
    }

    pub fn acknowledged(&mut self, ticket: u64) {
        if let Some(row) = self
            .index(ticket)
            .and_then(|index| self.rows.get_mut(index))
        {
            row.is_acknowledged = true;
        }
        while let Some(row) = self.rows.pop_front_if(|row| row.is_acknowledged) {
            self.settled = Some(row.id);
            self.first += 1;
        }
    }

    pub fn id(&self, ticket: u64) -> Option<i64> {
        let row = self.rows.get(self.index(ticket)?);
        row.map(|row| row.id)
    }

    /// This row and all before it are acknowledged.
    pub fn settled(&self) -> Option<i64> {
        self.settled
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn index(&self, ticket: u64) -> Option<usize> {
        usize::try_from(ticket.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_ends_before_the_first_row_that_is_not_acknowledged() {
        let mut unsettled = Unsettled::default();
        for id in [3, 5, 9] {
            unsettled.push(id);
        }
        assert_eq!(unsettled.settled(), None);
        unsettled.acknowledged(1);
        assert_eq!((unsettled.settled(), unsettled.len()), (None, 3));
        unsettled.acknowledged(0);
        assert_eq!((unsettled.settled(), unsettled.len()), (Some(5), 1));
        assert_eq!(unsettled.next_ticket(), 3);
        assert_eq!(unsettled.id(2), Some(9));
        // Repeated and unknown reports change nothing.
        unsettled.acknowledged(1);
        unsettled.acknowledged(7);
        assert_eq!(unsettled.settled(), Some(5));
        unsettled.acknowledged(2);
        assert_eq!((unsettled.settled(), unsettled.is_empty()), (Some(9), true));
    }
}
