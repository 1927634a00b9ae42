//! Forgetting: the rows of a consumer that are older than its retention, in bounded batches.
//!
//! A claim that finds no row looks at the consumer's horizon: an event from before it is expired. So the
//! horizon must be raised before the first row goes, and be seen by every transaction that could meet the
//! gap. A transaction at REPEATABLE READ sees the horizon of its start. Hence three steps:
//!
//! 1. raise the horizon, and commit;
//! 2. wait until every transaction that ran then has ended, as `create index concurrently` does;
//! 3. delete.
//!
//! No lock is held meanwhile that a claim could wait for, and a claim of what is being deleted is
//! expired, so it does not even meet the row.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};

use super::claim::Inbox;
use super::error::InboxError;
use super::sql::PRUNING;

/// How to forget.
#[derive(Debug, Clone)]
pub struct Prune {
    /// How long an id is remembered, counted from when it was processed. Keep ids longer than anything can
    /// come back: the topic's own retention, a replay, a restored backup.
    pub retention: Duration,
    /// The most rows of one batch: a short transaction, even on a slow disk.
    pub batch_rows: NonZeroU32,
    /// Between two batches, so that pruning never takes the server for itself.
    pub pause: Duration,
    /// The longest wait for a lock, and the longest batch: one that takes longer is given up and tried
    /// with half of the rows.
    pub lock_timeout: Duration,
    /// How long to wait for transactions that were running when the horizon was raised.
    pub patience: Duration,
}

impl Prune {
    /// With batches of 5,000 rows, pauses of 20 ms, a `lock_timeout` of 2 s and a minute's patience.
    pub fn after(retention: Duration) -> Prune {
        Prune {
            retention,
            batch_rows: NonZeroU32::MIN.saturating_add(4_999),
            pause: Duration::from_millis(20),
            lock_timeout: Duration::from_secs(2),
            patience: Duration::from_secs(60),
        }
    }

    /// Rows stay this much longer than the retention. A producer's clock may be behind the database's, so
    /// that an event seems older than it is; it is not to be refused while it may still be remembered.
    fn margin(&self) -> Duration {
        (self.retention / 10).min(Duration::from_secs(60 * 60))
    }
}

/// What pruning came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "pruning may have given up waiting"]
pub struct Pruned {
    /// Rows that are gone.
    pub deleted: u64,
    /// Transactions that were older than the horizon and did not end in time: then nothing was deleted.
    /// Nothing is wrong with that; the next run goes on.
    pub waiting_for: usize,
}

/// Between two looks at older transactions.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is to be forgotten, as Postgres writes instants: they only travel back and forth.
struct Due {
    cut: String,
    horizon: String,
    start: String,
}

/// How far a run has come.
struct Position {
    start: String,
    /// The time of the first row that somebody held, and that stays behind.
    passed: Option<String>,
}

impl Inbox {
    /// Forgets what this consumer processed longer ago than the retention. Two at once are safe.
    ///
    /// The connection must not be in a transaction.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use outboxd::inbox::{Inbox, Prune};
    ///
    /// # async fn daily(inbox: Inbox, mut connection: sqlx::PgConnection) -> Result<(), Box<dyn std::error::Error>> {
    /// let fourteen_days = Duration::from_secs(14 * 24 * 60 * 60);
    /// let pruned = inbox.prune(&mut connection, &Prune::after(fourteen_days)).await?;
    /// println!("{} ids are forgotten", pruned.deleted);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Whatever Postgres says; the batches before the failing one stay deleted. Cancel-safe: an unfinished
    /// batch rolls back.
    pub async fn prune(
        &self,
        connection: &mut PgConnection,
        options: &Prune,
    ) -> Result<Pruned, InboxError> {
        let mut pruning = Pruning {
            inbox: self,
            connection,
            options,
        };
        let Some(due) = pruning.raise_horizon().await? else {
            return Ok(Pruned::default());
        };
        let waiting_for = pruning.wait_for_older_transactions().await?;
        let deleted = match waiting_for {
            0 => pruning.delete(due).await?,
            _ => 0,
        };
        Ok(Pruned {
            deleted,
            waiting_for,
        })
    }
}

struct Pruning<'a> {
    inbox: &'a Inbox,
    connection: &'a mut PgConnection,
    options: &'a Prune,
}

impl Pruning<'_> {
    /// Step 1. Nothing, if no row is old enough.
    async fn raise_horizon(&mut self) -> Result<Option<Due>, InboxError> {
        let (retention, margin) = (self.options.retention, self.options.margin());
        let look = self
            .query(&self.inbox.statements.due)
            .bind(retention.as_secs_f64())
            .bind(margin.as_secs_f64());
        let raise = self.query(&self.inbox.statements.raise);
        let failed = self.failed("raising the horizon");
        let mut tx = self.begin("raising the horizon").await?;
        let row = look.fetch_one(&mut *tx).await.map_err(&failed)?;
        let text = |column| row.try_get::<String, _>(column).map_err(&failed);
        let due = Due {
            cut: text(0)?,
            horizon: text(1)?,
            start: text(2)?,
        };
        let found: bool = row.try_get(3).map_err(&failed)?;
        if found {
            let raise = raise.bind(due.horizon.clone());
            raise.execute(&mut *tx).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)?;
        Ok(found.then_some(due))
    }

    /// Step 2. How many did not end in time.
    async fn wait_for_older_transactions(&mut self) -> Result<usize, InboxError> {
        let deadline = Instant::now() + self.options.patience;
        let mut older = self.running(None).await?;
        while !older.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            older = self.running(Some(older)).await?;
        }
        Ok(older.len())
    }

    /// The transactions of this database that run now; only those `among` a former answer, if there was
    /// one. Virtual ids are never used twice while the server lives.
    async fn running(&mut self, among: Option<Vec<String>>) -> Result<Vec<String>, InboxError> {
        let query = sqlx::query(AssertSqlSafe(self.inbox.statements.running.clone()))
            .persistent(false)
            .bind(among);
        let failed = self.failed("listing the transactions that run");
        let mut tx = self.begin("listing the transactions that run").await?;
        let rows = query.fetch_all(&mut *tx).await.map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        let id = |row: &PgRow| row.try_get::<String, _>(0).map_err(&failed);
        rows.iter().map(id).collect()
    }

    /// Step 3.
    async fn delete(&mut self, due: Due) -> Result<u64, InboxError> {
        let mut at = Position {
            start: due.start,
            passed: None,
        };
        let mut deleted = 0;
        let mut limit = i64::from(self.options.batch_rows.get());
        loop {
            match self.delete_batch(&mut at, &due.cut, limit).await {
                Ok(rows) => {
                    deleted += rows.unsigned_abs();
                    if rows < limit {
                        return Ok(deleted);
                    }
                }
                // query_canceled: it took longer than anybody should have to wait.
                Err(error) if error.sqlstate().as_deref() == Some("57014") && limit > 1 => {
                    limit /= 2;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(self.options.pause).await;
        }
    }

    /// One batch: how many rows went, fewer than `limit` when none is left.
    async fn delete_batch(
        &mut self,
        at: &mut Position,
        cut: &str,
        limit: i64,
    ) -> Result<i64, InboxError> {
        let query = self
            .query(&self.inbox.statements.delete)
            .bind(at.start.clone())
            .bind(cut.to_owned())
            .bind(limit)
            .bind(at.passed.clone());
        let failed = self.failed("deleting old rows");
        let mut tx = self.begin("deleting old rows").await?;
        let row = query.fetch_one(&mut *tx).await.map_err(&failed)?;
        let rows: i64 = row.try_get(0).map_err(&failed)?;
        let last: Option<String> = row.try_get(1).map_err(&failed)?;
        let passed = row.try_get(2).map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        at.passed = passed;
        if let Some(last) = last {
            at.start = last;
        }
        Ok(rows)
    }

    async fn begin(&mut self, action: &str) -> Result<Transaction<'_, Postgres>, InboxError> {
        let failed = self.failed(action);
        let timeout = format!("{}ms", self.options.lock_timeout.as_millis().max(1));
        let settings = sqlx::query(PRUNING).persistent(false).bind(timeout);
        let begin = self
            .connection
            .begin_with("begin isolation level read committed");
        let mut tx = begin.await.map_err(&failed)?;
        settings.execute(&mut *tx).await.map_err(&failed)?;
        Ok(tx)
    }

    /// A query whose first parameter is the consumer.
    fn query(&self, sql: &std::sync::Arc<str>) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(sql.clone()))
            .persistent(false)
            .bind(self.inbox.consumer().as_str().to_owned())
    }

    fn failed(&self, action: &str) -> impl Fn(sqlx::Error) -> InboxError + use<> {
        let action = format!("{action} of consumer \"{}\"", self.inbox.consumer());
        move |error| InboxError::query(action.clone())(error)
    }
}
