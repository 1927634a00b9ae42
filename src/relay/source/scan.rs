//! What a source knows as long as its connection lives: the horizon, and the sequence that proves it.

use std::time::{Duration, Instant};

use crate::db::sequence::Sequence;
use crate::db::{DbError, ServerLife, Session};
use crate::relay::horizon::Horizon;
use crate::relay::window::Outgoing;

/// The sequence is observed at most this often while there is something to prove: `pg_locks` takes every
/// partition of the lock table.
const OBSERVE_EVERY: Duration = Duration::from_millis(200);

/// And this often when there is nothing, to notice a sequence that was set back.
const OBSERVE_IDLE: Duration = Duration::from_secs(2);

/// What a source knows as long as its connection lives.
pub(super) struct Scan {
    pub sequence: Sequence,
    pub horizon: Horizon,
    observed_at: Option<Instant>,
    pub swept_at: Instant,
    /// Where a sweep under way goes on.
    pub sweeping_after: Option<i64>,
    /// Rows that were read and wait for more late rows than one answer brings.
    pub waiting: Vec<Outgoing>,
    /// What does not count against the allowance was read.
    pub is_past_cleared: bool,
    /// Behind a pooler: the server's clock at the last statement.
    last_contact: Option<f64>,
}

impl Scan {
    pub(super) fn new(sequence: Sequence) -> Scan {
        Scan {
            sequence,
            horizon: Horizon::default(),
            observed_at: None,
            swept_at: Instant::now(),
            sweeping_after: None,
            waiting: Vec::new(),
            is_past_cleared: false,
            last_contact: None,
        }
    }

    /// Begins a poll: makes sure that the server is the same, and looks at the sequence if it is time.
    pub(super) async fn begin(&mut self, session: &mut Session) -> Result<(), DbError> {
        if let Some(life) = session.begin().await? {
            self.check_life(life);
        }
        let due = if self.horizon.is_unproven() {
            OBSERVE_EVERY
        } else {
            OBSERVE_IDLE
        };
        if self.observed_at.is_none_or(|at| at.elapsed() >= due) {
            self.observe(session).await?;
        }
        Ok(())
    }

    /// Forgets everything when the server may have crashed since the last statement.
    pub(super) fn check_life(&mut self, life: ServerLife) {
        if self
            .last_contact
            .is_some_and(|last| life.backend_start > last)
        {
            self.forget();
        }
        self.last_contact = Some(life.now);
    }

    pub(super) fn forget(&mut self) {
        self.horizon = Horizon::default();
        self.observed_at = None;
        self.waiting.clear();
    }

    /// Observes the sequence; says whether an owner of gaps has ended.
    pub(super) async fn observe(&mut self, session: &mut Session) -> Result<bool, DbError> {
        let (bound, holders) = self.sequence.observe(session).await?;
        self.observed_at = Some(Instant::now());
        match self.horizon.observe(bound, holders) {
            Ok(has_ended) => Ok(has_ended),
            Err(fell_back) => Err(DbError::FellBack(fell_back)),
        }
    }

    /// Whether an owner of gaps has ended that is not among `ended`, to which it is added.
    pub(super) async fn has_owner_ended(
        &mut self,
        session: &mut Session,
        ended: &mut Vec<u32>,
    ) -> Result<bool, DbError> {
        if self.horizon.has_owner_without_xid() {
            // No snapshot shows a transaction without an id; its lock does.
            return self.observe(session).await;
        }
        if self.horizon.owners().next().is_none() {
            return Ok(false);
        }
        let snapshot = self.sequence.snapshot(session).await?;
        let before = ended.len();
        for xid in self.horizon.owners().filter_map(|owner| owner.xid) {
            if snapshot.has_ended(xid) && !ended.contains(&xid) {
                ended.push(xid);
            }
        }
        Ok(ended.len() > before)
    }
}
