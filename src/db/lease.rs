//! The lease of a lane: one row that says who owns it, until when, in which epoch.
//!
//! The database's clock alone judges expiry. A write of the owner is fenced by locking the row
//! `for key share` in the same statement; a takeover locks it `for update`, so it waits for writes
//! that are under way and later ones find the new epoch. A mere `exists (select …)` would not do: under
//! READ COMMITTED it reads the row as it was when the statement began.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Executor, Row};
use uuid::Uuid;

use super::{DbError, Session};

/// Who may write for a lane: the key of its lease row and the owner's epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The outbox's table, so that two configurations with different names for it still exclude each
    /// other.
    pub outbox: String,
    pub lane: i32,
    pub owner: Uuid,
    pub epoch: i64,
}

/// The only lane of an outbox, so far.
pub const LANE: i32 = 0;

/// How owners of a lane ended without progress, up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deaths {
    /// In succession.
    pub count: u32,
    /// What the last of them had read when it died, if it was careful.
    pub suspects: Option<Suspects>,
}

/// Rows at which a careful owner may have died: so many of those above `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspects {
    pub after: i64,
    pub rows: u32,
}

/// A lane that was won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    pub fence: Fence,
    pub deaths: Deaths,
}

/// What a standby sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody owns the lane, or the lease ran out.
    Free,
    /// Somebody else does.
    Held { owner: Uuid },
}

/// The statements on the leases.
#[derive(Debug, Clone)]
pub struct Leases {
    ensure: Arc<str>,
    look: Arc<str>,
    acquire: Arc<str>,
    renew: Arc<str>,
    held: Arc<str>,
    release: Arc<str>,
    note: Arc<str>,
}

impl Leases {
    pub fn new(relay_schema: &str) -> Leases {
        let t = format!("\"{relay_schema}\".outboxd_leases");
        Leases {
            ensure: format!("insert into {t} (outbox, lane) values ($1, $2) on conflict do nothing").into(),
            look: format!(
                "select case when expires_at > clock_timestamp() then owner end from {t} \
                 where outbox = $1 and lane = $2"
            )
            .into(),
            acquire: format!(
                "with current as materialized (\
                     select outbox, lane, owner from {t} \
                     where outbox = $1 and lane = $2 \
                       and (owner is null or owner = $3 or expires_at <= clock_timestamp()) \
                     for update) \
                 update {t} as l \
                 set owner = $3, epoch = l.epoch + 1, \
                     expires_at = clock_timestamp() + make_interval(secs => $4), \
                     unclean_starts = case when current.owner is null then 0 \
                                           when current.owner = $3 and not $5 then l.unclean_starts \
                                           else l.unclean_starts + 1 end \
                 from current \
                 where l.outbox = current.outbox and l.lane = current.lane \
                   and (l.owner is null or l.owner = $3 or l.expires_at <= clock_timestamp()) \
                 returning l.epoch, l.unclean_starts, l.trial_after, l.trial_rows"
            )
            .into(),
            held: format!(
                "select from {t} where outbox = $1 and lane = $2 and owner = $3 and epoch = $4"
            )
            .into(),
            renew: format!(
                "update {t} set expires_at = clock_timestamp() + make_interval(secs => $5) \
                 where outbox = $1 and lane = $2 and owner = $3 and epoch = $4"
            )
            .into(),
            release: format!(
                "update {t} set owner = null, expires_at = clock_timestamp(), \
                     unclean_starts = 0, trial_after = null, trial_rows = null \
                 where outbox = $1 and lane = $2 and owner = $3 and epoch = $4"
            )
            .into(),
            note: format!(
                "update {t} set unclean_starts = $5, trial_after = $6, trial_rows = $7 \
                 where outbox = $1 and lane = $2 and owner = $3 and epoch = $4"
            )
            .into(),
        }
    }

    /// Who owns the lane now.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn look(
        &self,
        session: &mut Session,
        outbox: &str,
        lane: i32,
    ) -> Result<Standing, DbError> {
        let query = session.query(&self.look).bind(outbox.to_owned()).bind(lane);
        let row = session
            .connection()
            .fetch_optional(query)
            .await
            .map_err(DbError::query("looking at a lease"))?;
        let owner = match row {
            Some(row) => row
                .try_get::<Option<Uuid>, _>(0)
                .map_err(DbError::query("looking at a lease"))?,
            None => None,
        };
        Ok(owner.map_or(Standing::Free, |owner| Standing::Held { owner }))
    }

    /// Takes the lane for `duration` if it is free. An owner that takes its own lane again has died if it
    /// `broke`, and not if it lost the lease.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn acquire(
        &self,
        session: &mut Session,
        outbox: &str,
        lane: i32,
        owner: Uuid,
        duration: Duration,
        broke: bool,
    ) -> Result<Option<Acquired>, DbError> {
        let action = || DbError::query(format!("claiming lane {lane} of {outbox}"));
        let query = session
            .query(&self.ensure)
            .bind(outbox.to_owned())
            .bind(lane);
        session
            .connection()
            .execute(query)
            .await
            .map_err(action())?;
        let query = session
            .query(&self.acquire)
            .bind(outbox.to_owned())
            .bind(lane)
            .bind(owner)
            .bind(duration.as_secs_f64())
            .bind(broke);
        let row = session
            .connection()
            .fetch_optional(query)
            .await
            .map_err(action())?;
        row.map(|row| {
            let count: i32 = row.try_get("unclean_starts").map_err(action())?;
            let after: Option<i64> = row.try_get("trial_after").map_err(action())?;
            let rows: Option<i32> = row.try_get("trial_rows").map_err(action())?;
            let epoch = row.try_get("epoch").map_err(action())?;
            // The table's constraints keep both counts from being negative.
            let rows = rows.and_then(|rows| u32::try_from(rows).ok());
            let deaths = Deaths {
                count: u32::try_from(count).unwrap_or(0),
                suspects: after
                    .zip(rows)
                    .map(|(after, rows)| Suspects { after, rows }),
            };
            let fence = Fence {
                outbox: outbox.to_owned(),
                lane,
                owner,
                epoch,
            };
            Ok(Acquired { fence, deaths })
        })
        .transpose()
    }

    /// Extends the lease by `duration` from now; false if it is not ours any more.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn renew(
        &self,
        session: &mut Session,
        fence: &Fence,
        duration: Duration,
    ) -> Result<bool, DbError> {
        let query = fenced(session, &self.renew, fence).bind(duration.as_secs_f64());
        session
            .connection()
            .execute(query)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(DbError::query(format!(
                "renewing the lease of lane {} of {}",
                fence.lane, fence.outbox
            )))
    }

    /// Whether the lease is still ours, expired or not.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn is_held(&self, session: &mut Session, fence: &Fence) -> Result<bool, DbError> {
        let query = fenced(session, &self.held, fence);
        let row = session.connection().fetch_optional(query).await;
        row.map(|row| row.is_some())
            .map_err(DbError::query("looking at the lease"))
    }

    /// Notes deaths for the next owner; false if the lane is not ours any more.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn note(
        &self,
        session: &mut Session,
        fence: &Fence,
        deaths: Deaths,
    ) -> Result<bool, DbError> {
        let query = fenced(session, &self.note, fence)
            .bind(i32::try_from(deaths.count).unwrap_or(i32::MAX))
            .bind(deaths.suspects.map(|suspects| suspects.after))
            .bind(
                deaths
                    .suspects
                    .map(|suspects| i32::try_from(suspects.rows).unwrap_or(i32::MAX)),
            );
        let done = session.connection().execute(query).await;
        done.map(|done| done.rows_affected() == 1)
            .map_err(DbError::query(format!(
                "noting how owners of lane {} of {} ended",
                fence.lane, fence.outbox
            )))
    }

    /// Gives the lane up, for another relay to take at once.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn release(&self, session: &mut Session, fence: &Fence) -> Result<(), DbError> {
        let query = fenced(session, &self.release, fence);
        session
            .connection()
            .execute(query)
            .await
            .map(|_| ())
            .map_err(DbError::query(format!(
                "releasing lane {} of {}",
                fence.lane, fence.outbox
            )))
    }
}

/// The beginning of a statement that holds the fence, its first four parameters, by the name `fence`.
pub(super) fn with_fence(relay_schema: &str) -> String {
    format!(
        "with fence as materialized (\
             select 1 from \"{relay_schema}\".outboxd_leases \
             where outbox = $1 and lane = $2 and owner = $3 and epoch = $4 for key share)"
    )
}

/// A query whose first four parameters are the fence.
pub(super) fn fenced(
    session: &Session,
    sql: &Arc<str>,
    fence: &Fence,
) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    session
        .query(sql)
        .bind(fence.outbox.clone())
        .bind(fence.lane)
        .bind(fence.owner)
        .bind(fence.epoch)
}
