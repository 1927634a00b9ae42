//! How rows are deleted whose retention is over.

use std::time::Duration;

use sqlx::{Executor, Row};

use super::Outbox;
use crate::db::{DbError, Session};

impl Outbox {
    /// Walks sent rows above `after` in order and deletes those sent longer ago than `retention`.
    /// Returns where the walk stands and how many rows it saw and deleted.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn expire(
        &self,
        session: &mut Session,
        after: i64,
        rows: i64,
        retention: Duration,
    ) -> Result<Expired, DbError> {
        let action = || DbError::query(format!("deleting expired rows of {}", self.table));
        let Some(expiry) = &self.statements.expiry else {
            return Ok(Expired::nothing(after));
        };
        let query = session
            .query(&expiry.find)
            .bind(after)
            .bind(rows)
            .bind(retention.as_secs_f64());
        let found = session
            .connection()
            .fetch_all(query)
            .await
            .map_err(action())?;
        let mut walk = Expired {
            seen: found.len(),
            ..Expired::nothing(after)
        };
        let mut ids: Vec<i64> = Vec::new();
        for row in &found {
            walk.last = row.try_get(0).map_err(action())?;
            if row.try_get(1).map_err(action())? {
                ids.push(walk.last);
            }
        }
        if !ids.is_empty() {
            let query = session
                .query(&expiry.delete)
                .bind(ids)
                .bind(retention.as_secs_f64());
            let done = session
                .connection()
                .execute(query)
                .await
                .map_err(action())?;
            walk.deleted = done.rows_affected();
        }
        Ok(walk)
    }
}

/// One step of the janitor's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The last id seen.
    pub last: i64,
    pub seen: usize,
    pub deleted: u64,
}

impl Expired {
    fn nothing(after: i64) -> Expired {
        Expired {
            last: after,
            seen: 0,
            deleted: 0,
        }
    }
}
