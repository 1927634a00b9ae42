//! One owner for a lane: waits for the lease, keeps it, gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use uuid::Uuid;

use super::Postgres;
use crate::db::lease::{Deaths, Fence, LANE, Standing};
use crate::db::{DbError, Role, Session, TableName};
use crate::outage::{Retry, jittered};

/// How often a standby looks whether the owner has left: this is "at once".
const STANDBY_POLL: Duration = Duration::from_millis(200);

/// A lease is renewed so many times in its duration, so that two renewals in a row may fail.
const RENEWALS: u32 = 4;

/// What the other tasks see of the lease.
///
/// Invariant: the deadline is taken *before* the request that won or renewed the lease was sent, on a
/// clock that counts suspension, so it never lies after what the database promised.
#[derive(Debug, Default)]
pub struct Validity {
    /// Nanoseconds of CLOCK_BOOTTIME.
    until: AtomicU64,
}

impl Validity {
    pub fn is_valid(&self) -> bool {
        boot_nanos() < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, requested_at: u64, duration: Duration) {
        let until =
            requested_at.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        self.until.store(until, Ordering::Release);
    }

    fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Seeks and keeps the lease of one lane.
#[derive(Debug, Clone)]
pub struct LeaseKeeper {
    pub postgres: Arc<Postgres>,
    pub table: TableName,
    /// This process.
    pub owner: Uuid,
    pub duration: Duration,
}

/// A lease that was won.
#[derive(Debug)]
pub struct Lease {
    pub fence: Fence,
    /// How owners before this one ended.
    pub deaths: Deaths,
    pub validity: Arc<Validity>,
    session: Option<Session>,
}

impl LeaseKeeper {
    /// Waits until the lane is free and takes it. `standing` is told whom it waits for. With `broke` this owner
    /// had it last, and its lane ended as it must not.
    ///
    /// Cancel-safe, but for one case: cancelled while the winning answer is under way, the lease stays
    /// until it expires.
    pub async fn acquire(&self, broke: bool, standing: impl Fn(Standing)) -> Lease {
        let mut session = None;
        let mut retry = Retry::new(Duration::from_secs(2));
        loop {
            match self.try_acquire(&mut session, broke, &standing).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {
                    retry.reset();
                    tokio::time::sleep(jittered(STANDBY_POLL)).await;
                }
                Err(error) => {
                    session = None;
                    self.postgres.note(
                        &error,
                        &mut retry,
                        "claiming the lane failed, trying again",
                    );
                    tokio::time::sleep(retry.next_wait()).await;
                }
            }
        }
    }

    async fn try_acquire(
        &self,
        session: &mut Option<Session>,
        broke: bool,
        standing: &impl Fn(Standing),
    ) -> Result<Option<Lease>, DbError> {
        let outbox = self.table.to_string();
        let leases = &self.postgres.leases;
        let open = self
            .postgres
            .session(session, &self.table, Role::Lease)
            .await?;
        let requested_at = boot_nanos();
        let acquired = self
            .postgres
            .deadline("claiming a lane", async {
                open.begin().await?;
                let now = leases.look(open, &outbox, LANE).await?;
                standing(now);
                let acquired = match now {
                    Standing::Held { owner } if owner != self.owner => None,
                    _ => {
                        leases
                            .acquire(open, &outbox, LANE, self.owner, self.duration, broke)
                            .await?
                    }
                };
                open.commit().await?;
                Ok(acquired)
            })
            .await?;
        Ok(acquired.map(|acquired| {
            let validity = Arc::new(Validity::default());
            validity.extend(requested_at, self.duration);
            Lease {
                fence: acquired.fence,
                deaths: acquired.deaths,
                validity,
                session: session.take(),
            }
        }))
    }

    /// Renews the lease until it is lost or `stop` says so; the answer tells whether it is still held.
    pub async fn keep(&self, lease: &mut Lease, mut stop: watch::Receiver<bool>) -> bool {
        let mut retry = Retry::new(self.duration / RENEWALS);
        let mut wait = jittered(self.duration / RENEWALS);
        loop {
            tokio::select! {
                biased;
                // 1. The lane has ended. `wait_for` keeps nothing between calls.
                _ = stop.wait_for(|stop| *stop) => return lease.validity.is_valid(),
                // 2. Time to renew. A sleep keeps nothing either.
                () = tokio::time::sleep(wait) => {}
            }
            match self.renew(lease).await {
                Ok(true) => {
                    retry.reset();
                    wait = jittered(self.duration / RENEWALS);
                }
                Ok(false) => {
                    lease.validity.end();
                    return false;
                }
                Err(error) => {
                    lease.session = None;
                    self.postgres.note(
                        &error,
                        &mut retry,
                        "renewing the lease failed, trying again",
                    );
                    if !lease.validity.is_valid() {
                        return false;
                    }
                    wait = retry.next_wait();
                }
            }
        }
    }

    async fn renew(&self, lease: &mut Lease) -> Result<bool, DbError> {
        let requested_at = boot_nanos();
        let session = self
            .postgres
            .session(&mut lease.session, &self.table, Role::Lease)
            .await?;
        let held = self
            .postgres
            .deadline("renewing a lease", async {
                session.begin().await?;
                let held = self
                    .postgres
                    .leases
                    .renew(session, &lease.fence, self.duration)
                    .await?;
                session.commit().await?;
                Ok(held)
            })
            .await?;
        if held {
            lease.validity.extend(requested_at, self.duration);
        }
        Ok(held)
    }

    /// Gives the lane up for another relay to take at once. Best effort: a lease that cannot be given
    /// back runs out.
    pub async fn release(&self, mut lease: Lease) {
        lease.validity.end();
        let released = async {
            let session = self
                .postgres
                .session(&mut lease.session, &self.table, Role::Lease)
                .await?;
            session.begin().await?;
            self.postgres.leases.release(session, &lease.fence).await?;
            session.commit().await
        };
        if let Err(error) = self.postgres.deadline("releasing a lease", released).await {
            tracing::debug!(error = %crate::outage::chain(&error), "the lease could not be released, it runs out");
        }
    }
}
