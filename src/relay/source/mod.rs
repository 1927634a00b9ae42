//! Reads unsent rows in order, picks up those that commit late, and hands them over encoded.
//!
//! Invariant: no row of a forward batch is handed over until the gaps below it have been asked for in
//! the same snapshot or a later one; late rows go first. What decides is [`Horizon`](super::horizon::Horizon); here is the I/O.

mod around;
mod orders;
mod scan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::Postgres;
use super::router::{Batch, Origin, Router};
use super::status::Progress;
use super::window::Outgoing;
use crate::admin::metrics::OutboxMetrics;
use crate::db::outbox::{self, BatchLimit, Outbox};
use crate::db::sequence::Sequence;
use crate::db::{DbError, Role, Session};
use crate::event::Event;
use crate::outage::{Retry, jittered};

use orders::{Allowed, Orders};
use scan::Scan;

pub use orders::{Allowance, Directions};

/// The first wait after an empty poll, doubled up to `poll_interval`.
const FIRST_WAIT: Duration = Duration::from_millis(1);

/// How one outbox is read.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    pub limit: BatchLimit,
    pub poll_interval: Duration,
    pub sweep_interval: Duration,
    /// End after what is committed at the start.
    pub until_empty: bool,
}

/// The task that reads.
pub struct Source {
    pub postgres: Arc<Postgres>,
    pub outbox: Outbox,
    pub settings: SourceSettings,
    pub router: Router,
    pub progress: Arc<Progress>,
    pub metrics: OutboxMetrics,
    /// Wakes an idle source; LISTEN notifies it.
    pub wake: Arc<Notify>,
    /// Something that was read may be what Postgres cannot read, until everything was read: see `around`.
    pub is_careful: bool,
}

/// What one poll brought.
#[derive(Default)]
struct Poll {
    batch: Batch,
    /// There may be more right now.
    full: bool,
}

impl Source {
    /// Reads until the lane is gone or `stop` says so. With `until_empty` everything was handed over that
    /// was committed at the start once a batch says that it is the last; after that only passes are made.
    pub async fn run(mut self, rows: mpsc::Sender<Batch>, directions: Directions) {
        let mut retry = Retry::new(Duration::from_secs(2));
        let mut stop = directions.stop.clone();
        let mut orders = Orders::new(directions);
        loop {
            let ended = tokio::select! {
                biased;
                // 1. The lane stops reading. `wait_for` keeps nothing; a poll that is cut off loses its
                //    connection, and rows that were not handed over are read again by the next owner.
                _ = stop.wait_for(|stop| *stop) => return,
                // 2. Reads until something ends it.
                ended = self.scan(&rows, &mut orders, &mut retry) => ended,
            };
            let Err(error) = ended else { return };
            self.is_careful |= error.said_of_a_row().is_some();
            self.postgres.note(
                &error,
                &mut retry,
                "reading failed, starting again with the first unsent row",
            );
            tokio::select! {
                biased;
                // As above; a sleep keeps nothing.
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(retry.next_wait()) => {}
            }
        }
    }

    /// One connection's life: ends well when the lane takes no more rows.
    async fn scan(
        &mut self,
        rows: &mpsc::Sender<Batch>,
        orders: &mut Orders,
        retry: &mut Retry,
    ) -> Result<(), DbError> {
        let postgres = Arc::clone(&self.postgres);
        let mut session = None;
        let session = postgres
            .session(&mut session, self.outbox.table(), Role::Reader)
            .await?;
        let mut scan = postgres
            .deadline("looking at the outbox", self.start(session, orders))
            .await?;
        let mut wait = FIRST_WAIT;
        loop {
            let Some(allowed) = orders.allowed().await else {
                return Ok(());
            };
            let Ok(permit) = rows.reserve().await else {
                return Ok(());
            };
            self.router.leave_unread(orders.unread());
            let started = Instant::now();
            let poll = match orders.is_done {
                true => Poll::default(),
                false => {
                    postgres
                        .deadline(
                            "polling for unsent rows",
                            self.poll(session, &mut scan, allowed),
                        )
                        .await?
                }
            };
            retry.reset();
            self.metrics
                .poll_seconds
                .observe(started.elapsed().as_secs_f64());
            self.progress.polled(&scan.horizon, poll.batch.rows.len());
            let idle = poll.batch.is_empty();
            let last = orders.is_reached_by(&poll, &scan.horizon);
            let is_all = !poll.full;
            let is_news = last || orders.hand_over(poll.batch.suspects, is_all);
            match idle && !is_news {
                // What comes below needs the place in the queue.
                true => drop(permit),
                false => permit.send(Batch {
                    last,
                    is_all,
                    ..poll.batch
                }),
            }
            // What was read forward and waits for late rows is not to be brought by a way around them.
            if scan.waiting.is_empty() {
                orders.take_pass();
                if orders.pass_after.is_some() || self.is_sweep_due(&scan, orders) {
                    let Ok(permit) = rows.reserve().await else {
                        return Ok(());
                    };
                    permit.send(self.look_back(session, &mut scan, orders).await?);
                }
            }
            if poll.full || orders.pass_after.is_some() {
                wait = FIRST_WAIT;
                continue;
            }
            wait = if idle {
                (wait * 2).min(self.settings.poll_interval)
            } else {
                FIRST_WAIT
            };
            let pause = match orders.is_done {
                true => Duration::MAX,
                false => jittered(wait).min(self.settings.poll_interval),
            };
            tokio::select! {
                biased;
                // 1. Held rows are wanted. Keeps nothing: that it changed is seen until it is looked at.
                changed = orders.passes.changed() => {
                    let Ok(()) = changed else { return Ok(()) };
                    orders.passes.mark_changed();
                }
                // 2. A wake-up that comes when nobody waits is stored by the Notify.
                () = self.wake.notified() => {}
                // 3. A sleep keeps nothing.
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn is_sweep_due(&self, scan: &Scan, orders: &Orders) -> bool {
        let is_time = scan.swept_at.elapsed() >= self.settings.sweep_interval;
        !orders.is_done && (scan.sweeping_after.is_some() || is_time)
    }

    /// Looks for rows below the position: for those that were held if there is a pass to make, else for
    /// those that should not be there.
    async fn look_back(
        &mut self,
        session: &mut Session,
        scan: &mut Scan,
        orders: &mut Orders,
    ) -> Result<Batch, DbError> {
        // A row that the pass is ordered for was let go before.
        self.router.leave_unread(orders.unread());
        let postgres = Arc::clone(&self.postgres);
        let Some(after) = orders.pass_after else {
            let swept = self.sweep(session, scan);
            return postgres.deadline("sweeping", swept).await;
        };
        let pass = self.pass(session, scan, after);
        let (batch, pass_after) = postgres.deadline("reading held rows again", pass).await?;
        orders.pass_after = pass_after;
        Ok(batch)
    }

    async fn start(&self, session: &mut Session, orders: &mut Orders) -> Result<Scan, DbError> {
        session.begin().await?;
        let sequence =
            Sequence::find(session, self.outbox.table(), self.outbox.id_column()).await?;
        if self.settings.until_empty && orders.target.is_none() {
            orders.target = Some(sequence.bound(session).await?);
        }
        session.commit().await?;
        Ok(Scan::new(sequence))
    }

    /// One poll: a forward batch, then the gaps, and all of it in the order of its ids.
    async fn poll(
        &mut self,
        session: &mut Session,
        scan: &mut Scan,
        allowed: Allowed,
    ) -> Result<Poll, DbError> {
        scan.begin(session).await?;
        let mut full = false;
        let mut rows = std::mem::take(&mut scan.waiting);
        if rows.is_empty() {
            let position = scan.horizon.position();
            let limit = self.settings.limit;
            let forward = if !scan.is_past_cleared && position < allowed.cleared_upto {
                let upto = allowed.cleared_upto;
                let cleared = self.unsent(session, position, Some(upto), limit).await?;
                scan.is_past_cleared = !cleared.full;
                // Those above come next.
                outbox::Batch {
                    full: true,
                    ..cleared
                }
            } else {
                let rows = limit.rows.min(allowed.rows);
                let limit = BatchLimit { rows, ..limit };
                self.unsent(session, position, None, limit).await?
            };
            scan.horizon
                .read_forward(forward.rows.iter().map(|row| row.event.id));
            full = forward.full;
            self.is_careful &= full;
            rows = forward.rows;
        }
        let complete_upto = self.ask_gaps(session, scan, &mut rows).await?;
        session.commit().await?;
        if let Some(last) = complete_upto {
            scan.waiting = rows.split_off(rows.partition_point(|row| row.event.id <= last));
            full = true;
        }
        let mut batch = self.router.batch(rows, Origin::Poll);
        let cleared = batch
            .rows
            .partition_point(|row| row.event.id <= allowed.cleared_upto);
        batch.suspects = batch.rows.len() - cleared;
        Ok(Poll { batch, full })
    }

    /// One step of a pass: the unsent rows above `after`, up to the position, then the gaps as in a poll.
    /// Returns where the pass stands, unless it is over.
    ///
    /// A connection that was lost meanwhile has set the position back to the start: then the pass is over,
    /// and the forward batches bring everything that it would have.
    async fn pass(
        &mut self,
        session: &mut Session,
        scan: &mut Scan,
        after: i64,
    ) -> Result<(Batch, Option<i64>), DbError> {
        scan.begin(session).await?;
        let mut upto = scan.horizon.position();
        let limit = self.settings.limit;
        let unsent = self.unsent(session, after, Some(upto), limit).await?;
        for row in &unsent.rows {
            scan.horizon.found(row.event.id);
        }
        let mut is_over = !unsent.full;
        let mut rows = unsent.rows;
        if unsent.full
            && let Some(last) = rows.last()
        {
            upto = last.event.id;
        }
        if let Some(last) = self.ask_gaps(session, scan, &mut rows).await?
            && last < upto
        {
            // More late rows come first; what lies above them is read again.
            rows.truncate(rows.partition_point(|row| row.event.id <= last));
            upto = last;
            is_over = false;
        }
        session.commit().await?;
        let batch = self.router.batch(rows, Origin::Pass { upto, is_over });
        Ok((batch, (!is_over).then_some(upto)))
    }

    /// Asks for the gaps below `rows` and adds what they hold. Returns the id up to which this is
    /// everything, if the gaps hold more than one answer brings.
    ///
    /// Invariant: a gap may be left out only if its owners are in progress *after* the last row was read:
    /// then no row that was read can come after one of theirs. So whether they are is asked last, and
    /// everything is asked for again that has changed by then.
    async fn ask_gaps(
        &mut self,
        session: &mut Session,
        scan: &mut Scan,
        rows: &mut Vec<Outgoing>,
    ) -> Result<Option<i64>, DbError> {
        let mut ended = Vec::new();
        loop {
            let mut complete_upto = None;
            let gaps = scan
                .horizon
                .gaps_to_ask(|owner| owner.xid.is_some_and(|xid| ended.contains(&xid)));
            if !gaps.is_empty() {
                let router = &mut self.router;
                let late = self
                    .outbox
                    .late(session, &gaps, self.settings.limit, |event| {
                        router.route(event)
                    })
                    .await?;
                for row in &late.rows {
                    scan.horizon.found(row.event.id);
                }
                complete_upto = late
                    .rows
                    .last()
                    .filter(|_| late.full)
                    .map(|row| row.event.id);
                self.metrics.late_rows.inc_by(late.rows.len() as u64);
                if !late.rows.is_empty() {
                    rows.extend(late.rows);
                    rows.sort_unstable_by_key(|row| row.event.id);
                }
            }
            if complete_upto.is_none() {
                scan.horizon.asked();
            }
            if !scan.horizon.has_gaps() || !scan.has_owner_ended(session, &mut ended).await? {
                return Ok(complete_upto);
            }
        }
    }

    /// One step of a look for unsent rows where none should be: then what the proofs lean on was not
    /// given (ids made by clients, a sequence set back and forth). The window knows those it has.
    async fn sweep(&mut self, session: &mut Session, scan: &mut Scan) -> Result<Batch, DbError> {
        session.begin().await?;
        let after = scan.sweeping_after.unwrap_or(i64::MIN);
        let upto = scan.horizon.position();
        let limit = self.settings.limit;
        let mut found = self.unsent(session, after, Some(upto), limit).await?;
        session.commit().await?;
        scan.sweeping_after = found
            .rows
            .last()
            .filter(|_| found.full)
            .map(|row| row.event.id);
        scan.swept_at = Instant::now();
        // A row that committed since the last poll was not passed: the next poll brings it.
        found
            .rows
            .retain(|row| !scan.horizon.is_in_gap(row.event.id));
        Ok(self.router.batch(found.rows, Origin::Sweep))
    }
}
