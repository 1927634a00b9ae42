//! What is remembered, for `outboxd inbox status` and for whoever wants to show it elsewhere.

use std::time::{Duration, SystemTime};

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::claim::Inbox;
use super::error::InboxError;
use super::identity::ConsumerName;
use super::sql::{Statements, is_identifier};

/// Counted up to here; beyond, the planner is asked for its guess, so that a look never walks the table.
const COUNTED: i64 = 10_000;

/// What is remembered of one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxStatus {
    pub consumer: ConsumerName,
    pub remembered: Count,
    /// Dead letters that nobody has redriven or discarded; [`Count::About`] is a lower bound.
    pub dead_lettered: Count,
    /// When the oldest remembered event was processed.
    pub oldest: Option<SystemTime>,
    /// Events from before it are expired, unless they are remembered. None, before anything was pruned.
    pub forgotten_before: Option<SystemTime>,
}

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Exactly(u64),
    /// An estimate.
    About(u64),
}

/// The consumers that ever claimed something which is still remembered, or were pruned; by name.
///
/// # Errors
/// When the schema's name is none, or whatever Postgres says.
pub async fn consumers(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<ConsumerName>, InboxError> {
    if !is_identifier(schema) {
        return Err(InboxError::Schema(schema.to_owned()));
    }
    let action = "listing the inbox's consumers";
    let sql = Statements::new(Some(schema)).consumers;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(connection)
        .await
        .map_err(InboxError::query(action))?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(0).map_err(InboxError::query(action))?;
            ConsumerName::new(name).map_err(|error| InboxError::Answer {
                action: action.to_owned(),
                answer: error.to_string(),
            })
        })
        .collect()
}

impl Inbox {
    /// What is remembered of this consumer. It reads a bounded number of rows.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn status(&self, connection: &mut PgConnection) -> Result<InboxStatus, InboxError> {
        let action = || format!("reading the state of consumer \"{}\"", self.consumer());
        let query = sqlx::query(AssertSqlSafe(self.statements.state.clone()))
            .persistent(false)
            .bind(self.consumer().as_str())
            .bind(COUNTED);
        let row = query.fetch_one(&mut *connection).await;
        let row = row.map_err(InboxError::query(action()))?;
        let time = |column: usize| -> Result<Option<SystemTime>, InboxError> {
            let micros: Option<i64> = row.try_get(column).map_err(InboxError::query(action()))?;
            Ok(micros.map(instant))
        };
        let count = |column: usize| -> Result<i64, InboxError> {
            row.try_get(column).map_err(InboxError::query(action()))
        };
        let (remembered, dead_lettered) = (count(2)?, count(3)?);
        let remembered = match remembered < COUNTED {
            true => Count::Exactly(remembered.unsigned_abs()),
            false => Count::About(self.estimate(connection).await?),
        };
        Ok(InboxStatus {
            consumer: self.consumer().clone(),
            remembered,
            dead_lettered: match dead_lettered < COUNTED {
                true => Count::Exactly(dead_lettered.unsigned_abs()),
                false => Count::About(dead_lettered.unsigned_abs()),
            },
            oldest: time(1)?,
            forgotten_before: time(0)?,
        })
    }

    /// What the planner thinks; at least what was counted.
    async fn estimate(&self, connection: &mut PgConnection) -> Result<u64, InboxError> {
        let action = "asking for an estimate of what is remembered";
        let row = sqlx::query(AssertSqlSafe(self.statements.estimate.clone()))
            .persistent(false)
            .bind(self.consumer().as_str())
            .fetch_one(connection)
            .await
            .map_err(InboxError::query(action))?;
        let plan: String = row.try_get(0).map_err(InboxError::query(action))?;
        Ok(planned_rows(&plan).unwrap_or(0).max(COUNTED.unsigned_abs()))
    }
}

/// `… (cost=0.43..8.45 rows=1234 width=0)`
fn planned_rows(plan: &str) -> Option<u64> {
    let (_, rows) = plan.split_once(" rows=")?;
    rows.split(' ').next()?.parse().ok()
}

fn instant(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let instant = match micros < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    instant.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planners_guess_is_read_from_its_first_line() {
        let plan = "Index Only Scan using x on y  (cost=0.43..8.45 rows=1234 width=0)";
        assert_eq!(planned_rows(plan), Some(1234));
        assert_eq!(planned_rows("nonsense"), None);
    }

    #[test]
    fn instants_before_1970_are_instants_too() {
        let second = Duration::from_secs(1);
        assert_eq!(instant(-1_000_000), SystemTime::UNIX_EPOCH - second);
    }
}
